"""The frames of a film and the file they go to, in step with the movie's own sound.

The original keeps its frames' times, sampled at one constant rate; every other picture is held for
its TR. One TR, one frame and the spectrograms' past are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sherlock_data.contract import created_by
from sherlock_data.stimulus.encode import encode
from sherlock_data.stimulus.ffmpeg import source
from sherlock_data.stimulus.movie import LEVEL, Frame, MovieProbe, frames
from sherlock_models.film.decode import HELD_OUT, MeasuredBrain, MovieBrain, ToldTr
from sherlock_models.film.panels import Film, Pixels
from sherlock_models.film.stills import Stills

#: frames per second at most, and of a film that has no movie beside it
FASTEST, WITHOUT_MOVIE = Fraction(60), Fraction(10)


@dataclass(frozen=True)
class Cost:
    """What is about to be written.

    Attributes
    ----------
    seconds : float
        Of film.
    trs, frames : int
    size : tuple of int
        Width and height in pixels.
    frame_rate : Fraction
    """

    seconds: float
    trs: int
    frames: int
    size: tuple[int, int]
    frame_rate: Fraction


class Watcher(Protocol):
    """Who watches a film being written."""

    def started(self, cost: Cost) -> None:
        """Before the first frame."""

    def advanced(self, frames: int) -> None:
        """After every TR: frames since the last call."""


class Silent:
    """Watches and says nothing."""

    def started(self, cost: Cost) -> None:
        """Before the first frame."""

    def advanced(self, frames: int) -> None:
        """After every TR."""


@dataclass(frozen=True)
class Reel:
    """Everything a film is made of.

    Attributes
    ----------
    brain : MovieBrain or MeasuredBrain
        Gives the TRs in order.
    film : Film
    movie : MovieProbe or None
        Whose frames and sound go along.
    trs : int
    seconds : float
    """

    brain: MovieBrain | MeasuredBrain
    film: Film
    movie: MovieProbe | None
    trs: int
    seconds: float

    @property
    def rate(self) -> Fraction:
        """Frames per second: the movie's own, or a whole part of it."""
        if self.movie is None:
            return WITHOUT_MOVIE
        own = self.movie.frame_rate
        return own / -(-own // FASTEST)

    @property
    def frames(self) -> int:
        """Frames in all."""
        return max(1, round(self.seconds * self.rate))


class CountedTrs:
    """TRs as they come: counted, and shown to whoever keeps stills."""

    def __init__(self, brain: Iterable[ToldTr], stills: Stills | None) -> None:
        self.brain, self.stills = brain, stills
        self.decoded = self.held_out = 0

    def __iter__(self) -> Iterator[ToldTr]:
        for told in self.brain:
            if told.decoded is not None:
                self.decoded += 1
                self.held_out += told.side == HELD_OUT
            if self.stills is not None:
                self.stills.see(told)
            yield told


def write_reel(
    reel: Reel, told: CountedTrs, out: Path, name: object, entry: str, watcher: Watcher
) -> None:
    """Draw and encode a film.

    Parameters
    ----------
    reel : Reel
    told : CountedTrs
        Its TRs.
    out : Path
        The mp4 file.
    name : object
        What to call it in an error.
    entry : str
        Who decoded it, for the file's comment.
    watcher : Watcher

    Raises
    ------
    InputError
        If the movie does not decode, or ffmpeg cannot write.
    """
    encode(_arguments(reel, entry), _frames(reel, told, watcher), out, name)


def _frames(reel: Reel, told: CountedTrs, watcher: Watcher) -> Iterator[Pixels]:
    """Frames of the film: the TR and the movie's frame on the screen in the middle of each."""
    film, rate = reel.film, reel.rate
    trs, shown = iter(told), _Pictures(reel)
    now: ToldTr | None = None
    sheet = film.frame(ToldTr(0, 0.0, 0.0))
    film.forget()
    coming = next(trs, None)
    waiting = 0
    with closing(shown):
        for number in range(reel.frames):
            seconds = float((number + Fraction(1, 2)) / rate)
            while coming is not None and coming.start_s <= seconds:
                now, coming = coming, next(trs, None)
                sheet = film.frame(now)
                watcher.advanced(waiting)
                waiting = 0
            picture = shown.at(seconds)
            if picture is not None:
                sheet = sheet.copy()
                sheet[film.place] = picture
            waiting += 1
            yield sheet
    watcher.advanced(waiting)


class _Pictures:
    """The movie's frames by their times; nothing where there is no movie."""

    def __init__(self, reel: Reel) -> None:
        self.frames = None
        if reel.movie is not None:
            self.frames = frames(reel.movie, *reel.film.panel)
        self.frame: Frame | None = None

    def at(self, seconds: float) -> NDArray[np.uint8] | None:
        """Frame on the screen, None before the first one."""
        if self.frames is None:
            return None
        while self.frame is None or self.frame.end_s <= seconds:
            coming = next(self.frames, None)
            if coming is None:
                break
            self.frame = coming
        if self.frame is None or self.frame.start_s > seconds:
            return None
        return np.asarray(self.frame.picture // LEVEL, dtype=np.uint8)

    def close(self) -> None:
        """Stop ffmpeg."""
        if self.frames is not None:
            self.frames.close()


def _arguments(reel: Reel, entry: str) -> list[str]:
    width, height = reel.film.size
    pictures = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    pictures += ["-r", str(reel.rate), "-i", "-"]
    colours = ["-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"]
    tags = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    h264 = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", *colours, *tags]
    sound: list[str] = []
    codec: list[str] = []
    if reel.movie is not None and reel.movie.has_audio:
        sound = source(reel.movie.path)
        # silence where the sound starts late or has gaps, so that it stays in step
        codec = ["-map", "1:a:0", "-af", "aresample=async=1:first_pts=0", "-c:a", "aac"]
        codec += ["-b:a", "160k"]
    comment = f"{created_by()}: decoded by {entry}"
    said = ["-map_metadata", "-1", "-metadata", f"comment={comment}"]
    return [*pictures, *sound, "-map", "0:v:0", *h264, *codec, *said, "-f", "mp4"]
