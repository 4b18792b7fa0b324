"""``voxels``: values, order and places of the mask's voxels, blocks of them, and their moments."""

from __future__ import annotations

import pickle
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sherlock_data as sd
from sherlock_data.errors import StoreError, UnavailableError
from sherlock_data.images import export, to_nifti
from sherlock_data.representations.series import Moments, Reader, Units, chunk_trs, shard_trs


@pytest.fixture
def scanned(dataset: Any, series: np.ndarray) -> Any:
    """Two subjects, two runs; voxel (0, 0, 0) dark in both, (1, 0, 0) in the second."""
    series[:, 0, 0, 0] = 0
    series[1, 1, 0, 0] = 0
    for number, values in enumerate(series, start=1):
        dataset.write(f"s{number}.nii.gz", values)
    dataset.entry["runs"] = [{"name": "run-1", "volumes": 8}, {"name": "run-2", "volumes": 12}]
    dataset.series = series
    return dataset


def test_values_are_the_masks_in_c_order(scanned: Any) -> None:
    voxels = scanned.build("voxels")
    mask = scanned.open("volumes").mask.values
    assert mask.sum() == 59
    assert voxels.bold.dims == ("subject", "time", "voxel")
    expected = scanned.series[:, mask].transpose(0, 2, 1)
    assert np.array_equal(voxels.bold, expected)
    ijk = np.stack([voxels[axis] for axis in "ijk"], axis=1)
    assert np.array_equal(ijk, np.argwhere(mask))


def test_places_are_millimetres_by_the_affine(scanned: Any) -> None:
    voxels = scanned.build("voxels")
    ijk = np.stack([voxels[axis] for axis in "ijk"], axis=1)
    xyz = np.stack([voxels[axis] for axis in "xyz"], axis=1)
    assert np.allclose(xyz, nibabel.affines.apply_affine(scanned.affine, ijk))


def test_a_map_of_an_opened_store_is_an_image(scanned: Any) -> None:
    scanned.build("voxels")
    tree = sd.open(scanned.out / "tiny")
    image = sd.to_nifti(tree["voxels"].bold.sel(subject="sub-01").mean("time"))
    assert np.array_equal(image.affine, scanned.affine)
    assert np.allclose(image.get_fdata(), scanned.series[0].mean(-1), rtol=1e-6)


def test_a_subject_without_signal_in_a_voxel_is_marked(scanned: Any) -> None:
    has_signal = scanned.build("voxels").has_signal
    assert has_signal.dims == ("subject", "voxel")
    dark = np.argwhere(~has_signal.values)
    assert dark.tolist() == [[1, 11]]  # (1, 0, 0) is the 12th of the mask in C order


def test_moments_are_of_the_runs_valid_volumes(dataset: Any, series: np.ndarray) -> None:
    series[1, ..., 15:] = series[1, ..., 14:15]  # volumes 14 to 19 repeat one
    series[0, 2, 2, 2, 3] = np.nan
    for number, values in enumerate(series, start=1):
        dataset.write(f"s{number}.nii.gz", values)
    dataset.entry["runs"] = [{"name": "run-1", "volumes": 8}, {"name": "run-2", "volumes": 12}]
    dataset.stores["voxels"] = {"kind": "voxels", "mask": {"signal_fraction": 0.9}}
    voxels = dataset.build("voxels")
    flat = series.reshape(2, 60, 20).astype(np.float64)
    for run, volumes in enumerate((slice(0, 8), slice(8, 20))):
        for subject in range(2):
            kept = flat[subject, :, volumes][:, voxels.valid.values[subject, volumes]]
            assert np.allclose(voxels["mean"][subject, run], np.nanmean(kept, axis=1))
            assert np.allclose(voxels["std"][subject, run], np.nanstd(kept, axis=1), rtol=1e-5)
    assert voxels.valid.values[1].sum() == 14


