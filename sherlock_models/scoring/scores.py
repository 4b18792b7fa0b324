"""How well a prediction follows what was measured, over time and unit by unit.

Legend: T = TRs, U = units (voxels, parcels, pixels, bands), K = time blocks, D = bootstrap draws,
S = subjects. Correlations run over time for each unit, never across units. Undefined is NaN here
and null in JSON: a series that does not vary has no correlation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

#: TRs of one block of the bootstrap and of one segment of the identification: longer than the
#: autocorrelation of BOLD smoothed at 6 mm
BLOCK_TRS = 10
DRAWS = 500
#: the interval of a mean over more units than this is taken from evenly spread ones
_MOST_DRAWN = 2048
#: units correlated at a time, to bound the memory of whole brains
_CHUNK = 8192
#: a series this flat, relative to its size, is constant in float32
_FLAT = 1e-6


@dataclass(frozen=True)
class TimeBlocks:
    """Held-out TRs cut into blocks, and how often each block is drawn in every resample.

    Attributes
    ----------
    trs, block : ndarray of int64, shape (T,)
        Sorted TRs, and the block each belongs to. No block crosses a gap or a run.
    run : ndarray of int64, shape (K,)
        Run of every block.
    counts : ndarray of float64, shape (1 + D, K)
        Row 0 is the data as they are (ones); the others draw blocks with replacement within
        each run (block bootstrap, Künsch 1989).
    """

    trs: IntArray
    block: IntArray
    run: IntArray
    counts: FloatArray

    @classmethod
    def make(
        cls,
        trs: ArrayLike,
        run_of_tr: ArrayLike,
        *,
        length: int = BLOCK_TRS,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> TimeBlocks:
        """Cut ``trs`` into blocks of ``length`` TRs.

        Parameters
        ----------
        trs : array_like of int, shape (T,)
        run_of_tr : array_like of int, shape (time,)
            Run of every TR of the scan.
        length : int
            TRs; a remainder shorter than half of it joins the block before.
        draws, seed : int
        """
        trs = np.unique(np.asarray(trs, dtype=np.int64))
        run_of_tr = np.asarray(run_of_tr, dtype=np.int64)
        runs = run_of_tr[trs]
        broken = (np.diff(trs) > 1) | (np.diff(runs) != 0)
        sizes: list[int] = []
        for stretch in np.split(trs, np.flatnonzero(broken) + 1):
            whole, rest = divmod(len(stretch), length)
            sizes += [length] * whole + [rest] * (rest > 0)
            if whole and 0 < rest < length / 2:
                sizes[-2:] = [length + rest]
        block = np.repeat(np.arange(len(sizes)), sizes)
        first = np.cumsum([0, *sizes[:-1]])[: len(sizes)].astype(np.int64)
        run = runs[first] if len(trs) else runs
        return cls(trs, block, run, _draw(run, draws, seed))

    @property
    def draws(self) -> int:
        """Number of bootstrap draws D."""
        return len(self.counts) - 1

    def of(self, trs: ArrayLike) -> IntArray:
        """Block of each of ``trs``, which must all be held-out TRs."""
        return np.asarray(self.block[np.searchsorted(self.trs, trs)])

    def sums(self, trs: ArrayLike, values: ArrayLike) -> FloatArray:
        """Sum ``values`` (t, ...) over the TRs of every block: float64, shape (K, ...)."""
        values = np.asarray(values, dtype=np.float64)
        total = np.zeros((len(self.run), *values.shape[1:]))
        np.add.at(total, self.of(trs), values)
        return total

    def resample(self, sums: FloatArray) -> FloatArray:
        """Add the blocks up in every resample: from (K, ...) to (1 + D, ...)."""
        return np.tensordot(self.counts, sums, axes=1)


def _draw(run: IntArray, draws: int, seed: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    counts = np.ones((1 + draws, len(run)))
    for name in np.unique(run):
        mine = np.flatnonzero(run == name)
        counts[1:, mine] = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=draws)
    return counts


@dataclass(frozen=True)
class Score:
    """One number with its interval.

    Attributes
    ----------
    value : float
        NaN where undefined.
    draws : ndarray of float64, shape (D,)
        The same number in every resample of the time blocks.
    n : int
        What it was averaged or counted over (units, TRs, segments).
    """

    value: float
    draws: FloatArray
    n: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval over time blocks; NaN where there is nothing to resample."""
        drawn = self.draws[np.isfinite(self.draws)]
        if not math.isfinite(self.value) or len(drawn) < 2 or np.ptp(drawn) == 0:
            return math.nan, math.nan
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def average(scores: Iterable[Score]) -> Score:
    """Mean over subjects (equal weights), value and draws alike; ``n`` is the largest."""
    scores = list(scores)
    if not scores:
        return Score(math.nan, np.zeros(0), 0)
    value = nan_mean(np.array([score.value for score in scores]))
    draws = nan_mean(np.stack([score.draws for score in scores]), axis=0)
    return Score(float(value), draws, max(score.n for score in scores))


