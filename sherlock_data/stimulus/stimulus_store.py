"""``stimulus``: what each TR showed and sounded like.

``video (time, height, width, rgb)`` uint8; ``audio_bands``, ``audio_mfcc`` and ``audio_mel``
float32 by channel; ``has_stimulus (time)`` says which TRs a movie covers. The others hold 0 (video)
and NaN (audio) and must not be used: nothing is made up for a run without a movie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from sherlock_data.catalog import Catalog
from sherlock_data.contract import CHUNK_TRS, SHARD_TRS, strings, time_coords
from sherlock_data.errors import StoreError, UnavailableError
from sherlock_data.plan import ArraySpec, Results, StorePlan
from sherlock_data.provenance import describe_file, scan_attrs
from sherlock_data.recipes import StimulusRecipe
from sherlock_data.scan import Scan
from sherlock_data.stimulus.audio import FLOOR_DB, SoundSpectra, centres_hz, tr_samples
from sherlock_data.stimulus.movie import MovieProbe, check_decodes, probe
from sherlock_data.stimulus.video import is_covered, tr_pictures
from sherlock_data.store import open_array
from sherlock_data.timing import Clock, FloatArray

PART = "movies"
#: sound with more channels is mixed down to these
CHANNELS = {1: ("mono",), 2: ("left", "right")}
#: frames and spectra in work, beside the shards
WORKING_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class RunMovie:
    """A run and its movie.

    Attributes
    ----------
    run : str
    first_tr : int
        Of the run, over all runs.
    edges : ndarray of float64, shape (volumes + 1,)
        Of its TRs, in movie seconds.
    movie : MovieProbe
    """

    run: str
    first_tr: int
    edges: FloatArray
    movie: MovieProbe

    @property
    def tr_s(self) -> float:
        """Seconds of one TR."""
        return float(self.edges[1] - self.edges[0])


@dataclass(frozen=True)
class MoviesPart:
    """All movies, one after the other.

    One part and not one per run: runs do not end where chunks do, and two writers of one chunk
    would undo each other's work. ffmpeg uses every core for a single movie anyway.
    """

    runs: tuple[RunMovie, ...]
    recipe: StimulusRecipe
    volumes: int
    channels: int
    top_hz: float
    name: str = PART

    @property
    def weight(self) -> float:
        """Seconds to decode."""
        return sum(run.movie.video_seconds for run in self.runs)

    def run(self, path: str, report: Callable[[float], None]) -> Results:
        """Write ``video`` and the sound; return ``has_stimulus`` (time,)."""
        has_stimulus = np.zeros(self.volumes, bool)
        done, steps = 0.0, 2 * len(self.runs)
        for run in self.runs:
            volumes = len(run.edges) - 1
            covered = has_stimulus[run.first_tr : run.first_tr + volumes]
            for tr in _write_video(open_array(path, "video"), run, self.recipe, covered):
                report((done + (tr + 1) / volumes) / steps)
            done += 1
            if self.channels:
                for tr in self._write_sound(path, run, covered):
                    report((done + (tr + 1) / volumes) / steps)
            done += 1
        return {"has_stimulus": has_stimulus}

    def _write_sound(self, path: str, run: RunMovie, covered: NDArray[np.bool_]) -> Any:
        movie, recipe = run.movie, self.recipe
        samples = int(run.tr_s * movie.sample_rate)
        spectra = SoundSpectra(
            movie.sample_rate, self.top_hz, recipe.bands, recipe.mfcc, recipe.mel, samples
        )
        rows: dict[str, NDArray[np.float32]] = {}
        for tr, heard in tr_samples(movie, run.edges, self.channels):
            if covered[tr]:
                for name, values in spectra.of(heard).items():
                    empty = np.full((len(covered), *values.shape), np.nan, np.float32)
                    rows.setdefault(name, empty)[tr] = values
            yield tr
        for name, values in rows.items():
            open_array(path, name)[run.first_tr : run.first_tr + len(covered)] = values


def _write_video(
    array: zarr.Array[Any], run: RunMovie, recipe: StimulusRecipe, covered: NDArray[np.bool_]
) -> Any:
    """Write a run's pictures a shard at a time, mark covered TRs, yield each TR."""
    stop = run.first_tr + len(covered)
    shard = (array.shards or array.chunks)[0]
    rows = np.zeros((shard, *array.shape[1:]), np.uint8)
    base = run.first_tr // shard * shard

    def flush() -> None:
        first, last = max(base, run.first_tr), min(base + shard, stop)
        array[first:last] = rows[first - base : last - base]
        rows[:] = 0

    for shown in tr_pictures(run.movie, run.edges, recipe.width, recipe.height):
        while run.first_tr + shown.tr >= base + shard:
            flush()
            base += shard
        if is_covered(shown.covered_s, run.tr_s, run.movie.frame_rate):
            covered[shown.tr] = True
            rows[run.first_tr + shown.tr - base] = shown.picture
        yield shown.tr
    flush()


def run_movies(scan: Scan) -> tuple[RunMovie, ...]:
    """Look into the movies of a scan.

    Returns
    -------
    tuple of RunMovie
        One per run with a movie, in order of scanning.

    Raises
    ------
    UnavailableError
        If no run has a movie.
    InputError
        If a movie is damaged, has no video, or its first frame does not decode.
    """
    if not scan.movies:
        raise UnavailableError(
            "no run has a movie", where=scan.dataset, remedy="name one in the catalogue's runs"
        )
    clock = scan.clock
    probes = {file: probe(file) for file in sorted(set(scan.movies.values()))}
    for movie in probes.values():
        check_decodes(movie)
    return tuple(
        RunMovie(
            run.name,
            clock.run_offsets[run.name],
            clock.tr_edges(run.name),
            probes[scan.movies[run.name]],
        )
        for run in clock.runs
        if run.name in scan.movies
    )


