"""Sound the tracks: the loudness of three bands of noise in dB, and the balance of the sides.

Legend: n = samples of a block, channel = left, right. Loudness moves in decibels, so that a band's
power in dB is linear in its track.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from sherlock_data.synthetic.tracks import AUDIO_TRACKS, RunTracks

SAMPLING_RATE = 44_100
CHANNELS = 2
#: Hz of every loudness track
BANDS = {
    "loudness_low": (120.0, 500.0),
    "loudness_mid": (700.0, 2_000.0),
    "loudness_high": (2_800.0, 9_000.0),
}
#: dB for one standard deviation of a track
LOUDNESS_DB = 4.0
BALANCE_DB = 3.0
#: dB of full scale: a band at its mean loudness, and the even noise that no band falls below
MEAN_DB = -34.0
FLOOR_DB = -70.0
#: the loudness is held for this many samples (10 ms)
HOLD = SAMPLING_RATE // 100
#: carriers repeat after this many holds (20 s)
CARRIER_HOLDS = 2_000


def sound_blocks(tracks: RunTracks, end_s: float, total_s: float) -> Iterator[NDArray[np.int16]]:
    """Yield the sound track of a run's movie.

    Parameters
    ----------
    tracks : RunTracks
    end_s : float
        Movie time at which the sound ends.
    total_s : float
        Length of the movie; silence fills the rest.

    Yields
    ------
    ndarray of int16, shape (n, channel)
    """
    carriers = _carriers()
    holds = int(np.ceil(total_s * SAMPLING_RATE / HOLD))
    for first in range(0, holds, CARRIER_HOLDS):
        count = min(CARRIER_HOLDS, holds - first)
        seconds = (first + np.arange(count) + 0.5) * HOLD / SAMPLING_RATE
        z = tracks.at(seconds, AUDIO_TRACKS)
        sides = BALANCE_DB * z["balance_left_right"][:, None] * np.array([-0.5, 0.5])
        block = carriers["floor"][:count] * _amplitude(FLOOR_DB)
        for band in BANDS:
            level = MEAN_DB + LOUDNESS_DB * z[band][:, None] + sides
            block += carriers[band][:count] * _amplitude(level).astype(np.float32)[:, None, :]
        block[seconds >= end_s] = 0
        yield np.round(np.clip(block, -1, 1) * 32_767).astype(np.int16).reshape(-1, CHANNELS)


@lru_cache(maxsize=1)
def _carriers() -> dict[str, NDArray[np.float32]]:
    """Noise of RMS 1 in every band, and over all frequencies; shape (hold, HOLD, channel)."""
    rng = np.random.default_rng(0)
    shape = (CARRIER_HOLDS * HOLD, CHANNELS)
    frequency = fft.rfftfreq(shape[0], 1 / SAMPLING_RATE)[:, None]
    found = {}
    for name, (low, high) in {"floor": (0.0, SAMPLING_RATE / 2), **BANDS}.items():
        spectrum = fft.rfft(rng.standard_normal(shape, dtype=np.float32), axis=0)
        noise = fft.irfft(np.where((frequency >= low) & (frequency <= high), spectrum, 0), axis=0)
        noise /= np.sqrt(np.mean(np.square(noise)))
        found[name] = noise.astype(np.float32).reshape(-1, HOLD, CHANNELS)
    return found


def _amplitude(decibel: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(10 ** (np.asarray(decibel) / 20), dtype=np.float32)
