"""Whether what was learned of the brain is what was planted: its lag and its weights.

Legend: T = TRs of the scan, t = TRs, U = units, P = parcels, F = planted tracks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from sherlock_models.scoring.baselines import DelayedRidge
from sherlock_models.scoring.brain_scores import group_brain
from sherlock_models.scoring.heldout import Reader, Side
from sherlock_models.scoring.scores import BoolArray, FloatArray, nan_mean
from sherlock_models.scoring.space import UnitSpace

if TYPE_CHECKING:
    from sherlock_models.feeding.dataset import MovieBrainData

#: lags that are tried, in TRs between a picture and the brain's answer
LAGS_TRS = tuple(range(9))


def lag_scores(data: MovieBrainData, lags: tuple[int, ...] = LAGS_TRS) -> FloatArray:
    """How well a ridge of one delay foretells the mean brain at every lag.

    Parameters
    ----------
    data : MovieBrainData
        Its training TRs alone are read: they are cross-validated within themselves.
    lags : tuple of int
        TRs between stimulus and brain, counted anew: the catalogue's own lag is undone.

    Returns
    -------
    ndarray of float64, (lags,)
        R² of the best penalty, the mean over units.
    """
    train = Side.of(data, "train")
    brain = group_brain(train, UnitSpace(data))
    known = np.isfinite(brain).any(axis=1)
    units = np.isfinite(brain[known]).all(axis=0)
    brain = np.ascontiguousarray(brain[known][:, units])
    present = np.logical_and.reduce([table.present for table in data.tables.values()])
    features = [
        _compact(data.stimulus_target(name, data.clock.tr()), present) for name in data.tables
    ]
    found = []
    for lag in lags:
        model = DelayedRidge(data.clock, (lag - data.lag_trs,))
        model.fit(features, present, train.trs[known], brain)
        found.append(float(nan_mean(model.ridge.cv_scores_)))
    return np.array(found)


def lag_found_s(data: MovieBrainData) -> float:
    """Lag in seconds at which the stimulus foretells the training brains best."""
    best = LAGS_TRS[int(np.argmax(lag_scores(data)))]
    return best * data.clock.repetition_time_s


def _compact(values: ArrayLike, present: BoolArray) -> NDArray[np.float32]:
    """Turn a stimulus (T, ...) into at most T features (T, f) with the same inner products."""
    flat = np.asarray(values, dtype=np.float32).reshape(len(present), -1)
    if flat.shape[1] <= len(flat):
        return flat
    flat = np.where(present[:, None], flat, 0)
    power, axes = np.linalg.eigh((flat @ flat.T).astype(np.float64))
    return np.asarray(axes * np.sqrt(np.clip(power, 0, None)), dtype=np.float32)


def weights_learned(reader: Reader, tracks: ArrayLike, units: int) -> FloatArray:
    """Regress the predicted brain on the planted tracks over the held-out TRs.

    Parameters
    ----------
    reader : Reader
    tracks : array_like, (T, F)
        Of every TR of the scan, at the time the movie showed it.
    units : int
        U.

    Returns
    -------
    ndarray of float64, (U, F)
        Least squares; the mean over subjects. NaN where no subject has signal.
    """
    tracks = np.asarray(tracks, dtype=np.float64)
    found = []
    for subject in reader.test.subjects:
        x = tracks[reader.test.of_subject(subject)]
        y = reader.predicted(subject).astype(np.float64)
        weight, *_ = np.linalg.lstsq(x - x.mean(axis=0), y - y.mean(axis=0), rcond=None)
        found.append(np.where(reader.test.data.signal[subject][:, None], weight.T, np.nan))
    return nan_mean(np.stack(found), axis=0) if found else np.full((units, tracks.shape[1]), np.nan)


def weight_correlation(reader: Reader, truth: xr.Dataset, tracks: Path) -> float:
    """Correlation of the planted weights with the learned ones, over all that are not null.

    Parameters
    ----------
    reader : Reader
    truth : xarray.Dataset
        `weight (parcel, feature)` of a synthetic dataset.
    tracks : Path
        Its `features.npy`.
    """
    names = [str(name) for name in reader.test.data.unit_names]
    planted = truth["weight"].sel(parcel=names).values
    learned = weights_learned(reader, np.load(tracks, allow_pickle=False), len(names))
    known = np.isfinite(learned) & (np.abs(planted).sum(axis=1, keepdims=True) > 0)
    return float(np.corrcoef(planted[known], learned[known])[0, 1])
