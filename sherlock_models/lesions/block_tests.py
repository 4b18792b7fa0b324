"""Is an effect more than chance? Sign flips over blocks of time, and the FDR over units.

An effect is the mean over held-out TRs of an increase of squared error. Where a unit tells nothing,
the increase of a block is as likely below as above zero, and its sign can be flipped (Fisher 1935;
Winkler et al. 2014, NeuroImage 92). Neighbouring TRs resemble each other, so that whole blocks are
flipped, longer than the autocorrelation. A t-test over blocks is not calibrated here: the
increases are skewed and few.

Legend: T = held-out TRs, K = blocks, U = units, R = targets, N = flips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sherlock_models.scoring.scores import BLOCK_TRS, BoolArray, FloatArray, IntArray, TimeBlocks
from sherlock_models.scoring.significance import fdr

#: all flips are tried up to so many blocks, else ``FLIPS`` random ones
EXACT_BLOCKS = 13
FLIPS = 8192
#: flips at a time
_CHUNK = 1024
#: sums that differ by less than this share of the largest possible sum are equal
_EQUAL = 1e-9


def autocorrelation_trs(series: ArrayLike, run: ArrayLike) -> int:
    """Length in TRs over which a series resembles itself, at least 1.

    Parameters
    ----------
    series : array_like, shape (T, F)
        Of consecutive TRs, features around their mean.
    run : array_like, shape (T,)
        Stretches that are correlated apart.

    Notes
    -----
    The integrated time 1 + 2 Σ ρ up to the first lag at which the mean autocorrelation over
    features is below .05.
    """
    series, run = np.asarray(series, np.float64), np.asarray(run)
    power = np.square(series).sum()
    if power == 0:
        return 1
    total = 1.0
    for lag in range(1, len(series)):
        same = run[lag:] == run[:-lag]
        if not same.any():
            break
        # over all TRs, not the pairs left: the usual, biased estimate does not blow up at the end
        rho = float((series[lag:] * series[:-lag])[same].sum() / power)
        if rho < 0.05:
            break
        total += 2 * rho
    return max(1, math.ceil(total))


def time_blocks(trs: ArrayLike, run_of_tr: ArrayLike, autocorrelation: int) -> TimeBlocks:
    """Cut held-out TRs into blocks at least as long as the autocorrelation, and ``BLOCK_TRS``."""
    return TimeBlocks.make(trs, run_of_tr, length=max(BLOCK_TRS, autocorrelation), draws=0)


def apart(blocks: TimeBlocks, autocorrelation: int) -> BoolArray:
    """Leave out the end of every block that another follows at once.

    Neighbouring blocks would else resemble one another at their common edge, which is enough to
    find half as much again at p < .01 as there should be.

    Parameters
    ----------
    blocks : TimeBlocks
    autocorrelation : int
        In TRs; half of it is left out.

    Returns
    -------
    ndarray of bool, shape (T,)
        TRs that are kept: at least half of every block.
    """
    keep = np.ones(len(blocks.trs), dtype=np.bool_)
    ends = np.flatnonzero((np.diff(blocks.trs) == 1) & (np.diff(blocks.block) != 0))
    for end in ends:
        size = int((blocks.block == blocks.block[end]).sum())
        gap = min(math.ceil(autocorrelation / 2), size // 2)
        keep[end + 1 - gap : end + 1] = False
    return keep


def flips(blocks: int, seed: int = 0) -> NDArray[np.int8]:
    """Signs (N, K), the first row all +1: every combination, or random ones of many blocks."""
    if blocks <= EXACT_BLOCKS:
        numbers = np.arange(2**blocks)[:, None] >> np.arange(blocks)
        return (1 - 2 * (numbers & 1)).astype(np.int8)
    signs = 1 - 2 * np.random.default_rng(seed).integers(0, 2, (FLIPS, blocks), dtype=np.int8)
    signs[0] = 1
    return signs.astype(np.int8)


def sign_flip(increase: ArrayLike, seed: int = 0) -> FloatArray:
    """One-sided p of a sum over blocks being above 0.

    Parameters
    ----------
    increase : array_like, shape (K, ...)
        Sums over blocks.
    seed : int
        Of random flips; all units get the same ones.

    Returns
    -------
    ndarray of float64, shape (...)
        The share of flips (the data as they are among them) with a sum at least as high; NaN
        where an increase is not finite.
    """
    increase = np.asarray(increase, dtype=np.float64)
    flat = increase.reshape(len(increase), -1)
    observed, size = flat.sum(axis=0), np.abs(flat).sum(axis=0)
    signs = flips(len(flat), seed)
    as_high = np.zeros(flat.shape[1])
    for start in range(0, len(signs), _CHUNK):
        null = signs[start : start + _CHUNK].astype(np.float64) @ flat
        as_high += (null >= observed - _EQUAL * size).sum(axis=0)
    p = np.where(np.isfinite(observed), as_high / len(signs), np.nan)
    return np.asarray(p.reshape(increase.shape[1:]), dtype=np.float64)


def two_sided(increase: ArrayLike, seed: int = 0) -> FloatArray:
    """Two-sided p of a sum over blocks, by the same flips: twice the smaller tail, at most 1."""
    increase = np.asarray(increase, dtype=np.float64)
    smaller = np.minimum(sign_flip(increase, seed), sign_flip(-increase, seed))
    return np.asarray(np.minimum(1.0, 2 * smaller))


def smallest_p(blocks: int) -> float:
    """Smallest p so many blocks allow."""
    return 1 / len(flips(blocks))


def q_values(p: ArrayLike) -> FloatArray:
    """Benjamini-Hochberg q over units, target by target.

    Parameters
    ----------
    p : array_like, shape (U, R)
    """
    p = np.asarray(p, dtype=np.float64)
    return np.stack([fdr(column)[0] for column in p.T], axis=1)


def dissociation(
    increase: ArrayLike, a: IntArray | int, b: IntArray | int, x: int, y: int, seed: int = 0
) -> tuple[float, float]:
    """Double dissociation of two units and two targets as a signed interaction.

    Parameters
    ----------
    increase : array_like, shape (K, U, R)
        Sums over blocks, each target over its own variance.
    a, b : int
        Units.
    x, y : int
        Targets.

    Returns
    -------
    value : float
        (a on x - a on y) - (b on x - b on y), summed over blocks: above 0 where a matters more
        for x and b more for y.
    p : float
        Two-sided, by sign flips of the blocks' interactions.
    """
    increase = np.asarray(increase, dtype=np.float64)
    blocks = (increase[:, a, x] - increase[:, b, x]) - (increase[:, a, y] - increase[:, b, y])
    return float(blocks.sum()), float(two_sided(blocks, seed))


@dataclass(frozen=True)
class Dissociation:
    """The strongest double dissociation of all pairs of units.

    Attributes
    ----------
    a, b : int
        Unit that matters more for the first target, and for the second.
    value : float
        Signed interaction, summed over blocks.
    p : float
        Corrected for having chosen the pair.
    """

    a: int
    b: int
    value: float
    p: float


def strongest_dissociation(
    increase: ArrayLike, x: int, y: int, seed: int = 0, measured_gain: ArrayLike | None = None
) -> Dissociation:
    """Find the two units that two targets tell apart best.

    The same flips turn all units; p is the share of flips whose own best pair is at least as good
    (Westfall & Young 1993), so that it holds over all pairs.

    Parameters
    ----------
    increase : array_like, shape (K, U, R)
    x, y : int
        Targets.
    seed : int
    measured_gain : array_like, shape (K, U, R), optional
        What the units' measured activity tells. The pair was not chosen by it, so one test of its
        interaction suffices; the larger p is returned, for both must hold.
    """
    increase = np.asarray(increase, dtype=np.float64)
    selective = increase[..., x] - increase[..., y]
    total = selective.sum(axis=0)
    a, b = int(total.argmax()), int(total.argmin())
    observed, size = float(total[a] - total[b]), float(np.abs(selective).sum(axis=0).max())
    signs = flips(len(selective), seed)
    as_good = 0
    for start in range(0, len(signs), _CHUNK):
        null = signs[start : start + _CHUNK].astype(np.float64) @ selective
        as_good += int((np.ptp(null, axis=1) >= observed - _EQUAL * size).sum())
    p = as_good / len(signs)
    if measured_gain is not None:
        gain = np.asarray(measured_gain, dtype=np.float64)
        gain = gain[..., x] - gain[..., y]
        p = max(p, float(sign_flip(gain[:, a] - gain[:, b], seed)))
    return Dissociation(a, b, observed, p)
