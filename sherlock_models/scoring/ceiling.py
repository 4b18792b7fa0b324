"""How well anything could predict a subject: inter-subject correlation as the noise ceiling.

Legend: T = TRs, U = units, S = subjects. One subject is read at a time, so that seventeen whole
brains never lie in memory together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sherlock_models.scoring.scores import BoolArray, FloatArray, nan_mean, pearson_by_run

#: `r_over_ceiling` only where the lower bound of the ceiling is at least this
LEAST_CEILING = 0.1

SeriesArray = NDArray[np.float32]

#: from a subject's index to its standardised series (T, U), NaN without signal, and valid (T,)
Reader = Callable[[int], tuple[SeriesArray, BoolArray]]


@dataclass(frozen=True)
class Ceiling:
    """Noise ceiling of each unit as inter-subject correlation (Nili et al. 2014; Nastase 2019).

    Attributes
    ----------
    lower, upper : ndarray of float64, shape (U,)
        Mean over subjects of the correlation with the mean of the others (lower bound), and with
        the mean of everybody, oneself included (upper bound).
    """

    lower: FloatArray
    upper: FloatArray

    @property
    def usable(self) -> FloatArray:
        """The lower bound where it is at least ``LEAST_CEILING``, else NaN."""
        with np.errstate(invalid="ignore"):
            usable = self.lower >= LEAST_CEILING
        return np.where(usable, self.lower, np.nan)


def noise_ceiling(subject: Reader, subjects: int, run: ArrayLike) -> Ceiling:
    """Leave-one-out inter-subject correlation, reading one subject at a time.

    Parameters
    ----------
    subject : callable
        A :data:`Reader`.
    subjects : int
    run : array_like, shape (T,)

    Returns
    -------
    Ceiling
        NaN everywhere with fewer than two subjects.
    """
    run = np.asarray(run)
    total, count = others_sum(subject, range(subjects))
    lower, upper = [], []
    for index in range(subjects):
        values, valid = subject(index)
        there = np.isfinite(values) & valid[:, None]
        own = np.where(there, values, 0.0)
        rest = count - there
        fit = valid & (rest.max(axis=1, initial=0) > 0)
        others = masked_mean(total - own, rest)
        upper_mean = np.where(rest > 0, masked_mean(total, count), np.nan)
        lower.append(pearson_by_run(values[fit], others[fit], run[fit]))
        upper.append(pearson_by_run(values[fit], upper_mean[fit], run[fit]))
    return Ceiling(nan_mean(np.stack(lower), axis=0), nan_mean(np.stack(upper), axis=0))


def others_sum(subject: Reader, indices: Iterable[int]) -> tuple[SeriesArray, SeriesArray]:
    """Sum over subjects and how many it holds, both (T, U): subtract one to leave it out."""
    total: SeriesArray | None = None
    count: SeriesArray | None = None
    for index in indices:
        values, valid = subject(index)
        there = np.isfinite(values) & valid[:, None]
        if total is None or count is None:
            total = np.zeros(values.shape, dtype=np.float32)
            count = np.zeros(values.shape, dtype=np.float32)
        total += np.where(there, values, 0.0)
        count += there
    if total is None or count is None:
        raise ValueError("a sum over no subjects")
    return total, count


def masked_mean(total: SeriesArray, count: SeriesArray) -> SeriesArray:
    """``total / count`` where anything was counted, else NaN."""
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
