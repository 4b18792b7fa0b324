"""NIfTI time series as streams: one inflate, one hash, never a whole file in memory.

Legend: a block is ``(n, z, y, x)``, n volumes in the order they lie on disk (x fastest), float32,
scaled as nibabel scales. Headers are parsed by nibabel (NIfTI-1.1 and NIfTI-2 standards); the data
are inflated with ISA-L (:mod:`isal`) by a thread that runs ahead of the consumer.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nibabel
import numpy as np
from isal import igzip
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from sherlock_data.errors import InputError

FloatArray = NDArray[np.float32]

GZIP_MAGIC = b"\x1f\x8b"
#: deflate cannot shrink data further than this (RFC 1951: 258 bytes in 2 bits)
GZIP_MOST = 1032
#: blocks inflated ahead of the one the consumer holds
BLOCKS_AHEAD = 2

#: seconds in the time units of ``xyzt_units``; a file that names none is taken to mean seconds
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}
_SIZES = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_SPACES = {
    0: "unknown",
    1: "scanner",
    2: "aligned",
    3: "Talairach",
    4: "MNI152",
    5: "template",
}
_NOT_NIFTI = "give a NIfTI file (.nii or .nii.gz)"
_DAMAGED = "fetch or write the file again"


@dataclass(frozen=True)
class NiftiHeader:
    """What a header says of its data.

    Attributes
    ----------
    shape : tuple of int
        (x, y, z, time); an image of three dimensions has one volume.
    dimensions : int
        3 or 4, as the file has it.
    affine : ndarray of float64, shape (4, 4)
        Voxel indices to millimetres; the best of sform and qform.
    zooms : tuple of float
        Voxel size in mm along x, y, z.
    tr_s : float or None
        Seconds between volumes; None where the header holds no positive number.
    dtype : numpy.dtype
        As on disk, byte order included.
    slope, inter : float
        Stored values times ``slope`` plus ``inter`` are the values (1 and 0: nothing to do).
    offset : int
        First byte of the data in the (inflated) file.
    space : str
        What the header's form code names: ``"MNI152"``, ``"scanner"``, ``"unknown"``, ...
    """

    shape: tuple[int, int, int, int]
    dimensions: int
    affine: NDArray[np.float64]
    zooms: tuple[float, float, float]
    tr_s: float | None
    dtype: np.dtype[Any]
    slope: float
    inter: float
    offset: int
    space: str

    @property
    def volumes(self) -> int:
        """Number of volumes."""
        return self.shape[3]

    @property
    def big_endian(self) -> bool:
        """Whether values on disk have their most significant byte first."""
        return self.dtype.str.startswith(">")

    @property
    def volume_bytes(self) -> int:
        """Bytes of one volume on disk, inflated."""
        return int(np.prod(self.shape[:3])) * self.dtype.itemsize

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file, inflated."""
        return self.offset + self.volume_bytes * self.volumes

    @property
    def is_plain(self) -> bool:
        """Whether bytes on disk are already the native float32 values."""
        return self.dtype == np.dtype("=f4") and not self.is_scaled

    @property
    def is_scaled(self) -> bool:
        """Whether slope and intercept change the values."""
        return (self.slope, self.inter) != (1.0, 0.0)


def read_header(path: str | Path, *, series: bool = True) -> NiftiHeader:
    """Read the header of a single-file NIfTI-1 or NIfTI-2, gzipped or not.

    Parameters
    ----------
    path : path
        What is gzipped is told from its first bytes, not from its name.
    series : bool
        Refuse an image of one volume in three dimensions.

    Raises
    ------
    InputError
        If the file cannot be read, is no single-file NIfTI (``.hdr``/``.img`` pairs are refused),
        holds complex, RGB or bit values, is shorter than its header promises, or is 3-D.
    """
    path = Path(path)
    header = _header(path, series)
    _check_length(path, header)
    return header


def stream(path: str | Path, block: int = 8, *, series: bool = True) -> Stream:
    """Open a NIfTI file to be read once, from the first volume to the last.

    Parameters
    ----------
    path : path
    block : int
        Volumes per block; memory is at most ``BLOCKS_AHEAD + 2`` blocks.
    series : bool
        Refuse a 3-D image.

    Returns
    -------
    Stream
        A context manager and an iterator over ``(first_volume, block)``.

    Raises
    ------
    InputError
        As :func:`read_header`; while iterating, for a truncated or corrupt file, or one that goes
        on after the last volume its header promises.
    """
    path = Path(path)
    return Stream(path, block, _header(path, series))


