"""The last steps of a build: small variables, records, manifest, and the root that completes it."""

from __future__ import annotations

import warnings
from typing import Any

import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.core.sync import sync

from sherlock_data.errors import StoreError
from sherlock_data.manifest import MANIFEST, Manifest
from sherlock_data.objects import (
    PARTIAL,
    RootLast,
    Sum,
    build_place,
    checksum,
    clear,
    delete_keys,
    list_keys,
    place,
    read_bytes,
    write_bytes,
    written,
)
from sherlock_data.parts import kept_key, load_part, sums_of
from sherlock_data.plan import Results, StorePlan


def complete(plan: StorePlan, results: dict[str, Results], inputs: list[dict[str, Any]]) -> None:
    """Write the small variables, the parts' records, the manifest and, last of all, the root."""
    small = plan.finish(results)
    dataset = xr.merge(
        [plan.coords, small], compat="no_conflicts", join="exact", combine_attrs="override"
    )
    dataset.attrs = {**plan.attrs, **small.attrs, "inputs": inputs, "problems": plan.problems}
    objects = _sweep(plan)
    written.pop((str(plan.path), ""), None)
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
    _keep_records(plan, store)
    objects |= written.pop((str(plan.path), ""))
    manifest = Manifest.of(store.root_bytes(), objects)
    write_bytes(place(plan.path), MANIFEST, manifest.encode())
    sync(store.publish())
    clear(build_place(plan.path))


def _sweep(plan: StorePlan) -> dict[str, Sum]:
    """Return what the parts wrote; delete what an earlier attempt at completion left besides."""
    objects: dict[str, Sum] = {}
    for part in plan.parts:
        record = load_part(plan.path, part.name)
        if record is None:
            raise StoreError(f"part {part.name} is missing", where=plan.path, remedy="build again")
        objects |= sums_of(record)
    store, leftover = place(plan.path), []
    for key in list_keys(store):
        if key in objects:
            continue
        if key.partition("/")[0] in plan.arrays and not key.endswith(PARTIAL):
            # metadata that an earlier process wrote; or a chunk whose writer no one knows, which
            # is then kept rather than lost
            objects[key] = checksum(read_bytes(store, key) or b"")
        else:
            leftover.append(key)
    delete_keys(store, leftover)
    return objects


def _keep_records(plan: StorePlan, store: RootLast) -> None:
    """Copy the parts' records into the store, so that a repair need not repeat whole parts."""
    beside = build_place(plan.path, read_only=True)
    for part in plan.parts:
        data = read_bytes(beside, f"{part.name}.npz")
        if data is not None:
            write_bytes(store, kept_key(part.name), data)


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
