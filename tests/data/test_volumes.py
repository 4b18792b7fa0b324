"""``volumes``: the same values as the files, what is invalid, where there is signal, one pass."""

from __future__ import annotations

import hashlib
import warnings
from itertools import pairwise
from typing import Any

import nibabel
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sherlock_data import store
from sherlock_data.errors import InputError
from sherlock_data.representations.volumes import SignalCount, aligned


def two_subjects(dataset: Any, series: np.ndarray) -> Any:
    for number, values in enumerate(series, start=1):
        dataset.write(f"s{number}.nii.gz", values)
    return dataset


@pytest.mark.parametrize(
    ("dtype", "slope"),
    [
        pytest.param("<f4", None, id="float32"),
        pytest.param(">f4", None, id="big-endian"),
        pytest.param("<f8", None, id="float64"),
        pytest.param("<i2", None, id="int16"),
        pytest.param("<i2", (0.25, -3.0), id="int16 scaled"),
        pytest.param("<u1", None, id="uint8"),
    ],
)
def test_values_are_those_nibabel_reads(
    dataset: Any, series: np.ndarray, dtype: str, slope: tuple[float, float] | None
) -> None:
    values = series[0] / 8 if dtype == "<u1" else series[0]
    path = dataset.write("s1.nii.gz", values.astype(dtype), slope=slope)
    volumes = dataset.build("volumes")
    expected = nibabel.load(path).get_fdata(dtype=np.float32)
    assert volumes.bold.dtype == np.float32
    assert np.array_equal(
        volumes.bold.sel(subject="sub-01").transpose("x", "y", "z", "time"), expected
    )


def test_labels_say_who_when_and_where(dataset: Any, series: np.ndarray) -> None:
    dataset.entry["runs"] = [{"name": "run-1", "volumes": 8}, {"name": "run-2", "volumes": 12}]
    volumes = two_subjects(dataset, series).build("volumes")
    assert volumes.bold.dims == ("subject", "time", "x", "y", "z")
    assert volumes.subject.values.tolist() == ["sub-01", "sub-02"]
    assert volumes.time.dtype == np.float64
    assert volumes.time.values[:3].tolist() == [0, 1.5, 3]
    assert volumes.run.values.tolist() == ["run-1"] * 8 + ["run-2"] * 12
    assert volumes.run_time.values[7:10].tolist() == [10.5, 0, 1.5]
    assert volumes.x.values.tolist() == [9, 6, 3, 0, -3]
    assert volumes.z.values.tolist() == [-12, -8, -4]
    assert np.array_equal(volumes.attrs["affine"], dataset.affine)
    assert volumes.attrs["mask_voxels"] == volumes.mask.sum() == 60
    assert volumes.valid.all()


def test_a_store_opens_with_plain_xarray_in_silence(dataset: Any, series: np.ndarray) -> None:
    two_subjects(dataset, series).build("volumes")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = xr.open_zarr(dataset.path("volumes"))
    assert "run" in plain.bold.coords
    assert np.array_equal(plain.bold[1].T, series[1].transpose(2, 1, 0, 3))


def test_volumes_lie_on_disk_as_in_the_file(dataset: Any, series: np.ndarray) -> None:
    two_subjects(dataset, series).build("volumes")
    stored = store.stored_view(dataset.path("volumes"), "bold")
    assert stored.shape == (2, 20, 3, 4, 5)
    flat = np.asarray(stored[0, 3]).ravel()
    assert np.array_equal(flat, series[0, ..., 3].ravel(order="F"))


def test_the_inputs_are_hashed_on_the_way(dataset: Any, series: np.ndarray) -> None:
    volumes = two_subjects(dataset, series).build("volumes")
    for item in volumes.attrs["inputs"]:
        data = (dataset.raw / item["name"]).read_bytes()
        assert item["bytes"] == len(data)
        assert item["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_constant_tail_is_invalid_and_counts_for_nothing(
    dataset: Any, series: np.ndarray
) -> None:
    series[0, ..., 16:] = series[0, ..., 15:16]
    series[0, 0, 0, 0, :4] = 0
    series[0, 0, 0, 0, 15:] = 0
    volumes = two_subjects(dataset, series).build("volumes")
    assert volumes.valid.values[0].tolist() == [True] * 15 + [False] * 5
    assert volumes.valid[1].all()
    # 4 zeros of 15 valid volumes; the tail's zeros are no volumes at all
    assert volumes.signal_fraction.values[0, 0, 0, 0] == np.float32(11 / 15)
    problems = volumes.attrs["problems"]
    assert [(p["code"], p["where"]) for p in problems] == [("constant-volumes", "sub-01")]
    assert "15 to 19" in problems[0]["message"]


