"""Arrays behind an evaluation's numbers, in a run's `evaluation.zarr`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sherlock_data import contract
from sherlock_models.scoring.brain_scores import BrainScores
from sherlock_models.scoring.ceiling import Ceiling
from sherlock_models.scoring.heldout import MEASURED, NOISY, PREDICTED, Side, frames
from sherlock_models.scoring.stimulus_scores import StimulusScores, Table, shown_trs
from sherlock_models.writing import whole

if TYPE_CHECKING:
    from sherlock_models.run import Run

ARRAYS = "evaluation.zarr"


def gather(
    run: Run,
    test: Side,
    brain: Mapping[str, BrainScores],
    ceiling: Ceiling,
    movie: Table,
    units: NDArray[np.object_],
) -> xr.Dataset:
    """Gather what the page and later analyses need beside the table.

    Parameters
    ----------
    run : Run
    test : Side
    brain : mapping of BrainScores
        By predictor.
    ceiling : Ceiling
    movie : Table
    units : ndarray of str, (unit,)
        Label of every unit that was scored.

    Returns
    -------
    xarray.Dataset
        ``r``, ``p``, ``q``, ``significant (predictor, unit)``, ``ceiling_lower``,
        ``ceiling_upper (unit)``; of each stimulus its pictures at a few TRs (uint8) or its
        features at every held-out TR, original and decoded (``<name>_source``), and ``<name>_r``
        over time.
    """
    names = list(brain)
    arrays = xr.Dataset(
        {
            "r": (("predictor", "unit"), np.stack([brain[n].unit_r for n in names])),
            "p": (("predictor", "unit"), np.stack([brain[n].p for n in names])),
            "q": (("predictor", "unit"), np.stack([brain[n].q for n in names])),
            "significant": (("predictor", "unit"), np.stack([brain[n].significant for n in names])),
            "ceiling_lower": ("unit", ceiling.lower),
            "ceiling_upper": ("unit", ceiling.upper),
        },
        coords={
            "predictor": contract.strings("predictor", names),
            "unit": contract.strings("unit", units),
            "tr": ("tr", test.trs, {"long_name": "held-out stimulus TR, 0-based over all runs"}),
        },
        attrs={
            "run": str(run.path),
            "split": run.config.split,
            "created_by": contract.created_by(),
        },
    )
    for name, predictors in movie.items():
        arrays = arrays.merge(_stimulus_arrays(test, name, predictors), combine_attrs="override")
    return arrays


def _stimulus_arrays(test: Side, name: str, predictors: Mapping[str, StimulusScores]) -> xr.Dataset:
    """Gather the first subject's decoded stimulus, and r of every pixel or feature."""
    data, is_video = test.data, test.data.tables[name].is_video
    truth = data.stimulus_target(name, test.trs)
    values = {"original": truth}
    for key in (PREDICTED, NOISY, MEASURED, "mean-frame" if is_video else "mean"):
        decoded = predictors[key].decoded
        if decoded is not None:
            values[key] = decoded
    labels = contract.strings(f"{name}_source", list(values))
    r = {key: predictors[key].unit_r for key in (PREDICTED, MEASURED)}
    shape, dims = truth.shape[1:], tuple(f"{name}_{d}" for d in _dims(is_video))
    result = xr.Dataset(
        {f"{name}_r": ((f"{name}_brain", *dims), np.stack([v.reshape(shape) for v in r.values()]))},
        coords={
            f"{name}_source": labels,
            f"{name}_brain": contract.strings(f"{name}_brain", list(r)),
        },
    )
    if not is_video:
        stacked = np.stack(list(values.values()))
        return result.assign({name: ((f"{name}_source", "tr", *dims), stacked)})
    shown = shown_trs(test.trs)
    levels = np.stack([frames(data, name, v[shown]) for v in values.values()])
    stacked = levels.round().astype(np.uint8)
    picture = (f"{name}_source", "shown_tr", *(f"{name}_{d}" for d in ("height", "width", "rgb")))
    return result.assign({name: (picture, stacked)}).assign_coords(shown_tr=test.trs[shown])


def _dims(is_video: bool) -> tuple[str, ...]:
    return ("rgb", "height", "width") if is_video else ("feature",)


def write(path: Path, arrays: xr.Dataset) -> None:
    """Write the arrays beside the old ones, then change places."""
    with whole(path) as temporary, warnings.catch_warnings():
        # Zarr v3 has no final form for consolidated metadata yet
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        arrays.to_zarr(temporary, mode="w", zarr_format=3, consolidated=True)
