"""One store on disk: absent, resumable or complete, and never anything between.

A Zarr group cannot be opened without its root ``zarr.json``. A build therefore writes every array
first, then the manifest, and the root metadata last: one small object whose appearance *is* the
completion, on a disk as on S3. What a resumed build must know lies beside the store in
``<store>.zarr.build/``: the plan's identity and the record of every finished part.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.core.array import AsyncArray
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import sync
from zarr.storage import LocalStore

from sherlock_data import contract
from sherlock_data.completion import complete
from sherlock_data.damage import check_present, reading, unreadable
from sherlock_data.errors import SherlockError, StoreError, or_beside
from sherlock_data.manifest import bytes_on_disk, fingerprint
from sherlock_data.objects import (
    BUILD_SUFFIX,
    PARTIAL,
    ROOT,
    Recording,
    RootLast,
    build_place,
    clear,
    delete_keys,
    list_keys,
    place,
    read_bytes,
    write_bytes,
)
from sherlock_data.parts import load_part, run_part, save_part
from sherlock_data.plan import ArraySpec, Part, Results, StorePlan
from sherlock_data.remote import is_remote, plainly

_LOG = logging.getLogger(__name__)

__all__ = [
    "ROOT",
    "ArraySpec",
    "Part",
    "Results",
    "StorePlan",
    "attributes",
    "begin",
    "build_place",
    "bytes_on_disk",
    "check_present",
    "complete",
    "described",
    "fingerprint",
    "identity",
    "list_folder",
    "list_stores",
    "load_part",
    "open_array",
    "open_path",
    "open_store",
    "place",
    "read_bytes",
    "reading",
    "remove",
    "run_part",
    "save_part",
    "state",
    "stored_view",
    "tidy",
    "write_bytes",
]

#: attributes that readers of a store rely on, and what each is
NEEDED: dict[str, type | tuple[type, ...]] = {
    "dataset": str,
    "space": str,
    "repetition_time_s": (int, float),
    "lag_s": (int, float),
}


def state(path: str | Path) -> str:
    """Return ``"absent"``, ``"resumable"`` or ``"complete"``."""
    with plainly(path):
        if _may_exist(path) and sync(place(path, read_only=True).exists(ROOT)):
            return "complete"
        return "resumable" if _is_begun(path) else "absent"


def _may_exist(path: str | Path) -> bool:
    return is_remote(path) or Path(path).is_dir()


def _is_begun(path: str | Path) -> bool:
    """Whether a build has left something beside a store."""
    beside = f"{path}{BUILD_SUFFIX}"
    if not is_remote(path):
        return Path(beside).is_dir()
    return bool(list_keys(place(beside, read_only=True)))


def identity(plan: StorePlan) -> dict[str, Any]:
    """Return what makes two builds the same: recipe, clock, and inputs that did not change."""
    told_by = ("name", "bytes", "modified_ns", "sha256")
    inputs = [{key: item.get(key) for key in told_by} for item in plan.inputs]
    keys = ("recipe", "runs", "repetition_time_s", "space", "fitted_on")
    return {**{key: plan.attrs.get(key) for key in keys}, "inputs": inputs}


def begin(plan: StorePlan) -> None:
    """Create the arrays of a plan, keeping what an earlier build of the same plan finished."""
    wanted = identity(plan)
    resumed = _identity_of(plan.path) == wanted
    if resumed:
        _drop_partial(place(plan.path))
    else:
        remove(plan.path)
    store = RootLast(place(plan.path), str(plan.path))
    for name, spec in plan.arrays.items():
        if resumed and sync(store.exists(f"{name}/{ROOT}")):
            continue
        zarr.create_array(
            store,
            name=name,
            shape=spec.shape,
            chunks=spec.chunks,
            shards=spec.shards,
            dtype=spec.dtype,
            fill_value=spec.fill_value,
            dimension_names=spec.dims,
            attributes=spec.attrs,
            filters=_filters(spec),
            compressors=contract.compressors(np.dtype(spec.dtype).itemsize),
        )
    if not resumed:
        write_bytes(build_place(plan.path), "plan.json", json.dumps(wanted).encode())


def _identity_of(path: str | Path) -> Any:
    """Identity of the plan that an unfinished build follows; None where there is none."""
    found = read_bytes(build_place(path, read_only=True), "plan.json")
    try:
        return None if found is None else json.loads(found)
    except ValueError:  # damaged: the build starts anew
        return None


def _drop_partial(store: Store) -> None:
    """Delete what a killed writer had not finished."""
    delete_keys(store, [key for key in list_keys(store) if key.endswith(PARTIAL)])


def _filters(spec: ArraySpec) -> list[Any]:
    if spec.stored_order is None:
        return []
    return [zarr.codecs.TransposeCodec(order=spec.stored_order)]


def open_array(path: str | Path, name: str, mode: str = "r+") -> zarr.Array[Any]:
    """Open one array of a store, finished or not; what is written through it is recorded."""
    store = place(path, read_only=True) if mode == "r" else Recording(place(path), str(path))
    return zarr.open_array(
        store,
        path=name,
        mode="r" if mode == "r" else "r+",
        zarr_format=3,
        # a chunk of fill values is written too: a missing one is then always damage, and no
        # chunk is compared with the fill value first
        config={"write_empty_chunks": True},
    )


def stored_view(path: str | Path, name: str, mode: str = "r") -> zarr.Array[Any]:
    """Return the same chunks in their order on disk, so that no byte is turned round.

    Raises
    ------
    StoreError
        If a moved axis has more than one chunk (its keys would then differ).
    """
    array = open_array(path, name, mode)
    meta = json.loads(json.dumps(array.metadata.to_dict()))
    first = meta["codecs"][0]
    if first["name"] != "transpose":
        return array
    order = first["configuration"]["order"]
    chunks = meta["chunk_grid"]["configuration"]["chunk_shape"]
    moved = [axis for axis, source in enumerate(order) if axis != source]
    if any(chunks[order[axis]] < meta["shape"][order[axis]] for axis in moved):
        raise StoreError("a transposed axis is split into chunks", where=f"{path}/{name}")
    meta["shape"] = [meta["shape"][axis] for axis in order]
    meta["chunk_grid"]["configuration"]["chunk_shape"] = [chunks[axis] for axis in order]
    meta["dimension_names"] = [meta["dimension_names"][axis] for axis in order]
    meta["codecs"] = meta["codecs"][1:]
    metadata = ArrayV3Metadata.from_dict(meta)
    return zarr.Array(
        AsyncArray(metadata=metadata, store_path=array.store_path, config=array.config)
    )


def remove(path: str | Path) -> None:
    """Delete a store, its completion first, and what a build left beside it."""
    if _may_exist(path):
        sync(place(path).delete(ROOT))
        clear(place(path))
    if _is_begun(path):
        clear(build_place(path))


def tidy(path: str | Path) -> None:
    """Delete what a build that was killed just after completion left; a store stays as it is."""
    if state(path) != "complete":
        return
    if _is_begun(path):
        clear(build_place(path))
    if isinstance(store := place(path), LocalStore):
        for partial in store.root.glob(f"*{PARTIAL}"):
            partial.unlink(missing_ok=True)


def attributes(path: str | Path) -> dict[str, Any]:
    """Attributes of a complete store, read from its root metadata alone."""
    data = read_bytes(place(path, read_only=True), ROOT) if state(path) == "complete" else None
    if data is None:
        raise StoreError(
            "unfinished" if state(path) == "resumable" else "no store there",
            where=path,
            remedy=or_beside(path, "run sherlock-data build"),
        )
    try:
        found = json.loads(data)["attributes"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise unreadable(path) from None
    if not isinstance(found, dict):
        raise unreadable(path)
    return found


def described(path: str | Path) -> dict[str, Any]:
    """Attributes of a complete store, with those that readers rely on.

    Raises
    ------
    StoreError
        If there is no store, or it does not say whose it is, or when and where.
    """
    found = attributes(path)
    for name, kind in NEEDED.items():
        if not isinstance(found.get(name), kind) or isinstance(found[name], bool):
            raise StoreError(
                f"its attribute '{name}' is {found.get(name)!r}",
                where=path,
                remedy="run sherlock-data verify, then build with --repair (or --overwrite)",
            )
    return found


def open_store(path: str | Path) -> xr.Dataset:
    """Open one complete store lazily.

    Parameters
    ----------
    path : path or URL
        ``STORES/<dataset>/<store>.zarr``.

    Returns
    -------
    xarray.Dataset
        Nothing but metadata and the indexes is read.

    Raises
    ------
    StoreError
        If there is no store, it is unfinished, or its schema is newer than this package.
    """
    _LOG.debug("opening %s", path)
    attrs = attributes(path)
    version = attrs.get("schema_version")
    if type(version) is not int or not 1 <= version <= contract.SCHEMA_VERSION:
        raise StoreError(
            f"schema version {version!r}, this package reads up to {contract.SCHEMA_VERSION}",
            where=path,
            remedy="upgrade sherlock-zoo or build the store again",
        )
    try:
        with plainly(path):
            return _lazily(place(path, read_only=True))
    except (SherlockError, PermissionError):
        raise
    except Exception as error:
        raise unreadable(path) from error


def _lazily(store: Store) -> xr.Dataset:
    """Open the data as dask arrays, and labels as arrays that are read when they are looked at.

    xarray groups by no label that is a dask array: ``groupby("network")`` would be refused.
    """
    how: dict[str, Any] = {"consolidated": True, "zarr_format": 3, "decode_timedelta": False}
    dataset: xr.Dataset = xr.open_zarr(store, **how)
    labels = xr.open_zarr(store, chunks=None, **how)
    names = [name for name in dataset.coords if name not in dataset.indexes]
    return dataset.assign_coords({name: labels[name].variable for name in names})


def open_path(path: str | Path) -> xr.Dataset | xr.DataTree:
    """Open a store as a Dataset, or a dataset's folder as a DataTree of its complete stores.

    Parameters
    ----------
    path : path or URL
        A ``.zarr`` store, or the folder that holds some.

    Raises
    ------
    StoreError
        If there is nothing complete to open.
    """
    if str(path).rstrip("/").endswith(contract.SUFFIX):
        return open_store(path)
    stores = list_stores(path)
    if not stores:
        raise StoreError(
            "no complete store in this folder",
            where=path,
            remedy=or_beside(path, "run sherlock-data build"),
        )
    return xr.DataTree.from_dict({name: open_store(p) for name, p in stores.items()})


def list_stores(folder: str | Path) -> dict[str, str]:
    """Complete stores of a dataset's folder: name to path, sorted by name."""
    return {name: path for name, path in list_folder(folder).items() if state(path) == "complete"}


def list_folder(folder: str | Path) -> dict[str, str]:
    """Everything in a dataset's folder that is called a store, finished or not."""
    text = str(folder).rstrip("/")
    names: Iterable[str]
    if is_remote(text):

        async def entries() -> list[str]:
            return [key async for key in place(text, read_only=True).list_dir("")]

        with plainly(text):
            names = sync(entries())
    else:
        names = [p.name for p in Path(text).iterdir()] if Path(text).is_dir() else []
    stores = sorted(name for name in names if name.endswith(contract.SUFFIX))
    return {name.removesuffix(contract.SUFFIX): f"{text}/{name}" for name in stores}
