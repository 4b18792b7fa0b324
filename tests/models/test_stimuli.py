"""Stimuli by name: any variable of the features store is one, under its extractor's name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from sherlock_data.build import build
from sherlock_data.catalog import load_catalog
from sherlock_data.errors import ConfigError
from sherlock_data.scan import resolve as resolve_scan
from sherlock_models.config import resolve
from sherlock_models.dataset import load_data
from sherlock_models.stimuli import feature_names, load_stimulus, size_of, store_of


@pytest.fixture(scope="module")
def folder(tiny_raw: Path, tiny_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset's parcels and its planted features."""
    out = tmp_path_factory.mktemp("features")
    catalog = load_catalog(tiny_raw / "catalog.yaml")
    scan = resolve_scan("synth", catalog.dataset("synth"), tiny_raw)
    build(scan, catalog, out, ["features"])
    shutil.copytree(tiny_stores / "parcels.zarr", out / "synth" / "parcels.zarr")
    return out / "synth"


def test_an_extractor_is_a_stimulus(folder: Path, tiny_raw: Path):
    assert store_of(str(folder), "planted") == "features"
    assert size_of(str(folder), "planted") == (12,)
    table = load_stimulus(str(folder), "planted")
    np.testing.assert_array_equal(table.values.numpy(), np.load(tiny_raw / "features.npy"))
    assert table.present.all()
    assert feature_names(str(folder), "planted")[0] == "planted[brightness_left]"


def test_what_says_where_features_are_is_no_stimulus(folder: Path):
    with pytest.raises(ConfigError, match="did you mean 'planted'"):
        store_of(str(folder), "plante")
    with pytest.raises(ConfigError, match="no stimulus 'vggish'") as failure:
        store_of(str(folder), "vggish")
    assert "has_planted" not in str(failure.value)


def test_a_training_takes_planted_features(folder: Path):
    config = resolve(
        "dense-features", folder, options={"stimulus": ["planted"], "brain": "parcels"}
    )
    data = load_data(config)
    assert data.sizes.stimulus == {"planted": (12,)}
    assert len(data.samples("train").tr)
