"""The noisy brain channel: whose residual, how much noise, and the same draws for any ranks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sherlock_models.config import RunConfig
from sherlock_models.feeding.batch import Batch
from sherlock_models.feeding.dataset import MovieBrainData
from sherlock_models.feeding.loading import load_data
from sherlock_models.feeding.sampler import rank_share
from sherlock_models.parallel import World
from sherlock_models.training.channel import NEAR_TRS, GlobalBatch, NoisyBrain


class OneOfSeveral(World):
    """A rank that is handed what the others would send."""

    everyone: Tensor

    def gather(self, rows: Tensor, batch: int) -> Tensor:
        return self.everyone

    def sum(self, values: Tensor) -> Tensor:
        return values


ALONE = OneOfSeveral(0, 1, torch.device("cpu"))


def channel(noise: str, forcing: float, units: int = 12, world: World = ALONE) -> NoisyBrain:
    return NoisyBrain(noise, forcing, seed=5, world=world, variance=torch.ones(units))


@pytest.fixture(scope="module")
def data(stores, catalog) -> MovieBrainData:
    from sherlock_models.resolve import resolve

    return load_data(resolve("toy", stores, catalog=catalog))


def draw(data: MovieBrainData, size: int = 40) -> tuple[Batch, GlobalBatch]:
    samples = data.samples("train")
    chosen = np.random.default_rng(0).permutation(len(samples))[:size]
    part = samples.take(chosen)
    whole = GlobalBatch(part.subject, part.tr, data.brains.run.numpy()[part.tr])
    return data.batch(samples, chosen), whole


def read(noisy: NoisyBrain, data: MovieBrainData, step: int = 0) -> tuple[Tensor, Batch, Tensor]:
    batch, whole = draw(data)
    predicted = torch.randn(batch.brain.shape, generator=torch.Generator().manual_seed(1))
    ALONE.__dict__["everyone"] = (batch.brain - predicted) * batch.signal
    return noisy.at(step, whole, batch)(predicted), batch, predicted


@given(
    n=st.integers(1, 30),
    subjects=st.integers(1, 3),
    trs=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_partners_are_never_near_and_of_the_same_subject_where_there_is_one(
    n: int, subjects: int, trs: int, seed: int
):
    rng = np.random.default_rng(seed)
    whole = GlobalBatch(rng.integers(subjects, size=n), rng.integers(trs, size=n), np.zeros(n, int))
    partner = channel("residual", 0).partners(3, whole)
    far = np.abs(whole.tr[:, None] - whole.tr) > NEAR_TRS
    same = whole.subject[:, None] == whole.subject
    for i, j in enumerate(partner):
        assert (j >= 0) == far[i].any()
        if j >= 0:
            assert far[i, j]
            assert same[i, j] or not (far[i] & same[i]).any()


def test_partners_in_another_run_may_be_at_the_same_tr():
    whole = GlobalBatch(np.zeros(2, int), np.array([5, 7]), np.array([0, 1]))
    assert channel("residual", 0).partners(0, whole).tolist() == [1, 0]


def test_residual_noise_is_another_samples_residual(data: MovieBrainData):
    noisy = channel("residual", 0)
    out, batch, predicted = read(noisy, data)
    partner = noisy.partners(0, draw(data)[1])
    residual = (batch.brain - predicted) * batch.signal
    assert noisy.unpartnered == (partner < 0).mean() == 0
    torch.testing.assert_close(out, predicted + residual[partner])


def test_a_lonely_sample_gets_no_noise_and_is_counted(data: MovieBrainData):
    samples = data.samples("train")
    chosen = np.array([0, 1])  # neighbours of one subject
    part = samples.take(chosen)
    batch, whole = data.batch(samples, chosen), GlobalBatch(part.subject, part.tr, part.tr * 0)
    noisy = channel("residual", 0)
    ALONE.__dict__["everyone"] = batch.brain
    out = noisy.at(0, whole, batch)(torch.zeros_like(batch.brain))
    assert (out == 0).all()
    assert noisy.unpartnered == 1


def test_no_noise_no_forcing_is_the_prediction(data: MovieBrainData):
    out, _, predicted = read(channel("0", 0), data)
    torch.testing.assert_close(out, predicted, rtol=0, atol=0)


def test_forcing_reads_the_measured_brain(data: MovieBrainData):
    out, batch, _ = read(channel("residual", 1), data)
    torch.testing.assert_close(out, batch.brain, rtol=0, atol=0)


def test_forcing_by_half_takes_whole_samples(data: MovieBrainData):
    out, batch, predicted = read(channel("0", 0.5), data)
    measured = (out == batch.brain).all(1)
    assert ((out == predicted).all(1) ^ measured).all()
    assert 0.2 < measured.float().mean() < 0.8


def test_independent_noise_has_the_unexplained_variance(data: MovieBrainData):
    noisy = channel("independent", 0)
    noisy.variance = torch.linspace(0, 4, 12)
    outs = torch.cat([read(noisy_at(noisy), data, step)[0] for step in range(60)])
    _, _, predicted = read(channel("0", 0), data)
    spread = (outs - predicted.repeat(60, 1)).var(0)
    torch.testing.assert_close(spread, torch.linspace(0, 4, 12), rtol=0.15, atol=1e-6)


def noisy_at(noisy: NoisyBrain) -> NoisyBrain:
    """A copy, so that the running variance stays what the test set."""
    return NoisyBrain(noisy.noise, noisy.forcing, noisy.seed, noisy.world, noisy.variance.clone())


def test_the_running_variance_moves_towards_the_residuals(data: MovieBrainData):
    noisy = channel("independent", 0)
    _, batch, predicted = read(noisy, data)
    noisy.settle()
    square = ((batch.brain - predicted) * batch.signal).square().sum(0)
    expected = 0.95 + 0.05 * square[:11] / batch.signal.sum(0)[:11]
    torch.testing.assert_close(noisy.variance[:11], expected)
    assert noisy.variance[11] == 1, "no sample has signal in the empty parcel"


@pytest.mark.parametrize("noise", ["residual", "independent"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_ranks_draws_the_same(data: MovieBrainData, noise: str, ranks: int):
    batch, whole = draw(data, 17)
    samples, chosen = data.samples("train"), np.random.default_rng(0)
    chosen = chosen.permutation(len(samples))[:17]
    ALONE.__dict__["everyone"] = batch.brain
    alone = channel(noise, 0.5).at(4, whole, batch)(torch.zeros_like(batch.brain))
    parts = []
    for rank in range(ranks):
        share = rank_share(17, rank, ranks)
        part = data.batch(samples, chosen[share], share.start)
        parts.append(channel(noise, 0.5).at(4, whole, part)(torch.zeros_like(part.brain)))
    torch.testing.assert_close(torch.cat(parts), alone, rtol=0, atol=0)


def test_steps_and_seeds_draw_differently(data: MovieBrainData):
    first, second = (read(channel("independent", 0), data, step)[0] for step in (0, 1))
    assert not torch.equal(first, second)


def test_gradient_flows_through_the_prediction_alone(
    data: MovieBrainData, configure: Callable[..., RunConfig]
):
    batch, whole = draw(data)
    ALONE.__dict__["everyone"] = batch.brain
    predicted = torch.zeros_like(batch.brain, requires_grad=True)
    channel("residual", 0).at(0, whole, batch)(predicted).sum().backward()
    assert (predicted.grad == 1).all()
