"""The objects a store is made of: where they lie, and what is noted on their way there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import google_crc32c
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from sherlock_data.errors import StoreError

#: root metadata of a Zarr group; its appearance completes a store
ROOT = "zarr.json"


def place(path: str | Path, read_only: bool = False) -> Store:
    """Zarr's own store object for a local folder or an fsspec URL (``s3://...``)."""
    text = str(path)
    if "://" in text:
        return FsspecStore.from_url(text, read_only=read_only)
    return LocalStore(Path(text), read_only=read_only)


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


#: what this process wrote and no part has recorded yet: store -> key -> (bytes, CRC-32C)
written: dict[str, dict[str, tuple[int, int]]] = {}


class Recording(WrapperStore[Store]):
    """Notes size and CRC-32C of every object on its way to the disk."""

    def __init__(self, store: Store, path: str) -> None:
        super().__init__(store)
        self.path = path

    def _with_store(self, store: Store) -> Recording:
        return Recording(store, self.path)

    async def set(self, key: str, value: Buffer) -> None:
        """Write one object and note it."""
        await self._store.set(key, value)
        data = value.as_numpy_array()
        written.setdefault(self.path, {})[key] = (data.nbytes, google_crc32c.value(data))


class RootLast(Recording):
    """Holds the root metadata back in memory until :meth:`publish`."""

    def __init__(self, store: Store, path: str) -> None:
        super().__init__(store, path)
        self.root: Buffer | None = None

    def _with_store(self, store: Store) -> RootLast:
        other = RootLast(store, self.path)
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

    async def publish(self) -> None:
        """Let go of the root metadata: from here on the store is complete."""
        if self.root is None:
            raise StoreError("nothing to publish", where=str(self._store))
        await self._store.set(ROOT, self.root)
