"""The one rule of time: which seconds of which run belong to which TR.

Legend: t = TR start on the scan clock (s), m = movie time (s). Volume ``k`` of a run covers
``[k * TR, (k + 1) * TR)`` seconds after that run's first kept volume, and the movie second
``movie_start_s + k * TR``. Nothing is ever stretched to fit: what does not cover a TR leaves that
TR without a stimulus. The haemodynamic lag moves the brain's index, never the stimulus.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sherlock_data.errors import ConfigError, InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """One uninterrupted stretch of scanning.

    Attributes
    ----------
    name : str
        As in the catalogue, e.g. ``"run-1"``.
    volumes : int
        Kept volumes.
    movie : str or None
        File of the movie shown, relative to the raw folder; None: no stimulus.
    movie_start_s : float
        Movie time in seconds at the run's first kept volume.
    """

    name: str
    volumes: int
    movie: str | None = None
    movie_start_s: float = 0.0


@dataclass(frozen=True)
class Clock:
    """The scan clock of a dataset: its TR and its runs in order of scanning.

    Raises
    ------
    ConfigError
        If the TR is not positive, there is no run, or two runs share a name.
    """

    repetition_time_s: float
    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        if not self.repetition_time_s > 0:
            raise ConfigError(
                f"a TR of {self.repetition_time_s} s is not a time",
                where="repetition_time_s",
                remedy="give the seconds between two volumes",
            )
        names = [run.name for run in self.runs]
        if not names or len(set(names)) != len(names):
            raise ConfigError(
                f"runs are {names}", where="runs", remedy="name at least one run, each once"
            )

    @property
    def volumes(self) -> int:
        """Number of TRs over all runs."""
        return sum(run.volumes for run in self.runs)

    @property
    def run_offsets(self) -> dict[str, int]:
        """First TR (0-based, over all runs) of each run."""
        starts = np.cumsum([0, *(run.volumes for run in self.runs)])
        return {run.name: int(start) for run, start in zip(self.runs, starts, strict=False)}

    def run_slice(self, name: str) -> slice:
        """TRs of one run as a slice over all TRs."""
        start = self.run_offsets[name]
        return slice(start, start + self.run(name).volumes)

    def run(self, name: str) -> Run:
        """Return the run called ``name``."""
        for run in self.runs:
            if run.name == name:
                return run
        raise ConfigError(f"no run '{name}'", remedy=f"runs: {', '.join(self.run_offsets)}")

    def tr(self) -> IntArray:
        """0-based TR index, shape (time,), int64."""
        return np.arange(self.volumes, dtype=np.int64)

    def time(self) -> FloatArray:
        """Return TR starts on the scan clock in seconds, shape (time,), float64."""
        return np.asarray(self.tr() * self.repetition_time_s, dtype=np.float64)

    def run_of_tr(self) -> NDArray[np.object_]:
        """Run name of every TR, shape (time,), str objects."""
        return np.repeat(
            np.array([run.name for run in self.runs], dtype=object),
            [run.volumes for run in self.runs],
        )

    def run_time(self) -> FloatArray:
        """Seconds from the run's first kept volume, shape (time,), float64."""
        trs = np.concatenate([np.arange(run.volumes) for run in self.runs])
        return np.asarray(trs * self.repetition_time_s, dtype=np.float64)

    def tr_edges(self, name: str) -> FloatArray:
        """Edges of a run's TRs in movie seconds, shape (volumes + 1,), float64."""
        run = self.run(name)
        edges = run.movie_start_s + np.arange(run.volumes + 1) * self.repetition_time_s
        return np.asarray(edges, dtype=np.float64)

    def lag_in_trs(self, lag_s: float) -> int:
        """Return the lag in whole TRs.

        Raises
        ------
        ConfigError
            If ``lag_s`` is no multiple of the TR (BOLD is never interpolated).
        """
        lag = lag_s / self.repetition_time_s
        if abs(lag - round(lag)) > 1e-6:
            below, above = (np.floor(lag), np.ceil(lag)) * np.array(self.repetition_time_s)
            raise ConfigError(
                f"a lag of {lag_s} s is {lag:.3g} TRs of {self.repetition_time_s} s",
                where="lag_s",
                remedy=f"use a whole number of TRs: {below:g} or {above:g} s",
            )
        return round(lag)


