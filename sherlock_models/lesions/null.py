"""Random units of the same size and as compact: what any piece of that size would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sherlock_models.lesions.units import Unit
from sherlock_models.scoring.scores import BoolArray, FloatArray, IntArray

#: random units of every size
NULL_DRAWS = 50
#: sizes that get random units of their own; units between them take the nearest
SIZES = 6


@dataclass(frozen=True)
class NullUnits:
    """Random units, and which of them a unit is compared with.

    Attributes
    ----------
    index : list of ndarray of int64
        Elements of every random unit.
    size : ndarray of int64, (n,)
        Row in the table of sizes of every random unit.
    of : ndarray of int64, (U,)
        The same of every unit.
    """

    index: list[IntArray]
    size: IntArray
    of: IntArray

    def moments(self, effect: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the random units each unit is compared with.

        Parameters
        ----------
        effect : ndarray of float64, (n, R)

        Returns
        -------
        mean, std : ndarray of float64, (U, R)
            NaN where there are fewer than two random units.
        """
        mean = np.full((len(self.of), effect.shape[1]), np.nan)
        std = np.full_like(mean, np.nan)
        for size in np.unique(self.of):
            mine = effect[self.size == size]
            if len(mine) > 1:
                mean[self.of == size] = mine.mean(axis=0)
                std[self.of == size] = mine.std(axis=0, ddof=1)
        return mean, std


def null_units(
    units: Sequence[Unit],
    positions: NDArray[np.float64] | None,
    signal: BoolArray,
    draws: int = NULL_DRAWS,
    seed: int = 0,
) -> NullUnits:
    """Draw spatially contiguous random units: an element and its nearest neighbours.

    Parameters
    ----------
    units : sequence of Unit
    positions : ndarray of float64, (E, 3), or None
        In mm. Where elements have no place (components), they are drawn singly.
    signal : ndarray of bool, (E,)
        Elements to draw from.
    draws : int
        Of every size; fewer where there are fewer elements.
    seed : int
    """
    sizes = np.array([len(unit.index) for unit in units])
    known = np.unique(sizes)
    if len(known) > SIZES:
        known = np.unique(np.quantile(sizes, np.linspace(0, 1, SIZES), method="nearest"))
    of = np.abs(sizes[:, None] - known).argmin(axis=1)
    there = np.flatnonzero(signal)
    if positions is not None:
        there = there[np.isfinite(positions[there]).all(axis=1)]
    rng = np.random.default_rng([seed, len(there)])
    index, size = [], []
    for row, wanted in enumerate(known):
        count = min(int(wanted), len(there))
        seeds = rng.permutation(len(there))[:draws]
        for chosen in _drawn(there, positions, seeds, count, rng):
            index.append(np.sort(chosen))
            size.append(row)
    return NullUnits(index, np.array(size, dtype=np.int64), of.astype(np.int64))


def _drawn(
    there: IntArray,
    positions: NDArray[np.float64] | None,
    seeds: IntArray,
    count: int,
    rng: np.random.Generator,
) -> list[IntArray]:
    if positions is None:
        return [rng.choice(there, count, replace=False) for _ in seeds]
    place = positions[there]
    _, near = cKDTree(place).query(place[seeds], k=[*range(1, count + 1)])
    return [there[row] for row in near]
