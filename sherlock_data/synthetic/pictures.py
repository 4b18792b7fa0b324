"""Draw the tracks as moving pictures: one panel for each, so that each can be read back.

Legend: N = frames of a block, h, w = a panel's pixels. Every panel's TR-mean picture is close to
linear in its track; what moves has soft edges for that reason. A panel's function takes ``z`` (its
track, in standard deviations) and ``phase`` (place within the TR), both (N, 1, 1), and the shares
``y`` (1, h, 1) and ``x`` (1, 1, w) of the panel, and gives values of 0 to 1 that broadcast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Panel = Callable[[Image, Image, Image, Image], Image]

#: tracks are drawn within this many standard deviations
REACH = 3.0
#: swings of the pendulum in a TR: whole, so that its phase averages out
SWINGS_PER_TR = 2


def brightness(z: Image, phase: Image, y: Image, x: Image) -> Image:
    """Draw a sky whose brightness is the track, a little darker towards the top."""
    return (0.5 + 0.13 * z) * (0.85 + 0.15 * y)


def spot_height(z: Image, phase: Image, y: Image, x: Image) -> Image:
    """Draw a disc that rises with the track."""
    return _bump(y, 0.5 - 0.12 * z, 0.13) * _bump(x, np.float32(0.5), 0.2)


def texture(z: Image, phase: Image, y: Image, x: Image) -> Image:
    """Draw checks whose contrast is the track."""
    checks = np.sin(6 * np.pi * x, dtype=np.float32) * np.sin(8 * np.pi * y, dtype=np.float32)
    return np.asarray(0.5 + (0.25 + 0.08 * z) * checks)


def stripes(z: Image, phase: Image, y: Image, x: Image) -> Image:
    """Draw upright stripes whose spatial frequency is the track."""
    waves = np.cos(2 * np.pi * (2.5 + 0.25 * z) * x, dtype=np.float32)
    return np.asarray(0.5 + 0.4 * waves)


def pendulum(z: Image, phase: Image, y: Image, x: Image) -> Image:
    """Draw a blob that swings up and down as widely as the track says."""
    centre = 0.5 + (0.16 + 0.05 * z) * np.sin(2 * np.pi * SWINGS_PER_TR * phase, dtype=np.float32)
    return _bump(y, centre, 0.1) * _bump(x, np.float32(0.5), 0.25)


def bar(z: Image, phase: Image, y: Image, x: Image) -> Image:
    """Draw an upright bar whose place from left to right is the track."""
    return _bump(x, 0.5 + 0.12 * z, 0.12)


def plain(z: Image, phase: Image, y: Image, x: Image) -> Image:
    """Draw one even value, the track."""
    return 0.5 + 0.15 * z


#: track -> its panel as (top, bottom, left, right) in shares of the frame, what it draws, and the
#: colours that the values 0 and 1 stand for
SCENE: dict[str, tuple[tuple[float, float, float, float], Panel, str, str]] = {
    "brightness_left": ((0.0, 0.55, 0.0, 0.4), brightness, "#0a1420", "#d8ecff"),
    "disc_height": ((0.0, 0.55, 0.4, 0.6), spot_height, "#33485e", "#fff2c0"),
    "brightness_right": ((0.0, 0.55, 0.6, 1.0), brightness, "#0a1420", "#d8ecff"),
    "colour_warmth": ((0.55, 1.0, 0.0, 0.2), plain, "#1850e0", "#e0781c"),
    "texture_contrast": ((0.55, 1.0, 0.2, 0.4), texture, "#203820", "#b0d890"),
    "stripe_frequency": ((0.55, 1.0, 0.4, 0.6), stripes, "#302818", "#e8dcc0"),
    "swing_amplitude": ((0.55, 1.0, 0.6, 0.8), pendulum, "#281838", "#f0b8e8"),
    "bar_position": ((0.55, 1.0, 0.8, 1.0), bar, "#102c30", "#a8f0e8"),
}


def draw(
    tracks: dict[str, NDArray[np.float64]],
    phase: NDArray[np.float64],
    width: int,
    height: int,
) -> NDArray[np.uint32]:
    """Draw a block of frames.

    Parameters
    ----------
    tracks : dict of ndarray, shape (N,)
        Value of every video track in standard deviations.
    phase : ndarray of float64, shape (N,)
        Movie time in TRs.
    width, height : int
        Pixels.

    Returns
    -------
    ndarray of uint32, shape (N, height, width)
        Four bytes a pixel: red, green, blue and an empty one (ffmpeg's ``rgb0``).
    """
    frames = np.empty((len(phase), height, width), dtype="<u4")
    turn = (phase % 1).astype(np.float32).reshape(-1, 1, 1)
    for name, ((top, bottom, left, right), panel, dark, light) in SCENE.items():
        rows = slice(round(top * height), round(bottom * height))
        columns = slice(round(left * width), round(right * width))
        y = _shares(rows.stop - rows.start).reshape(1, -1, 1)
        x = _shares(columns.stop - columns.start).reshape(1, 1, -1)
        z = np.clip(tracks[name], -REACH, REACH).astype(np.float32).reshape(-1, 1, 1)
        step = (panel(z, turn, y, x) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        frames[:, rows, columns] = _ramp(dark, light)[step]
    return frames


@lru_cache
def _ramp(dark: str, light: str) -> NDArray[np.uint32]:
    """Pixels of 256 values from one colour to the other."""
    first, last = (np.array(list(bytes.fromhex(colour[1:]))) for colour in (dark, light))
    rgb = np.rint(np.linspace(first, last, 256)).astype(np.uint8)
    return np.asarray(np.pad(rgb, ((0, 0), (0, 1))).view("<u4")[:, 0])


def _bump(at: Image, centre: Image | np.float32, width: float) -> Image:
    return np.asarray(np.exp(np.square(at - centre) * np.float32(-0.5 / width**2)))


def _shares(pixels: int) -> Image:
    """Middles of pixels, from 0 to 1 across a panel."""
    return np.asarray((np.arange(pixels) + 0.5) / pixels, dtype=np.float32)
