"""NIfTI time series as streams: one inflate, one hash, never a whole file in memory.

Legend: a block is ``(n, z, y, x)``, n volumes in the order they lie on disk (x fastest), float32,
scaled as nibabel scales. Data are inflated with ISA-L (:mod:`isal`) by a thread that runs ahead of
the consumer.
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from isal import igzip, igzip_lib
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from sherlock_data.errors import InputError
from sherlock_data.nifti_header import DAMAGED, NiftiHeader, parse

__all__ = ["NiftiHeader", "Stream", "read_header", "stream"]

FloatArray = NDArray[np.float32]

GZIP_MAGIC = b"\x1f\x8b"
#: deflate cannot shrink data further than this (RFC 1951: 258 bytes in 2 bits)
GZIP_MOST = 1032
#: blocks inflated ahead of the one the consumer holds
BLOCKS_AHEAD = 2
#: what ISA-L raises for a deflate stream that is none (its stubs take the class for an instance)
CORRUPT = cast("type[Exception]", igzip_lib.IsalError)


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
    _check_end(path, header)
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
        except (OSError, EOFError, CORRUPT) as error:
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
            header = parse(path, file)
    except (OSError, EOFError, CORRUPT) as error:
        raise _unreadable(path, error) from error
    if series and header.dimensions == 3:
        raise InputError(
            f"is one 3-D image {header.shape[:3]}, not a time series",
            where=path,
            remedy="give the 4-D file of a run",
        )
    _check_size(path, header)
    return header


def _check_size(path: Path, header: NiftiHeader) -> None:
    """Refuse a file that cannot hold what its header promises, however well it is packed."""
    there = path.stat().st_size * (GZIP_MOST if _is_gzip(path) else 1)
    if there < header.file_bytes:
        raise _short(path, header, max(there - header.offset, 0))


def _check_end(path: Path, header: NiftiHeader) -> None:
    """Refuse a gzip file that is cut off, at the cost of one look at its end.

    A gzip member ends with the length of what it holds (RFC 1952, modulo 2**32). A cut file does
    not, nor does one of several members: only then is the file inflated to find out.
    """
    if not _is_gzip(path):
        return
    with path.open("rb") as raw:
        raw.seek(-4, io.SEEK_END)
        promised = int.from_bytes(raw.read(4), "little")
    if promised != header.file_bytes % 2**32:
        with Stream(path, 1, header) as volumes:
            deque(volumes, maxlen=0)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as raw:
        return raw.read(2) == GZIP_MAGIC


def _short(path: Path, header: NiftiHeader, there: int) -> InputError:
    """Complain of a file with ``there`` bytes of data."""
    return InputError(
        f"ends after {there // header.volume_bytes} of the {header.volumes} volumes its header "
        "promises",
        where=path,
        remedy=DAMAGED,
    )


def _unreadable(path: Path, error: Exception) -> InputError:
    """Say in one line why a file could not be read."""
    if isinstance(error, igzip.BadGzipFile) and "Not a gzipped file" in str(error):
        # its first bytes were those of gzip, or it would not be inflated
        return InputError(
            "has bytes after the end of its gzip stream that are no gzip",
            where=path,
            remedy="they are not part of the scan: fetch or write the file again",
        )
    if isinstance(error, igzip.BadGzipFile | CORRUPT):
        return InputError(f"has a corrupt gzip stream ({error})", where=path, remedy=DAMAGED)
    if isinstance(error, EOFError):
        return InputError("is cut off: its gzip stream has no end", where=path, remedy=DAMAGED)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InputError(f"cannot be read ({reason})", where=path, remedy="check the path")
