"""A brain of principal components: fitted for this very training, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sherlock_data as sd
from sherlock_data.errors import StoreError
from sherlock_data.fitting import trs_in
from sherlock_models.config import RunConfig
from sherlock_models.feeding.loading import load_data
from sherlock_models.resolve import resolve
from sherlock_models.training.train import fit


def configure(stores: Path, entry: str = "conv-pca", **options: Any) -> RunConfig:
    quick = {"steps": 2, "batch_size": 8, "width": 0.02, "validate_every": 2}
    return resolve(entry, stores, options={**quick, **options})


def test_conv_pca_trains(tiny_stores: Path, tmp_path: Path):
    config = configure(tiny_stores)
    assert load_data(config).sizes.brain == (sd.open(tiny_stores / "pca.zarr").sizes["component"],)
    run = fit(config, tmp_path / "run", device="cpu")
    losses = [row["loss"] for row in run.metrics() if row["split"] == "train"]
    assert len(losses) == 2
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"fold": 2}, r"fitted on \d+ brain TRs \(\d+ to \d+", id="another fold"),
        pytest.param({"split": "random"}, r"`fit: random, fold: 0", id="another kind"),
        pytest.param({"split": "run", "fold": 1}, r"fitted on \d+ brain TRs", id="a whole run"),
        pytest.param({"split": "subject"}, r"the subjects sub-01", id="subjects"),
    ],
)
def test_a_store_fitted_on_held_out_trs_is_refused(
    tiny_stores: Path, options: dict[str, Any], message: str
):
    with pytest.raises(StoreError, match=message):
        load_data(configure(tiny_stores, **options))


def test_the_overlap_named_is_the_overlap(tiny_stores: Path):
    config = configure(tiny_stores, fold=2)
    other = load_data(configure(tiny_stores, entry="conv-parcels", fold=2))
    held = np.concatenate([other.split.validation, other.split.test]) + other.lag_trs
    fitted = trs_in(sd.open(tiny_stores / "pca.zarr").attrs["fitted_on"]["trs"])
    both = sorted(set(held) & set(fitted))
    with pytest.raises(StoreError, match=rf"fitted on {len(both)} brain TRs \({both[0]} to "):
        load_data(config)


def test_components_are_fitted_on_the_bold_that_models_see(tiny_stores: Path):
    data = load_data(configure(tiny_stores, entry="conv-voxels"))
    pca = sd.open(tiny_stores / "pca.zarr")
    inverse_std, mean = data.brains.inverse_std.numpy(), data.brains.mean.numpy()
    std = pca["std"].values
    known = np.isfinite(std)
    np.testing.assert_array_equal(known, inverse_std > 0)
    np.testing.assert_allclose(1 / std[known], inverse_std[known], rtol=1e-4)
    np.testing.assert_allclose(pca["mean"].values[known], mean[known], rtol=1e-5)
    train = sorted(set(data.samples("train").tr + data.lag_trs))
    np.testing.assert_array_equal(trs_in(pca.attrs["fitted_on"]["trs"]), train)
