"""The features that the movies carry: independent random tracks, each with a name.

Legend: V = TRs of a run, F = features. A track is AR(1) from TR to TR and linear in between, so
that it survives a TR's mean but forgets itself within a few TRs: far less than the 10 TRs of gap
that a ``block`` split leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from sherlock_data.timing import Clock, Run

FloatArray = NDArray[np.float64]

VIDEO_TRACKS = (
    "brightness_left",
    "brightness_right",
    "disc_height",
    "colour_warmth",
    "texture_contrast",
    "stripe_frequency",
    "swing_amplitude",
    "bar_position",
)
AUDIO_TRACKS = ("loudness_low", "loudness_mid", "loudness_high", "balance_left_right")
TRACKS = VIDEO_TRACKS + AUDIO_TRACKS

#: correlation of a track with itself one TR later
AUTOCORRELATION = 0.6
#: weights of a TR's own knot and of its two neighbours in the mean of a line between knots
TR_MEAN = (1 / 8, 6 / 8, 1 / 8)


@dataclass(frozen=True)
class RunTracks:
    """The tracks of one run.

    Attributes
    ----------
    run : Run
    knot_s : ndarray of float64, shape (V + 2,)
        Movie times of the knots: the centre of every TR, and one before and after.
    knots : ndarray of float64, shape (V + 2, F)
    per_tr : ndarray of float64, shape (V, F)
        Exact mean over every TR; per run of mean 0, variance 1 and mutually uncorrelated.
    """

    run: Run
    knot_s: FloatArray
    knots: FloatArray
    per_tr: FloatArray

    def at(self, seconds: FloatArray, names: tuple[str, ...]) -> dict[str, FloatArray]:
        """Tracks at movie times, each of shape (time,), in standard deviations."""
        return {
            name: np.interp(seconds, self.knot_s, self.knots[:, TRACKS.index(name)])
            for name in names
        }


def draw_tracks(clock: Clock, seed: int) -> list[RunTracks]:
    """Draw the tracks of every run.

    Parameters
    ----------
    clock : Clock
    seed : int

    Returns
    -------
    list of RunTracks
        In order of the runs.
    """
    rng = np.random.default_rng([seed, 0])
    return [_run_tracks(clock, run, rng) for run in clock.runs]


def _run_tracks(clock: Clock, run: Run, rng: np.random.Generator) -> RunTracks:
    knots = ar1(rng.standard_normal((run.volumes + 2, len(TRACKS))), AUTOCORRELATION)
    knots -= _tr_mean(knots).mean(axis=0)
    knots = knots @ _whitener(_tr_mean(knots))
    centre = np.arange(-1, run.volumes + 1, dtype=np.float64) + 0.5
    knot_s = np.asarray(run.movie_start_s + centre * clock.repetition_time_s)
    return RunTracks(run, knot_s, knots, _tr_mean(knots))


def ar1(innovations: FloatArray, coefficient: float) -> FloatArray:
    """Stationary AR(1) of unit variance along axis 0 from white noise of unit variance."""
    scaled = innovations * np.sqrt(1 - coefficient**2)
    scaled[0] = innovations[0]
    return np.asarray(lfilter([1.0], [1.0, -coefficient], scaled, axis=0))


def _tr_mean(knots: FloatArray) -> FloatArray:
    before, own, after = TR_MEAN
    return before * knots[:-2] + own * knots[1:-1] + after * knots[2:]


def _whitener(values: FloatArray) -> FloatArray:
    """Symmetric (ZCA) whitening: the smallest change that leaves no correlation by chance."""
    variance, axes = np.linalg.eigh(np.cov(values.T, bias=True))
    return np.asarray(axes / np.sqrt(variance) @ axes.T)
