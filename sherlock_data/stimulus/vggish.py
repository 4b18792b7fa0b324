"""VGGish: 128 numbers for every 0.96 s of sound (Hershey et al. 2017, arXiv:1609.09430).

Legend: P = patches, W = windows of a patch (96), M = mel bands (64), N = samples of a patch.

The front end is the published one: 16 kHz mono, windows of 25 ms every 10 ms (periodic Hann, FFT of
512), magnitudes in 64 bands between 125 and 7,500 Hz that are triangles on the mel scale itself,
log(mel + 0.01). The parameters' names are those of the published PyTorch port, whose file loads
unchanged; like there, the last layer is rectified. The PCA and 8-bit rounding that AudioSet's
released embeddings went through are not applied.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

SAMPLE_RATE = 16_000
#: samples of a window, between two windows, and of the Fourier transform
WINDOW, HOP, FFT = 400, 160, 512
BANDS, LOWEST_HZ, HIGHEST_HZ = 64, 125.0, 7500.0
LOG_OFFSET = 0.01
#: windows of a patch; the next patch begins where this one's last hop ends
PATCH_WINDOWS = 96
PATCH_HOP = PATCH_WINDOWS * HOP
#: samples that one patch looks at: its last window reaches a little into the next
PATCH_SAMPLES = (PATCH_WINDOWS - 1) * HOP + WINDOW

FloatArray = NDArray[np.float64]


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log mel spectrum of patches.

    Parameters
    ----------
    samples : ndarray of float32, shape (P, N)
        ``PATCH_SAMPLES`` of 16 kHz mono, full scale 1.

    Returns
    -------
    ndarray of float32, shape (P, W, M)
    """
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW, axis=1)[:, ::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    magnitude = np.abs(np.fft.rfft(windows * hann, FFT, axis=-1))
    return np.asarray(np.log(magnitude @ mel_weights() + LOG_OFFSET), dtype=np.float32)


@cache
def mel_weights() -> FloatArray:
    """Triangles of height 1 on the mel scale, shape (FFT / 2 + 1, M), float64; none at 0 Hz."""

    def mel(hz: FloatArray) -> FloatArray:
        return np.asarray(1127.0 * np.log1p(hz / 700.0))

    lowest, highest = mel(np.array([LOWEST_HZ, HIGHEST_HZ]))
    edges = np.linspace(lowest, highest, BANDS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(np.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1))[:, None]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return np.asarray(weights)


class VGGish(nn.Module):
    """The network: four blocks of 3 x 3 convolutions and three dense layers, 72.1 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for block in ((64,), (128,), (256, 256), (512, 512)):
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        dense: list[nn.Module] = []
        inputs = channels * (PATCH_WINDOWS // 16) * (BANDS // 16)
        for width in (4096, 4096, 128):
            dense += [nn.Linear(inputs, width), nn.ReLU(inplace=True)]
            inputs = width
        self.embeddings = nn.Sequential(*dense)

    def forward(self, patches: Tensor) -> Tensor:
        """Embed log mel patches.

        Parameters
        ----------
        patches : Tensor of float32, shape (P, W, M)

        Returns
        -------
        Tensor of float32, shape (P, 128)
        """
        found = self.features(patches.unsqueeze(1))
        # the dense layers were trained on TensorFlow's order: channels last
        embedded: Tensor = self.embeddings(found.permute(0, 2, 3, 1).flatten(1))
        return embedded