class Stream:
    """Blocks of volumes of one file, in order; see :func:`stream`.

    Attributes
    ----------
    path : Path
    header : NiftiHeader
    sha256 : str
        Of the bytes as they lie on disk, in hex; known once the stream is exhausted.
    bytes : int
        Their number; known then too.
    """

    def __init__(self, path: Path, block: int, header: NiftiHeader) -> None:
        if block < 1:
            raise ValueError(f"block is {block}, at least 1 volume is needed")
        self.path, self.block, self.header = path, block, header
        self._blocks = self._read_ahead()
        self._disk: _HashingFile | None = None
        self._exhausted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[int, FloatArray]]:
        return self._blocks

    def close(self) -> None:
        """Stop the reader thread and close the file."""
        self._blocks.close()

    @property
    def sha256(self) -> str:
        """SHA-256 of the file as it lies on disk, in hex."""
        return self._finished().digest.hexdigest()

    @property
    def bytes(self) -> int:
        """Size of the file as it lies on disk."""
        return self._finished().count

    def _finished(self) -> _HashingFile:
        if self._disk is None or not self._exhausted:
            raise RuntimeError("the hash is known once every volume has been read")
        return self._disk

    def _read_ahead(self) -> Generator[tuple[int, FloatArray], None, None]:
        """Yield the blocks, keeping one thread ``BLOCKS_AHEAD`` blocks in front."""
        starts = iter(range(0, self.header.volumes, self.block))
        try:
            with (
                self.path.open("rb", buffering=0) as raw,
                closing(_HashingFile(raw)) as disk,
                _inflated(disk) as file,
                ThreadPoolExecutor(1, thread_name_prefix="nifti") as thread,
            ):
                self._disk = disk
                _skip(file, self.header.offset)
                ahead: deque[tuple[int, Future[FloatArray]]] = deque()
                try:
                    for first in starts:
                        ahead.append((first, thread.submit(self._read_block, file, first)))
                        if len(ahead) > BLOCKS_AHEAD:
                            first, future = ahead.popleft()
                            yield first, future.result()
                    end = thread.submit(self._read_end, file, disk)
                    while ahead:
                        first, future = ahead.popleft()
                        block = future.result()
                        if not ahead:  # the last volumes are good only if the file ends well
                            end.result()
                            self._exhausted = True
                        yield first, block
                finally:
                    thread.shutdown(cancel_futures=True)
        except (OSError, EOFError, zlib.error) as error:
            raise _unreadable(self.path, error) from error

    def _read_block(self, file: Any, first: int) -> FloatArray:
        """Read and scale the volumes from ``first`` on, at most ``block`` of them."""
        header = self.header
        count = min(self.block, header.volumes - first)
        x, y, z, _ = header.shape
        stored = np.empty((count, z, y, x), dtype=header.dtype)
        missing = _read_into(file, stored.reshape(-1).view(np.uint8).data)
        if missing:
            raise _short(self.path, header, (first + count) * header.volume_bytes - missing)
        return stored if header.is_plain else _scaled(stored, header)

    def _read_end(self, file: Any, disk: _HashingFile) -> None:
        """Check that nothing follows the last volume, gzip's checksum, and hash what is left."""
        if file.read(1):
            raise InputError(
                f"goes on after the {self.header.volumes} volumes its header promises",
                where=self.path,
                remedy="its header or its data are wrong: write the file again",
            )
        disk.drain()


class _HashingFile(io.RawIOBase):
    """A file that hashes what is read from it."""

    def __init__(self, raw: io.RawIOBase | io.FileIO) -> None:
        self.raw = raw
        self.digest = hashlib.sha256()
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self.raw.readinto(buffer) or 0
        self.digest.update(memoryview(buffer)[:read])
        self.count += read
        return read

    def peek_magic(self) -> bytes:
        """First two bytes, before anything is read."""
        magic = self.raw.read(2) or b""
        self.raw.seek(0)
        return magic

    def drain(self) -> None:
        """Hash whatever has not been asked for."""
        while self.read(1 << 20):
            pass


def _inflated(file: Any) -> Any:
    """Return the file's content as a binary file: inflated if it is gzipped, itself if not."""
    magic = file.peek_magic() if isinstance(file, _HashingFile) else file.peek(2)[:2]
    return igzip.IGzipFile(fileobj=file, mode="rb") if magic == GZIP_MAGIC else file


def _read_into(file: Any, view: memoryview) -> int:
    """Fill ``view``; return how many bytes of it the file did not have."""
    while view:
        read = file.readinto(view)
        if not read:
            break
        view = view[read:]
    return len(view)


def _skip(file: Any, count: int) -> None:
    _read_into(file, memoryview(bytearray(count)))


def _scaled(stored: NDArray[Any], header: NiftiHeader) -> FloatArray:
    """Values as nibabel's ``get_fdata(dtype=float32)`` gives them, volume by volume."""
    out = np.empty(stored.shape, dtype=np.float32)
    slope, inter = np.float64(header.slope), np.float64(header.inter)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: infinite, found later
        for volume, target in zip(stored, out, strict=True):
            target[...] = apply_read_scaling(volume, slope, inter) if header.is_scaled else volume
    return out


