"""Commands as processes of their own, killed at a random instant and run again to the end.

Most part from a server that has imported everything, so that the instants fall into the work
rather than into imports; the others are started as a shell would start them.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

MODULES = {
    "sherlock-data": "sherlock_cli.data",
    "sherlock-models": "sherlock_cli.models",
    "sherlock-train": "sherlock_cli.train",
}
#: imported once, before the processes that are killed part from the server
PRELOAD = [
    *MODULES.values(),
    "sherlock_data.build",
    "sherlock_data.representations.parcels",
    "sherlock_data.representations.pca",
    "sherlock_data.representations.volumes",
    "sherlock_data.representations.voxels",
    "sherlock_data.stimulus.annotations",
    "sherlock_data.stimulus.features",
    "sherlock_data.stimulus.frames",
    "sherlock_data.stimulus.stimulus_store",
    "sherlock_data.verify",
    "sherlock_models.film.decoded_movie",
    "sherlock_models.lesions.lesion",
    "sherlock_models.scoring.evaluate",
    "sherlock_models.training.train",
    "torch.utils.tensorboard",
    "dask.array",
    "dask.threaded",
    "distributed",
]
#: a command that was asked to end has this long, ranks that write a checkpoint included
ENDS_S = 90.0
#: what a command started is gone this long after it
GONE_S = 15.0
#: a command that nobody disturbs and that takes longer hangs
LIMIT_S = 300.0


@dataclass(frozen=True)
class Kill:
    """How a command is killed.

    Attributes
    ----------
    after_s : float
        After it began.
    by : signal.Signals
    group : bool
        Everything that the command started as well, as Ctrl-C does; or the command alone.
    """

    after_s: float
    by: signal.Signals
    group: bool


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes
    ----------
    code : int
        Its exit code; less than 0: the signal.
    seconds : float
    sent : signal.Signals or None
        What it was sent; None: it was done before.
    said : str
        Everything it printed.
    hung : bool
    orphans : list of str
        What it started and left alive.
    temporary : list of str
        What it left in the temp folder.
    """

    code: int
    seconds: float
    sent: signal.Signals | None
    said: str
    hung: bool = False
    orphans: list[str] = field(default_factory=list)
    temporary: list[str] = field(default_factory=list)


class Commands:
    """Starts commands, with a log and a temp folder of their own.

    Parameters
    ----------
    folder : Path
        Holds ``log.txt`` and the temp folder ``tmp`` that all processes are told to use.
    """

    def __init__(self, folder: Path) -> None:
        self.log, self.temporary = folder / "log.txt", folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = str(self.temporary)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)

    def run(self, words: list[str], kill: Kill | None = None, shell: bool = False) -> Ended:
        """Run a command to its end, or kill it on the way; ``shell``: as a shell would start it."""
        before = set(os.listdir(self.temporary))
        process = _Started(words, self.log) if shell else _Parted(self._context, words, self.log)
        begun = time.monotonic()
        code = _wait(process, kill.after_s if kill else LIMIT_S)
        sent, hung = None, code is None and kill is None
        if code is None:
            sent = kill.by if kill else signal.SIGKILL
            _send(process.pid, sent, kill is None or kill.group)
            code = _wait(process, ENDS_S)
        if code is None:
            hung = True
            _send(process.pid, signal.SIGKILL, True)
            code = _wait(process, ENDS_S)
        seconds = time.monotonic() - begun
        left = sorted(set(os.listdir(self.temporary)) - before)
        return Ended(
            code=-signal.SIGKILL if code is None else code,
            seconds=seconds,
            sent=sent,
            said=self.log.read_text(errors="replace"),
            hung=hung,
            orphans=_end_orphans(process.pid),
            temporary=left,
        )


class _Started:
    """A command as a shell starts it, in a session of its own."""

    def __init__(self, words: list[str], log: Path) -> None:
        command = [sys.executable, "-c", _CODE.format(MODULES[words[0]], words[0]), *words[1:]]
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self.pid = self._process.pid

    def wait(self, seconds: float) -> int | None:
        """Return the exit code, None where it still runs."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


#: what the script of a command does that pip installs
_CODE = "from {} import main; main(prog_name='{}')"


class _Parted:
    """A command that parts from the server, in a session of its own."""

    def __init__(self, context: Any, words: list[str], log: Path) -> None:
        ours, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=as_command, args=(words, log, theirs))
        self._process.start()
        theirs.close()
        ours.recv()
        ours.close()
        self.pid = int(self._process.pid)

    def wait(self, seconds: float) -> int | None:
        """Return the exit code, None where it still runs."""
        self._process.join(seconds)
        code: int | None = self._process.exitcode
        return code


def as_command(words: list[str], log: Path, started: Connection) -> None:
    """Become the command: session, output, words."""
    import torch

    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    torch.set_num_threads(1)
    started.send(True)
    started.close()
    importlib.import_module(MODULES[words[0]]).main(words[1:], prog_name=words[0])


def _wait(process: _Started | _Parted, seconds: float) -> int | None:
    """Wait so long of the time in which nobody halted the process (SIGSTOP); its exit code."""
    while seconds > 0:
        begun = time.monotonic()
        code = process.wait(min(seconds, 1.0))
        if code is not None:
            return code
        seconds -= 0.0 if _is_halted(process.pid) else time.monotonic() - begun
    return None


def _is_halted(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def _send(pid: int, which: signal.Signals, group: bool) -> None:
    try:
        os.killpg(pid, which) if group else os.kill(pid, which)
    except ProcessLookupError:  # it ended by itself in this very moment
        return


def _end_orphans(session: int) -> list[str]:
    """Give what is left of a session time to end; end the rest, and say what it was."""
    waited, left = 0.0, _members(session)
    while left and waited < GONE_S:
        time.sleep(0.1)
        waited += 0.0 if any(_is_halted(process.pid) for process in left) else 0.1
        left = _members(session)
    said = []
    for process in left:
        try:
            said.append(" ".join(process.cmdline())[:120])
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return said


def _members(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
    return found
