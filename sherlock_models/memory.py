"""How much memory there is to take."""

from __future__ import annotations

from pathlib import Path

import psutil


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
