"""One store on disk: absent, resumable or complete, and never anything between.

A Zarr group cannot be opened without its root ``zarr.json``. A build therefore writes every array
first, then the manifest, and the root metadata last: one small object whose appearance *is* the
completion, on a disk as on S3. What a resumed build must know lies beside the store in
``<store>.zarr.build/``: the plan's identity and the small results of every finished part.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Iterable, Mapping
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
from sherlock_data.errors import StoreError
from sherlock_data.objects import ROOT, Recording, RootLast, place, read_bytes, write_bytes, written
from sherlock_data.plan import ArraySpec, Part, Results, StorePlan

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
    "complete",
    "fingerprint",
    "identity",
    "list_stores",
    "load_part",
    "open_array",
    "open_path",
    "open_store",
    "place",
    "read_bytes",
    "remove",
    "save_part",
    "state",
    "stored_view",
    "write_bytes",
]

MANIFEST = "manifest.json"
BUILD_SUFFIX = ".build"
_WRITTEN = "written"


def build_place(path: str | Path, read_only: bool = False) -> Store:
    """Where a build of ``path`` keeps what a resumed build must know."""
    return place(f"{path}{BUILD_SUFFIX}", read_only)


def state(path: str | Path) -> str:
    """Return ``"absent"``, ``"resumable"`` or ``"complete"``."""
    if not _may_exist(path):
        return "resumable" if _may_exist(f"{path}{BUILD_SUFFIX}") else "absent"
    if sync(place(path, read_only=True).exists(ROOT)):
        return "complete"
    return "resumable" if _may_exist(f"{path}{BUILD_SUFFIX}") else "absent"


def _may_exist(path: str | Path) -> bool:
    return "://" in str(path) or Path(path).is_dir()


def identity(plan: StorePlan) -> dict[str, Any]:
    """Return what makes two builds the same: recipe, clock, and inputs that did not change."""
    told_by = ("name", "bytes", "modified_ns", "sha256")
    inputs = [{key: item.get(key) for key in told_by} for item in plan.inputs]
    keys = ("recipe", "runs", "repetition_time_s", "lag_s", "space")
    return {**{key: plan.attrs.get(key) for key in keys}, "inputs": inputs}


def begin(plan: StorePlan) -> None:
    """Create the arrays of a plan, keeping what an earlier build of the same plan finished."""
    wanted = identity(plan)
    found = read_bytes(build_place(plan.path, read_only=True), "plan.json")
    if found is not None and json.loads(found) == wanted:
        return
    remove(plan.path)
    store = RootLast(place(plan.path), str(plan.path))
    for name, spec in plan.arrays.items():
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
    write_bytes(build_place(plan.path), "plan.json", json.dumps(wanted).encode())


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


def save_part(path: str | Path, name: str, results: Results) -> None:
    """Record that a part is done: its small results, and what was written meanwhile."""
    fresh = written.pop(str(path), {})
    keys = np.array(list(fresh), dtype=str)
    sums = np.array(list(fresh.values()), dtype=np.int64).reshape(-1, 2)
    results = {**results, f"{_WRITTEN}/keys": keys, f"{_WRITTEN}/sums": sums}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{k: np.asarray(v) for k, v in results.items()})
    write_bytes(build_place(path), f"{name}.npz", buffer.getvalue())


def load_part(path: str | Path, name: str) -> Results | None:
    """Small results of a finished part; None when it has not finished."""
    data = read_bytes(build_place(path, read_only=True), f"{name}.npz")
    if data is None:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def complete(plan: StorePlan, results: dict[str, Results], inputs: list[dict[str, Any]]) -> None:
    """Write the small variables, the manifest and, last of all, the root metadata."""
    small = plan.finish(results)
    dataset = xr.merge(
        [plan.coords, small], compat="no_conflicts", join="exact", combine_attrs="override"
    )
    dataset.attrs = {**plan.attrs, **small.attrs, "inputs": inputs, "problems": plan.problems}
    store = RootLast(place(plan.path), str(plan.path))
    zarr.open_group(store, mode="a", zarr_format=3)
    dataset.drop_vars([n for n in plan.arrays if n in dataset]).to_zarr(
        store, mode="a", consolidated=False, zarr_format=3
    )
    _name_coordinates(store, plan, dataset)
    with warnings.catch_warnings():
        # consolidated on purpose: plain xarray.open_zarr then needs one read
        warnings.filterwarnings("ignore", "Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(store, zarr_format=3)
    write_bytes(place(plan.path), MANIFEST, _manifest(plan.path, plan.parts).encode())
    sync(store.publish())
    _clear(build_place(plan.path))


def _name_coordinates(store: Store, plan: StorePlan, dataset: xr.Dataset) -> None:
    """Say by CF's ``coordinates`` attribute which small variables belong to a large array."""
    for name, spec in plan.arrays.items():
        own = [
            str(coord)
            for coord, variable in dataset.coords.items()
            if coord not in dataset.dims and set(variable.dims) <= set(spec.dims)
        ]
        if own:
            array = zarr.open_array(store, path=name, mode="r+", zarr_format=3)
            array.update_attributes({"coordinates": " ".join(sorted(own))})


