"""What a fitted store was fitted on: the training TRs of a split, by subject and brain TR.

Written into the store's attributes as ``fitted_on``, so that a training whose split holds some of
those TRs out can refuse it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sherlock_data.catalog import Catalog
from sherlock_data.errors import ConfigError, UnavailableError
from sherlock_data.recipes import PcaRecipe
from sherlock_data.scan import Scan
from sherlock_data.splits import Split, make_split
from sherlock_data.timing import shifted_index

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

SIDES = ("train", "validation", "test")


@dataclass(frozen=True)
class FittedOn:
    """A split as a fit sees it.

    Attributes
    ----------
    split : Split
    lag_trs : int
        The brain TR of a stimulus TR is this much later.
    context_trs : int
        How far into the past of the stimulus the split was told to reach.
    """

    split: Split
    lag_trs: int
    context_trs: int = 0

    def brain_trs(self, side: str) -> IntArray:
        """Brain TRs of a side, 0-based over all runs."""
        return self.split.trs(side) + self.lag_trs

    def describe(self) -> dict[str, Any]:
        """Return what the attribute ``fitted_on`` holds: JSON values, TRs as ``[first, last]``."""
        split = self.split
        return {
            "split": split.kind,
            "fold": split.fold,
            "folds": split.folds,
            "gap_trs": split.gap_trs,
            "lag_trs": self.lag_trs,
            "context_trs": self.context_trs,
            "subjects": list(split.train_subjects),
            "test_subjects": list(split.test_subjects),
            "trs": ranges(self.brain_trs("train")),
            "validation_trs": ranges(self.brain_trs("validation")),
            "test_trs": ranges(self.brain_trs("test")),
        }


def fit_on(scan: Scan, recipe: PcaRecipe, catalog: Catalog, valid: BoolArray) -> FittedOn:
    """Split a scan as a training would.

    Parameters
    ----------
    scan : Scan
    recipe : PcaRecipe
    catalog : Catalog
    valid : ndarray of bool, shape (subject, time)

    Raises
    ------
    UnavailableError
        If the split leaves no TR for one of its sides.
    """
    clock = scan.clock
    lag = clock.lag_in_trs(scan.lag_s)
    present = np.ones(clock.volumes, dtype=bool)
    if recipe.trs == "stimulus" and scan.movies:
        present = _covered_by_movies(scan)
    usable = present.copy()
    for delay in range(recipe.context_trs + 1):
        earlier = shifted_index(clock, -delay)
        usable &= (earlier >= 0) & present[earlier]
    later = shifted_index(clock, lag)
    anyone = np.asarray(valid.any(axis=0))
    usable &= (later >= 0) & anyone[later]
    try:
        split = make_split(
            recipe.fit,
            clock,
            usable,
            scan.subjects,
            fold=recipe.fold,
            folds=recipe.folds,
            context_trs=recipe.context_trs,
            lag_trs=lag,
            repeats=[(r.volumes, r.at) for r in catalog.dataset(scan.dataset).repeats],
            seed=recipe.seed,
        )
    except ConfigError as error:
        raise UnavailableError(
            f"no training TRs to fit on: {error.what}", where="pca", remedy=error.remedy
        ) from error
    return FittedOn(split, lag, recipe.context_trs)


def _covered_by_movies(scan: Scan) -> BoolArray:
    """TRs that a movie covers, by its length; the stimulus store counts frame by frame."""
    from sherlock_data.stimulus.stimulus_store import run_movies

    covered = np.zeros(scan.clock.volumes, dtype=bool)
    for run in run_movies(scan):
        frame_s = float(1 / run.movie.frame_rate)
        inside = (run.edges[:-1] >= -frame_s) & (run.edges[1:] <= run.movie.video_seconds + frame_s)
        covered[run.first_tr : run.first_tr + len(inside)] = inside
    return covered


def ranges(trs: IntArray) -> list[list[int]]:
    """Sorted TRs as inclusive ``[first, last]`` pairs."""
    if not len(trs):
        return []
    breaks = np.flatnonzero(np.diff(trs) > 1)
    first, last = trs[np.r_[0, breaks + 1]], trs[np.r_[breaks, len(trs) - 1]]
    return [[int(a), int(b)] for a, b in zip(first, last, strict=True)]


def trs_in(pairs: Sequence[Sequence[int]]) -> IntArray:
    """Return the TRs of inclusive ``[first, last]`` pairs."""
    pieces = [np.arange(first, last + 1, dtype=np.int64) for first, last in pairs]
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)


def overlap(
    fitted_on: Mapping[str, Any], split: Split, lag_trs: int
) -> tuple[tuple[str, ...], IntArray]:
    """Find what a fit saw of what a split holds out.

    Parameters
    ----------
    fitted_on : mapping
        A store's attribute, as :meth:`FittedOn.describe` gives it.
    split : Split
    lag_trs : int

    Returns
    -------
    subjects : tuple of str
        Held out wholly, and fitted on.
    trs : ndarray of int64
        Brain TRs held out for validation or test of a subject that was fitted on.
    """
    fitted = set(fitted_on["subjects"])
    unseen = set(split.test_subjects) - set(split.train_subjects)
    subjects = tuple(name for name in split.test_subjects if name in unseen & fitted)
    sides = [side for side in SIDES[1:] if fitted & set(split.subjects(side))]
    held = [split.trs(side) + lag_trs for side in sides]
    seen = trs_in(fitted_on["trs"])
    return subjects, np.intersect1d(np.concatenate(held) if held else seen[:0], seen)
