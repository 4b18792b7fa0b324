"""``frames``: every frame of the movies at full resolution, each with its own stretch of sound.

``video (frame, height, width, rgb)`` uint8 and ``audio (frame, channel, sample)`` float32. A frame
belongs to the TR in which it appears. Its sound is every sample from its start to the next frame's:
at 44,100 Hz and 24 frames a second that is 1,837 or 1,838, so ``sample`` is as long as the most and
``n_samples (frame)`` says how many are its own (the rest is NaN); one after the other they are the
movie's sound, none lost and none twice. The store is written as the movies are decoded, a shard in
memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sherlock_data.catalog import Catalog
from sherlock_data.contract import strings
from sherlock_data.errors import InputError, StoreError
from sherlock_data.plan import ArraySpec, Results, StorePlan
from sherlock_data.provenance import describe_file, scan_attrs
from sherlock_data.recipes import FramesRecipe
from sherlock_data.scan import Scan
from sherlock_data.stimulus.audio import tr_samples
from sherlock_data.stimulus.movie import LEVEL, frame_starts, frames
from sherlock_data.stimulus.stimulus_store import (
    CHANNELS,
    RunMovie,
    name_of,
    problems,
    run_movies,
)
from sherlock_data.store import open_array
from sherlock_data.timing import FloatArray

PART = "frames"
#: bytes of a chunk, at most (one frame at least), and chunks of a shard
CHUNK_BYTES, SHARD_CHUNKS = 1 << 22, 8
#: how far two ways of reading a frame's time may differ: containers round to their own ticks
TIME_TOLERANCE_S = 1e-3
#: the decoder's own
WORKING_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class RunFrames:
    """The frames of a run.

    Attributes
    ----------
    run : RunMovie
    edges : ndarray of float64, shape (frame + 1,)
        Movie seconds at which frames appear, and at which the last one goes.
    """

    run: RunMovie
    edges: FloatArray

    def __len__(self) -> int:
        """Frames that appear within the run's TRs."""
        return len(self.edges) - 1

    def trs(self) -> NDArray[np.int64]:
        """TR (0-based, over all runs) in which each frame appears, shape (frame,)."""
        within = np.searchsorted(self.run.edges, self.edges[:-1] + 1e-6, side="right") - 1
        return np.asarray(within + self.run.first_tr, dtype=np.int64)

    def samples(self) -> NDArray[np.int64]:
        """Count the samples of each frame's sound, shape (frame,)."""
        borders = np.ceil(self.edges * self.run.movie.sample_rate - 1e-6)
        return np.diff(borders).astype(np.int64)


@dataclass(frozen=True)
class FramesPart:
    """All frames, one after the other: shards do not end where runs do."""

    runs: tuple[RunFrames, ...]
    channels: int
    name: str = PART

    @property
    def weight(self) -> float:
        """Frames to decode."""
        return float(sum(len(run) for run in self.runs))

    def run(self, path: str, report: Callable[[float], None]) -> Results:
        """Write ``video`` and ``audio``; return ``frames``, how many there are."""
        steps = self.weight * (2 if self.channels else 1)
        written = 0

        def tick() -> None:
            nonlocal written
            written += 1
            if written % 64 == 0:
                report(written / steps)

        count = _write(path, "video", (p for run in self.runs for p in pictures(run)), tick)
        if self.channels:
            most = max(int(run.samples().max()) for run in self.runs)
            sounds = (s for run in self.runs for s in stretches(run, self.channels, most))
            _write(path, "audio", sounds, tick)
        return {"frames": np.array(count)}


