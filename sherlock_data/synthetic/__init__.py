"""Synthetic raw data whose answer is known: files as from a scanner room, with a planted truth.

What is made: ``bold/sub-NN_movie.nii.gz`` (all runs of a subject in one file), ``run-N.mp4``,
``labels.nii.gz`` with ``labels.tsv``, ``features.npy`` with ``features.json``, ``catalog.yaml`` and
``truth.zarr``.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from threadpoolctl import threadpool_limits

from sherlock_data.catalog import load_catalog
from sherlock_data.errors import ConfigError, NoSpaceError, did_you_mean
from sherlock_data.synthetic.brain import Brain, make_brain, write_bold
from sherlock_data.synthetic.geometry import make_geometry
from sherlock_data.synthetic.jobs import Job, Progress, run_jobs
from sherlock_data.synthetic.movie import write_movie
from sherlock_data.synthetic.sizes import SIZES, Size, clock_of, size_named
from sherlock_data.synthetic.tracks import RunTracks, draw_tracks
from sherlock_data.synthetic.truth import make_plan, write_features, write_truth
from sherlock_data.timing import Clock

__all__ = ["DATASET", "SIZES", "synth"]

#: name of the dataset and of its atlas in the catalogue that is written
DATASET = "synth"
#: variable of the ``features`` store that holds the planted tracks
EXTRACTOR = "planted"
#: files that are made at the same time
WORKERS = 2
#: bytes on disk per pixel of a movie, and per second of it (its sound before AAC), at most
PIXEL_BYTES = 0.1
SOUND_BYTES = 200_000
#: how much longer a pixel of a movie takes than a voxel of BOLD
PIXEL_WORK = 0.15


def synth(
    out: str | Path,
    size: str = "tiny",
    subjects: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    header_tr_s: float | None = None,
    movies: Sequence[str] | None = None,
) -> Path:
    """Make a dataset with a planted truth.

    Parameters
    ----------
    out : path
        Folder to make; it may exist if it is empty. Nothing is left in it after a failure.
    size : {"tiny", "demo", "full"}
    subjects : int, optional
        At least 2; the size's own number by default.
    seed : int
        The same seed gives the same NIfTI files, byte for byte.
    progress : callable, optional
        Called as ``progress(share, what)``: the share of all work that is done, 0 to 1, and the
        file that has moved on. Called from several threads, one at a time.
    header_tr_s : float, optional
        TR in seconds that the NIfTI headers claim, for ``inspect`` to find out.
    movies : sequence of str, optional
        Runs that get a movie; all by default.

    Returns
    -------
    Path
        The catalogue that was written.

    Raises
    ------
    ConfigError
        If ``out`` holds something, or ``size``, ``subjects``, ``seed`` or ``movies`` cannot be.
    InputError
        If ffmpeg fails.
    NoSpaceError
        If the disk has too little room; if it can be foreseen, before anything is written.
    """
    out, measures = Path(out), size_named(size)
    count = measures.subjects if subjects is None else subjects
    clock = _with_movies(clock_of(measures), movies)
    _check(out, count, seed)
    tracks = draw_tracks(clock, seed)
    geometry = make_geometry(measures.voxel_mm, measures.parcels)
    plan = make_plan(geometry, clock, count, seed)
    brain = make_brain(geometry, clock, plan, tracks)
    _check_space(out, brain, measures, count)
    partial_folder = out.resolve().parent / f".{out.resolve().name}.partial-{os.getpid()}"
    (partial_folder / "bold").mkdir(parents=True)
    try:
        jobs = _movie_jobs(partial_folder, tracks, measures, clock)
        jobs += _bold_jobs(partial_folder / "bold", brain, measures, count, seed, header_tr_s)
        # one BLAS thread each: the matrices are small, and the sums then add up in one order
        with threadpool_limits(1, user_api="blas"):
            run_jobs(jobs, WORKERS, progress)
        geometry.write_atlas(partial_folder / "labels.nii.gz", partial_folder / "labels.tsv")
        write_truth(partial_folder / "truth.zarr", plan.dataset(geometry))
        write_features(
            partial_folder / "features.npy", partial_folder / "features.json", tracks, clock
        )
        _write_catalog(partial_folder / "catalog.yaml", brain, measures, count, seed)
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(partial_folder.iterdir()):
            path.rename(out / path.name)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise NoSpaceError(
            "the disk filled up", where=out, remedy="make room or take a smaller --size"
        ) from error
    finally:
        shutil.rmtree(partial_folder)
    return out / "catalog.yaml"


def _with_movies(clock: Clock, movies: Sequence[str] | None) -> Clock:
    """Take the movie from the runs that ``movies`` does not name."""
    names = [run.name for run in clock.runs]
    for name in movies or ():
        if name not in names:
            raise ConfigError(f"no run '{name}'", where="movies", remedy=did_you_mean(name, names))
    if movies is None:
        return clock
    runs = tuple(run if run.name in movies else replace(run, movie=None) for run in clock.runs)
    return replace(clock, runs=runs)


def _check(out: Path, subjects: int, seed: int) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("is not an empty folder", where=out, remedy="name a new folder")
    if subjects < 2:
        raise ConfigError(
            f"{subjects} subjects have no inter-subject correlation",
            where="--subjects",
            remedy="make at least 2",
        )
    if seed < 0:
        raise ConfigError(f"a seed of {seed}", where="--seed", remedy="use 0 or more")


def _movie_pixels(clock: Clock, size: Size) -> dict[str, float]:
    """Pixels of every movie, by run."""
    per_second = size.frame_rate * size.frame[0] * size.frame[1]
    seconds = {run.name: run.volumes * clock.repetition_time_s for run in clock.runs if run.movie}
    return {name: length * per_second for name, length in seconds.items()}


def _check_space(out: Path, brain: Brain, size: Size, subjects: int) -> None:
    bold = subjects * brain.clock.volumes * brain.mask.size * 2
    seconds = brain.clock.volumes * brain.clock.repetition_time_s
    pixels = sum(_movie_pixels(brain.clock, size).values())
    needed = bold + pixels * PIXEL_BYTES + seconds * SOUND_BYTES
    folder = next(parent for parent in out.resolve().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoSpaceError(
            f"{size.name} needs up to {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free",
            where=folder,
            remedy="make room, name another disk, or take a smaller --size",
        )


def _movie_jobs(folder: Path, tracks: list[RunTracks], size: Size, clock: Clock) -> list[Job]:
    pixels = _movie_pixels(clock, size)
    return [
        Job(
            str(item.run.movie),
            pixels[item.run.name] * PIXEL_WORK,
            partial(write_movie, folder / str(item.run.movie), item, size, clock.repetition_time_s),
        )
        for item in tracks
        if item.run.movie
    ]


def _bold_jobs(
    folder: Path,
    brain: Brain,
    size: Size,
    subjects: int,
    seed: int,
    header_tr_s: float | None,
) -> list[Job]:
    jobs = []
    for subject in range(1, subjects + 1):
        name = f"sub-{subject:02d}_movie.nii.gz"
        tail = size.tail if subject == min(size.tail_subject, subjects) else 0
        work = partial(
            write_bold,
            folder / name,
            brain,
            subject,
            seed,
            constant_tail=tail,
            header_tr_s=header_tr_s,
        )
        jobs.append(Job(name, float(brain.mask.size * brain.clock.volumes), work))
    return jobs


def _write_catalog(path: Path, brain: Brain, size: Size, subjects: int, seed: int) -> None:
    clock, parcels = brain.clock, brain.geometry.parcels
    runs: list[dict[str, Any]] = [
        {"name": run.name, "volumes": run.volumes, **({"movie": run.movie} if run.movie else {})}
        for run in clock.runs
    ]
    entry = {
        "title": f"Synthetic data with a planted truth ({size.name}, seed {seed})",
        "repetition_time_s": clock.repetition_time_s,
        "lag_s": brain.plan.lag_s,
        "space": "MNI152",
        "bold": "bold/sub-{subject}_movie.nii.gz",
        "subjects": subjects,
        "runs": runs,
        "atlas": DATASET,
    }
    recipes: dict[str, dict[str, Any]] = {"features": {"extractors": [EXTRACTOR]}}
    if "pca" in load_catalog().stores:
        # never more components than a subject's training TRs can span
        recipes["pca"] = {"components": min(size.parcels, clock.volumes // 4)}
    entry["stores"] = recipes
    atlas = {
        "image": "labels.nii.gz",
        "labels": "labels.tsv",
        "parcels": len(parcels),
        "networks": int(parcels["network"].nunique()),
    }
    document = {
        "datasets": {DATASET: entry},
        "atlases": {DATASET: atlas},
        "extractors": {EXTRACTOR: {"source": "array", "file": "features.npy"}},
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    path.write_text("# Made by `sherlock-data synth`; truth.zarr holds the answer.\n" + text)
