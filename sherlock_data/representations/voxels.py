"""``voxels``: the series of every voxel of the mask, or of blocks of them.

``bold (subject, time, voxel)`` in the order of nilearn's ``NiftiMasker``: C order of (i, j, k).
With ``coarsen: n`` a unit is a block of n x n x n voxels, its value the mean over the block's
voxels in the mask that have signal in that subject.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sherlock_data import mask
from sherlock_data.catalog import Catalog
from sherlock_data.errors import StoreError
from sherlock_data.grid import Grid
from sherlock_data.recipes import VoxelsRecipe
from sherlock_data.representations import derived
from sherlock_data.representations.series import Units
from sherlock_data.scan import Scan
from sherlock_data.store import Results, StorePlan


def plan(scan: Scan, recipe: VoxelsRecipe, out: Path, catalog: Catalog) -> StorePlan:
    """Plan a voxels store beside a complete volumes store.

    Parameters
    ----------
    scan : Scan
    recipe : VoxelsRecipe
    out : Path
        The store; ``volumes.zarr`` lies beside it. While that is not complete, the plan knows
        sizes only (a dry run's).
    catalog : Catalog

    Raises
    ------
    InputError
        If the mask is empty or its file unusable.
    UnavailableError
        If the mask rule asks for a space that the grid does not lie in.
    """
    attrs = derived.attrs_of(scan, recipe, out)
    mask.check_space(scan.header.grid, recipe.mask)
    path = derived.volumes_path(out)
    if not derived.has_volumes(scan, out):
        size = derived.expected_voxels(scan.header.grid) // recipe.coarsen**3
        return derived.estimated_plan(scan, out, attrs, "voxel", max(1, size))
    source = derived.Source.open(path, recipe.mask, scan.raw)
    ijk = np.argwhere(source.mask)
    grid, cell, unit_of = coarsened(source.grid, ijk, recipe.coarsen)
    order = np.argsort(unit_of, kind="stable")
    units = Units(source.grid.stored_index(ijk[order]), unit_of[order], len(cell))
    here = tuple(ijk[order].T)
    signal = [source.has_signal[row][here] for row in range(len(scan.subjects))]
    of_subject = [units if recipe.coarsen == 1 else units.within(keep) for keep in signal]
    has_signal = np.stack(
        [np.bincount(units.unit, weights=keep, minlength=units.size) > 0 for keep in signal]
    )
    coords = xr.Dataset(
        {
            "valid": (
                ("subject", "time"),
                source.valid,
                {"long_name": "neither missing nor constant"},
            ),
            "has_signal": (("subject", "voxel"), has_signal, {"long_name": "subject has signal"}),
        },
        coords={**derived.base_coords(scan, grid), **voxel_coords(grid, cell)},
    )
    if recipe.coarsen > 1:
        coords["n_voxels"] = ("voxel", units.counts(), {"long_name": "voxels of the mask"})
    attrs["affine"] = grid.affine.tolist()
    attrs["mask_voxels"] = len(ijk)
    return derived.series_plan(
        scan,
        out,
        attrs,
        source,
        "voxel",
        coords,
        of_subject,
        lambda results: _statistics(scan, results),
        derived.mask_inputs(scan, recipe.mask),
        {"long_name": "BOLD, as recorded", "units": "1"},
    )


def voxel_coords(
    grid: Grid, ijk: NDArray[Any]
) -> dict[str, tuple[str, NDArray[Any], dict[str, str]]]:
    """Coordinates of the dim ``voxel``: grid index ``i j k`` (int32) and mm ``x y z`` (float64)."""
    xyz = grid.millimetres(ijk)
    index = {
        name: ("voxel", ijk[:, axis].astype(np.int32), {"long_name": f"grid index {name}, from 0"})
        for axis, name in enumerate("ijk")
    }
    place = {
        name: ("voxel", xyz[:, axis], {"units": "mm", "long_name": f"{name} (RAS+)"})
        for axis, name in enumerate("xyz")
    }
    return {**index, **place}


def coarsened(
    grid: Grid, ijk: NDArray[np.int64], factor: int
) -> tuple[Grid, NDArray[np.int64], NDArray[np.int64]]:
    """Blocks of ``factor`` voxels along every axis.

    Parameters
    ----------
    grid : Grid
    ijk : ndarray of int64, shape (V, 3)
        Voxels of the mask in C order.
    factor : int
        1: every voxel is a block.

    Returns
    -------
    grid : Grid
        Of the blocks.
    cell : ndarray of int64, shape (U, 3)
        Blocks that hold a voxel of the mask, in C order.
    unit : ndarray of int64, shape (V,)
        Block of each voxel.
    """
    if factor == 1:
        return grid, ijk, np.arange(len(ijk))
    cell, unit = np.unique(ijk // factor, axis=0, return_inverse=True)
    step = np.eye(4)
    step[:3, :3] *= factor
    step[:3, 3] = (factor - 1) / 2  # the centre of a block in units of voxels
    i, j, k = (-(-n // factor) for n in grid.shape)
    return Grid((i, j, k), grid.affine @ step, grid.space), cell, unit.reshape(-1)


def _statistics(scan: Scan, results: dict[str, Results]) -> xr.Dataset:
    """Stack every subject's mean and std, (subject, run, voxel)."""
    missing = [subject for subject in scan.subjects if subject not in results]
    if missing:
        raise StoreError(f"parts are missing: {', '.join(missing)}", remedy="build again")
    dims = ("subject", "run", "voxel")
    return xr.Dataset(
        {
            name: (
                dims,
                np.stack([results[subject][name] for subject in scan.subjects]),
                {"long_name": f"{name} over the run's valid TRs (descriptive only)"},
            )
            for name in ("mean", "std")
        }
    )