def pictures(run: RunFrames) -> Iterator[NDArray[np.uint8]]:
    """Decode a run's frames, each (height, width, rgb) uint8.

    Raises
    ------
    InputError
        If the movie does not decode, or frames appear at other times than its packets say.
    """
    movie, found = run.run.movie, 0
    for frame in frames(movie, movie.width, movie.height):
        if found < len(run) and abs(frame.start_s - run.edges[found]) <= TIME_TOLERANCE_S:
            yield np.asarray(frame.picture // LEVEL, dtype=np.uint8)
            found += 1
        elif run.edges[0] < frame.start_s < run.edges[-1] - TIME_TOLERANCE_S:
            break
        if frame.start_s >= run.edges[-1]:
            break
    if found < len(run):
        raise InputError(
            f"frame {found} of {run.run.run} is not where its packet says, "
            f"at {run.edges[found]:.3f} s",
            where=movie.path,
            remedy="re-encode it (ffmpeg -i IN -c:v libx264 -c:a copy OUT.mp4)",
        )


def stretches(run: RunFrames, channels: int, most: int) -> Iterator[NDArray[np.float32]]:
    """Sound of a run's frames, each (channel, most) float32, NaN beyond its own samples."""
    for _, samples in tr_samples(run.run.movie, run.edges, channels):
        row = np.full((channels, most), np.nan, np.float32)
        row[:, : samples.shape[1]] = samples
        yield row


def _write(path: str, name: str, rows: Iterable[NDArray[Any]], tick: Callable[[], None]) -> int:
    """Write rows one after the other, a shard at a time; return how many."""
    array = open_array(path, name)
    shard = (array.shards or array.chunks)[0]
    held = np.empty((shard, *array.shape[1:]), array.dtype)
    first = count = 0
    for row in rows:
        held[count] = row
        count += 1
        tick()
        if count == shard:
            array[first : first + shard] = held
            first, count = first + shard, 0
    if count:
        array[first : first + count] = held[:count]
    return first + count


def plan(scan: Scan, recipe: FramesRecipe, path: Path, catalog: Catalog) -> StorePlan:
    """Plan a frames store from the packets' headers.

    Parameters
    ----------
    scan : Scan
    recipe : FramesRecipe
    path : Path
        The store.
    catalog : Catalog

    Returns
    -------
    StorePlan

    Raises
    ------
    UnavailableError
        If no run has a movie.
    InputError
        If a movie is damaged, shows nothing during its run, or two differ in size or sampling rate.
    """
    movies = run_movies(scan)
    runs = tuple(_frames_of(run) for run in movies)
    sounding = all(run.movie.has_audio for run in movies)
    _check_alike(movies, "width", "height", *(["sample_rate"] if sounding else []))
    channels = min(2, *(run.movie.channels for run in movies), 2) if sounding else 0
    attrs = scan_attrs(scan, recipe, path)
    attrs["movies"] = {run.run: run.movie.describe() for run in movies}
    arrays = _arrays(runs, channels)
    files = {run.movie.path: run.movie.sha256 for run in movies}
    largest = max(
        spec.nbytes // spec.shape[0] * (spec.shards or (1,))[0] for spec in arrays.values()
    )
    return StorePlan(
        path=path,
        attrs=attrs,
        inputs=[
            {**describe_file(file, name_of(scan, file)), "sha256": digest}
            for file, digest in sorted(files.items())
        ],
        coords=_coords(scan, runs, channels),
        arrays=arrays,
        parts=[FramesPart(runs, channels)],
        finish=_finish,
        memory_bytes=3 * largest + WORKING_BYTES,
        problems=problems(movies),
    )


def _frames_of(run: RunMovie) -> RunFrames:
    starts = frame_starts(run.movie)
    shown = starts[(starts >= run.edges[0] - 1e-6) & (starts < run.edges[-1] - 1e-6)]
    if not len(shown):
        raise InputError(
            f"no frame appears during {run.run}",
            where=run.movie.path,
            remedy="check movie_start_s in the catalogue",
        )
    later = starts[starts > shown[-1]]
    end_s = later[0] if len(later) else run.movie.video_seconds
    return RunFrames(run, np.append(shown, end_s))


def _check_alike(runs: tuple[RunMovie, ...], *keys: str) -> None:
    """Refuse movies that cannot share one array at full resolution."""
    for key in keys:
        values = {getattr(run.movie, key): run.movie.path.name for run in runs}
        if len(values) > 1:
            raise InputError(
                f"movies differ in {key}: "
                + ", ".join(f"{name} has {value}" for value, name in values.items()),
                remedy="re-encode one of them to the other's",
            )


def _arrays(runs: tuple[RunFrames, ...], channels: int) -> dict[str, ArraySpec]:
    movie, count = runs[0].run.movie, sum(len(run) for run in runs)
    picture = (movie.height, movie.width, 3)
    chunk, shard = _layout(count, int(np.prod(picture)))
    arrays = {
        "video": ArraySpec(
            dims=("frame", "height", "width", "rgb"),
            shape=(count, *picture),
            dtype="uint8",
            attrs={"long_name": "frame", "units": "1", "valid_range": [0, 255]},
            chunks=(chunk, *picture),
            shards=(shard, *picture),
        )
    }
    if channels:
        sound = (channels, max(int(run.samples().max()) for run in runs))
        chunk, shard = _layout(count, 4 * int(np.prod(sound)))
        arrays["audio"] = ArraySpec(
            dims=("frame", "channel", "sample"),
            shape=(count, *sound),
            dtype="float32",
            fill_value=float("nan"),
            attrs={
                "long_name": "sound from the frame's start to the next one's",
                "units": "1",
                "comment": "full scale is 1",
                "sampling_rate_hz": movie.sample_rate,
            },
            chunks=(chunk, *sound),
            shards=(shard, *sound),
        )
    return arrays


def _layout(count: int, nbytes: int) -> tuple[int, int]:
    """Frames of a chunk, a few megabytes of items of ``nbytes``, and of a shard."""
    chunk = max(1, min(count, CHUNK_BYTES // nbytes))
    return chunk, chunk * min(SHARD_CHUNKS, -(-count // chunk))


def _coords(scan: Scan, runs: tuple[RunFrames, ...], channels: int) -> xr.Dataset:
    clock = scan.clock
    trs = np.concatenate([run.trs() for run in runs])
    times = [clock.time()[run.run.first_tr] + run.edges[:-1] - run.run.edges[0] for run in runs]
    seconds = {"units": "s"}
    coords: dict[str, Any] = {
        "frame_time": (
            "frame",
            np.concatenate(times),
            {**seconds, "long_name": "time the frame appears, on the scan clock"},
        ),
        "time": ("frame", clock.time()[trs], {**seconds, "long_name": "start of its TR"}),
        "tr": ("frame", trs, {"long_name": "0-based TR over all runs"}),
        "run": strings("frame", clock.run_of_tr()[trs], long_name="run"),
        "run_time": (
            "frame",
            clock.run_time()[trs],
            {**seconds, "long_name": "start of its TR from the run's first volume"},
        ),
        "rgb": strings("rgb", ["red", "green", "blue"]),
    }
    if not channels:
        return xr.Dataset(coords=coords)
    coords["channel"] = strings("channel", CHANNELS[channels])
    samples = np.concatenate([run.samples() for run in runs])
    return xr.Dataset(
        {"n_samples": ("frame", samples, {"long_name": "samples of audio that are the frame's"})},
        coords=coords,
    )


def _finish(results: dict[str, Results]) -> xr.Dataset:
    if PART not in results:
        raise StoreError("the frames' part is missing", remedy="build again")
    shown = np.ones(int(results[PART]["frames"]), bool)
    title = {"long_name": "a frame is shown; frames that no TR sees are not kept"}
    return xr.Dataset({"has_stimulus": ("frame", shown, title)})
