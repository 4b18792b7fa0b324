"""How much memory data take, how much there is to take, and keeping what was freed."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import psutil

from sherlock_models.sizes import BRAIN, Sizes

_FLOAT32 = 4
#: of malloc.h, for mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def free_memory() -> int:
    """Bytes this machine has left, and no more than the process's control group allows."""
    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        used = (group / "memory.current").read_text(encoding="ascii").strip()
    except OSError:  # no control group of that kind: the machine's own number stands
        return free
    return free if most == "max" else max(0, min(free, int(most) - int(used)))


def keep_freed() -> bool:
    """Let this process keep the memory that it frees, for as long as it lives.

    A training step on CPUs frees all its gradients and activations and takes as much again. By
    default the C library hands large pieces back to the system, which clears every page anew: 20
    to 30 % of the step of an entry with 119 million parameters (`benchmarks/step.py`). The process
    then stands at its peak between steps, too. A GPU's memory is torch's own to keep.

    Returns
    -------
    bool
        Whether the C library has such a setting (glibc has).
    """
    setting = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(setting and setting(_M_MMAP_MAX, 0) and setting(_M_TRIM_THRESHOLD, -1))


def data_bytes(sizes: Sizes, subjects: int, trs: int, runs: int) -> int:
    """Bytes of a training's data in memory: BOLD of every subject, each TR's stimulus once.

    S T U float32 of BOLD, its means and standard deviations of every run, one byte per unit for
    the signal; pictures as uint8, other stimuli as float32.

    Parameters
    ----------
    sizes : Sizes
    subjects, trs, runs : int
    """
    brains = subjects * math.prod(sizes.brain) * ((trs + 2 * runs) * _FLOAT32 + 1)
    stimuli = sum(
        trs * math.prod(shape) * (1 if name in sizes.pictures else _FLOAT32)
        for name, shape in sizes.stimulus.items()
        if name != BRAIN
    )
    return brains + stimuli
