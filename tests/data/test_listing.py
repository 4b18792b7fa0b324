"""`list` says what is there, what is damaged, and what a dataset cannot have."""

from __future__ import annotations

import pytest

from sherlock_data.listing import list_datasets


def rows_of(dataset):
    rows = list_datasets(dataset.catalog(), str(dataset.out), dataset.raw)
    return {row["store"]: row for row in rows if row["dataset"] == "tiny"}


def test_what_a_dataset_cannot_have_is_not_absent(dataset, series):
    dataset.write("s1.nii.gz", series[0])
    dataset.build("volumes")
    rows = rows_of(dataset)
    assert rows["volumes"]["state"] == "complete"
    assert rows["volumes"]["bytes"] > 0
    assert (rows["voxels"]["state"], rows["voxels"]["why"]) == ("absent", None)
    assert {name: row["why"] for name, row in rows.items() if row["state"] == "n/a"} == {
        "grey": "the space is native, the grey-matter map is in MNI152",
        "parcels": "no atlas",
        "stimulus": "no run has a movie",
        "features": "no run has a movie",
        "frames": "no run has a movie",
        "annotations": "no annotations",
    }


@pytest.mark.parametrize(
    ("entry", "store"),
    [
        pytest.param({"atlas": "schaefer-400"}, "parcels", id="atlas"),
        pytest.param({"space": "MNI152"}, "grey", id="space"),
        pytest.param({"annotations": "sheet.csv"}, "annotations", id="annotations"),
        pytest.param({"annotations": "sheet.csv"}, "features", id="text"),
        pytest.param({"runs": [{"name": "run-1", "movie": "m.mkv"}]}, "stimulus", id="movie"),
    ],
)
def test_what_it_can_have_is_absent(dataset, entry, store):
    dataset.entry |= entry
    assert (rows_of(dataset)[store]["state"], rows_of(dataset)[store]["why"]) == ("absent", None)


def test_what_derives_from_the_impossible_is_impossible(dataset):
    dataset.stores["pca"] = {"kind": "pca", "of": "grey", "components": 3}
    assert rows_of(dataset)["pca"]["why"].startswith("derives from grey: the space is native")


def test_one_damaged_store_does_not_hide_the_others(dataset, series):
    dataset.write("s1.nii.gz", series[0])
    dataset.build("volumes", "voxels")
    (dataset.path("volumes") / "manifest.json").write_bytes(b"\xff?")
    rows = rows_of(dataset)
    assert (rows["volumes"]["state"], rows["volumes"]["bytes"]) == ("damaged", None)
    assert rows["voxels"]["state"] == "complete"
