"""The objects a store is made of: where they lie, and what is noted on their way there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import google_crc32c
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, WrapperStore

from sherlock_data.errors import StoreError
from sherlock_data.remote import is_remote, object_store

#: root metadata of a Zarr group; its appearance completes a store
ROOT = "zarr.json"
BUILD_SUFFIX = ".build"
#: how zarr's local store calls a file that it has not finished writing
PARTIAL = ".partial"

#: size and CRC-32C of one object
Sum = tuple[int, int]


def place(path: str | Path, read_only: bool = False) -> Store:
    """Zarr's own store object for a local folder or an fsspec URL (``s3://...``)."""
    if is_remote(path):
        return object_store(str(path), read_only)
    return LocalStore(Path(path), read_only=read_only)


def build_place(path: str | Path, read_only: bool = False) -> Store:
    """Where a build of ``path`` keeps what a resumed build must know."""
    return place(f"{path}{BUILD_SUFFIX}", read_only)


def list_keys(store: Store) -> list[str]:
    """Every key of a store, sorted."""

    async def collect() -> list[str]:
        return sorted([key async for key in store.list_prefix("")])

    return sync(collect())


def delete_keys(store: Store, keys: Iterable[str]) -> None:
    """Delete objects, and on a disk every empty folder (zarr takes those for broken arrays)."""
    for key in keys:
        sync(store.delete(key))
    if isinstance(store, LocalStore):
        for folder, _, _ in os.walk(store.root, topdown=False):
            if folder != str(store.root):
                with suppress(OSError):  # not empty
                    Path(folder).rmdir()


def clear(store: Store) -> None:
    """Delete everything in a store, its folder too."""
    if isinstance(store, LocalStore):
        if store.root.exists():
            shutil.rmtree(store.root)
    else:
        sync(store.delete_dir(""))


def read_bytes(store: Store, key: str) -> bytes | None:
    """Content of one key, or None where there is none."""
    try:
        buffer = sync(store.get(key, default_buffer_prototype()))
    except FileNotFoundError:  # a read-only local store whose folder does not exist
        return None
    return None if buffer is None else buffer.to_bytes()


def write_bytes(store: Store, key: str, data: bytes) -> None:
    """Write one key at once (the local store renames a finished file into place)."""
    sync(store.set(key, default_buffer_prototype().buffer.from_bytes(data)))


def checksum(data: Any) -> Sum:
    """Size and CRC-32C of an object's bytes."""
    view = memoryview(data)
    return view.nbytes, google_crc32c.value(data)


#: what this process wrote and no one has recorded yet: (store, part) -> key -> size and CRC-32C
written: dict[tuple[str, str], dict[str, Sum]] = {}
_part: ContextVar[str] = ContextVar("part", default="")


@contextmanager
def writing_part(path: str, name: str) -> Iterator[None]:
    """Note what is written through stores opened in this thread as the work of one part."""
    written.pop((path, name), None)  # of an attempt that failed
    token = _part.set(name)
    try:
        yield
    finally:
        _part.reset(token)


class Recording(WrapperStore[Store]):
    """Notes size and CRC-32C of every object on its way to the disk.

    ``part`` is the one that opens the store, whichever of its threads writes later.
    """

    def __init__(self, store: Store, path: str, part: str | None = None) -> None:
        super().__init__(store)
        self.path = path
        self.part = _part.get() if part is None else part

    def _with_store(self, store: Store) -> Recording:
        return Recording(store, self.path, self.part)

    async def set(self, key: str, value: Buffer) -> None:
        """Write one object and note it."""
        await self._store.set(key, value)
        written.setdefault((self.path, self.part), {})[key] = checksum(value.as_numpy_array())


class RootLast(Recording):
    """Holds the root metadata back in memory until :meth:`publish`."""

    def __init__(self, store: Store, path: str, part: str | None = None) -> None:
        super().__init__(store, path, part)
        self.root: Buffer | None = None

    def _with_store(self, store: Store) -> RootLast:
        other = RootLast(store, self.path, self.part)
        other.root = self.root
        return other

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Buffer | None:
        """Read one object, the root from memory."""
        if key == ROOT:
            return self.root
        return await self._store.get(key, prototype or default_buffer_prototype(), byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        """Write one object, the root to memory."""
        if key == ROOT:
            self.root = value
        else:
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write one object unless it is there."""
        if not await self.exists(key):
            await self.set(key, value)

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return self.root is not None if key == ROOT else await self._store.exists(key)

    def root_bytes(self) -> bytes:
        """Root metadata that is about to be published."""
        if self.root is None:
            raise StoreError("nothing to publish", where=str(self._store))
        return self.root.to_bytes()

    async def publish(self) -> None:
        """Let go of the root metadata: from here on the store is complete."""
        data = default_buffer_prototype().buffer.from_bytes(self.root_bytes())
        await self._store.set(ROOT, data)