def _manifest(path: str | Path, parts: Iterable[Part]) -> str:
    """Return every object of a store with its size and checksum; what ``verify`` holds it to."""
    objects: dict[str, tuple[int, int]] = {}
    for part in parts:
        saved = load_part(path, part.name) or {}
        sums = saved[f"{_WRITTEN}/sums"].tolist()
        objects |= dict(zip(saved[f"{_WRITTEN}/keys"].tolist(), sums, strict=True))
    objects |= written.pop(str(path), {})  # metadata written since is newer
    rows = {key: {"bytes": objects[key][0], "crc32c": objects[key][1]} for key in sorted(objects)}
    return json.dumps({"schema_version": contract.SCHEMA_VERSION, "objects": rows}, indent=0)


def bytes_on_disk(path: str | Path) -> int:
    """Size of a complete store's objects, from its manifest."""
    manifest = read_bytes(place(path, read_only=True), MANIFEST)
    if manifest is None:
        raise StoreError("no manifest", where=path, remedy="build it again with --overwrite")
    return sum(item["bytes"] for item in json.loads(manifest)["objects"].values())


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a complete store: of its root metadata and of every object's checksum."""
    store = place(path, read_only=True)
    parts = [read_bytes(store, key) or b"" for key in (ROOT, MANIFEST)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _clear(store: Store) -> None:
    if isinstance(store, LocalStore):
        if store.root.exists():
            shutil.rmtree(store.root)
    else:
        sync(store.delete_dir(""))


def remove(path: str | Path) -> None:
    """Delete a store, its completion first, and what a build left beside it."""
    if _may_exist(path):
        sync(place(path).delete(ROOT))
        _clear(place(path))
    if _may_exist(f"{path}{BUILD_SUFFIX}"):
        _clear(build_place(path))


def attributes(path: str | Path) -> dict[str, Any]:
    """Attributes of a complete store, read from its root metadata alone."""
    data = read_bytes(place(path, read_only=True), ROOT) if state(path) == "complete" else None
    if data is None:
        raise StoreError(
            "unfinished" if state(path) == "resumable" else "no store there",
            where=path,
            remedy="run sherlock-data build",
        )
    try:
        found: Mapping[str, Any] = json.loads(data)["attributes"]
    except (ValueError, KeyError, TypeError):
        raise StoreError(
            "its root metadata cannot be read", where=path, remedy="build it again with --overwrite"
        ) from None
    return dict(found)


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
    attrs = attributes(path)
    version = attrs.get("schema_version")
    if not isinstance(version, int) or version > contract.SCHEMA_VERSION:
        raise StoreError(
            f"schema version {version!r}, this package reads up to {contract.SCHEMA_VERSION}",
            where=path,
            remedy="upgrade sherlock-zoo or build the store again",
        )
    dataset: xr.Dataset = xr.open_zarr(
        place(path, read_only=True), consolidated=True, zarr_format=3, decode_timedelta=False
    )
    return dataset


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
            "no complete store in this folder", where=path, remedy="run sherlock-data build"
        )
    return xr.DataTree.from_dict({name: open_store(p) for name, p in stores.items()})


def list_stores(folder: str | Path) -> dict[str, str]:
    """Complete stores of a dataset's folder: name to path, sorted by name."""
    text = str(folder).rstrip("/")
    names: Iterable[str]
    if "://" in text:

        async def entries() -> list[str]:
            return [key async for key in place(text, read_only=True).list_dir("")]

        names = sync(entries())
    else:
        names = [p.name for p in Path(text).iterdir()] if Path(text).is_dir() else []
    paths = {n.removesuffix(contract.SUFFIX): f"{text}/{n}" for n in names if n.endswith(".zarr")}
    return {name: paths[name] for name in sorted(paths) if state(paths[name]) == "complete"}
