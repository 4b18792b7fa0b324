"""NIfTI series as streams: nibabel's values, the file's own hash, and one line for a bad file."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sherlock_data import nifti
from sherlock_data.errors import InputError

AFFINE = np.array([[-3.0, 0, 0, 90], [0, 3, 0.5, -126], [0, -0.5, 3, -72], [0, 0, 0, 1]])
SHAPE = (5, 4, 3, 11)

IMAGES: dict[int, Any] = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}


def write(
    path: Path,
    shape: tuple[int, ...] = SHAPE,
    dtype: str = "<f4",
    scaling: tuple[float, float] | None = None,
    version: int = 1,
    tr: float = 1.5,
    unit: str = "sec",
) -> Path:
    """Write random values; ``scaling`` (slope, inter) is put in the header as it stands."""
    rng = np.random.default_rng(0)
    kind = np.dtype(dtype)
    values = rng.normal(0, 1000, shape) if kind.kind == "f" else rng.integers(0, 120, shape)
    header = IMAGES[version].header_class(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(kind)
    image = IMAGES[version](values.astype(kind), AFFINE, header)
    image.header.set_xyzt_units("mm", unit)
    if len(shape) > 3:
        image.header["pixdim"][4] = tr
    if scaling is not None:
        image.header.set_slope_inter(*scaling)
    image.to_filename(path)
    return path


def read(path: Path, block: int = 4) -> tuple[np.ndarray, nifti.Stream]:
    """All volumes as nibabel orders them, (x, y, z, time)."""
    with nifti.stream(path, block) as stream:
        blocks = [volumes for _, volumes in stream]
    return np.concatenate(blocks).transpose(3, 2, 1, 0), stream


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("dtype", "scaling", "version"),
    [
        pytest.param("<f4", None, 1, id="float32"),
        pytest.param("<f4", (2.0, -1.0), 1, id="float32-scaled"),
        pytest.param(">f4", None, 1, id="float32-big-endian"),
        pytest.param("<i2", None, 1, id="int16"),
        pytest.param("<i2", (0.0123, 7.5), 1, id="int16-scaled"),
        pytest.param(">i2", (3.3, 0.1), 1, id="int16-scaled-big-endian"),
        pytest.param("|u1", None, 1, id="uint8"),
        pytest.param("|u1", (0.7, 0.0), 1, id="uint8-slope-only"),
        pytest.param("<u2", None, 1, id="uint16"),
        pytest.param("<i4", (1.0, -3.0), 1, id="int32-inter-only"),
        pytest.param("<f8", None, 1, id="float64"),
        pytest.param("<f8", (0.1, 0.2), 1, id="float64-scaled"),
        pytest.param("<i2", (0.0123, 7.5), 2, id="nifti2-int16-scaled"),
        pytest.param(">f4", None, 2, id="nifti2-big-endian"),
    ],
)
def test_values_are_nibabels(
    tmp_path: Path,
    dtype: str,
    scaling: tuple[float, float] | None,
    version: int,
    suffix: str,
) -> None:
    path = write(tmp_path / f"bold{suffix}", dtype=dtype, scaling=scaling, version=version)
    expected = nibabel.load(path).get_fdata(dtype=np.float32)
    values, stream = read(path)
    np.testing.assert_array_equal(values, expected)
    assert values.dtype == np.float32
    assert stream.header.big_endian == (dtype[0] == ">")


def test_header_is_nibabels(tmp_path: Path) -> None:
    path = write(tmp_path / "bold.nii.gz", dtype="<i2", scaling=(0.5, 2.0), tr=0.72)
    header, expected = nifti.read_header(path), nibabel.load(path)
    assert header.shape == expected.shape == SHAPE
    assert header.dimensions == 4
    np.testing.assert_array_equal(header.affine, expected.affine)
    np.testing.assert_allclose(header.zooms, expected.header.get_zooms()[:3], rtol=1e-6)
    assert header.tr_s == 0.72  # not float32's 0.7200000286
    assert (header.slope, header.inter) == (0.5, 2.0)
    assert header.dtype == np.dtype("<i2")
    assert header.offset == expected.dataobj.offset


@pytest.mark.parametrize(
    ("tr", "unit", "seconds"),
    [
        pytest.param(1.5, "sec", 1.5, id="seconds"),
        pytest.param(1500.0, "msec", 1.5, id="milliseconds"),
        pytest.param(2.5, "unknown", 2.5, id="no-unit-means-seconds"),
        pytest.param(0.0, "sec", None, id="zero-is-none"),
        pytest.param(-1.0, "sec", None, id="negative-is-none"),
        pytest.param(float("nan"), "sec", None, id="nan-is-none"),
        pytest.param(3.0, "hz", None, id="no-time-axis"),
    ],
)
def test_repetition_time(tmp_path: Path, tr: float, unit: str, seconds: float | None) -> None:
    path = write(tmp_path / "bold.nii", tr=tr, unit=unit)
    assert nifti.read_header(path).tr_s == seconds


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3, st.integers(1, 20)),
    block=st.integers(1, 25),
    gzipped=st.booleans(),
)
def test_blocks_cover_every_volume_once_whatever_the_shape(
    tmp_path: Path, shape: tuple[int, int, int, int], block: int, gzipped: bool
) -> None:
    path = write(tmp_path / ("a.nii.gz" if gzipped else "a.nii"), shape)
    with nifti.stream(path, block) as stream:
        got = list(stream)
    assert [first for first, _ in got] == list(range(0, shape[3], block))
    assert all(len(volumes) == block for _, volumes in got[:-1])
    assert all(volumes.flags.c_contiguous for _, volumes in got)
    expected = np.asarray(nibabel.load(path).dataobj).reshape(shape)
    np.testing.assert_array_equal(
        np.concatenate([volumes for _, volumes in got]).transpose(3, 2, 1, 0), expected
    )
    assert stream.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert stream.bytes == path.stat().st_size


def test_the_hash_is_not_known_before_the_end(tmp_path: Path) -> None:
    with nifti.stream(write(tmp_path / "bold.nii.gz"), 2) as stream:
        next(iter(stream))
        with pytest.raises(RuntimeError, match="once every volume has been read"):
            _ = stream.sha256


def test_leaving_early_stops_the_reader_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with nifti.stream(write(tmp_path / "bold.nii.gz", (4, 4, 4, 200)), 1) as stream:
        next(iter(stream))
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_the_reader_waits_for_a_slow_consumer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded: no more than ``BLOCKS_AHEAD + 1`` blocks are inflated unasked."""
    inflated = []
    inner = nifti.Stream._read_block
    monkeypatch.setattr(
        nifti.Stream,
        "_read_block",
        lambda self, file, first: (inflated.append(first), inner(self, file, first))[1],
    )
    with nifti.stream(write(tmp_path / "bold.nii.gz", (4, 4, 4, 60)), 1) as stream:
        for first, _ in stream:
            assert len(inflated) <= first + 1 + nifti.BLOCKS_AHEAD


