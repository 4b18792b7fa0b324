"""Scores of units put back where they lie: an image in the space of the run's brain store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sherlock_data import store
from sherlock_data.errors import StoreError

if TYPE_CHECKING:
    from sherlock_models.config import RunConfig


def brain_store(config: RunConfig) -> xr.Dataset:
    """Open the store of the units a run is judged in: its brain layer's, or voxels behind it."""
    name = config.voxel_store or config.brain
    return store.open_store(f"{config.data.rstrip('/')}/{name}.zarr")


def to_image(values: NDArray[Any], like: xr.Dataset) -> Any | None:
    """Turn one number per unit into an image; undefined units become 0.

    Parameters
    ----------
    values : ndarray, shape (U,)
        In the order of the brain layer's units.
    like : xarray.Dataset
        The brain store.

    Returns
    -------
    nibabel image or None
        None where the store does not say where its units lie (a series without an atlas image).
    """
    from sherlock_data.images import to_nifti

    dims = [str(dim) for dim in like["bold"].dims[2:]]
    shape = tuple(like.sizes[dim] for dim in dims)
    filled = np.nan_to_num(np.asarray(values, dtype=np.float32)).reshape(shape)
    try:
        return to_nifti(xr.DataArray(filled, dims=dims), like=like)
    except StoreError:  # no coordinates of a grid: then there is no map to draw
        return None
