"""Ways to spoil a file of the example: each returns what a :class:`Case` does to its copy."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

Damage = Callable[[Path], object]


def together(*damages: Damage) -> Damage:
    """Do one after the other."""
    return lambda desk: [damage(desk) for damage in damages]


def written(name: str, content: str | bytes) -> Damage:
    """Replace (or make) a file."""

    def damage(desk: Path) -> None:
        path = desk / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def swapped(name: str, old: str, new: str) -> Damage:
    """Put other words into a text file, once; the old ones must be there."""

    def damage(desk: Path) -> None:
        text = (desk / name).read_text()
        if old not in text:
            raise ValueError(f"{name} does not say {old!r}")
        (desk / name).write_text(text.replace(old, new, 1))

    return damage


def removed(name: str) -> Damage:
    """Delete a file or a folder."""

    def damage(desk: Path) -> None:
        path = desk / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def folder(name: str) -> Damage:
    """Put an empty folder in a file's place."""

    def damage(desk: Path) -> None:
        (desk / name).unlink(missing_ok=True)
        (desk / name).mkdir(parents=True)

    return damage


def cut(name: str, share: float = 0.5) -> Damage:
    """Keep the first part of a file."""

    def damage(desk: Path) -> None:
        data = (desk / name).read_bytes()
        (desk / name).write_bytes(data[: int(len(data) * share)])

    return damage


def ended(name: str, words: str) -> Damage:
    """End a text file before some words."""
    return lambda desk: (desk / name).write_text((desk / name).read_text().split(words)[0] + "\n")


def flipped(name: str, at: int = -1) -> Damage:
    """Turn the bits of one byte round; the last by default."""

    def damage(desk: Path) -> None:
        data = bytearray((desk / name).read_bytes())
        data[at] ^= 0xFF
        (desk / name).write_bytes(data)

    return damage


def header(name: str, **fields: Any) -> Damage:
    """Set fields of a NIfTI-1 header as they lie in the file, whatever nibabel thinks of them."""

    def damage(desk: Path) -> None:
        def change(data: bytes) -> bytes:
            raw = nibabel.Nifti1Header(data[:348], check=False)
            for field, value in fields.items():
                raw[field] = value
            return raw.binaryblock + data[348:]

        _rewrite(desk / name, change)

    return damage


def inflated(name: str, change: Callable[[bytes], bytes]) -> Damage:
    """Change what a gzipped file holds."""
    return lambda desk: _rewrite(desk / name, change)


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    data = path.read_bytes()
    packed = data[:2] == b"\x1f\x8b"
    data = change(gzip.decompress(data) if packed else data)
    path.write_bytes(gzip.compress(data, 1) if packed else data)


def values(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Save an image again with other values, shape or type."""

    def damage(desk: Path) -> None:
        image = nibabel.load(desk / name)
        data = change(np.asarray(image.dataobj))
        zooms = (*image.header.get_zooms(), 1.0)[: data.ndim]
        fresh = nibabel.Nifti1Image(data, image.affine, dtype=data.dtype)
        fresh.header.set_zooms(zooms)
        fresh.header.set_xyzt_units("mm", "sec")
        nibabel.save(fresh, desk / name)

    return damage


def array(name: str, content: np.ndarray) -> Damage:
    """Save an array as `.npy`, objects (a pickle) too."""
    return lambda desk: np.save(desk / name, content, allow_pickle=True)


def changed_json(name: str, change: Callable[[Any], Any]) -> Damage:
    """Change a JSON document in place, or return another one."""

    def damage(desk: Path) -> None:
        document = json.loads((desk / name).read_text())
        other = change(document)
        (desk / name).write_text(json.dumps(document if other is None else other))

    return damage


def linked(name: str, target: str) -> Damage:
    """Put a symbolic link in a file's place."""

    def damage(desk: Path) -> None:
        path = desk / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return damage
