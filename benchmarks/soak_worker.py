"""One process that goes the whole way again and again, and whether it grows."""

from __future__ import annotations

import gc
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy.stats import theilslopes
from soak_way import STAGES, STEPS, Values, Way, differing, files_of, in_process, values_of

#: a film is decoded in every so many rounds: half of a round's time
DECODE_EVERY = 3
MIB = 2**20
#: more growth than this share, from the second to the last quarter of the rounds, is a leak
GROWTH = 0.03


@dataclass(frozen=True)
class Sample:
    """What the worker holds after a round, its garbage collected.

    Attributes
    ----------
    at_s : float
        Seconds since the worker began.
    rss_mib, anonymous_mib : float
        Resident memory, and the part of it that no file and no other process holds.
    fds, threads, children, temporary, objects : int
        Temporary: entries of its temp folder. Objects: those the garbage collector knows.
    """

    at_s: float
    rss_mib: float
    anonymous_mib: float
    fds: int
    threads: int
    children: int
    temporary: int
    objects: int


def serve(pipe: Connection, raw: Path, folder: Path, temporary: Path) -> None:
    """Answer every `(round, seed, reference or None)` with what the round did; None ends it."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the harness says when it is over
    torch.set_num_threads(1)
    begun = time.monotonic()
    reference: tuple[Values, set[str]] = ({}, set())
    for number, seed, told in iter(pipe.recv, None):
        reference = told or reference
        way = Way(raw, folder / f"worker-{number}")
        done = one_round(way, np.random.default_rng(seed), reference, number % DECODE_EVERY == 0)
        gc.collect()
        pipe.send({**done, "sample": asdict(sample(begun, temporary)), "open": open_files()})


def one_round(
    way: Way, rng: np.random.Generator, wanted: tuple[Values, set[str]], film: bool
) -> dict[str, Any]:
    """Go the whole way once, interrupted in the training; say what was wrong."""
    # a SIGTERM is answered behind the next step, which must not be the last
    at, by_signal = int(rng.integers(1, STEPS - 1)), bool(rng.random() < 0.5)
    values, files = ({n for n in one if film or not n.startswith("film")} for one in wanted)
    failed, seconds = "", {}
    for stage in STAGES:
        if stage == "decode" and not film:
            continue
        begun = time.monotonic()
        try:
            in_process(way, stage, at, by_signal)
        except Exception:  # noqa: BLE001 - whatever ends a stage is what is looked for
            failed = f"{stage}, interrupted after {at}: {traceback.format_exc()}"
            break
        seconds[stage] = time.monotonic() - begun
    wrong, left = [], []
    if not failed:
        expected = {name: wanted[0][name] for name in values}
        wrong = differing(values_of(way), expected)
        left = sorted(files_of(way) - files)
    way.remove()
    return {"failed": failed, "wrong": wrong, "left": left, "seconds": seconds}


def sample(begun: float, temporary: Path) -> Sample:
    """Look at this process."""
    me = psutil.Process()
    memory = me.memory_info()
    return Sample(
        at_s=time.monotonic() - begun,
        rss_mib=memory.rss / MIB,
        # not the unique memory (USS): libraries' pages change sides as other processes come and go
        anonymous_mib=(memory.rss - memory.shared) / MIB,
        fds=me.num_fds(),
        threads=me.num_threads(),
        children=len(me.children(recursive=True)),
        temporary=len(list(temporary.iterdir())),
        objects=len(gc.get_objects()),
    )


def open_files() -> dict[str, int]:
    """Count this process's open files by what they are."""
    kinds: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:  # the one that lists them
            continue
        kinds[target.split(":")[0] if target.startswith(("pipe:", "socket:")) else target] += 1
    return dict(kinds)


def flatness(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Judge whether memory and open files stay as they are after the first quarter of the rounds.

    Returns
    -------
    dict
        ``rss`` and ``anonymous``: ``slope`` in MiB per hour (Theil-Sen) with ``low`` and ``high``
        (95 %), ``growth``, the last quarter's median less the second's, and ``median`` of the
        second, MiB.
        ``fds``, ``threads``, ``children``, ``temporary``: the least and the most. ``flat``.
    """
    kept = samples[len(samples) // 4 :]
    if len(kept) < 6:
        return {"rounds": len(samples), "flat": None}
    hours = np.array([one["at_s"] for one in kept]) / 3600
    found: dict[str, Any] = {"rounds": len(samples), "warm_up": len(samples) - len(kept)}
    for name in ("rss", "anonymous"):
        mib = np.array([one[f"{name}_mib"] for one in kept])
        slope, _, low, high = theilslopes(mib, hours)
        third = len(kept) // 3
        median = float(np.median(mib[:third]))
        growth = float(np.median(mib[-third:])) - median
        found[name] = {
            "slope": float(slope),
            "low": float(low),
            "high": float(high),
            "growth": growth,
            "median": median,
        }
    for name in ("fds", "threads", "children", "temporary"):
        counts = [one[name] for one in kept]
        found[name] = [min(counts), max(counts)]
    level = all(found[name][0] == found[name][1] for name in ("fds", "children", "temporary"))
    grows = any(found[n]["growth"] > GROWTH * found[n]["median"] for n in ("rss", "anonymous"))
    return {**found, "flat": level and not grows}
