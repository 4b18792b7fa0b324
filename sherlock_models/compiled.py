"""Loops compiled by numba, that run beside torch's own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
from numba.core.caching import FunctionCache

log = logging.getLogger(__name__)


def compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, kept on disk where numba finds a folder it may write to.

    It holds no lock of the interpreter, so that plain threads share the work: numba's own threads
    would set how many torch's operations have.
    """
    found = numba.njit(nogil=True)(kernel)
    if not numba.config.DISABLE_JIT:
        try:
            found._cache = _Kept(kernel)
        except RuntimeError:
            log.debug("no folder to keep %s in: compiled anew by every process", kernel.__name__)
    loop: Callable[..., Any] = found
    return loop


class _Kept(FunctionCache):  # type: ignore[misc]
    """What is kept on disk, that a full disk or a damaged file makes slower and no more.

    As `numba.njit(cache=True)` keeps it, whose failures would end the work.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load what was compiled for a signature; None if there is nothing of use."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001 whatever reading a damaged file raises
            log.warning("%s: compiled anew (%s)", self.cache_path, error)
            with suppress(OSError):  # then it is the same again, and is said again
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled, if it can be kept."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # noqa: BLE001 as above: it reads what was kept before
            log.warning("%s: compiled loops are not kept (%s)", self.cache_path, error)