def _header(path: Path, series: bool) -> NiftiHeader:
    try:
        with path.open("rb") as raw, _inflated(raw) as file:
            header = _parse(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    if series and header.dimensions == 3:
        raise InputError(
            f"is one 3-D image {header.shape[:3]}, not a time series",
            where=path,
            remedy="give the 4-D file of a run",
        )
    return header


def _parse(path: Path, file: Any) -> NiftiHeader:
    """Parse the header at the start of an inflated file."""
    size_field = file.read(4)
    sizes = [int.from_bytes(size_field, order) for order in ("little", "big")]
    size = next((size for size in sizes if size in _SIZES), None)
    if size is None:
        raise InputError("is not a NIfTI file", where=path, remedy=_NOT_NIFTI)
    binary = size_field + file.read(size - 4)
    if len(binary) < size:
        raise InputError("ends within its header", where=path, remedy=_DAMAGED)
    magic = binary[344:348] if size == 348 else binary[4:8]
    if magic[:2] == b"ni" or path.suffix in {".hdr", ".img"}:
        raise InputError(
            "is half of a .hdr/.img pair", where=path, remedy="convert it to one .nii or .nii.gz"
        )
    if magic[:2] != b"n+":
        raise InputError("is not a NIfTI file (Analyze 7.5?)", where=path, remedy=_NOT_NIFTI)
    try:
        header = _SIZES[size](binary, check=False)
        return _understood(path, header)
    except (HeaderDataError, ValueError) as error:
        raise InputError(f"has a broken header ({error})", where=path, remedy=_DAMAGED) from error


def _understood(path: Path, header: Any) -> NiftiHeader:
    """Check a nibabel header and keep what we use of it."""
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError(
            f"holds {header.get_value_label('datatype')} values",
            where=path,
            remedy="give real numbers",
        )
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise InputError(
            f"has the shape {shape}", where=path, remedy="give a 4-D file (x, y, z, time)"
        )
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(
            "has an affine that places no voxel", where=path, remedy="mend its sform or qform"
        )
    slope, inter = header.get_slope_inter()
    code = int(header["sform_code"]) or int(header["qform_code"])
    zooms = [float(zoom) for zoom in header.get_zooms()[:3]]
    least = int(header["sizeof_hdr"]) + 4
    return NiftiHeader(
        shape=(shape[0], shape[1], shape[2], shape[3] if len(shape) == 4 else 1),
        dimensions=len(shape),
        affine=affine,
        zooms=(zooms[0], zooms[1], zooms[2]),
        tr_s=_repetition_time(header) if len(shape) == 4 else None,
        dtype=dtype,
        slope=1.0 if slope is None else float(slope),
        inter=0.0 if inter is None else float(inter),
        offset=max(int(header.get_data_offset()), least),
        space=_SPACES.get(code, "unknown"),
    )


def _repetition_time(header: Any) -> float | None:
    """Seconds between volumes, or None.

    The shortest decimal that rounds to the stored float32 is meant, so 0.72 stays 0.72.
    """
    unit = header.get_xyzt_units()[1]
    value = float(str(header["pixdim"][4]))
    if unit not in _SECONDS or not np.isfinite(value) or value <= 0:
        return None
    return float(f"{value * _SECONDS[unit]:.9g}")


def _check_length(path: Path, header: NiftiHeader) -> None:
    """Refuse a file that is too short, at the cost of one look at its end.

    A gzip member ends with the length of what it holds (RFC 1952, modulo 2**32). A cut file does
    not, nor does one of several members: only then is the file inflated to find out.
    """
    size = path.stat().st_size
    with path.open("rb") as raw:
        gzipped = raw.read(2) == GZIP_MAGIC
        raw.seek(-min(size, 4), io.SEEK_END)
        promised = int.from_bytes(raw.read(4), "little")
    there = size * GZIP_MOST if gzipped else size
    if there < header.file_bytes:
        raise _short(path, header, max(there - header.offset, 0))
    if gzipped and promised != header.file_bytes % 2**32:
        with Stream(path, 1, header) as volumes:
            deque(volumes, maxlen=0)


def _short(path: Path, header: NiftiHeader, there: int) -> InputError:
    """Complain of a file with ``there`` bytes of data."""
    return InputError(
        f"ends after {there // header.volume_bytes} of the {header.volumes} volumes its header "
        "promises",
        where=path,
        remedy=_DAMAGED,
    )


def _unreadable(path: Path, error: Exception) -> InputError:
    """Say in one line why a file could not be read."""
    if isinstance(error, igzip.BadGzipFile | zlib.error):
        return InputError(f"has a corrupt gzip stream ({error})", where=path, remedy=_DAMAGED)
    if isinstance(error, EOFError):
        return InputError("is cut off: its gzip stream has no end", where=path, remedy=_DAMAGED)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InputError(f"cannot be read ({reason})", where=path, remedy="check the path")
