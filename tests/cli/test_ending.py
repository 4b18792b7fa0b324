"""A command's end: zarr's thread has ended before zarr loses patience with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

#: a thread that takes longer to end than zarr waits for at exit
SLOW = """
import asyncio, time, zarr
from zarr.core import sync
from sherlock_cli.ending import stop_reading, wait_at_exit

async def there():
    return True

sync.sync(there())
sync.loop[0].call_soon_threadsafe(time.sleep, 1)
{end}
"""


def said_at_exit(end: str) -> str:
    code = SLOW.format(end=end)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stderr


def test_a_thread_that_is_slow_to_end_is_waited_for():
    assert said_at_exit("wait_at_exit()") == ""
    assert "Cannot close a running event loop" in said_at_exit("")


def test_what_runs_on_in_the_process_may_read_on():
    code = SLOW.format(end="wait_at_exit()") + "assert sync.sync(there())"
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stderr == b""
    )


def test_where_nothing_reads_there_is_nothing_to_stop():
    code = "import sys; from sherlock_cli.ending import stop_reading; stop_reading(); "
    code += "assert 'zarr' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


#: a command that is interrupted while a thread runs that nobody will tell to end
STUCK = """
import os, signal, threading, time
import click
from sherlock_cli import console, ending
ending.GRACE_S = 0.5

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it

@click.command()
@console.handled
def main():
    with console.stoppable():
        threading.Thread(target=threading.Event().wait).start()
        os.kill(os.getpid(), signal.{name})
        time.sleep(60)

main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 1), ("SIGTERM", 143)])
def test_an_interrupted_command_ends_though_a_thread_does_not(name: str, code: int):
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STUCK.format(name=name)], timeout=60, capture_output=True, text=True
    )
    assert done.returncode == code
    assert time.monotonic() - begun < 30
    assert "Traceback" not in done.stderr


#: a launcher that is terminated before torch listens to signals
EARLY = """
import os, signal, time
from sherlock_cli import train
from sherlock_models.training import launch

class Settled:
    restarts = 0

    def model_dump(self, mode):
        return {}

def terminated(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

launch._attempt = terminated
train._train(Settled(), "run", False, None, 2)
"""


def test_a_launcher_that_is_terminated_early_leaves_no_folder(tmp_path: Path):
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", EARLY], env=env, timeout=60, capture_output=True)
    assert done.returncode == 143
    assert not list(tmp_path.glob("sherlock-*"))
