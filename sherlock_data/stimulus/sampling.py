"""What of a movie a network looks at, and its mean over every TR.

Legend: P = pieces of time, F = features. A sampled frame stands for the seconds around it, a patch
of sound for its own, an annotation's text for its segment: each counts by the seconds it shares
with the TR, as every other stimulus does (:mod:`sherlock_data.timing`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from sherlock_data.stimulus.audio import Reader
from sherlock_data.stimulus.movie import LEVEL, MovieProbe, frames, sound
from sherlock_data.timing import FloatArray, overlaps

#: pieces given to a network at once
BATCH = 16

FloatSamples = NDArray[np.float32]
Vectors = Callable[[Any], FloatSamples]


@dataclass(frozen=True)
class Piece:
    """A stretch of movie and what stands for it.

    Attributes
    ----------
    start_s, end_s : float
        Movie seconds.
    values : ndarray
        uint8 (height, width, 3), or float32 (sample,).
    """

    start_s: float
    end_s: float
    values: NDArray[np.generic]


class TrMean:
    """Time-weighted mean over TRs of pieces that come one batch after the other.

    Parameters
    ----------
    edges : ndarray of float64, shape (TR + 1,)
        Seconds.
    features : int
    """

    def __init__(self, edges: FloatArray, features: int) -> None:
        self.edges, self.covered = edges, np.zeros(len(edges) - 1)
        self.total = np.zeros((len(edges) - 1, features))
        self.seconds = np.zeros(len(edges) - 1)

    def add(self, starts: FloatArray, ends: FloatArray, values: FloatSamples) -> None:
        """Add pieces (P,) with their vectors (P, F); batches must not overlap one another."""
        shared = overlaps(starts, ends, self.edges)
        for source, target, seconds in zip(
            shared.source, shared.target, shared.seconds, strict=True
        ):
            self.total[target] += values[source] * seconds
            self.seconds[target] += seconds
        self.covered += shared.covered

    def mean(self, least_s: float) -> tuple[FloatSamples, NDArray[np.bool_]]:
        """Mean (TR, F) float32 and whether at least ``least_s`` are covered; NaN where not."""
        covered = (self.covered >= least_s - 1e-6) & (self.seconds > 0)
        mean = np.full(self.total.shape, np.nan, np.float32)
        mean[covered] = self.total[covered] / self.seconds[covered, None]
        return mean, covered


def average(
    pieces: Iterator[Piece], network: Vectors, into: TrMean, report: Callable[[float], None]
) -> None:
    """Let a network read pieces, a batch at a time, and add its vectors to a mean over TRs."""
    for batch in _batches(pieces):
        starts, ends = np.array([(piece.start_s, piece.end_s) for piece in batch]).T
        values = [piece.values for piece in batch]
        same = {value.shape for value in values}
        items = np.stack(values) if len(same) == 1 else values
        into.add(starts, ends, network(items))
        span = into.edges[-1] - into.edges[0]
        report(float(np.clip((ends[-1] - into.edges[0]) / span, 0, 1)))


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    for piece in pieces:
        batch.append(piece)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def sampled_frames(
    movie: MovieProbe, rate: float, start_s: float, end_s: float
) -> Generator[Piece, None, None]:
    """Frames of a movie, so many a second.

    Parameters
    ----------
    movie : MovieProbe
    rate : float
        Frames per second. The movie is cut into steps of ``1 / rate`` seconds from its second 0;
        the frame on the screen in the middle of a step stands for it. At the movie's own rate or
        above, every frame stands for itself.
    start_s, end_s : float
        Movie seconds of interest; pieces wholly outside are left out.

    Yields
    ------
    Piece
        In order and without a gap from the first frame to the last, at full resolution.

    Raises
    ------
    InputError
        If the movie does not decode.
    """
    pending: Piece | None = None
    first_s: float | None = None
    every = rate >= float(movie.frame_rate)
    with closing(frames(movie, movie.width, movie.height)) as shown:
        for frame in shown:
            first_s = frame.start_s if first_s is None else first_s
            begin, stop = (np.ceil(s * rate - 0.5) for s in (frame.start_s, frame.end_s))
            if begin == stop and not every:
                continue
            if pending is not None and pending.end_s > start_s:
                yield pending
            steps = (frame.start_s, frame.end_s) if every else (begin / rate, stop / rate)
            begin_s = first_s if pending is None else pending.end_s
            pending = Piece(float(begin_s), float(steps[1]), _grey(frame.picture))
            if pending.start_s >= end_s:
                return
    if pending is not None:
        # the movie may end before the middle of its last step
        yield Piece(pending.start_s, movie.video_seconds, pending.values)


def _grey(picture: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture // LEVEL, dtype=np.uint8)


def sound_patches(
    movie: MovieProbe, rate: int, window: int, hop: int, start_s: float, end_s: float
) -> Generator[Piece, None, None]:
    """Patches of a movie's sound, mixed to mono and resampled.

    Parameters
    ----------
    movie : MovieProbe
    rate : int
        Hz, of the patches.
    window, hop : int
        Samples of a patch, and from one to the next; ``window >= hop``.
    start_s, end_s : float
        Movie seconds of interest.

    Yields
    ------
    Piece
        Patch k stands for ``[k * hop, (k + 1) * hop) / rate`` seconds, up to the last frame's end:
        the sound's time is the picture's, and where the movie has none there is silence.

    Raises
    ------
    InputError
        If the sound does not decode.
    """
    last_s = min(end_s, movie.video_seconds)
    with closing(sound(movie, 1)) as blocks:
        reader = Reader(_resampled(blocks, movie.sample_rate, rate), 1)
        held = np.zeros(0, np.float32)
        patch = 0
        while (begin_s := patch * hop / rate) < last_s:
            fresh = reader.take(window - len(held))[0]
            samples = np.zeros(window, np.float32)
            samples[: len(held)] = held
            samples[len(held) : len(held) + len(fresh)] = fresh
            held = samples[hop:]
            patch += 1
            if (stop_s := min(patch * hop / rate, movie.video_seconds)) > start_s:
                yield Piece(begin_s, stop_s, samples)


def _resampled(blocks: Iterator[FloatSamples], source: int, rate: int) -> Iterator[FloatSamples]:
    """Resample blocks (1, sample) as one signal."""
    stream = soxr.ResampleStream(source, rate, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block[0]))[None]
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)[None]
