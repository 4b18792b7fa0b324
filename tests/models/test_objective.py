"""The loss: every term over its training variance, so that the mean scores exactly 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sherlock_models.config import RunConfig
from sherlock_models.feeding.batch import Batch
from sherlock_models.feeding.dataset import MovieBrainData
from sherlock_models.feeding.loading import load_data
from sherlock_models.feeding.normaliser import fit_scale
from sherlock_models.feeding.sampler import rank_share
from sherlock_models.output import Output
from sherlock_models.sizes import BRAIN
from sherlock_models.training.objective import Objective, fit_objective

Configure = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def data(configure: Configure) -> MovieBrainData:
    return load_data(configure())


def the_mean(batch: Batch) -> Output:
    """What a model that knows only the training mean predicts: 0 everywhere."""
    zeros = {name: torch.zeros_like(target) for name, target in batch.target.items()}
    return Output(torch.zeros_like(batch.brain), torch.zeros_like(batch.brain), zeros)


def rewrite(store: xr.Dataset, path: Path) -> None:
    """Write changed values over those of the store they were read from."""
    for variable in store.variables.values():
        variable.encoding = {}
    store.to_zarr(path, mode="r+", zarr_format=3, consolidated=False)


def score(objective: Objective, output: Output, batch: Batch) -> torch.Tensor:
    return objective.sums(output, batch).double() / objective.counts(batch)


@pytest.mark.parametrize("subject", ["none", "mean"])
def test_the_mean_scores_exactly_one(configure: Configure, subject: str):
    data = load_data(configure(subject=subject, stimulus=["video", "audio", "annotations"]))
    everyone = data.samples("train")
    whole = np.flatnonzero(everyone.subject == 0)  # sub-01 has every training TR
    batch = data.batch(everyone, whole)
    terms = score(fit_objective(data, {}), the_mean(batch), batch)
    torch.testing.assert_close(terms, torch.ones(4).double(), atol=1e-5, rtol=0)


def test_the_mean_scores_one_of_brains_that_lag(
    make_stores: Callable[..., Path], configure: Configure, tmp_path: Path
):
    data = load_data(configure(data=make_stores(tmp_path, lag_s=4.5)))
    assert data.lag_trs == 3
    batch = data.batch(data.samples("train"), np.arange(len(data.samples("train"))))
    terms = score(fit_objective(data, {}), the_mean(batch), batch)
    assert float(terms[0]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("constant", "variance", "of_the_mean"),
    [
        pytest.param(["valence"], 2 / 3, 1.0, id="one label of three never varies"),
        pytest.param(["arousal", "valence", "speaking"], 1.0, 0.0, id="none ever varies"),
    ],
)
def test_what_never_varies_is_matched_by_its_mean(
    make_stores: Callable[..., Path],
    configure: Configure,
    tmp_path: Path,
    constant: list[str],
    variance: float,
    of_the_mean: float,
):
    stores = make_stores(tmp_path)
    labels = xr.open_zarr(stores / "annotations.zarr").load()
    for name in constant:
        labels[name].values[:] = 3
    rewrite(labels, stores / "annotations.zarr")
    data = load_data(configure(data=stores, stimulus="annotations"))
    objective = fit_objective(data, {})
    assert objective.variance["annotations"] == pytest.approx(variance, abs=1e-5)
    batch = data.batch(data.samples("train"), np.arange(len(data.split.train)))
    term = score(objective, the_mean(batch), batch)[1]
    assert float(term) == pytest.approx(of_the_mean, abs=1e-5)


def test_the_variance_is_of_all_blocks_of_training_trs(
    data: MovieBrainData, monkeypatch: pytest.MonkeyPatch
):
    at_once = fit_objective(data, {}).variance
    monkeypatch.setattr("sherlock_models.training.objective._BLOCK", 7)
    assert fit_objective(data, {}).variance == pytest.approx(at_once)


def test_units_do_not_matter(data: MovieBrainData):
    """Video has a hundred times the numbers of audio, and counts the same."""
    batch = data.batch(data.samples("train"), np.arange(50))
    objective = fit_objective(data, {})
    off = the_mean(batch)
    off.stimulus = {name: target + 1 for name, target in batch.target.items()}
    off.brain = batch.brain + 1
    terms = score(objective, off, batch)
    expected = [1 / objective.variance[name] for name in ("brain", "video", "audio")]
    np.testing.assert_allclose(terms, expected, rtol=1e-5)


def test_each_term_is_divided_by_the_variance_of_its_target(data: MovieBrainData):
    batch = data.batch(data.samples("train"), np.arange(20))
    weights = {"brain": 1.0, "video": 1.0, "audio": 1.0}
    ones, other = Objective(weights, weights), {"brain": 4.0, "video": 2.0, "audio": 0.5}
    as_they_are = score(ones, the_mean(batch), batch)
    divided = score(Objective(other, weights), the_mean(batch), batch)
    torch.testing.assert_close(divided * torch.tensor([4.0, 2.0, 0.5]), as_they_are)


def test_a_compressor_is_judged_by_the_brain_that_comes_back(data: MovieBrainData):
    """What its middle layer holds has no target."""
    batch = data.batch(data.samples("train"), np.arange(20))
    compressed = replace(the_mean(batch), brain=torch.full((20, 3), 1e6))
    compressed.stimulus[BRAIN] = batch.brain
    assert score(fit_objective(data, {}), compressed, batch)[0] == 0


def test_what_has_no_signal_counts_nothing(data: MovieBrainData):
    batch = data.batch(data.samples("train"), np.arange(20))
    objective = fit_objective(data, {})
    wild = the_mean(batch)
    wild.brain = torch.where(batch.signal, 0.0, 1e6)
    np.testing.assert_array_equal(
        score(objective, wild, batch), score(objective, the_mean(batch), batch)
    )


def test_weights(data: MovieBrainData):
    objective = fit_objective(data, {"video": 0.0, "audio": 3.0})
    assert objective.terms == ("brain", "video", "audio")
    assert float(objective.combine(torch.tensor([1.0, 10.0, 2.0]))) == pytest.approx(7.0)


def test_the_loss_is_of_the_kind_and_on_the_device_of_its_terms(data: MovieBrainData):
    objective = fit_objective(data, {"brain": 0.1})
    exact = objective.combine(torch.ones(3, dtype=torch.float64))
    assert exact.item() == 2.1  # as float32 the weight would be 0.100000001
    assert objective.combine(torch.ones(3, device="meta")).device.type == "meta"


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_any_way_of_sharing_a_batch_gives_one_loss(data: MovieBrainData, ranks: int):
    samples, objective = data.samples("train"), fit_objective(data, {})
    chosen = np.arange(0, 90, 7)
    batch = data.batch(samples, chosen)
    whole = score(objective, the_mean(batch), batch)
    sums, counts = torch.zeros(3).double(), torch.zeros(3).double()
    for rank in range(ranks):
        part = data.batch(samples, chosen[rank_share(len(chosen), rank, ranks)])
        sums += objective.sums(the_mean(part), part).double()
        counts += objective.counts(part)
    torch.testing.assert_close(sums / counts, whole, atol=1e-5, rtol=0)


def test_held_out_data_change_no_variance(
    make_stores: Callable[..., Path], configure: Configure, tmp_path: Path
):
    stores = make_stores(tmp_path)
    config = configure(data=stores)
    data = load_data(config)
    before = fit_objective(data, {}).variance
    held = np.setdiff1d(np.arange(160), data.split.train)
    store = xr.open_zarr(stores / "parcels.zarr").load()
    store.bold.values[:, held] *= -3
    rewrite(store, stores / "parcels.zarr")
    assert fit_objective(load_data(config), {}).variance == before


def test_an_empty_share_adds_nothing(data: MovieBrainData):
    batch = data.batch(data.samples("train"), np.zeros(0, dtype=np.int64))
    objective = fit_objective(data, {})
    sums, counts = objective.sums(the_mean(batch), batch), objective.counts(batch)
    assert sums.tolist() == counts.tolist() == [0, 0, 0]


def test_a_better_prediction_scores_less(data: MovieBrainData):
    batch = data.batch(data.samples("train"), np.arange(20))
    near = replace(the_mean(batch), brain=0.5 * batch.brain)
    objective = fit_objective(data, {})
    assert score(objective, near, batch)[0] < score(objective, the_mean(batch), batch)[0]


def test_a_band_that_is_silent_in_training_is_not_divided_by_nothing():
    """Twenty bands of 6 dB, one that moves by a thousandth of that until the movie is held out."""
    generator = torch.Generator().manual_seed(0)
    bands = 6 * torch.randn(100, 20, generator=generator) - 40
    bands[:80, 3] = -90 + 0.006 * torch.randn(80, generator=generator)
    trs = np.arange(80)
    held_out = fit_scale(bands, trs, one_scale=False, one_unit=True).forward(bands[80:].clone())
    assert held_out[:, 3].abs().max() < 300
    free = fit_scale(bands, trs, one_scale=False).forward(bands[80:].clone())
    assert free[:, 3].abs().max() > 3000
