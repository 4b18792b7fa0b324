"""Files and folders that are there whole or not at all, however their writer ends."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sherlock_data import locks

#: how long to wait for another process that writes the same
WAIT_S = 60.0


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file or a folder under another name, and give it its own when it is whole.

    What an earlier writer left that was killed is removed; what was there under the name gives way
    in one piece, so that no half of it is ever taken for the whole.

    Parameters
    ----------
    path : Path

    Yields
    ------
    Path
        Where to write; beside ``path``, with its suffix.

    Raises
    ------
    StoreError
        If another process writes the same, and does not end within a minute.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    with locks.held(path, "is being written", WAIT_S):
        _sweep(path)
        try:
            yield temporary
            if path.is_dir():
                # removed in its place, it would be half there for a while
                path.rename(path.with_name(f".{path.stem}.0.tmp{path.suffix}"))
            temporary.replace(path)
        finally:
            _sweep(path)


def _sweep(path: Path) -> None:
    """Remove what writers of this path left; the lock keeps out those that live."""
    left = re.compile(rf"\.{re.escape(path.stem)}\.\d+\.tmp{re.escape(path.suffix)}")
    for one in path.parent.iterdir():
        if left.fullmatch(one.name):
            shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
