"""Loops compiled by numba, that run beside torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, kept on disk where numba finds a folder it may write to.

    It holds no lock of the interpreter, so that plain threads share the work: numba's own threads
    would set how many torch's operations have.
    """
    found: Callable[..., Any]
    try:
        found = numba.njit(nogil=True, cache=True)(kernel)
    except RuntimeError:  # no such folder: compiled anew by every process
        found = numba.njit(nogil=True)(kernel)
    return found