def test_blocks_are_means_over_their_voxels_with_signal(scanned: Any) -> None:
    scanned.stores["coarse"] = {"kind": "voxels", "coarsen": 2}
    coarse = scanned.build("coarse")
    mask = scanned.open("volumes").mask.values
    assert coarse.sizes["voxel"] == 3 * 2 * 2
    assert int(coarse.n_voxels.sum()) == 59
    # the first block misses (0, 0, 0) in both subjects and (1, 0, 0) in the second
    block = scanned.series[:, :2, :2, :2].reshape(2, 8, 20)
    lit = mask[:2, :2, :2].ravel()
    assert np.allclose(coarse.bold[0, :, 0], block[0, lit].mean(0))
    lit[4] = False
    assert np.allclose(coarse.bold[1, :, 0], block[1, lit].mean(0))
    assert [coarse[axis].values[0] for axis in "xyz"] == [7.5, -4.5, -10]
    assert to_nifti(coarse.bold[0, 0]).shape == (3, 2, 2)


def test_another_mask_is_another_store_of_the_same_volumes(scanned: Any) -> None:
    scanned.stores["all"] = {"kind": "voxels", "mask": {"subject_fraction": 1.0}}
    assert scanned.build("all").sizes["voxel"] == 58
    assert scanned.open("volumes").mask.sum() == 59


def test_grey_matter_of_a_native_scan_is_unavailable(scanned: Any) -> None:
    scanned.stores["grey"] = {"kind": "voxels", "mask": {"grey_matter": 0.25}}
    with pytest.raises(UnavailableError, match="needs MNI152 space"):
        scanned.build("grey")


def test_a_mask_file_is_an_input_like_any_other(scanned: Any) -> None:
    roi = np.zeros((5, 4, 3), dtype=np.uint8)
    roi[2:4, 1, 1] = 1
    scanned.write("roi.nii.gz", roi)
    scanned.stores["roi"] = {"kind": "voxels", "mask": {"file": "roi.nii.gz"}}
    voxels = scanned.build("roi")
    assert voxels.sizes["voxel"] == 2
    assert [item["name"] for item in voxels.attrs["inputs"]] == ["volumes.zarr", "roi.nii.gz"]


def test_changed_volumes_make_the_voxels_stale(scanned: Any, series: np.ndarray) -> None:
    scanned.build("voxels")
    assert scanned.build("voxels").attrs["inputs"][0]["name"] == "volumes.zarr"
    scanned.write("s1.nii.gz", scanned.series[0] + 1)
    scanned.build("volumes", overwrite=True)
    with pytest.raises(StoreError, match=r"another 'volumes\.zarr'.*--overwrite"):
        scanned.build("voxels")


def test_sizes_are_known_before_the_volumes_are(scanned: Any) -> None:
    from sherlock_data.build import Options, build

    outcomes = build(
        scanned.scan(), scanned.catalog(), scanned.out, ["voxels"], Options(dry_run=True)
    )
    assert [outcome.status for outcome in outcomes] == ["planned", "planned"]
    assert outcomes[1].nbytes == 2 * 20 * 60 * 4
    assert not scanned.out.exists()


@pytest.mark.parametrize("name", ["volumes", "voxels"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_export_gives_the_file_back(scanned: Any, tmp_path: Any, name: str, suffix: str) -> None:
    scanned.build("voxels")
    out = export(scanned.path(name), tmp_path / f"back{suffix}", subject="sub-02")
    back, source = nibabel.load(out), nibabel.load(scanned.raw / "s2.nii.gz")
    assert back.get_data_dtype() == np.float32
    assert np.array_equal(back.affine, source.affine)
    assert np.array_equal(back.header.get_zooms(), source.header.get_zooms())
    assert np.array_equal(back.get_fdata(), source.get_fdata())
    assert sorted(p.name for p in tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    ("run", "seconds", "expected"),
    [
        pytest.param("run-2", None, slice(8, 20), id="run"),
        pytest.param(None, (3.0, 9.0), slice(2, 6), id="time"),
        pytest.param(None, (None, 1.5), slice(0, 1), id="open start"),
        pytest.param("run-1", (9.0, None), slice(6, 8), id="run and time"),
    ],
)
def test_export_takes_a_stretch(
    scanned: Any, tmp_path: Any, run: str | None, seconds: Any, expected: slice
) -> None:
    scanned.build("voxels")
    out = export(scanned.path("volumes"), tmp_path / "b.nii", "sub-01", run, seconds)
    assert np.array_equal(nibabel.load(out).get_fdata(), scanned.series[0][..., expected])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({}, "the store has 2 subjects.*--subject sub-01", id="which subject"),
        pytest.param({"subject": "sub-3"}, "did you mean 'sub-0", id="unknown subject"),
        pytest.param({"subject": "sub-01", "run": "run1"}, "did you mean 'run-1'", id="run"),
        pytest.param({"subject": "sub-01", "time": (99, None)}, "no volume lies in", id="time"),
        pytest.param({"subject": "sub-01", "out": "b.mgz"}, "not a NIfTI name", id="name"),
    ],
)
def test_export_refuses_in_one_line(
    scanned: Any, tmp_path: Any, options: dict[str, Any], message: str
) -> None:
    from sherlock_data.errors import ConfigError

    scanned.build("voxels")
    out = tmp_path / options.pop("out", "b.nii")
    with pytest.raises(ConfigError, match=message):
        export(scanned.path("voxels"), out, **options)
    assert not out.exists()


