"""How large a synthetic dataset is.

The TR of every size, and the runs of ``full``, are those of the catalogue's ``sherlock`` dataset.
"""

from __future__ import annotations

from dataclasses import dataclass

from sherlock_data.catalog import DatasetEntry, load_catalog
from sherlock_data.errors import ConfigError, did_you_mean
from sherlock_data.timing import Clock, Run

#: the dataset whose TR (and, for ``full``, whose runs) is copied
MODEL_DATASET = "sherlock"


@dataclass(frozen=True)
class Size:
    """The measures of one size.

    Attributes
    ----------
    name : str
    subjects : int
        Made unless the user asks for another number.
    run_volumes : tuple of int or None
        TRs of every run; None: those of the catalogue's ``sherlock`` dataset.
    voxel_mm : int
        Edge of a voxel.
    parcels : int
    tail : int
        Last volumes of one subject that repeat one volume.
    tail_subject : int
        1-based; the last subject where fewer are made.
    frame_rate : float
        Frames per second of the movies.
    frame : tuple of int
        Width and height of the movies in pixels.
    """

    name: str
    subjects: int
    run_volumes: tuple[int, ...] | None
    voxel_mm: int
    parcels: int
    tail: int
    tail_subject: int
    frame_rate: float
    frame: tuple[int, int] = (320, 180)


SIZES = {
    size.name: size
    for size in (
        Size("tiny", 3, (60, 60), 8, 20, 5, 3, 25.0),
        Size("demo", 6, (300, 300), 6, 100, 16, 6, 10.0),
        Size("full", 17, None, 3, 400, 51, 5, 25.0, (640, 360)),
    )
}


def size_named(name: str) -> Size:
    """Return the size called ``name``, or say which is nearest."""
    if name not in SIZES:
        raise ConfigError(f"no size '{name}'", where="--size", remedy=did_you_mean(name, SIZES))
    return SIZES[name]


def clock_of(size: Size) -> Clock:
    """Scan clock of a size: its runs, each with a movie ``run-N.mp4``."""
    entry: DatasetEntry = load_catalog().dataset(MODEL_DATASET)
    volumes = size.run_volumes or tuple(run.volumes or 0 for run in entry.runs)
    runs = tuple(Run(f"run-{i}", n, f"run-{i}.mp4") for i, n in enumerate(volumes, start=1))
    return Clock(float(entry.repetition_time_s or 0.0), runs)
