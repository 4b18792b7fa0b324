"""BOLD as models see it: standardised per subject, run and voxel on training TRs, read in blocks.

Legend: S = subjects, T = TRs, R = runs, V = voxels, N = rows of the training side. The rule is the
one of a training: mean and standard deviation (ddof 0) of a run's valid training TRs; a run without
one, wholly held out or without a stimulus, has those of all its valid TRs. A voxel without signal
or variance in a run that samples come from is 0 in all of that subject's runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sherlock_data import store
from sherlock_data.representations.series import Moments

BoolArray = NDArray[np.bool_]
Float32 = NDArray[np.float32]
IntArray = NDArray[np.int64]

#: a voxel whose standard deviation is below this share of its mean is constant
CONSTANT = 1e-6
#: TRs read from a store at once
READ_TRS = 128


class Series(Protocol):
    """BOLD of several subjects, (S, T, V): an array of a store, or what reads like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(S, T, V)."""
        ...

    def __getitem__(self, key: tuple[int, slice], /) -> Any:
        """Return one subject's TRs, (n, V)."""
        ...


@dataclass(frozen=True)
class Standard:
    """What standardises one subject.

    Attributes
    ----------
    mean, std : ndarray of float32, shape (R, V)
        ``std`` is NaN where the voxel counts as 0.
    """

    mean: Float32
    std: Float32

    def apply(self, rows: Float32, run: int) -> None:
        """Standardise rows (n, V) of a run in place; what is not finite becomes 0, the mean."""
        rows -= self.mean[run]
        with np.errstate(over="ignore", invalid="ignore"):
            rows /= self.std[run]
        np.copyto(rows, 0, where=~np.isfinite(rows))


def runs_of(starts: Sequence[int], trs: IntArray) -> IntArray:
    """Run of each TR, given the first TR of every run."""
    return np.searchsorted(np.asarray(starts), trs, side="right") - 1


def pieces(trs: IntArray, runs: IntArray, most: int = READ_TRS) -> list[slice]:
    """Cut positions of sorted ``trs`` wherever they stop being neighbours within one run."""
    breaks = np.flatnonzero((np.diff(trs) != 1) | (np.diff(runs) != 0)) + 1
    edges = [0, *breaks.tolist(), len(trs)]
    return [
        slice(start, min(start + most, last))
        for first, last in pairwise(edges)
        for start in range(first, last, most)
    ]


def fit_subject(
    bold: Series,
    row: int,
    starts: Sequence[int],
    valid: BoolArray,
    training: BoolArray,
    used: BoolArray,
    has_signal: BoolArray,
) -> Standard:
    """Mean and standard deviation of one subject's runs.

    Parameters
    ----------
    bold : Series, shape (S, T, V)
    row : int
        The subject.
    starts : sequence of int
        First TR of every run.
    valid, training, used : ndarray of bool, shape (T,)
        Volumes that are there, those that train, those of any side.
    has_signal : ndarray of bool, shape (V,)
    """
    runs, voxels = len(starts), bold.shape[2]
    run_of_tr = runs_of(starts, np.arange(len(valid)))
    mean = np.zeros((runs, voxels), dtype=np.float32)
    std = np.full((runs, voxels), np.nan, dtype=np.float32)
    signal = has_signal.copy()
    for run in range(runs):
        here = run_of_tr == run
        fit_on = here & valid
        if (training & here).any():
            fit_on &= training
        trs = np.flatnonzero(fit_on)
        if len(trs) < 2:
            continue
        moments = Moments(voxels)
        for piece in pieces(trs, run_of_tr[trs]):
            moments.add(np.asarray(bold[row, trs[piece][0] : trs[piece][-1] + 1]))
        found = np.sqrt(np.maximum(moments.squares, 0) / len(trs))
        varies = (moments.count == len(trs)) & np.isfinite(found)
        varies &= (found > CONSTANT * np.abs(moments.mean)) & (found > 0)
        mean[run, varies], std[run, varies] = moments.mean[varies], found[varies]
        if (used & here).any():
            signal &= varies
    std[:, ~signal] = np.nan
    return Standard(mean, std)


@dataclass(frozen=True)
class StandardisedRows:
    """Rows of several subjects, one below the other, standardised as they are read.

    Attributes
    ----------
    path : str
        A store with ``bold (subject, time, voxel)``.
    starts : tuple of int
        First TR of every run.
    subject, tr : ndarray of int64, shape (N,)
        Row of the store and TR of each row; TRs ascend within a subject.
    standards : dict of Standard
        By row of the store.
    """

    path: str
    starts: tuple[int, ...]
    subject: IntArray
    tr: IntArray
    standards: dict[int, Standard]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, V)."""
        return len(self.tr), next(iter(self.standards.values())).mean.shape[1]

    def read(self, start: int, stop: int) -> Float32:
        """Rows ``start`` to ``stop``, (stop - start, V) float32."""
        bold = store.open_array(self.path, "bold", "r")
        out = np.empty((stop - start, self.shape[1]), dtype=np.float32)
        subject, tr = self.subject[start:stop], self.tr[start:stop]
        run = runs_of(self.starts, tr)
        # a change of subject parts neighbours just as a change of run does
        for piece in pieces(tr, run + len(self.starts) * subject):
            rows, first = out[piece], piece.start
            rows[:] = bold[int(subject[first]), int(tr[first]) : int(tr[piece.stop - 1]) + 1]
            self.standards[int(subject[first])].apply(rows, int(run[first]))
        return out
