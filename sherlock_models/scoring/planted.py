"""Which planted regions an evaluation found, and what it found where nothing is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from sherlock_data.errors import InputError, or_beside
from sherlock_models.scoring.heldout import PREDICTED

#: modalities in the order they are shown; ``none`` answers to nothing
MODALITIES = ("video", "audio", "both", "none")


@dataclass(frozen=True)
class Planted:
    """Parcels of one planted modality.

    Attributes
    ----------
    modality : str
    total : int
        Parcels that were planted and tested.
    found : int
        Of these, with a held-out r above the null at the FDR. In ``none`` each is a false alarm.
    r : float
        Mean held-out r.
    ceiling : float
        Mean planted inter-subject correlation.
    """

    modality: str
    total: int
    found: int
    r: float
    ceiling: float


def load_truth(path: Path) -> xr.Dataset:
    """Open a `truth.zarr` that `sherlock-data synth` wrote.

    Raises
    ------
    InputError
        If it is not there, or says nothing of the parcels' modality.
    """
    remedy = or_beside(path, "give the truth.zarr that sherlock-data synth wrote")
    try:
        truth: xr.Dataset = xr.open_zarr(path)
    except (OSError, ValueError) as error:  # what xarray and zarr raise for a missing store
        raise InputError("no planted truth", where=path, remedy=remedy) from error
    if not {"modality", "ceiling"} <= set(truth.data_vars):
        raise InputError("says nothing of the parcels' modality", where=path, remedy=remedy)
    return truth


def found(arrays: xr.Dataset, truth: xr.Dataset, predictor: str = PREDICTED) -> list[Planted]:
    """Compare significant held-out r with what was planted, parcel by parcel.

    Parameters
    ----------
    arrays : xarray.Dataset
        `evaluation.zarr`: `r`, `significant`, `p (predictor, unit)`.
    truth : xarray.Dataset
        `modality`, `ceiling (parcel)`.
    predictor : str

    Returns
    -------
    list of Planted
        One for each modality planted, in the order of ``MODALITIES``.

    Raises
    ------
    InputError
        If no unit of the run is a planted parcel.
    """
    place = {str(name): row for row, name in enumerate(truth["parcel"].values)}
    names = [str(name) for name in arrays["unit"].values]
    one = arrays.isel(predictor=[str(p) for p in arrays["predictor"].values].index(predictor))
    tested = np.isfinite(one["p"].values) & np.array([name in place for name in names])
    if not tested.any():
        raise InputError(
            "no unit of the run is a planted parcel",
            where="truth.zarr",
            remedy="evaluate a run whose brain layer is the parcels of the same dataset",
        )
    rows = [place[name] for name, keep in zip(names, tested, strict=True) if keep]
    modality = np.array([str(name) for name in truth["modality"].values])[rows]
    ceiling = truth["ceiling"].values[rows]
    r, significant = one["r"].values[tested], one["significant"].values[tested].astype(bool)
    return [
        Planted(
            modality=name,
            total=int(mine.sum()),
            found=int(significant[mine].sum()),
            r=float(r[mine].mean()),
            ceiling=float(ceiling[mine].mean()),
        )
        for name in MODALITIES
        if (mine := modality == name).any()
    ]