def plan(scan: Scan, recipe: StimulusRecipe, path: Path, catalog: Catalog) -> StorePlan:
    """Plan a stimulus store.

    Parameters
    ----------
    scan : Scan
    recipe : StimulusRecipe
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
        If a movie is damaged, has no video, or its first frame does not decode.
    """
    clock, runs = scan.clock, run_movies(scan)
    probes = {run.movie.path: run.movie for run in runs}
    sounding = all(run.movie.has_audio for run in runs)
    channels = min(2, *(run.movie.channels for run in runs), 2) if sounding else 0
    top_hz = min(run.movie.sample_rate for run in runs) / 2
    part = MoviesPart(runs, recipe, clock.volumes, channels, top_hz)
    attrs = scan_attrs(scan, recipe, path)
    attrs["movies"] = {run.run: run.movie.describe() for run in runs}
    arrays = _arrays(clock.volumes, recipe, channels)
    return StorePlan(
        path=path,
        attrs=attrs,
        inputs=[
            {**describe_file(file, name_of(scan, file)), "sha256": m.sha256}
            for file, m in sorted(probes.items())
        ],
        coords=_coords(clock, recipe, channels, top_hz),
        arrays=arrays,
        parts=[part],
        finish=_finish,
        memory_bytes=3 * SHARD_TRS * recipe.height * recipe.width * 3 + WORKING_BYTES,
        problems=problems(runs),
    )


def problems(runs: tuple[RunMovie, ...]) -> list[dict[str, str]]:
    """Return what is odd about the movies and recorded in the store."""
    found = []
    for run in runs:
        movie, end_s = run.movie, float(run.edges[-1])
        missing_s = end_s - movie.video_seconds
        if missing_s > float(1 / movie.frame_rate) + 1e-6:
            message = (
                f"{run.run} ends at {end_s:g} s of a movie of {movie.video_seconds:g} s: its last "
                f"{int(np.ceil(missing_s / run.tr_s - 1e-9))} TRs get no stimulus"
            )
            found.append({"code": "movie-shorter", "where": movie.path.name, "message": message})
        if not movie.has_audio:
            message = f"the movie of {run.run} has no sound: no audio variables"
            found.append({"code": "movie-silent", "where": movie.path.name, "message": message})
    return found


def _arrays(volumes: int, recipe: StimulusRecipe, channels: int) -> dict[str, ArraySpec]:
    picture = (recipe.height, recipe.width, 3)
    shard = min(SHARD_TRS, -(-volumes // CHUNK_TRS) * CHUNK_TRS)
    arrays = {
        "video": ArraySpec(
            dims=("time", "height", "width", "rgb"),
            shape=(volumes, *picture),
            dtype="uint8",
            chunks=(CHUNK_TRS, *picture),
            shards=(shard, *picture),
            attrs={
                "long_name": "mean picture of the TR",
                "units": "1",
                "valid_range": [0, 255],
                "cell_methods": "time: mean height: mean width: mean",
            },
        )
    }
    spectra = {
        "audio_bands": ("band", recipe.bands, "mean power in mel bands", "dB"),
        "audio_mfcc": ("coefficient", recipe.mfcc, "mel-frequency cepstral coefficients", "dB"),
        "audio_mel": ("mel", recipe.mel, "mel spectrum, mean power", "dB"),
    }
    for name, (dim, size, title, units) in spectra.items() if channels else ():
        arrays[name] = ArraySpec(
            dims=("time", "channel", dim),
            shape=(volumes, channels, size),
            dtype="float32",
            chunks=(min(SHARD_TRS, volumes), channels, size),
            fill_value=float("nan"),
            attrs={
                "long_name": title,
                "units": units,
                "reference": "mean square of 1 (full scale)",
                "floor_db": FLOOR_DB,
                "cell_methods": "time: mean",
            },
        )
    return arrays


def _coords(clock: Clock, recipe: StimulusRecipe, channels: int, top_hz: float) -> xr.Dataset:
    coords: dict[str, Any] = {**time_coords(clock), "rgb": strings("rgb", ["red", "green", "blue"])}
    if channels:
        centre = {"units": "Hz", "long_name": "centre frequency"}
        coords["channel"] = strings("channel", CHANNELS[channels])
        coords["band"] = ("band", centres_hz(recipe.bands, top_hz), centre)
        coords["mel"] = ("mel", centres_hz(recipe.mel, top_hz), centre)
        coords["coefficient"] = (
            "coefficient",
            np.arange(recipe.mfcc),
            {"long_name": "0 is the mean level"},
        )
    return xr.Dataset(coords=coords)


def name_of(scan: Scan, path: Path) -> str:
    """Name an input as seen from the raw folder, or alone when it lies elsewhere."""
    return scan.name_of(path) if path.is_relative_to(scan.raw) else path.name


def _finish(results: dict[str, Results]) -> xr.Dataset:
    if PART not in results:
        raise StoreError("the movies' part is missing", remedy="build again")
    title = {"long_name": "a movie covers the TR, all but at most one frame of it"}
    return xr.Dataset({"has_stimulus": ("time", results[PART]["has_stimulus"], title)})