finite = st.floats(-1e4, 1e4, width=32)


@given(
    rows=hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 5)), elements=finite),
    cut=st.integers(0, 30),
    holes=st.integers(0, 2**16),
)
def test_moments_merge_to_those_of_all_rows(rows: np.ndarray, cut: int, holes: int) -> None:
    rows[np.random.default_rng(holes).random(rows.shape) < 0.2] = np.nan
    first, second = Moments(rows.shape[1]), Moments(rows.shape[1])
    first.add(rows[:cut])
    second.add(rows[cut:])
    first.merge(second)
    mean, std = first.result()
    for column in range(rows.shape[1]):
        kept = rows[:, column][np.isfinite(rows[:, column])].astype(np.float64)
        if not len(kept):
            assert np.isnan(mean[column])
            continue
        assert np.isclose(mean[column], kept.mean(), rtol=1e-5, atol=1e-2)
        assert np.isclose(std[column], kept.std(), rtol=1e-3, atol=1e-2)


def test_moments_of_raw_scanner_values_do_not_cancel() -> None:
    rows = (30_000 + np.random.default_rng(0).normal(0, 0.5, (2000, 3))).astype(np.float32)
    moments = Moments(3)
    moments.add(rows)
    assert np.allclose(moments.result()[1], rows.astype(np.float64).std(0), rtol=1e-5)


def test_a_unit_without_a_voxel_is_nan_and_a_hole_is_left_out() -> None:
    units = Units(np.array([3, 0, 1]), np.array([0, 2, 2]), 3)
    nan, inf = np.nan, np.inf
    volumes = np.array([[1, 2, 9, 4], [1, nan, 9, nan], [inf, -inf, 9, 4]], dtype=np.float32)
    out = np.empty((3, 3), dtype=np.float32)
    Reader(units).read(volumes, out)
    assert np.array_equal(out, [[4, nan, 1.5], [nan, nan, 1], [4, nan, nan]], equal_nan=True)


def test_a_part_can_be_sent_to_another_process(scanned: Any) -> None:
    from sherlock_data.representations import volumes, voxels

    scanned.build("volumes")
    for planner, name in ((volumes, "volumes"), (voxels, "voxels")):
        recipe = scanned.catalog().recipe("tiny", name)
        plan = planner.plan(scanned.scan(), recipe, scanned.path(name), scanned.catalog())
        assert [pickle.loads(pickle.dumps(p)).name for p in plan.parts] == ["sub-01", "sub-02"]  # noqa: S301


@pytest.mark.parametrize(
    ("units", "times", "chunk", "shard"),
    [
        pytest.param(87_194, 1976, 8, 128, id="voxels"),
        pytest.param(400, 1976, 128, 2048, id="parcels"),
        pytest.param(4, 1976, 128, 2048, id="four regions"),
        pytest.param(4_000, 600, 32, 512, id="demo voxels"),
    ],
)
def test_chunks_are_small_to_read_and_shards_worth_a_file(
    units: int, times: int, chunk: int, shard: int
) -> None:
    assert chunk_trs(units) == chunk
    assert shard_trs(units, times) == shard
    assert shard % chunk == 0