def nan_mean(values: ArrayLike, axis: int | None = None, weights: ArrayLike = 1.0) -> FloatArray:
    """Mean of what is finite; NaN where nothing is."""
    values = np.asarray(values, dtype=np.float64)
    there = np.isfinite(values)
    weights = np.where(there, weights, 0.0)
    total = np.sum(np.where(there, values, 0.0) * weights, axis=axis)
    weight = np.sum(weights, axis=axis)
    return np.asarray(np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan))


def pearson(x: ArrayLike, y: ArrayLike) -> FloatArray:
    """Pearson correlation over time, for each unit.

    Parameters
    ----------
    x, y : array_like, shape (T, ...)

    Returns
    -------
    ndarray of float64, shape (...)
        NaN where either series does not vary or holds a NaN.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(x) < 2:
        return np.full(x.shape[1:], np.nan)
    cx, cy = x - x.mean(axis=0), y - y.mean(axis=0)
    size = (np.square(x).mean(axis=0), np.square(y).mean(axis=0))
    sums = (np.square(cx).mean(axis=0), np.square(cy).mean(axis=0), (cx * cy).mean(axis=0))
    return _ratio(*sums, *size)


def _ratio(
    xx: FloatArray, yy: FloatArray, xy: FloatArray, size_x: FloatArray, size_y: FloatArray
) -> FloatArray:
    """Covariance over standard deviations where both are above float32's rounding."""
    with np.errstate(invalid="ignore", divide="ignore"):
        vary = (xx > _FLAT**2 * size_x) & (yy > _FLAT**2 * size_y)
        return np.asarray(np.where(vary, np.clip(xy / np.sqrt(xx * yy), -1, 1), np.nan))


def pearson_by_run(x: ArrayLike, y: ArrayLike, run: ArrayLike) -> FloatArray:
    """Pearson r per unit within each run, then averaged over runs weighted by their TRs.

    Parameters
    ----------
    x, y : array_like, shape (T, U)
    run : array_like, shape (T,)

    Returns
    -------
    ndarray of float64, shape (U,)
    """
    x, y, run = np.asarray(x), np.asarray(y), np.asarray(run)
    names = np.unique(run)
    if not len(names):
        return np.full(x.shape[1:], np.nan)
    r = np.empty(x.shape[1])
    trs = np.array([np.sum(run == name) for name in names], dtype=np.float64)[:, None]
    for start in range(0, len(r), _CHUNK):
        part = slice(start, start + _CHUNK)
        each = [pearson(x[run == name, part], y[run == name, part]) for name in names]
        r[part] = nan_mean(np.stack(each), axis=0, weights=trs)
    return r


def correlation_score(
    blocks: TimeBlocks, trs: ArrayLike, x: ArrayLike, y: ArrayLike, ceiling: ArrayLike | None = None
) -> tuple[FloatArray, Score, Score]:
    """Pearson r per unit and run as :func:`pearson_by_run`, and its mean over units with draws.

    Parameters
    ----------
    blocks : TimeBlocks
    trs : array_like of int, shape (T,)
    x, y : array_like, shape (T, U)
        NaN in a unit leaves it undefined.
    ceiling : array_like, shape (U,), optional
        What r is divided by in the second score; NaN leaves a unit out. Ones by default.

    Returns
    -------
    r : ndarray of float64, shape (U,)
    score, over_ceiling : Score
        Mean of r, and of r over the ceiling, over the units where that is defined; ``n`` counts
        them.
    """
    trs, x, y = np.asarray(trs), np.asarray(x), np.asarray(y)
    weight = 1 / np.asarray(ceiling) if ceiling is not None else np.ones(x.shape[1])
    r = pearson_by_run(x, y, blocks.run[blocks.of(trs)])
    some = slice(None, None, max(1, math.ceil(x.shape[1] / _MOST_DRAWN)))
    drawn = _resampled_r(blocks, trs, x[:, some], y[:, some])
    return r, _mean_over_units(r, drawn), _mean_over_units(r * weight, drawn * weight[some])


def _mean_over_units(values: FloatArray, drawn: FloatArray) -> Score:
    """Mean of ``values`` (U,); draws (1 + D, some units) show how it scatters around that."""
    mean, means = float(nan_mean(values)), nan_mean(drawn, axis=1)
    return Score(mean, means[1:] - means[0] + mean, int(np.isfinite(values).sum()))


