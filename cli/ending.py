"""How a command ends: what still reads is waited for, what would never end is not."""

from __future__ import annotations

import atexit
import os
import sys
import threading

#: seconds; a thread that was asked to stop needs none of them unless the machine is very busy
PATIENCE_S = 60.0

#: seconds that are left to an interrupted command to end by itself
GRACE_S = 10.0


def end_soon(code: int) -> None:
    """Let an interrupted command that does not end by itself be ended with `code`.

    A Ctrl-C in the moment in which a pool of threads starts one leaves it unknown to the pool:
    Python waits at exit for a thread that nobody will ever tell to end.
    """
    timer = threading.Timer(GRACE_S, _end, [code])
    timer.daemon = True
    timer.start()


def _end(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def wait_at_exit() -> None:
    """Let :func:`stop_reading` be the first thing done at exit, before what was imported so far."""
    atexit.unregister(stop_reading)
    atexit.register(stop_reading)


def stop_reading() -> None:
    """Stop the thread in which zarr reads, and wait for it.

    At exit zarr waits .2 s for it and then closes the loop that it still runs, which ends in a
    traceback on a machine that is busy enough. Nothing is imported for it.
    """
    sync = sys.modules.get("zarr.core.sync")
    loop, thread = (getattr(sync, name, [None])[0] for name in ("loop", "iothread"))
    if loop is None or thread is None or not thread.is_alive():
        return
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE_S)
