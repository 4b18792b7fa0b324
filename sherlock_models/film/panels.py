"""A frame of a film: original, decoded, changed and their difference side by side.

Legend: H, W = pixels of a panel, F = features of a vector stimulus, b = its bands. Under each
picture runs its sound as a spectrogram, newest at the right; every picture that was decoded is held
for its TR, since one per TR is all there is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sherlock_models.film.decode import CHOSE, HELD_OUT, TRAINED, UNUSED, Told, ToldTr

Pixels = NDArray[np.uint8]

#: pixels
PANEL_WIDTH, TALLEST = 320, 480
GAP, TITLE, SPECTROGRAM, FOOTER = 8, 24, 64, 26
#: TRs that a spectrogram goes back
PAST_TRS = 40
#: ends of the colours of a sound, in standard deviations
DEVIATIONS = 2.5
SOUND_MAP, DIFFERENCE_MAP = "cividis", "RdBu_r"
GROUND, EMPTY, INK, QUIET = (18, 20, 23), (38, 42, 47), (236, 238, 240), (163, 173, 182)
#: Okabe & Ito (2008); the words beside say the same
MARKS = {
    HELD_OUT: (0, 158, 115),
    TRAINED: (230, 159, 0),
    CHOSE: (86, 180, 233),
    UNUSED: (150, 150, 150),
}
#: ITU-R BT.709
LUMA = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)


@dataclass
class Film:
    """Draws frames.

    Attributes
    ----------
    titles : sequence of str
        Of the columns but the last: original, decoded and, if there is one, changed.
    difference : str
        Title of the last column: the last of the others minus the one before it.
    aspect : float
        Width over height of the movie.
    picture : str or None
        Stimulus that is a picture.
    sound : str or None
        Stimulus that is shown as a spectrogram.
    channels : int
        Of the sound; the spectrogram is their mean.
    tr_s : float
        Seconds of a TR.
    levels, deviations : float
        Ends of the colours of the difference: grey levels, and standard deviations of sound.
    """

    titles: Sequence[str]
    difference: str
    aspect: float
    picture: str | None
    sound: str | None
    channels: int
    tr_s: float
    levels: float = 50.0
    deviations: float = DEVIATIONS
    _past: list[deque[NDArray[np.float32] | None]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._past = [deque(maxlen=PAST_TRS) for _ in range(self.columns)]

    @property
    def columns(self) -> int:
        """Panels side by side."""
        return len(self.titles) + 1

    @cached_property
    def panel(self) -> tuple[int, int]:
        """Width and height of a picture, both even."""
        return PANEL_WIDTH, max(2, min(TALLEST, round(PANEL_WIDTH / self.aspect / 2) * 2))

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame, both even."""
        width, height = self.panel
        sound = SPECTROGRAM + GAP if self.sound is not None else 0
        return self.columns * (width + GAP) + GAP, TITLE + height + GAP + sound + FOOTER

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the original's picture."""
        width, height = self.panel
        return slice(TITLE, TITLE + height), slice(GAP, GAP + width)

    def frame(self, told: ToldTr) -> Pixels:
        """Draw a TR, (height, width, 3); call it once for each, in order."""
        sheet = Image.new("RGB", self.size, GROUND)
        draw = ImageDraw.Draw(sheet)
        shown = columns(told, len(self.titles))
        width, height = self.panel
        for column, title in enumerate((*self.titles, self.difference)):
            left = GAP + column * (width + GAP)
            draw.text((left, 4), fitted(title, width), INK, font(14))
            self._draw_picture(sheet, shown[column], column, (left, TITLE))
            if self.sound is not None:
                top = TITLE + height + GAP
                sheet.paste(self._spectrogram(shown[column], column), (left, top))
        self._foot(draw, told)
        return np.asarray(sheet)

    def forget(self) -> None:
        """Empty the spectrograms' past."""
        for past in self._past:
            past.clear()

    def _draw_picture(
        self, sheet: Image.Image, told: Told | None, column: int, corner: tuple[int, int]
    ) -> None:
        difference = column == self.columns - 1
        if told is not None and self.picture is not None:
            levels = (
                coloured(told[self.picture], self.levels)
                if difference
                else bytes_of(told[self.picture])
            )
            sheet.paste(
                Image.fromarray(levels).resize(self.panel, Image.Resampling.BICUBIC), corner
            )
            return
        why = "no picture in this entry" if self.picture is None else "nothing at this TR"
        draw = ImageDraw.Draw(sheet)
        right, bottom = corner[0] + self.panel[0] - 1, corner[1] + self.panel[1] - 1
        draw.rectangle((*corner, right, bottom), EMPTY)
        middle = ((corner[0] + right) // 2, (corner[1] + bottom) // 2)
        draw.text(middle, why, QUIET, font(14), anchor="mm")

    def _spectrogram(self, told: Told | None, column: int) -> Image.Image:
        past = self._past[column]
        past.append(None if told is None else self._bands(told[str(self.sound)]))
        difference = column == self.columns - 1
        bands = max((len(values) for values in past if values is not None), default=1)
        pixels = np.full((bands, PAST_TRS, 3), EMPTY, dtype=np.uint8)
        for place, values in enumerate(past, PAST_TRS - len(past)):
            if values is not None:
                share = values[::-1] / (2 * (self.deviations if difference else DEVIATIONS)) + 0.5
                pixels[:, place] = mapped(share, DIFFERENCE_MAP if difference else SOUND_MAP)
        wanted = (self.panel[0], SPECTROGRAM)
        return Image.fromarray(pixels).resize(wanted, Image.Resampling.NEAREST)

    def _bands(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(values.reshape(max(1, self.channels), -1).mean(axis=0))

    def _foot(self, draw: ImageDraw.ImageDraw, told: ToldTr) -> None:
        width, height = self.size
        middle = height - FOOTER // 2
        left = GAP
        if told.side:
            draw.rectangle((left, middle - 6, left + 11, middle + 5), MARKS[told.side])
            left += 18
        text = f"TR {told.tr}   {clock(told.start_s)}   {told.side}".rstrip()
        draw.text((left, middle), text, INK, font(14), anchor="lm")
        if self.sound is not None:
            note = (
                f"sound of the last {PAST_TRS * self.tr_s:g} s, low at the bottom, "
                f"\u00b1{DEVIATIONS:g} SD from its mean"
            )
            draw.text((width - GAP, middle), note, QUIET, font(12), anchor="rm")


def columns(told: ToldTr, known: int) -> list[Told | None]:
    """Return what the columns show: ``known`` of the TR's three sources, then the difference."""
    shown = [told.original, told.decoded, told.changed][:known]
    before, after = shown[-2:]
    missing = before is None or after is None
    return [*shown, None if missing else {name: after[name] - before[name] for name in after}]  # type: ignore[index, union-attr]


def bytes_of(levels: NDArray[np.float32]) -> Pixels:
    """Round grey levels."""
    return np.asarray(np.clip(np.rint(levels), 0, 255), dtype=np.uint8)


def coloured(difference: NDArray[np.float32], levels: float) -> Pixels:
    """Colour a difference (H, W, 3) in grey levels by its luma: red brighter, blue darker."""
    return mapped((difference @ LUMA) / (2 * levels) + 0.5, DIFFERENCE_MAP)


def mapped(share: NDArray[np.float32], name: str) -> Pixels:
    """Look 0 to 1 up in a colour map: uint8 (..., 3)."""
    index = np.clip(np.nan_to_num(share, nan=0.5) * 255 + 0.5, 0, 255).astype(np.intp)
    return np.asarray(_table(name)[index])


@lru_cache(maxsize=4)
def _table(name: str) -> Pixels:
    return np.asarray(mpl.colormaps[name](np.arange(256), bytes=True)[:, :3])


@lru_cache(maxsize=8)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font."""
    return ImageFont.load_default(size)


def fitted(text: str, width: int, size: int = 14) -> str:
    """Cut a text in its middle until it is no wider than ``width`` pixels."""
    whole, keep = text, len(text)
    while keep > 4 and font(size).getlength(text) > width:
        keep -= 1
        text = (
            f"{whole[: keep - keep // 2]}\N{HORIZONTAL ELLIPSIS}{whole[len(whole) - keep // 2 :]}"
        )
    return text


def clock(seconds: float) -> str:
    """Write film seconds as a player does: 1:02:03.5."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{rest:04.1f}"


def picture_and_sound(sizes: Mapping[str, tuple[int, ...]]) -> tuple[str | None, str | None]:
    """Choose which stimuli a film shows: the first picture, the first sound or other vector."""
    pictures = [name for name, size in sizes.items() if len(size) == 3]
    vectors = [name for name, size in sizes.items() if len(size) == 1]
    heard = [name for name in vectors if name.startswith("audio")]
    return next(iter(pictures), None), next(iter([*heard, *vectors]), None)
