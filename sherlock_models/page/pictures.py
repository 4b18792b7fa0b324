"""Figures of a run as PNG in base64, for a page that needs no network.

Every figure is drawn twice, for light and for dark surroundings, and carries its alternative text.
Colours are Okabe and Ito's and matplotlib's cividis, told apart by any eye.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sherlock_models.training.history import MEAN_SCORE, Curve

#: Okabe & Ito (2008), without the ones too pale for a line
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MAP = "cividis"
#: of maps with both signs; nothing has the ground's own colour, and does not shine on a dark one
SIGNED_MAPS = {"light": "RdBu_r", "dark": "berlin"}
DPI = 110
#: points a curve is drawn with
_BINS = 200
_INK = {"light": "#333333", "dark": "#d6d6d6"}
_PAPER = {"light": "#ffffff", "dark": "#1c1f24"}


@dataclass(frozen=True)
class Picture:
    """One figure of the page.

    Attributes
    ----------
    alt : str
        What it shows, for who cannot see it.
    light, dark : str
        PNG in base64; one is enough where the picture has no ground of its own.
    """

    alt: str
    light: str
    dark: str | None = None


def learning_curve(curves: Sequence[Curve], terms: Sequence[str]) -> Picture:
    """Draw each loss term over the steps beside the score of the training mean (1)."""

    def draw(mode: str) -> Figure:
        figure = Figure(figsize=(3.1 * len(terms), 2.6), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(terms), sharex=True))
        for axis, term, colour in zip(axes, terms, COLOURS * len(terms), strict=False):
            axis.axhline(MEAN_SCORE, color=_INK[mode], linestyle=":", linewidth=1)
            for curve in (c for c in curves if c.term == term):
                held = curve.split == "validation"
                step, value = (curve.step, curve.value) if held else curve.binned(_BINS)
                style: dict[str, Any] = {"marker": "o", "ms": 3} if held else {"alpha": 0.45}
                axis.plot(step, value, color=colour, label=curve.split, **style)
            axis.set(title=term, xlabel="step")
            axis.spines[["top", "right"]].set_visible(False)
            axis.legend(frameon=False, fontsize=8)
        axes[0].set_ylabel("loss (the mean: 1)")
        return figure

    ends = [f"{c.term} {c.last:.2f}" for c in curves if c.split == "validation"]
    alt = "Learning curves: loss over training steps, where the training mean scores 1. "
    return _both(draw, alt + f"Last validation: {', '.join(ends) or 'none'}.")


def strip(frames: NDArray[np.uint8], alt: str, gap: int = 4) -> Picture:
    """Join pictures (n, H, W, 3) side by side, transparent between."""
    n, height, width, _ = frames.shape
    sheet = np.zeros((height, n * width + (n - 1) * gap, 4), dtype=np.uint8)
    for index, frame in enumerate(frames):
        left = index * (width + gap)
        sheet[:, left : left + width, :3] = frame
        sheet[:, left : left + width, 3] = 255
    return Picture(alt, _png(sheet))


def features(original: NDArray[Any], decoded: NDArray[Any], name: str) -> Picture:
    """Draw a vector stimulus over held-out TRs, original above decoded, both (T, F) normalised."""
    pair = (original, decoded)

    def draw(mode: str) -> Figure:
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True)
        for axis, label, values in zip(axes, ("original", "decoded"), pair, strict=True):
            image = axis.imshow(
                values.T, aspect="auto", cmap=MAP, vmin=-2, vmax=2, interpolation="nearest"
            )
            axis.set_ylabel(f"{label}\nfeature")
        axes[1].set_xlabel("held-out TR, in order")
        figure.colorbar(image, ax=axes, label="SD from the training mean")
        return figure

    alt = f"{name} over {len(original)} held-out TRs, the original above what was decoded."
    return _both(draw, alt)


def glass_brain(image: Any, title: str, alt: str) -> Picture:
    """Draw a map in MNI space through a transparent head, from the left, behind and above."""

    def draw(mode: str) -> Figure:
        from nilearn import plotting

        figure = Figure(figsize=(9, 2.7))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nilearn's own, about empty maps and its own future
            plotting.plot_glass_brain(
                image,
                figure=figure,
                display_mode="lyrz",
                cmap=MAP,
                colorbar=True,
                threshold=1e-6,
                vmin=0,
                vmax=_top(image),
                plot_abs=False,
                black_bg=mode == "dark",
                title=title,
            )
        return figure

    return _both(draw, alt)


def signed_brain(image: Any, alt: str) -> Picture:
    """Draw a map with both signs in MNI space through a transparent head."""

    def draw(mode: str) -> Figure:
        from nilearn import plotting

        figure = Figure(figsize=(9, 2.7))
        top = max(float(np.nanmax(np.abs(np.asarray(image.dataobj)))), 1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plotting.plot_glass_brain(
                image,
                figure=figure,
                display_mode="lyrz",
                cmap=SIGNED_MAPS[mode],
                colorbar=True,
                threshold=1e-6 * top,
                vmin=-top,
                vmax=top,
                symmetric_cbar=True,
                plot_abs=False,
                black_bg=mode == "dark",
            )
        return figure

    return _both(draw, alt)


def slices(image: Any, title: str, alt: str) -> Picture:
    """Draw a map in MNI space on axial slices of the template."""

    def draw(mode: str) -> Figure:
        from nilearn import plotting

        figure = Figure(figsize=(9, 2.4))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plotting.plot_stat_map(
                image,
                figure=figure,
                display_mode="z",
                cut_coords=[-20, -8, 4, 16, 28, 44, 60],
                cmap=MAP,
                threshold=1e-6,
                vmin=0,
                vmax=_top(image),
                black_bg=mode == "dark",
                title=title,
            )
        return figure

    return _both(draw, alt)


def _top(image: Any) -> float:
    """Upper end of the colours: the map's maximum, never zero."""
    return max(float(np.nanmax(np.asarray(image.dataobj))), 0.05)


def _both(draw: Callable[[str], Figure], alt: str) -> Picture:
    encoded = {}
    for mode in ("light", "dark"):
        with _ground(mode):
            encoded[mode] = _figure(draw(mode), _PAPER[mode])
    return Picture(alt, encoded["light"], encoded["dark"])


@contextmanager
def _ground(mode: str) -> Iterator[None]:
    ink, paper = _INK[mode], _PAPER[mode]
    keys = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: dict[Any, Any] = {**dict.fromkeys(keys, ink), "axes.facecolor": paper, "font.size": 9}
    with mpl.rc_context(style):
        yield


def _figure(figure: Figure, paper: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=paper)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _png(pixels: NDArray[np.uint8]) -> str:
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, pixels, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
