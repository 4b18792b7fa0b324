"""``parcels``: means of an atlas's parcels, the empty ones kept, and where each is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sherlock_data.errors import InputError, UnavailableError
from sherlock_data.images import export, to_nifti

NAMES = {20: "7Networks_LH_Vis_1", 10: "7Networks_RH_Default_PCC_8", 30: "empty", 40: "absent"}


@pytest.fixture
def scanned(dataset: Any, series: np.ndarray) -> Any:
    """Two subjects and an atlas: 20 fills the slab i = 0, 10 the slab i = 1, 30 a dark voxel."""
    series[:, 4, 3, 2] = 0
    series[1, 0, 0, 0] = 0
    for number, values in enumerate(series, start=1):
        dataset.write(f"s{number}.nii.gz", values)
    labels = np.zeros((5, 4, 3), dtype=np.int16)
    labels[0], labels[1], labels[4, 3, 2] = 20, 10, 30
    dataset.write("atlas.nii.gz", labels)
    rows = "".join(f"{index}\t{name}\n" for index, name in NAMES.items())
    (dataset.raw / "atlas.tsv").write_text("index\tname\n" + rows)
    dataset.atlases["mine"] = {"image": "atlas.nii.gz", "labels": "atlas.tsv", "space": "native"}
    dataset.entry["atlas"] = "mine"
    dataset.series, dataset.labels = series, labels
    return dataset


def test_a_parcel_is_the_mean_of_its_voxels_with_signal(scanned: Any) -> None:
    parcels = scanned.build("parcels")
    series = scanned.series.astype(np.float64)
    assert parcels.bold.dims == ("subject", "time", "parcel")
    visual = parcels.bold.sel(parcel="7Networks_LH_Vis_1")
    assert np.allclose(visual[0], series[0, 0].mean((0, 1)), rtol=1e-6)
    # the second subject's dark voxel takes no part
    assert np.allclose(visual[1], series[1, 0].reshape(12, 20)[1:].mean(0), rtol=1e-6)
    other = parcels.bold.sel(parcel="7Networks_RH_Default_PCC_8")
    assert np.allclose(other, series[:, 1].mean((1, 2)), rtol=1e-6)


def test_labels_come_from_the_atlas(scanned: Any) -> None:
    parcels = scanned.build("parcels")
    assert parcels.parcel.values.tolist() == list(NAMES.values())
    assert parcels.network.values.tolist() == ["Vis", "Default", "", ""]
    assert parcels.hemisphere.values.tolist() == ["LH", "RH", "", ""]
    assert parcels.atlas_index.values.tolist() == list(NAMES)
    assert parcels.n_voxels.values.tolist() == [12, 12, 0, 0]
    assert parcels.n_signal.values.tolist() == [[12, 12, 0, 0], [11, 12, 0, 0]]
    assert np.array_equal(parcels.label, scanned.labels)
    assert parcels.x.values[:2].tolist() == [9, 6]
    assert np.isnan(parcels.x[2:]).all()
    names = [item["name"] for item in parcels.attrs["inputs"]]
    assert names == ["volumes.zarr", "atlas.nii.gz", "atlas.tsv"]


def test_empty_parcels_are_kept_counted_and_said(scanned: Any) -> None:
    parcels = scanned.build("parcels")
    assert np.isnan(parcels.bold[:, :, 2:]).all()
    assert not parcels.has_signal[:, 2:].any()
    assert parcels.attrs["parcels_empty"] == 2
    problem = parcels.attrs["problems"][-1]
    assert problem["code"] == "parcels-empty"
    assert "2 parcels have no voxel in the mask, kept as NaN: empty, absent" in problem["message"]


def test_a_map_of_parcels_is_drawn_on_the_grid(scanned: Any, tmp_path: Any) -> None:
    parcels = scanned.build("parcels")
    image = to_nifti(parcels.bold.sel(subject="sub-01").mean("time"), like=parcels)
    values = image.get_fdata(dtype=np.float32)
    assert np.array_equal(values[0], np.full((4, 3), parcels.bold[0, :, 0].mean()))
    assert not values[2:4].any()
    out = export(scanned.path("parcels"), tmp_path / "p.nii.gz", "sub-02")
    import nibabel

    exported = nibabel.load(out).get_fdata(dtype=np.float32)
    assert np.array_equal(exported[1, 2, 2], parcels.bold[1, :, 1])


def test_a_hole_in_a_voxel_is_left_out_of_the_mean(scanned: Any) -> None:
    scanned.series[0, 1, 0, 0, 5] = np.nan
    scanned.write("s1.nii.gz", scanned.series[0])
    scanned.stores["parcels"] = {"kind": "parcels", "mask": {"signal_fraction": 0.9}}
    parcels = scanned.build("parcels")
    expected = np.nanmean(scanned.series[0, 1, ..., 5].astype(np.float64))
    assert np.isclose(parcels.bold.values[0, 5, 1], expected)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        pytest.param(
            lambda d: d.entry.pop("atlas"), UnavailableError, "names no atlas", id="no atlas"
        ),
        pytest.param(
            lambda d: d.atlases["mine"].update(space="MNI152"),
            UnavailableError,
            "atlas mine: is in MNI152 space, the dataset in native",
            id="another space",
        ),
        pytest.param(
            lambda d: (d.raw / "atlas.nii.gz").unlink(),
            InputError,
            r"atlas\.nii\.gz: no such file",
            id="no image",
        ),
        pytest.param(
            lambda d: d.write("atlas.nii.gz", (d.labels == 30).astype(np.int16) * 30),
            InputError,
            "no parcel meets the mask",
            id="beside the mask",
        ),
    ],
)
def test_what_an_atlas_cannot_give_is_said(
    scanned: Any, change: Any, kind: type[Exception], message: str
) -> None:
    change(scanned)
    with pytest.raises(kind, match=message):
        scanned.build("parcels")
    assert not scanned.path("parcels").exists()
