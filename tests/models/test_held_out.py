"""Whatever happens on the test side of a split, nothing that is fitted knows of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sherlock_models.lesions.study import Study
from sherlock_models.resolve import resolve
from sherlock_models.run import Run
from sherlock_models.scoring.brain_scores import Baselines
from sherlock_models.scoring.heldout import Side
from sherlock_models.training.train import fit

OPTIONS = {"steps": 6, "batch_size": 16, "validate_every": 3}
VARIABLES = {"parcels": ("bold",), "stimulus": ("video", "audio_bands")}


def perturb(stores: Path, run: Run) -> None:
    """Turn the held-out TRs round, and everything of a held-out subject."""
    data = run.data
    seen = [data.subjects.index(name) for name in data.split.train_subjects]
    unseen = np.setdiff1d(np.arange(len(data.subjects)), seen)
    held = data.split.test
    for name, variables in VARIABLES.items():
        store = xr.open_zarr(stores / f"{name}.zarr").load()
        for variable in variables:
            values = store[variable].values
            if variable == "bold":
                values[:, held] = values[:, held][:, ::-1] * 3
                values[unseen] *= -2
            else:
                values[held] = values[held][::-1] // 2
        for variable in store.variables.values():
            variable.encoding = {}
        store.to_zarr(stores / f"{name}.zarr", mode="r+", zarr_format=3, consolidated=False)


@pytest.fixture(scope="module", params=["block", "run", "subject", "random"])
def pair(
    request: pytest.FixtureRequest,
    make_stores: Callable[..., Path],
    catalog: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Run, Run]:
    """Two trainings whose data differ on the test side alone."""
    runs: list[Run] = []
    for _ in range(2):
        folder = tmp_path_factory.mktemp(request.param)
        stores = make_stores(folder)
        if runs:
            perturb(stores, runs[0])
        options = {**OPTIONS, "split": request.param}
        config = resolve("toy", stores, catalog=catalog, options=options)
        runs.append(fit(config, folder / "run", device="cpu"))
    return runs[0], runs[1]


def test_the_perturbation_is_seen(pair: tuple[Run, Run]) -> None:
    one, other = (run.data for run in pair)
    np.testing.assert_array_equal(one.split.test, other.split.test)
    for name in one.tables:
        trs = one.split.test
        assert not np.allclose(one.stimulus_target(name, trs), other.stimulus_target(name, trs))
    assert not torch.equal(one.brains.raw, other.brains.raw)


def test_weights_and_the_choice_of_a_checkpoint(pair: tuple[Run, Run]) -> None:
    one, other = (run.model.state_dict() for run in pair)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    losses = [[line["loss"] for line in run.metrics()] for run in pair]
    assert losses[0] == losses[1]


def test_what_the_data_are_measured_by(pair: tuple[Run, Run]) -> None:
    one, other = (run.data for run in pair)
    for name, scale in one.normaliser.scales.items():
        torch.testing.assert_close(scale.mean, other.normaliser.scales[name].mean, rtol=0, atol=0)
        torch.testing.assert_close(scale.scale, other.normaliser.scales[name].scale, rtol=0, atol=0)
    # a run or a subject that is wholly held out is measured by itself, and the notes say so
    subjects = [one.subjects.index(name) for name in one.split.train_subjects]
    runs = np.unique(one.brains.run[torch.from_numpy(one.split.train)])
    for statistic in ("mean", "inverse_std"):
        a, b = (getattr(data.brains, statistic)[subjects][:, runs] for data in (one, other))
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_baselines(pair: tuple[Run, Run]) -> None:
    one, other = (Baselines(Side.of(r.data, "train"), Side.of(r.data, "test")) for r in pair)
    np.testing.assert_array_equal(one.group, other.group)
    if pair[0].config.split != "random":  # which has no gap: a delay there looks at held-out TRs
        assert one.notes == other.notes  # the penalties among them


def test_what_lesions_are_judged_by(pair: tuple[Run, Run]) -> None:
    one, other = (Study.of(run, "parcels", replace="mean") for run in pair)
    np.testing.assert_array_equal(one.variance, other.variance)
    assert one.autocorrelation == other.autocorrelation
