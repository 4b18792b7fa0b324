"""The mean picture of every TR.

Each frame counts for the seconds that it is on the screen within the TR: at 25 frames per second a
TR of 1.5 s is 37 frames and a half, and the frame on the border gives half of itself to each side.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from sherlock_data.stimulus.movie import LEVEL, Frame, MovieProbe, frames
from sherlock_data.timing import FloatArray, overlaps

#: values of frames held in memory at once
BLOCK_VALUES = 1 << 21


@dataclass(frozen=True)
class TrPicture:
    """What one TR showed.

    Attributes
    ----------
    tr : int
        Position in the run.
    covered_s : float
        Seconds of the TR that frames cover.
    picture : ndarray of uint8, shape (height, width, 3)
        Mean RGB over those seconds, rounded to the nearest grey level (halves to even).
    """

    tr: int
    covered_s: float
    picture: NDArray[np.uint8]


def is_covered(covered_s: float, tr_s: float, frame_rate: Fraction) -> bool:
    """Whether a movie shows a TR: all of it but at most one frame.

    The frame's tolerance is for movies whose last frame ends a little before the run's last TR,
    since containers round times to their own clock.
    """
    return covered_s >= tr_s - float(1 / frame_rate) - 1e-6


def tr_pictures(
    movie: MovieProbe, edges: FloatArray, width: int, height: int
) -> Generator[TrPicture, None, None]:
    """Average a movie's frames over TRs, a block of frames in memory at a time.

    Parameters
    ----------
    movie : MovieProbe
    edges : ndarray of float64, shape (TR + 1,)
        Movie seconds, from :meth:`sherlock_data.timing.Clock.tr_edges`.
    width, height : int
        Pixels.

    Yields
    ------
    TrPicture
        Every TR that some frame covers, in order.

    Raises
    ------
    InputError
        If the movie does not decode.
    """
    sums: dict[int, NDArray[np.float32]] = {}
    covered: dict[int, float] = {}
    with closing(frames(movie, width, height)) as every:
        for block in _blocks(every, max(1, BLOCK_VALUES // (3 * width * height))):
            starts, ends = np.array([(frame.start_s, frame.end_s) for frame in block]).T
            shared = overlaps(starts, ends, edges)
            pairs = zip(shared.source, shared.target.tolist(), shared.seconds, strict=True)
            for piece, tr, seconds in pairs:
                weighted = block[piece].picture * np.float32(seconds)
                if tr in sums:
                    sums[tr] += weighted
                else:
                    sums[tr] = weighted
                covered[tr] = covered.get(tr, 0.0) + float(seconds)
            for tr in [tr for tr in sums if edges[tr + 1] <= ends[-1]]:
                yield _finished(tr, covered.pop(tr), sums.pop(tr))
            if ends[-1] >= edges[-1]:
                return
    for tr in sorted(sums):
        yield _finished(tr, covered[tr], sums[tr])


def _finished(tr: int, covered_s: float, total: NDArray[np.float32]) -> TrPicture:
    mean = np.rint(total / np.float32(covered_s * LEVEL)).clip(0, 255)
    return TrPicture(tr, covered_s, np.ascontiguousarray(mean, dtype=np.uint8))


def _blocks(every: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    block: list[Frame] = []
    for frame in every:
        block.append(frame)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block
