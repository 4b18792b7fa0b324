"""``parcels``: the mean series of every parcel of an atlas.

``bold (subject, time, parcel)`` is the mean over the parcel's voxels in the mask that have signal
in that subject (non-finite values left out). Parcels the mask leaves empty stay, as NaN, so that
every store of an atlas has the same parcels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sherlock_data import contract
from sherlock_data.atlas import Atlas, load_atlas
from sherlock_data.catalog import Catalog
from sherlock_data.errors import InputError, UnavailableError, did_you_mean
from sherlock_data.grid import Grid
from sherlock_data.recipes import ParcelsRecipe
from sherlock_data.representations import derived
from sherlock_data.representations.series import Units
from sherlock_data.scan import Scan
from sherlock_data.store import StorePlan


def plan(scan: Scan, recipe: ParcelsRecipe, out: Path, catalog: Catalog) -> StorePlan:
    """Plan a parcels store beside a complete volumes store.

    Parameters
    ----------
    scan : Scan
    recipe : ParcelsRecipe
        ``atlas`` None: the one the dataset names.
    out : Path
        The store; ``volumes.zarr`` lies beside it. While that is not complete, the plan knows
        sizes only (a dry run's).
    catalog : Catalog

    Raises
    ------
    UnavailableError
        If no atlas is named, it is in another space, or it cannot be fetched.
    InputError
        If the atlas's files are unusable or no parcel meets the mask.
    """
    name = recipe.atlas or catalog.dataset(scan.dataset).atlas
    if name is None:
        raise UnavailableError(
            f"dataset {scan.dataset} names no atlas",
            where=out.name,
            remedy=f"set `atlas:`; {did_you_mean('', catalog.atlases)}",
        )
    atlas = load_atlas(name, catalog.atlas(name))
    attrs = {**derived.attrs_of(scan, recipe, out), "atlas": name}
    labels = atlas.on_grid(scan.header.grid)
    if not derived.has_volumes(scan, out):
        return derived.estimated_plan(scan, out, attrs, "parcel", len(atlas.index))
    source = derived.Source.open(derived.volumes_path(out), recipe.mask, scan.raw)
    units, ijk = units_of(atlas, labels, source.mask, source.grid)
    counts = units.counts()
    if not counts.any():
        raise InputError(
            "no parcel meets the mask", where=f"atlas {name}", remedy="check the atlas and the mask"
        )
    attrs |= {"parcels_empty": int((counts == 0).sum()), "mask_voxels": int(source.mask.sum())}
    here = tuple(ijk.T)
    of_subject = [units.within(signal[here]) for signal in source.has_signal]
    plan = derived.series_plan(
        scan,
        out,
        attrs,
        source,
        "parcel",
        _coords(scan, source, atlas, labels, units, ijk, of_subject),
        of_subject,
        lambda results: xr.Dataset(),
        [*atlas.inputs, *derived.mask_inputs(scan, recipe.mask)],
        {"long_name": "mean BOLD of the parcel's voxels", "units": "1"},
    )
    plan.problems += _empty(name, atlas.label[counts == 0])
    return plan


def units_of(
    atlas: Atlas, labels: NDArray[np.int32], mask: NDArray[np.bool_], grid: Grid
) -> tuple[Units, NDArray[np.int64]]:
    """Voxels of each parcel within the mask.

    Parameters
    ----------
    atlas : Atlas
    labels : ndarray of int32, shape (x, y, z)
        The atlas on the grid.
    mask : ndarray of bool, shape (x, y, z)
    grid : Grid

    Returns
    -------
    units : Units
        In the atlas's order of parcels.
    ijk : ndarray of int64, shape (V, 3)
        Grid index of the units' voxels, in the same order.
    """
    ijk = np.argwhere(mask & (labels > 0))
    order = np.argsort(atlas.index)
    unit = order[np.searchsorted(atlas.index, labels[tuple(ijk.T)], sorter=order)]
    by_unit = np.argsort(unit, kind="stable")
    ijk = ijk[by_unit]
    return Units(grid.stored_index(ijk), unit[by_unit].astype(np.int64), len(atlas.index)), ijk


def _coords(
    scan: Scan,
    source: derived.Source,
    atlas: Atlas,
    labels: NDArray[np.int32],
    units: Units,
    ijk: NDArray[np.int64],
    of_subject: list[Units],
) -> xr.Dataset:
    """Everything about the parcels that is known before their series."""
    counts = units.counts()
    xyz = source.grid.millimetres(ijk)
    place = {}
    for axis, name in enumerate("xyz"):
        total = np.bincount(units.unit, weights=xyz[:, axis], minlength=units.size)
        centre = np.divide(total, counts, out=np.full(units.size, np.nan), where=counts > 0)
        place[name] = ("parcel", centre, {"units": "mm", "long_name": f"centroid, {name} (RAS+)"})
    n_signal = np.stack([own.counts() for own in of_subject]).astype(np.int32)
    return xr.Dataset(
        {
            "valid": (
                ("subject", "time"),
                source.valid,
                {"long_name": "neither missing nor constant"},
            ),
            "has_signal": (
                ("subject", "parcel"),
                n_signal > 0,
                {"long_name": "subject has signal"},
            ),
            "n_signal": (("subject", "parcel"), n_signal, {"long_name": "voxels with signal"}),
            "label": (
                ("i", "j", "k"),
                labels,
                {"long_name": "atlas_index at every voxel of the grid, 0 outside the atlas"},
            ),
        },
        coords={
            **derived.base_coords(scan, source.grid),
            "parcel": contract.strings("parcel", atlas.label, long_name="atlas label"),
            "network": contract.strings("parcel", atlas.network, long_name="network"),
            "hemisphere": contract.strings("parcel", atlas.hemisphere, long_name="hemisphere"),
            "atlas_index": ("parcel", atlas.index, {"long_name": "value in the atlas image"}),
            "n_voxels": ("parcel", counts.astype(np.int32), {"long_name": "voxels in the mask"}),
            **place,
        },
    )


def _empty(name: str, empty: NDArray[Any]) -> list[dict[str, str]]:
    if not len(empty):
        return []
    shown = ", ".join(str(label) for label in empty[:3]) + (", ..." if len(empty) > 3 else "")
    return [
        {
            "code": "parcels-empty",
            "where": f"atlas {name}",
            "message": f"{len(empty)} parcels have no voxel in the mask, kept as NaN: {shown}",
        }
    ]
