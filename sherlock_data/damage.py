"""Damage that shows when a store is read, as one line; `verify` looks for all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sherlock_data.errors import StoreError
from sherlock_data.manifest import lost_manifest, read_manifest
from sherlock_data.objects import list_keys, place

_REMEDY = "run sherlock-data verify, then build with --repair (or --overwrite)"


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Say in one line that what is read is damaged.

    Raises
    ------
    StoreError
        Where zarr finds a checksum that differs.
    """
    try:
        yield
    except ValueError as error:
        if "checksum" not in str(error):
            raise
        raise StoreError("is damaged: a checksum differs", where=path, remedy=_REMEDY) from error


def unreadable(path: str | Path) -> StoreError:
    """Say that a store's metadata are no metadata."""
    return StoreError("its metadata cannot be read", where=path, remedy=_REMEDY)


def check_present(path: str | Path) -> None:
    """Refuse a store that has lost objects: in their place zarr reads fill values, in silence.

    Names alone are compared. A store without a manifest was not written by `build`, and may leave
    out chunks of fill values.

    Raises
    ------
    StoreError
        If an object is missing, or the manifest is damaged.
    """
    store = place(path, read_only=True)
    try:
        lost = sorted(set(read_manifest(store).objects) - set(list_keys(store)))
    except FileNotFoundError:
        return
    except ValueError:
        raise lost_manifest(path) from None
    if lost:
        what = f"is damaged: {len(lost)} objects are missing, the first is {lost[0]}"
        raise StoreError(what, where=path, remedy=_REMEDY)