def test_gzip_is_told_from_the_content_not_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "bold.nii.gz")
    expected, _ = read(path)
    renamed = path.rename(tmp_path / "bold.nii")
    np.testing.assert_array_equal(read(renamed)[0], expected)


def test_gzip_of_several_members_with_zero_padding(tmp_path: Path) -> None:
    data = write(tmp_path / "bold.nii").read_bytes()
    path = tmp_path / "pieces.nii.gz"
    path.write_bytes(gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + b"\0" * 512)
    values, stream = read(path)
    np.testing.assert_array_equal(values, read(tmp_path / "bold.nii")[0])
    assert stream.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_trailing_dimension_of_one_is_dropped(tmp_path: Path) -> None:
    assert nifti.read_header(write(tmp_path / "a.nii", (3, 3, 3, 5, 1))).shape == (3, 3, 3, 5)


def test_values_beyond_float32_become_infinite_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    nibabel.Nifti1Image(np.full((2, 2, 2, 2), 1e300), AFFINE).to_filename(path)
    assert np.isinf(read(path)[0]).all()


def gz(path: Path) -> bytes:
    return write(path.parent / "good.nii.gz").read_bytes()


def plain(path: Path) -> bytes:
    return write(path.parent / "good.nii").read_bytes()


def patched(path: Path, at: int, value: bytes) -> bytes:
    data = plain(path)
    return data[:at] + value + data[at + len(value) :]


