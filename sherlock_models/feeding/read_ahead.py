"""The disk is asked for what will be read soon, so that it arrives before it is wanted.

A chunk that is read out of the middle of a shard comes in pieces of the system's usual read-ahead,
one after the other; asked for in one go, the same bytes come in half the time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore


class ReadAhead:
    """Hints for one array ``(subject, time, ...)`` on a local disk; elsewhere there are none.

    Parameters
    ----------
    array : zarr.Array
        A file holds one subject's TRs, chunk behind chunk.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array = array
        self._trs = (array.shards or array.chunks)[1]
        self._folder = _folder(array)

    def expect(self, subject: int, start: int, stop: int) -> None:
        """Ask for TRs from `start` to before `stop`, which will be read soon.

        Only a hint: chunks of a shard are taken to be of one size, and a file that is not there is
        left for the reader to find.
        """
        if self._folder is None:
            return
        for shard in range(start // self._trs, (stop - 1) // self._trs + 1):
            first = shard * self._trs
            share = [min(max(tr - first, 0), self._trs) / self._trs for tr in (start, stop)]
            rest = (0,) * (self._array.ndim - 2)
            key = self._array.metadata.encode_chunk_key((subject, shard, *rest))
            _ask(self._folder / key, *share)


def _folder(array: zarr.Array[Any]) -> Path | None:
    """Folder of an array's files, where the system takes hints about them."""
    place = array.store_path.store
    if not isinstance(place, LocalStore) or not hasattr(os, "posix_fadvise"):
        return None
    block = (array.shards or array.chunks)[2:]
    whole = tuple(block) == tuple(array.shape[2:]) and (array.shards or array.chunks)[0] == 1
    return place.root / array.store_path.path if whole else None


def _ask(path: Path, first: float, last: float) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(handle).st_size
        begin = int(first * size)
        os.posix_fadvise(handle, begin, int(last * size) - begin, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(handle)
