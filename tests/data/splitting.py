"""Clocks of bare runs, their splits, and how far the sides are apart."""

import numpy as np

from sherlock_data.splits import make_split
from sherlock_data.timing import Clock, Run

SIDES = ("train", "validation", "test")
SUBJECTS = tuple(f"sub-{i:02d}" for i in range(1, 7))


def clock_of(*volumes: int) -> Clock:
    return Clock(1.5, tuple(Run(f"run-{i}", v) for i, v in enumerate(volumes, 1)))


def split_of(kind: str, clock: Clock, usable=None, **options):
    usable = np.ones(clock.volumes, bool) if usable is None else usable
    return make_split(kind, clock, usable, SUBJECTS, **options)


def distance(clock: Clock, a: np.ndarray, b: np.ndarray) -> int:
    """Least distance in TRs between two sets within a run."""
    run = clock.run_of_tr()
    same = run[a][:, None] == run[b][None, :]
    gaps = np.abs(a[:, None] - b[None, :])[same]
    return int(gaps.min()) if gaps.size else 10**6