def of_dtype(dtype: Any) -> Callable[[Path], bytes]:
    def make(path: Path) -> bytes:
        values = np.zeros((2, 2, 2, 2), dtype=dtype)
        nibabel.Nifti1Image(values, AFFINE, dtype=values.dtype).to_filename(path)
        return path.read_bytes()

    return make


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        pytest.param("a.nii.gz", lambda p: gz(p)[:-700], "no end", id="truncated-gzip"),
        pytest.param("a.nii.gz", lambda p: gz(p)[:-8], "no end", id="gzip-without-trailer"),
        pytest.param("a.nii.gz", lambda p: gz(p)[:15], "no end", id="gzip-header-only"),
        pytest.param(
            "a.nii.gz",
            lambda p: gzip.compress(plain(p)[:-400]),
            "ends after 9 of the 11 volumes",
            id="short-data-gzipped",
        ),
        pytest.param(
            "a.nii", lambda p: plain(p)[:-400], "ends after 9 of the 11 volumes", id="short-data"
        ),
        pytest.param(
            "a.nii.gz",
            lambda p: gzip.compress(plain(p) + b"more"),
            "goes on after the 11 volumes",
            id="data-go-on-gzipped",
        ),
        pytest.param(
            "a.nii.gz",
            lambda p: gz(p) + b"junk" * 9,
            "bytes after the end of its gzip stream",
            id="then-junk",
        ),
        pytest.param(
            "a.nii.gz",
            lambda p: gz(p)[:-8] + b"\0\0\0\0" + gz(p)[-4:],
            "corrupt gzip",
            id="gzip-wrong-crc",
        ),
        pytest.param("a.nii", lambda p: b"PK\3\4" * 200, "not a NIfTI", id="a-zip"),
        pytest.param("a.nii", lambda p: b"", "not a NIfTI", id="empty"),
        pytest.param("a.nii.gz", lambda p: gzip.compress(b"x" * 999), "not a NIfTI", id="text-gz"),
        pytest.param("a.nii", lambda p: plain(p)[:200], "within its header", id="half-a-header"),
        pytest.param(
            "a.nii", lambda p: patched(p, 344, b"ni1\0"), "half of a .hdr/.img pair", id="pair"
        ),
        pytest.param("a.img", plain, "half of a .hdr/.img pair", id="img"),
        pytest.param("a.nii", lambda p: patched(p, 344, b"\0\0\0\0"), "Analyze", id="analyze"),
        pytest.param(
            "a.nii", lambda p: patched(p, 70, b"\x39\x30"), "broken header", id="unknown-datatype"
        ),
        pytest.param(
            "a.nii",
            lambda p: write(p, (2, 2, 2, 2, 2)).read_bytes(),
            "shape (2, 2, 2, 2, 2)",
            id="five-dimensions",
        ),
        pytest.param("a.nii", of_dtype(np.complex64), "complex64", id="complex"),
        pytest.param("a.nii", of_dtype(RGB), "RGB", id="rgb"),
        pytest.param(
            "a.nii",
            lambda p: write(p, (4, 4, 4)).read_bytes(),
            "one 3-D image (4, 4, 4)",
            id="three-dimensions",
        ),
        pytest.param(
            "a.nii.gz",
            lambda p: gzip.compress(patched(p, 42, b"\xff\x7f\xff\x7f\xff\x7f")),
            "ends after 0 of the 11 volumes",
            id="header-promises-terabytes",
        ),
    ],
)
def test_bad_files_are_refused_in_one_line(
    tmp_path: Path, name: str, make: Callable[[Path], bytes], says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(make(path))
    with pytest.raises(InputError) as failure:
        read(path)
    line = str(failure.value)
    assert says in line
    assert line.startswith(f"{path}: ")
    assert failure.value.remedy
    assert "\n" not in line


@pytest.mark.parametrize("cut", [8, 700], ids=["trailer", "data"])
def test_a_truncated_gzip_is_found_by_its_header_reading_alone(tmp_path: Path, cut: int) -> None:
    """A build must refuse it before it writes anything."""
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gz(path)[:-cut])
    with pytest.raises(InputError, match="cut off"):
        nifti.read_header(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.nii\.gz: cannot be read \(No such file"):
        nifti.read_header(tmp_path / "none.nii.gz")


def test_the_last_block_of_a_bad_file_is_never_handed_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", (20, 20, 20, 11))
    good = path.read_bytes()
    path.write_bytes(good[:-8] + b"\0\0\0\0" + good[-4:])
    seen = []
    with pytest.raises(InputError), nifti.stream(path, 4) as stream:
        seen.extend(first for first, _ in stream)
    assert seen == [0, 4]