def _resampled_r(blocks: TimeBlocks, trs: IntArray, x: ArrayLike, y: ArrayLike) -> FloatArray:
    """R of every resample from the blocks' sums, shape (1 + D, U): nothing is correlated twice."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    run_of = blocks.run[blocks.of(trs)]
    by_run, weights = [], []
    for run in np.unique(run_of):
        mine = run_of == run
        here, at = blocks.run == run, trs[mine]
        a, b = x[mine], y[mine]
        size = (np.square(a).mean(axis=0), np.square(b).mean(axis=0))
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)  # sums of squares then lose no digits
        terms = np.stack([a, b, a * a, b * b, a * b], axis=1)
        counts = blocks.counts[:, here]
        n = counts @ blocks.sums(at, np.ones(len(at)))[here]
        sums = np.tensordot(counts, blocks.sums(at, terms)[here], axes=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ma, mb, aa, bb, ab = np.moveaxis(sums / n[:, None, None], 1, 0)
        by_run.append(_ratio(aa - ma * ma, bb - mb * mb, ab - ma * mb, *size))
        weights.append(np.full(len(n), float(len(at))))
    if not by_run:
        return np.full((1 + blocks.draws, x.shape[1]), np.nan)
    return nan_mean(np.stack(by_run), axis=0, weights=np.stack(weights)[:, :, None])


def r2_score(blocks: TimeBlocks, trs: ArrayLike, x: ArrayLike, y: ArrayLike) -> Score:
    """R² = 1 - SSE / SST of all units together, around the training mean.

    Parameters
    ----------
    x, y : array_like, shape (T, U)
        Prediction and truth in units whose zero is the *training* mean, so that predicting the
        training mean scores exactly 0. Units with a NaN are left out.
    """
    x, y = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)
    known = np.isfinite(x) & np.isfinite(y)
    error = np.square(np.where(known, x - y, 0)).sum(axis=1, dtype=np.float64)
    spread = np.square(np.where(known, y, 0)).sum(axis=1, dtype=np.float64)
    sse, sst = blocks.resample(blocks.sums(trs, np.stack([error, spread], axis=1))).T
    value = np.where(sst > 0, 1 - sse / np.where(sst > 0, sst, 1), np.nan)
    return Score(float(value[0]), value[1:], len(error))


def mean_score(blocks: TimeBlocks, trs: ArrayLike, values: ArrayLike) -> Score:
    """Mean over TRs of a number per TR, shape (T,); NaN TRs are left out."""
    values = np.asarray(values, dtype=np.float64)
    there = np.isfinite(values)
    pair = np.stack([np.where(there, values, 0), there], axis=1)
    total, count = blocks.resample(blocks.sums(trs, pair)).T
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return Score(float(mean[0]), mean[1:], int(there.sum()))


def identification_score(
    blocks: TimeBlocks, trs: ArrayLike, x: ArrayLike, y: ArrayLike, length: int = BLOCK_TRS
) -> Score:
    """Share of segments whose prediction resembles the right measurement most.

    Each predicted segment (``length`` TRs by units, flattened) is correlated with every measured
    one; the best must be its own. Chance is 1 / ``n``. Time-segment matching after Haxby et al.
    (2011), Neuron 72.

    Returns
    -------
    Score
        ``n`` counts the segments; NaN with fewer than two, or if no prediction varies.
    """
    x, y = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)
    defined = np.isfinite(x).all(axis=0) & np.isfinite(y).all(axis=0)
    block = blocks.of(trs)
    names, sizes = np.unique(block, return_counts=True)
    names = names[sizes >= length]
    if len(names) < 2 or not defined.any():
        return Score(math.nan, np.zeros(blocks.draws), len(names))
    rows = np.stack([np.flatnonzero(block == name)[:length] for name in names])
    flat_x, flat_y = (_normalised(a[:, defined][rows].reshape(len(rows), -1)) for a in (x, y))
    r = flat_x @ flat_y.T
    if np.isnan(r).all() or np.ptp(flat_x, axis=0).max() < _FLAT:  # every segment looks alike
        return Score(math.nan, np.zeros(blocks.draws), len(names))
    best = np.argmax(np.where(np.isfinite(r), r, -np.inf), axis=1)
    hit = (best == np.arange(len(names))) & np.isfinite(r).any(axis=1)
    counts = blocks.counts[:, names]
    drawn = counts.sum(axis=1)
    share = np.where(drawn > 0, counts @ hit / np.maximum(drawn, 1), np.nan)
    return Score(float(share[0]), share[1:], len(names))


def _normalised(rows: FloatArray) -> FloatArray:
    """Rows less their mean, of length 1; NaN where a row does not vary."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = length <= _FLAT * np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(centred / np.where(flat, np.nan, length))