def test_signal_is_finite_and_nonzero(dataset: Any, series: np.ndarray) -> None:
    broken = series.copy()
    rng = np.random.default_rng(1)
    broken[rng.random(series.shape) < 0.02] = 0
    broken[0, 2, 2, 2, :3] = [np.nan, np.inf, -np.inf]
    broken[1, 1] = 0
    volumes = two_subjects(dataset, broken).build("volumes")
    good = np.isfinite(broken) & (broken != 0)
    expected = good.mean(axis=-1).astype(np.float32)
    assert np.array_equal(volumes.signal_fraction, expected)
    assert np.array_equal(volumes.has_signal, expected > np.float32(0.95))
    assert np.array_equal(volumes.mask, (expected > np.float32(0.95)).sum(0) >= 1)


def test_one_file_per_run_is_one_series(dataset: Any, series: np.ndarray) -> None:
    dataset.entry["bold"] = "sub-{subject}/run-{run}.nii.gz"
    for number, values in enumerate(series, start=1):
        dataset.write(f"sub-{number}/run-01.nii.gz", values[..., :7])
        dataset.write(f"sub-{number}/run-02.nii.gz", values[..., 7:])
    volumes = dataset.build("volumes")
    assert volumes.run.values.tolist() == ["run-01"] * 7 + ["run-02"] * 13
    assert np.array_equal(volumes.bold.transpose("subject", "x", "y", "z", "time"), series)
    assert volumes.attrs["inputs"][1]["name"] == "sub-1/run-02.nii.gz"


def test_a_missing_run_is_nan_and_invalid(dataset: Any, series: np.ndarray) -> None:
    dataset.entry["bold"] = "s{subject}_run-{run}.nii.gz"
    for run, part in enumerate(np.split(series, 2, axis=-1), start=1):
        dataset.write(f"s1_run-{run}.nii.gz", part[0])
    dataset.write("s2_run-2.nii.gz", series[1][..., 10:])
    volumes = dataset.build("volumes")
    assert np.isnan(volumes.bold[1, :10]).all()
    assert np.array_equal(volumes.bold[1, 10:].T, series[1][..., 10:].transpose(2, 1, 0, 3))
    assert volumes.valid.values[1].tolist() == [False] * 10 + [True] * 10
    assert (volumes.signal_fraction == 1).all()
    assert [p["code"] for p in volumes.attrs["problems"]] == ["run-missing"]


def test_building_twice_gives_the_same_bytes(dataset: Any, series: np.ndarray) -> None:
    def bytes_of(path: object) -> dict[str, bytes]:
        return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("c/*") if p.is_file()}

    two_subjects(dataset, series).build("volumes")
    first = bytes_of(dataset.path("volumes"))
    dataset.build("volumes", overwrite=True)
    assert first
    assert bytes_of(dataset.path("volumes")) == first


def test_a_truncated_file_leaves_no_store(dataset: Any, series: np.ndarray) -> None:
    two_subjects(dataset, series)
    path = dataset.raw / "s2.nii.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"s2\.nii\.gz"):
        dataset.build("volumes")
    assert store.state(dataset.path("volumes")) != "complete"


def test_scans_without_signal_leave_no_store(dataset: Any, series: np.ndarray) -> None:
    series[np.random.default_rng(1).random(series.shape) < 0.3] = 0
    with pytest.raises(InputError, match="the mask is empty"):
        two_subjects(dataset, series).build("volumes")
    assert store.state(dataset.path("volumes")) == "absent"


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=9), chunk=st.integers(1, 5))
def test_blocks_are_cut_at_chunks_and_nothing_is_lost(lengths: list[int], chunk: int) -> None:
    values = np.arange(sum(lengths), dtype=np.float32).reshape(-1, 1, 1, 1)
    edges = [0, *np.cumsum(lengths)]
    found = list(aligned((values[a:b] for a, b in pairwise(edges)), chunk))
    assert [first for first, _ in found] == list(range(0, len(values), chunk))
    assert all(len(block) == chunk for _, block in found[:-1])
    assert np.array_equal(np.concatenate([b for _, b in found] or [values]), values)


def test_a_block_that_fits_is_not_copied() -> None:
    block = np.zeros((4, 1, 1, 1), dtype=np.float32)
    assert [found is block for _, found in aligned(iter([block, block]), 4)] == [True, True]


def test_counts_of_signal_pass_255_volumes() -> None:
    count = SignalCount((1, 1, 2))
    count.add(np.tile(np.float32([1, 0]), (600, 1)).reshape(600, 1, 1, 2))
    assert count.count.ravel().tolist() == [600, 0]
    assert count.fraction(600).shape == (2, 1, 1)
