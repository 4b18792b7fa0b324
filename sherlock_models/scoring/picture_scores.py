"""Scores of decoded pictures: PSNR, SSIM and the correlation across pixels.

Legend: T = TRs, H, W = height and width, 3 = red, green, blue. Pictures are on the grey levels of
the store, 0 to 255.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter

from sherlock_models.scoring.scores import FloatArray, Score, TimeBlocks, mean_score, pearson

PEAK = 255.0
_SIGMA, _RADIUS = 1.5, 5
_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def psnr_score(blocks: TimeBlocks, trs: ArrayLike, x: ArrayLike, y: ArrayLike) -> Score:
    """Peak signal-to-noise ratio in dB, 10 log10(255² / MSE), from the error of all TRs together.

    One ratio rather than a mean over TRs: a single TR without error (black, or a frozen picture)
    would make that infinite.

    Parameters
    ----------
    x, y : array_like, shape (T, H, W, 3)
        Decoded and original pictures on 0..255; decoded values beyond are cut off, as a screen
        would.
    """
    x, y = (np.clip(np.asarray(a, dtype=np.float32), 0, PEAK) for a in (x, y))
    error = np.square(x - y).mean(axis=(1, 2, 3), dtype=np.float64)
    pair = blocks.sums(trs, np.stack([error, np.ones_like(error)], axis=1))
    total, count = blocks.resample(pair).T
    with np.errstate(divide="ignore", invalid="ignore"):
        value = 10 * np.log10(PEAK**2 * count / total)
    value = np.where(np.isfinite(value), value, np.nan)
    return Score(float(value[0]), value[1:], len(error))


def ssim_score(blocks: TimeBlocks, trs: ArrayLike, x: ArrayLike, y: ArrayLike) -> Score:
    """Mean over TRs of :func:`ssim`."""
    return mean_score(blocks, trs, ssim(x, y))


def spatial_r_score(blocks: TimeBlocks, trs: ArrayLike, x: ArrayLike, y: ArrayLike) -> Score:
    """Mean over TRs of the correlation across pixels: it flatters whatever looks like the mean."""
    flat = (np.asarray(a, dtype=np.float64).reshape(len(np.asarray(a)), -1).T for a in (x, y))
    return mean_score(blocks, trs, pearson(*flat))


def ssim(x: ArrayLike, y: ArrayLike) -> FloatArray:
    """Structural similarity of every picture (Wang et al. 2004, IEEE Trans. Image Process. 13).

    The paper's Gaussian window (11 x 11, sigma 1.5) and constants (.01, .03), population
    covariance, averaged over colours and over the pixels whose window lies inside the picture.

    Parameters
    ----------
    x, y : array_like, shape (T, H, W, 3)
        On 0..255, at least 11 x 11 pixels; smaller pictures use every pixel, mirrored at the edge.

    Returns
    -------
    ndarray of float64, shape (T,)
    """
    each = [_ssim_one(a, b) for a, b in zip(np.asarray(x), np.asarray(y), strict=True)]
    return np.array(each, dtype=np.float64)


def _ssim_one(x: ArrayLike, y: ArrayLike) -> float:
    x, y = (np.clip(np.asarray(a, dtype=np.float64), 0, PEAK) for a in (x, y))
    mx, my = _blur(x), _blur(y)
    vx, vy, vxy = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
    top = (2 * mx * my + _C1) * (2 * vxy + _C2)
    bottom = (mx * mx + my * my + _C1) * (vx + vy + _C2)
    whole = (slice(_RADIUS, -_RADIUS) if n > 2 * _RADIUS else slice(None) for n in x.shape[:2])
    height, width = whole
    return float((top / bottom)[height, width].mean())


def _blur(image: FloatArray) -> FloatArray:
    return np.asarray(gaussian_filter(image, (_SIGMA, _SIGMA, 0), radius=(_RADIUS, _RADIUS, 0)))
