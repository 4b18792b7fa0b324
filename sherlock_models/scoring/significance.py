"""What chance alone would score: a phase-randomised null for every unit, and the FDR over units.

Legend: T = TRs, U = units, S = subjects, F = frequencies over all runs, N = null draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from sherlock_models.scoring.scores import BoolArray, FloatArray, IntArray, nan_mean

ComplexArray = NDArray[np.complex128]

NULL_DRAWS = 2000
FDR = 0.05
_CHUNK = 8192


def cross_spectrum(x: ArrayLike, y: ArrayLike, run: ArrayLike) -> ComplexArray:
    """Cross-spectrum of prediction and truth, scaled so that its real parts add up to r.

    Parameters
    ----------
    x, y : array_like, shape (T, U)
        One subject's prediction and measurement.
    run : array_like, shape (T,)
        Runs are transformed apart; each weighs by its TRs.

    Returns
    -------
    ndarray of complex128, shape (F, U)
        The constant term left out. NaN where r is undefined.

    Notes
    -----
    A missing TR (NaN) is given the run's mean: it adds nothing to the correlation.
    """
    x, y, run = np.asarray(x, np.float64), np.asarray(y, np.float64), np.asarray(run)
    parts = []
    for name in np.unique(run):
        a, b = _filled(x[run == name]), _filled(y[run == name])
        size = np.sqrt(np.square(a).mean(axis=0)), np.sqrt(np.square(b).mean(axis=0))
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        flat = (a.std(axis=0) <= 1e-6 * size[0]) | (b.std(axis=0) <= 1e-6 * size[1])
        norm = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
        norm = np.where(flat, np.nan, norm)
        spectrum = np.fft.rfft(a, axis=0)[1:] * np.conj(np.fft.rfft(b, axis=0)[1:])
        twice = np.full(len(spectrum), 2.0)
        if len(a) % 2 == 0 and len(twice):
            twice[-1] = 1.0  # the Nyquist frequency has no mirror image
        with np.errstate(invalid="ignore"):  # complex NaN over NaN
            parts.append(spectrum * twice[:, None] / (norm * len(x)))
    return np.concatenate(parts)


def _filled(series: FloatArray) -> FloatArray:
    return np.where(np.isfinite(series), series, nan_mean(series, axis=0))


class PhaseNull:
    """Mean r over subjects against a phase-randomised prediction, one subject at a time.

    The same random phases turn every unit and subject (so the null keeps the prediction's
    autocorrelation and the units' dependence), as in Lerner et al. (2011), J. Neurosci. 31. In
    the frequency domain a draw is a weighted sum of cosines: one matrix product for all units.

    Parameters
    ----------
    run : array_like, shape (T,)
        Run of every held-out TR; the same TRs for all subjects.
    units : int
    """

    def __init__(self, run: ArrayLike, units: int) -> None:
        self.run = np.asarray(run)
        self.lengths = np.unique(self.run, return_counts=True)[1]
        frequencies = int(np.sum(self.lengths // 2))
        self.total: ComplexArray = np.zeros((frequencies, units), dtype=np.complex128)
        self.count: FloatArray = np.zeros(units)

    def add(self, x: ArrayLike, y: ArrayLike) -> None:
        """Add a subject's prediction and measurement, (T, U); NaN where a TR is invalid."""
        spectrum = cross_spectrum(x, y, self.run)
        there = np.isfinite(spectrum).all(axis=0)
        self.total += np.where(there, spectrum, 0)
        self.count += there

    def test(self, draws: int = NULL_DRAWS, seed: int = 0) -> tuple[FloatArray, FloatArray]:
        """Return r (U,) and its one-sided p (U,); NaN where undefined.

        p = (1 + draws at least as high) / (1 + draws).
        """
        mean = np.where(self.count > 0, self.total / np.maximum(self.count, 1), np.nan)
        r = mean.real.sum(axis=0)
        turns = _phases(self.lengths, draws, np.random.default_rng(seed))
        p = np.full(len(r), np.nan)
        for start in range(0, len(r), _CHUNK):
            part = slice(start, start + _CHUNK)
            null = turns.real @ mean.real[:, part] - turns.imag @ mean.imag[:, part]
            p[part] = (1 + np.sum(null >= r[part], axis=0)) / (1 + draws)
        return r, np.where(np.isfinite(r), p, np.nan)


def _phases(lengths: IntArray, draws: int, rng: np.random.Generator) -> ComplexArray:
    """Draw unit complex numbers (N, F); a Nyquist frequency can only keep or flip its sign."""
    parts = []
    for length in lengths:
        angle = rng.uniform(0, 2 * np.pi, (draws, length // 2))
        turn = np.exp(1j * angle)
        if length % 2 == 0 and length:
            turn[:, -1] = np.where(angle[:, -1] < np.pi, 1, -1)
        parts.append(turn)
    return np.concatenate(parts, axis=1)


def fdr(p: ArrayLike, level: float = FDR) -> tuple[FloatArray, BoolArray]:
    """Benjamini-Hochberg q-values and which of them are at most ``level``.

    Parameters
    ----------
    p : array_like, shape (U,)
        NaN where undefined; such units are not counted.

    Returns
    -------
    q : ndarray of float64, shape (U,)
    significant : ndarray of bool, shape (U,)
    """
    p = np.asarray(p, dtype=np.float64)
    q = np.full(p.shape, np.nan)
    known = np.isfinite(p).reshape(p.shape)
    if known.any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q, np.asarray(np.where(known, q, 1.0) <= level)
