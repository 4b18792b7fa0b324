"""The sound of every TR: power in mel bands, mel-frequency cepstral coefficients, mel spectrum.

Legend: C = channels, N = samples of a TR, F = frequencies, W = windows. Every number of a TR comes
from that TR's own samples: the windows at its ends are filled up by reflection, so that nothing
leaks in from a neighbour and every sample counts the same.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import librosa
import numpy as np
from librosa.filters import get_window
from librosa.filters import mel as mel_bank
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sherlock_data.stimulus.movie import MovieProbe, sound
from sherlock_data.timing import FloatArray

#: window of the spectrum: the power of two at or above this (2,048 samples at 44.1 kHz)
WINDOW_S = 0.04
#: windows begin every quarter of their length
OVERLAP = 4
#: power below this counts as silence: -100 dB re a mean square of 1, about 16-bit sound's own noise
FLOOR = 1e-10
FLOOR_DB = float(10 * np.log10(FLOOR))
#: mel bands that the cepstral coefficients are taken from, librosa's default
MFCC_MELS = 128

FloatSamples = NDArray[np.float32]


@dataclass(frozen=True)
class SoundSpectra:
    """From a TR's samples to its spectra.

    Attributes
    ----------
    sample_rate : int
        Hz.
    top_hz : float
        Upper end of the filter banks; common to all movies of a store.
    bands, mfcc, mel : int
        How many of each.
    samples : int
        Samples of a TR, at least; a window is never longer.
    """

    sample_rate: int
    top_hz: float
    bands: int
    mfcc: int
    mel: int
    samples: int

    @cached_property
    def window(self) -> int:
        """Samples of one window."""
        wanted = 1 << int(np.ceil(np.log2(WINDOW_S * self.sample_rate)))
        return min(wanted, 1 << (self.samples.bit_length() - 1))

    @cached_property
    def _banks(self) -> dict[str, csr_array]:
        """Filter banks (mel, F), sparse: a triangle covers a few frequencies of a thousand."""
        counts = {"bands": self.bands, "mel": self.mel, "mfcc": max(MFCC_MELS, self.mfcc)}
        return {
            name: csr_array(
                mel_bank(
                    sr=self.sample_rate,
                    n_fft=self.window,
                    n_mels=count,
                    fmax=self.top_hz,
                    norm=None,
                )
            )
            for name, count in counts.items()
        }

    def of(self, samples: FloatSamples) -> dict[str, FloatSamples]:
        """Spectra of one TR.

        Parameters
        ----------
        samples : ndarray of float32, shape (C, N)
            Full scale is 1.

        Returns
        -------
        dict of ndarray of float32
            ``audio_bands`` (C, bands) and ``audio_mel`` (C, mel): mean power in triangular mel
            bands (Slaney's scale, peak 1), dB re a mean square of 1, not below ``FLOOR_DB``.
            ``audio_mfcc`` (C, mfcc): mean over the windows of the cepstral coefficients (librosa's
            orthonormal DCT-II of 128 mel bands in dB).
        """
        power = self._power(samples)
        mean = power.mean(axis=-1, keepdims=True)
        windows = librosa.feature.mfcc(S=self._decibel("mfcc", power), n_mfcc=self.mfcc)
        found = {
            "audio_bands": self._decibel("bands", mean)[..., 0],
            "audio_mfcc": windows.mean(axis=-1),
            "audio_mel": self._decibel("mel", mean)[..., 0],
        }
        return {name: values.astype(np.float32) for name, values in found.items()}

    def _decibel(self, bank: str, power: FloatSamples) -> FloatSamples:
        """Power in the bands of a filter bank, (C, band, W), in dB."""
        bands = np.stack([self._banks[bank] @ channel for channel in power])
        decibel = librosa.power_to_db(bands, ref=1.0, amin=FLOOR, top_db=None)
        # the logarithm of some processors rounds the floor to below itself
        return np.asarray(np.maximum(decibel, np.float32(FLOOR_DB)))

    def _power(self, samples: FloatSamples) -> FloatSamples:
        """Power per frequency and window, (C, F, W); its sum over F is the mean square."""
        spectrum = librosa.stft(
            samples,
            n_fft=self.window,
            hop_length=max(1, self.window // OVERLAP),
            window="hann",
            pad_mode="reflect",
        )
        hann = get_window("hann", self.window)
        scale = np.float32(2 / (self.window * np.sum(hann**2)))
        # librosa gives Fortran order, which every product with a filter bank would turn again
        return np.ascontiguousarray((spectrum.real**2 + spectrum.imag**2) * scale)


def centres_hz(count: int, top_hz: float) -> FloatArray:
    """Centre frequencies of a mel filter bank in Hz, shape (count,), float64."""
    edges = librosa.mel_frequencies(n_mels=count + 2, fmin=0.0, fmax=top_hz)
    return np.asarray(edges[1:-1], dtype=np.float64)


def tr_samples(
    movie: MovieProbe, edges: FloatArray, channels: int
) -> Generator[tuple[int, FloatSamples], None, None]:
    """Yield the samples of one TR after the other.

    Parameters
    ----------
    movie : MovieProbe
    edges : ndarray of float64, shape (TR + 1,)
        Movie seconds. Sample n, at n / rate, belongs to the TR whose ``[start, end)`` holds it.
    channels : int

    Yields
    ------
    tr : int
        Position in the run.
    samples : ndarray of float32, shape (channels, N)
        Silence where the movie has none: before its first and after its last sample.

    Raises
    ------
    InputError
        If the sound does not decode.
    """
    borders = np.ceil(edges * movie.sample_rate - 1e-6).astype(np.int64)
    with closing(sound(movie, channels)) as blocks:
        reader = Reader(blocks, channels)
        reader.skip(max(0, int(borders[0])))
        for tr, (start, stop) in enumerate(pairwise(borders.tolist())):
            silence = min(max(0, -start), stop - start)
            samples = np.zeros((channels, stop - start), np.float32)
            found = reader.take(samples.shape[1] - silence)
            samples[:, silence : silence + found.shape[1]] = found
            yield tr, samples


class Reader:
    """Cuts a stream of blocks into pieces of any length."""

    def __init__(self, blocks: Iterator[FloatSamples], channels: int) -> None:
        self.blocks, self.rest = blocks, np.zeros((channels, 0), np.float32)

    def take(self, count: int) -> FloatSamples:
        """Return the next ``count`` samples, fewer at the end of the stream."""
        held = [self.rest]
        while (have := sum(block.shape[1] for block in held)) < count:
            block = next(self.blocks, None)
            if block is None:
                break
            held.append(block)
        joined = np.concatenate(held, axis=1) if have else self.rest
        self.rest = joined[:, count:]
        return joined[:, :count]

    def skip(self, count: int) -> None:
        """Drop the next ``count`` samples, a block at a time."""
        while count > 0:
            dropped = self.take(min(count, 1 << 18)).shape[1]
            if not dropped:
                return
            count -= dropped
