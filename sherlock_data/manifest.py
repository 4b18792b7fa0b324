"""The manifest of a complete store: every object with its size and checksum.

It is written just before the root metadata, whose checksum it therefore holds too, and carries one
over itself. The store's attributes (recipe, clock, inputs) stand in it a second time, so that one
damaged file never hides what the store was made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zarr.abc.store import Store

from sherlock_data import contract
from sherlock_data.errors import StoreError
from sherlock_data.objects import ROOT, Sum, checksum, place, read_bytes

MANIFEST = "manifest.json"
#: when each input last changed; a side file that may be missing
TIMES = "input-times.json"


@dataclass(frozen=True)
class Manifest:
    """What a complete store is made of.

    Attributes
    ----------
    root : (int, int)
        Size and CRC-32C of the root metadata.
    objects : dict
        Key to size and CRC-32C of everything else but the manifest and the inputs' times.
    attributes : dict
        The store's own, a second time.
    """

    root: Sum
    objects: dict[str, Sum]
    attributes: dict[str, Any]

    @classmethod
    def of(cls, root: bytes, objects: dict[str, Sum]) -> Manifest:
        """Make the manifest of a store whose root metadata is about to be published."""
        return cls(checksum(root), objects, json.loads(root)["attributes"])

    def encode(self) -> bytes:
        """Serialise; equal manifests have equal bytes."""
        body = {
            "schema_version": contract.SCHEMA_VERSION,
            "attributes": self.attributes,
            "root": _row(self.root),
            "objects": {key: _row(self.objects[key]) for key in sorted(self.objects)},
        }
        own = checksum(json.dumps(body).encode())[1]
        return json.dumps({"crc32c": own, **body}, indent=0).encode()

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Parse a manifest, and check that not one of its bytes is another.

        Raises
        ------
        ValueError
            If one is.
        """
        try:
            document = json.loads(data)
            found = cls(
                _sum(document["root"]),
                {key: _sum(row) for key, row in document["objects"].items()},
                dict(document["attributes"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a manifest ({error})") from None
        if found.encode() != data:
            raise ValueError("its checksum differs")
        return found


def _row(item: Sum) -> dict[str, int]:
    return {"bytes": item[0], "crc32c": item[1]}


def _sum(row: Mapping[str, Any]) -> Sum:
    return int(row["bytes"]), int(row["crc32c"])


def read_manifest(store: Store) -> Manifest:
    """Read the manifest of a store.

    Raises
    ------
    ValueError
        If it is damaged.
    FileNotFoundError
        If there is none.
    """
    data = read_bytes(store, MANIFEST)
    if data is None:
        raise FileNotFoundError(MANIFEST)
    return Manifest.decode(data)


def bytes_on_disk(path: str | Path) -> int:
    """Size of a complete store's objects, from its manifest.

    Raises
    ------
    StoreError
        If the manifest is missing or damaged.
    """
    try:
        manifest = read_manifest(place(path, read_only=True))
    except (ValueError, FileNotFoundError):
        raise lost_manifest(path) from None
    return sum(size for size, _ in manifest.objects.values())


def lost_manifest(path: str | Path) -> StoreError:
    """Say that nothing tells what a store is made of."""
    return StoreError(
        "its manifest is missing or damaged",
        where=path,
        remedy="run sherlock-data build --repair",
    )


def fingerprint(path: str | Path, lag_s: float | None = None) -> str:
    """SHA-256 of a complete store: of its root metadata and of every object's checksum.

    ``lag_s``: as if that lag were recorded in it.
    """
    store = place(path, read_only=True)
    root, manifest = (read_bytes(store, key) or b"" for key in (ROOT, MANIFEST))
    if lag_s is not None:
        document, listed = json.loads(root), Manifest.decode(manifest)
        document["attributes"]["lag_s"] = lag_s
        # as zarr writes it
        root = json.dumps(document, indent=2).encode()
        manifest = Manifest.of(root, listed.objects).encode()
    return hashlib.sha256(root + manifest).hexdigest()
