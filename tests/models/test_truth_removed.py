"""Where the truth is removed nothing is found: p-values of lesions over twenty such datasets."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from sherlock_models.lesions.lesion import MODES, lesion
from sherlock_models.resolve import resolve
from sherlock_models.scoring.heldout import Reader, Side
from sherlock_models.scoring.scores import nan_mean, pearson
from sherlock_models.scoring.significance import FDR
from sherlock_models.training.train import fit


def turn_the_brain(store: Path, trs: int) -> None:
    """Roll every run's BOLD against its movie, by far more than both remember of themselves."""
    parcels = xr.open_zarr(store).load()
    turned = parcels["bold"].groupby("run").map(lambda run: run.roll(time=trs))
    bold = turned.transpose(*parcels["bold"].dims).values
    shutil.rmtree(store)
    changed = parcels.assign(bold=(parcels["bold"].dims, bold)).drop_encoding()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        changed.to_zarr(store, zarr_format=3, consolidated=True)


DATASETS = 20
QUICK = {"steps": 80, "batch_size": 16, "validate_every": 20}


@pytest.fixture(scope="module")
def removed(
    make_stores: Callable[..., Path], catalog: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[xr.Dataset, xr.Dataset, float]]:
    """Lesions, isolations and the brain's r of datasets whose brain answers to another movie."""
    found = []
    for seed in range(DATASETS):
        folder = tmp_path_factory.mktemp("removed")
        stores = make_stores(folder, seed=seed)
        turn_the_brain(stores / "parcels.zarr", 37)
        config = resolve("toy", stores, catalog=catalog, options=QUICK)
        run = fit(config, folder / "run", device="cpu")
        test = Side.of(run.data, "test")
        reader = Reader(run, test)
        r = [
            pearson(reader.predicted(s), test.measured(s, test.of_subject(s)))
            for s in test.subjects
        ]
        modes = [lesion(run, "parcels", mode=m, null_draws=0, mapped=0) for m in MODES]
        found.append((*modes, float(nan_mean(np.stack(r)))))
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)  # twenty trainings come before the first of these
class TestWhereTheTruthIsRemoved:
    def test_the_brain_is_at_chance(self, removed: list[Any]) -> None:
        r = np.array([one[2] for one in removed])
        assert abs(r.mean()) <= 2.5 * r.std(ddof=1) / np.sqrt(len(r))

    @pytest.mark.parametrize("target", ["video", "audio"])
    @pytest.mark.parametrize("mode", [0, 1], ids=MODES)
    def test_p_is_uniform_or_conservative(self, removed: list[Any], mode: int, target: str) -> None:
        for name in ("p_lesion", "p_measured", "p"):
            every = np.stack([one[mode][name].sel(target=target).values for one in removed])
            shares = " ".join(f"{(every <= level).mean():.2f}" for level in (0.125, 0.25, 0.5))
            print(f"{target}, {MODES[mode]}, {name}: {shares} at most .125 .25 .5")
        p = np.stack([one[mode]["p"].sel(target=target).values for one in removed])
        # units of one dataset share its movie: the spread over datasets is what counts
        for level in (0.125, 0.25, 0.5):
            share = (p <= level).mean(axis=1)
            assert share.mean() <= level + 2.5 * share.std(ddof=1) / np.sqrt(len(share))

    def test_the_lesion_alone_would_lie(self, removed: list[Any]) -> None:
        """The decoder does read the movie off the predicted brain, whatever that is worth."""
        p = np.stack([one[0]["p_lesion"].sel(target="video").values for one in removed])
        assert (p <= 0.25).mean() > 0.5

    def test_nothing_is_found(self, removed: list[Any]) -> None:
        any_found = [(one[0]["q"].sel(target=["video", "audio"]) <= FDR).any() for one in removed]
        assert np.sum(any_found) <= 3
