"""Hold a complete store to its manifest: every object, its size, its checksum, and nothing else.

Objects are read in blocks by a few threads, so memory does not grow with a store or its chunks.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
from zarr.abc.store import RangeByteRequest, Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from sherlock_data import store as stores
from sherlock_data.contract import SUFFIX
from sherlock_data.errors import StoreError, or_beside
from sherlock_data.graph import Progress, Silent
from sherlock_data.manifest import MANIFEST, TIMES, read_manifest
from sherlock_data.objects import ROOT, Sum, list_keys, place, read_bytes
from sherlock_data.parts import KEPT, read_kept
from sherlock_data.remote import is_remote, plainly

THREADS = 4
BLOCK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Damage:
    """One object that is not as it was written.

    Attributes
    ----------
    key : str
        Its key in the store; empty for the store as a whole.
    problem : str
    """

    key: str
    problem: str

    def row(self, path: str) -> dict[str, Any]:
        """Return the contract's row: which array, which chunk."""
        array, chunk = _place(self.key)
        return {
            "store": Path(path).name.removesuffix(SUFFIX),
            "array": array,
            "chunk": chunk,
            "problem": self.problem,
            "path": path,
            "key": self.key,
        }


def _place(key: str) -> tuple[str | None, str | None]:
    """Array and chunk that a key belongs to; None where it belongs to none."""
    array, slash, rest = key.partition("/")
    if not slash or key.startswith(KEPT):
        return None, None
    if rest == "c" or rest.startswith("c/"):
        return array, rest.removeprefix("c").removeprefix("/")
    return array, None


def verify(
    paths: str | Path | Sequence[str | Path], progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Verify stores, or every store of a dataset's folder.

    Parameters
    ----------
    paths : path, URL, or a sequence of them
    progress : Progress, optional

    Returns
    -------
    list of dict
        One row per damaged, missing or foreign object: ``store``, ``array`` (None: the store's own
        metadata or records), ``chunk`` (its index, ``"0/3/0"``; None: metadata), ``problem``;
        also ``path`` of the store and ``key`` of the object. Empty: everything is as written.

    Raises
    ------
    StoreError
        If there is no store.
    """
    progress = progress or Silent()
    rows = []
    for path in find(paths):
        rows += [damage.row(path) for damage in examine(path, progress)]
    return rows


def find(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the stores that paths name, unfinished ones too.

    Raises
    ------
    StoreError
        If a path is no store and holds none.
    """
    found: list[str] = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        text = str(path).rstrip("/")
        if not text.endswith(SUFFIX):
            inside = list(stores.list_folder(text).values())
        else:
            inside = [text] if _is_there(text) else []
        if not inside:
            raise StoreError(
                "no store there", where=path, remedy=or_beside(path, "run sherlock-data build")
            )
        found += inside
    return list(dict.fromkeys(found))


def _is_there(path: str) -> bool:
    if not is_remote(path):
        return Path(path).is_dir()
    with plainly(path):
        return stores.state(path) != "absent" or bool(list_keys(place(path, read_only=True)))


def examine(path: str | Path, progress: Progress | None = None) -> list[Damage]:
    """Compare every object of one store with the manifest.

    Where the manifest itself is damaged, the parts' own records say what they wrote.

    Parameters
    ----------
    path : path or URL
    progress : Progress, optional

    Returns
    -------
    list of Damage
        Sorted by key.
    """
    progress = progress or Silent()
    if stores.state(path) == "resumable":
        return [Damage("", "unfinished; sherlock-data build resumes it")]
    store = place(path, read_only=True)
    keys = set(list_keys(store))
    expected, found = _expected(store, keys)
    found += [Damage(key, "missing") for key in expected.keys() - keys]
    if not any(damage.key == MANIFEST for damage in found):
        known = {*expected, MANIFEST, TIMES}
        found += [Damage(key, "foreign: not written by the build") for key in keys - known]
    there = [(key, wanted) for key, wanted in sorted(expected.items()) if key in keys]
    name = Path(str(path)).name.removesuffix(SUFFIX)
    meter = _Meter(name, progress, sum(size for _, (size, _) in there))
    try:
        with ThreadPoolExecutor(THREADS, thread_name_prefix="verify") as pool:
            problems = pool.map(lambda item: _problem(store, item[0], item[1], meter.add), there)
            pairs = zip(there, problems, strict=True)
            found += [Damage(key, problem) for (key, _), problem in pairs if problem]
    finally:
        progress.end(name)
    return sorted(found, key=lambda damage: damage.key)


def _expected(store: Store, keys: set[str]) -> tuple[dict[str, Sum], list[Damage]]:
    """Return what must be there, and what is wrong with the files that say so."""
    try:
        manifest = read_manifest(store)
        return {**manifest.objects, ROOT: manifest.root}, []
    except FileNotFoundError:
        found = [Damage(MANIFEST, "missing")]
    except ValueError as error:
        found = [Damage(MANIFEST, f"damaged: {error}")]
    if not _parses(read_bytes(store, ROOT)):
        found.append(Damage(ROOT, "damaged: not JSON" if ROOT in keys else "missing"))
    expected: dict[str, Sum] = {}
    for key in keys:
        if key.startswith(KEPT) and key.endswith(".npz"):
            kept = read_kept(store, key.removeprefix(KEPT).removesuffix(".npz"))
            if kept is None:
                found.append(Damage(key, "damaged: not an archive"))
            else:
                expected |= kept[1]
    return expected, found


def _parses(data: bytes | None) -> bool:
    try:
        return isinstance(json.loads(data or b""), dict)
    except ValueError:
        return False


def _problem(store: Store, key: str, wanted: Sum, report: Callable[[int], None]) -> str | None:
    """Return what is wrong with one object; None: nothing."""
    size, crc = wanted
    try:
        found = sync(store.getsize(key))
        if found != size:
            report(size)
            return f"{found} bytes, {size} were written"
        running = 0
        for start in range(0, size, BLOCK_BYTES):
            span = RangeByteRequest(start, min(start + BLOCK_BYTES, size))
            block = sync(store.get(key, default_buffer_prototype(), span))
            if block is None:
                return "missing"
            data = block.as_numpy_array()
            running = google_crc32c.extend(running, data)
            report(data.nbytes)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None if running == crc else "checksum differs"


class _Meter:
    """Adds up the bytes that threads have read."""

    def __init__(self, name: str, progress: Progress, total: int) -> None:
        self.name, self.progress = name, progress
        self.done = 0
        self.lock = threading.Lock()
        progress.start(name, total, 0)

    def add(self, count: int) -> None:
        """Count bytes."""
        with self.lock:
            self.done += count
            self.progress.update(self.name, self.done)