@dataclass(frozen=True)
class Overlap:
    """Sparse time weights: piece ``source[i]`` gives ``seconds[i]`` of bin ``target[i]``.

    Attributes
    ----------
    source, target : ndarray of int64, shape (pair,)
    seconds : ndarray of float64, shape (pair,)
    covered : ndarray of float64, shape (bin,)
        Seconds of each bin that any piece covers.
    """

    source: IntArray
    target: IntArray
    seconds: FloatArray
    covered: FloatArray

    def mean(self, values: ArrayLike) -> FloatArray:
        """Time-weighted mean over the pieces of each bin.

        Parameters
        ----------
        values : array_like, shape (piece, ...)

        Returns
        -------
        ndarray of float64, shape (bin, ...)
            NaN in bins nothing covers.
        """
        values = np.asarray(values)
        total = np.zeros((len(self.covered), *values.shape[1:]))
        weight = np.zeros(len(self.covered))
        np.add.at(total, self.target, (values[self.source].T * self.seconds).T)
        np.add.at(weight, self.target, self.seconds)
        with np.errstate(invalid="ignore"):
            return np.asarray((total.T / weight).T)


def overlaps(starts: ArrayLike, ends: ArrayLike, edges: ArrayLike) -> Overlap:
    """Seconds each piece of time shares with each bin.

    Parameters
    ----------
    starts, ends : array_like, shape (piece,)
        Seconds; pieces may overlap one another and leave gaps. A piece is ``[start, end)``.
    edges : array_like, shape (bin + 1,)
        Increasing bin edges in seconds, e.g. :meth:`Clock.tr_edges`.

    Returns
    -------
    Overlap
        Only the pairs that share more than a nanosecond.
    """
    starts, ends, edges = (np.asarray(a, dtype=np.float64) for a in (starts, ends, edges))
    first = np.maximum(np.searchsorted(edges, starts) - 1, 0)
    last = np.minimum(np.searchsorted(edges, ends), len(edges) - 1)
    counts = np.maximum(last - first, 0)
    source = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    target = np.repeat(first, counts) + within
    shared = np.minimum(ends[source], edges[target + 1]) - np.maximum(starts[source], edges[target])
    keep = shared > 1e-9
    source, target, shared = source[keep], target[keep], shared[keep]
    return Overlap(source, target, shared, _covered(starts, ends, edges))


def _covered(starts: FloatArray, ends: FloatArray, edges: FloatArray) -> FloatArray:
    """Seconds of every bin inside the union of ``[start, end)``, shape (bin,)."""
    if not len(starts):
        return np.zeros(len(edges) - 1)
    order = np.argsort(starts)
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    fresh = np.maximum(starts[1:], ends[:-1])  # where an overlapping piece begins to add time
    lo = np.concatenate([starts[:1], np.minimum(fresh, ends[1:])])
    knots = np.stack([lo, ends], axis=1).ravel()
    lengths = np.stack([np.zeros_like(lo), ends - lo], axis=1).ravel()
    return np.diff(np.interp(edges, knots, np.cumsum(lengths)))


def seconds_from_trs(first: ArrayLike, last: ArrayLike, tr_s: float) -> tuple[FloatArray, ...]:
    """Turn 1-based inclusive TR columns (as annotation sheets print them) into seconds."""
    first, last = np.asarray(first, dtype=np.float64), np.asarray(last, dtype=np.float64)
    if np.any(last < first):
        raise InputError("a segment ends before it starts", remedy="check the TR columns")
    return (first - 1) * tr_s, last * tr_s


def frames_per_tr(tr_s: float, frame_rate: str | float | Fraction) -> Fraction:
    """Return how many frames a TR holds, exactly (37.5 for 25 fps and 1.5 s)."""
    return Fraction(str(tr_s)) * Fraction(frame_rate)


def read_delays(value: Any) -> Any:
    """Read TRs of the past as a person writes them: ``3``, ``0,1,2`` as a list, or ``"0..44"``.

    Parameters
    ----------
    value : Any
        A whole number, a sequence of them, or the first and the last of a range in text.

    Returns
    -------
    Any
        A tuple of int; what is none of these comes back as it is, for the caller to refuse.
    """
    first, dots, last = str(value).partition("..")
    if isinstance(value, str) and dots and first.isdigit() and last.isdigit():
        return tuple(range(int(first), int(last) + 1))
    return (value,) if isinstance(value, str | int) else value


def shifted_index(clock: Clock, shift: int) -> IntArray:
    """Index of the TR ``shift`` later in the same run, -1 where the run has none.

    Parameters
    ----------
    clock : Clock
    shift : int
        TRs; positive looks later (BOLD of a stimulus), negative earlier (delays).

    Returns
    -------
    ndarray of int64, shape (time,)
    """
    starts = np.repeat(list(clock.run_offsets.values()), [r.volumes for r in clock.runs])
    lengths = np.repeat([r.volumes for r in clock.runs], [r.volumes for r in clock.runs])
    there = clock.tr() + shift
    inside = (there >= starts) & (there < starts + lengths)
    return np.where(inside, there, -1)
