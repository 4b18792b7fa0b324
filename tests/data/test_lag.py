"""No store but a fit depends on the lag: when it changes, stores record it and keep their data."""

from __future__ import annotations

import numpy as np
import pytest

from sherlock_data import store
from sherlock_data.build import Options, build
from sherlock_data.errors import StoreError
from sherlock_data.representations.series import SeriesPart
from sherlock_data.representations.volumes import VolumesPart
from sherlock_data.verify import verify

NAMES = ("volumes", "voxels")


@pytest.fixture
def built(dataset, series):
    """Volumes and voxels at a lag of 0."""
    dataset.write("s1.nii.gz", series[0])
    dataset.write("s2.nii.gz", series[1])
    dataset.build(*NAMES)
    return dataset


def run(dataset, *names, **options):
    outcomes = build(dataset.scan(), dataset.catalog(), dataset.out, names, Options(**options))
    return {outcome.store: outcome.status for outcome in outcomes}


def lags(dataset):
    return [store.attributes(dataset.path(name))["lag_s"] for name in NAMES]


@pytest.fixture
def never_again(built, monkeypatch):
    """No part is done again."""

    def refuse(self, path, report):
        raise AssertionError(f"{self.name} was done again")

    for part in (VolumesPart, SeriesPart):
        monkeypatch.setattr(part, "run", refuse)


@pytest.mark.usefixtures("never_again")
def test_stores_record_another_lag_without_being_built_again(built):
    before = {name: built.open(name).load() for name in NAMES}
    built.entry["lag_s"] = 4.5
    assert run(built, *NAMES) == dict.fromkeys(NAMES, "updated")
    assert lags(built) == [4.5, 4.5]
    assert verify(built.out / "tiny") == []
    for name in NAMES:
        assert built.open(name).load().drop_attrs().identical(before[name].drop_attrs())
    assert run(built, *NAMES) == dict.fromkeys(NAMES, "up to date")


@pytest.mark.usefixtures("never_again")
def test_a_derived_store_follows_later(built):
    built.entry["lag_s"] = 3.0
    assert run(built, "volumes") == {"volumes": "updated"}
    built.entry["lag_s"] = -1.5
    assert run(built, *NAMES) == dict.fromkeys(NAMES, "updated")
    assert lags(built) == [-1.5, -1.5]


@pytest.mark.usefixtures("never_again")
def test_a_dry_run_only_says_so(built):
    built.entry["lag_s"] = 4.5
    assert run(built, *NAMES, dry_run=True) == dict.fromkeys(NAMES, "updated")
    assert lags(built) == [0.0, 0.0]


def test_another_source_is_still_another(built, series):
    built.write("s1.nii.gz", series[1])
    built.entry["lag_s"] = 4.5
    with pytest.raises(StoreError, match=r"another 's1\.nii\.gz'.*--overwrite"):
        run(built, *NAMES)
    assert lags(built) == [0.0, 0.0]


def test_a_fit_on_other_trs_is_another_store(dataset):
    rng = np.random.default_rng(0)
    for number in (1, 2):
        values = rng.normal(1000, 30, size=(4, 3, 2, 64)).astype("f4")
        dataset.write(f"s{number}.nii.gz", values)
    dataset.stores["pca"] = {"kind": "pca", "components": 3}
    dataset.build("pca")
    dataset.entry["lag_s"] = 4.5
    with pytest.raises(StoreError, match=r"pca\.zarr.*other training TRs.*--overwrite"):
        run(dataset, "pca")
    assert lags(dataset) == [0.0, 0.0]
    assert run(dataset, "pca", overwrite=True) == {
        "volumes": "updated",
        "voxels": "updated",
        "pca": "built",
    }
    assert verify(dataset.out / "tiny") == []
