"""Starting the ranks of a run on one machine, and starting them again when one dies.

torchrun's elastic launcher watches the ranks: when one dies, it ends the others (SIGTERM, and
SIGKILL half a minute later), so that none waits for the dead. A failure that a rank states itself
(wrong data, a loss that is not finite, a full disk) would only come again: it is told once and
never retried.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sherlock_data.errors import ConfigError, SherlockError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_LOG = logging.getLogger(__name__)

#: exit status after a SIGTERM that was answered with a checkpoint (128 + 15)
TERMINATED = 143
#: seconds that ranks have to write a checkpoint after a SIGTERM
GRACE_S = 60
#: how often this rank was started before: by us, by a user's torchrun, by SLURM
RESTARTS = ("SHERLOCK_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


class WorkerError(SherlockError):
    """A rank of a run failed."""


def restarted() -> bool:
    """Whether this process takes the place of one that died."""
    return any(int(os.environ.get(name) or 0) > 0 for name in RESTARTS)


def check_gpus(wanted: int) -> None:
    """Refuse to ask for more GPUs than there are."""
    there = torch.cuda.device_count()
    if wanted > there:
        raise ConfigError(
            f"{wanted} asked for, {there} there",
            where="--gpus",
            remedy="ask for fewer, or use --processes N for CPUs",
        )


def launch(
    ranks: int,
    function: Callable[..., Any],
    *arguments: Any,
    restarts: int = 0,
    tell: Callable[[str], None] = _LOG.warning,
    start_method: str = "spawn",
) -> None:
    """Run `function(*arguments)` as `ranks` ranks of this machine.

    Parameters
    ----------
    ranks : int
    function, arguments
        Picklable; :func:`restarted` tells the function whether it was started before.
    restarts : int
        How often all ranks are started again after one of them died.
    tell : callable
        Told in one line about every restart.
    start_method : {"spawn", "forkserver"}

    Raises
    ------
    WorkerError
        What the first failing rank said, or how it died when no restart is left.
    SystemExit
        With 143 when the ranks were terminated and wrote a checkpoint.
    """
    for chatter in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(chatter).setLevel(logging.CRITICAL)
    for attempt in range(restarts + 1):
        with tempfile.TemporaryDirectory(prefix="sherlock-ranks-") as folder:
            died = _attempt(ranks, start_method, (folder, attempt, function, *arguments))
            if died is None:
                return
            _raise_stated(Path(folder))
        if attempt == restarts:
            raise died
        tell(f"{died}; starting all ranks again ({attempt + 1} of {restarts})")


def _attempt(ranks: int, start_method: str, arguments: tuple[Any, ...]) -> WorkerError | None:
    """Start the ranks once; what the first to die died of, None where all came to their end."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        start_method=start_method,
        shutdown_timeout=GRACE_S,
        # else torch leaves a folder behind for every launch
        logs_specs=DefaultLogsSpecs(log_dir=arguments[0]),
    )
    try:
        elastic_launch(config, _recorded)(*arguments)
    except SignalException as error:
        raise SystemExit(128 + int(error.sigval)) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == TERMINATED:
            raise SystemExit(TERMINATED) from None
        return WorkerError(_said(failure), where=f"rank {rank}")
    return None


def _raise_stated(folder: Path) -> None:
    """Raise what a rank stated, the lowest first: the others may have died for want of it."""
    for file in sorted(folder.glob("*.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        raise WorkerError(told["line"], where=f"rank {told['rank']}")


def _said(failure: ProcessFailure) -> str:
    """Return how a rank ended; a traceback goes to the log (`--debug`)."""
    if failure.exitcode < 0:
        return f"was killed by {signal.Signals(-failure.exitcode).name}"
    message: Any = failure.message
    if isinstance(message, dict):
        _LOG.debug(message.get("extraInfo", {}).get("py_callstack", ""))
        message = message.get("message")
    line = (str(message).splitlines() or [""])[0] if message else f"exit {failure.exitcode}"
    kind, _, rest = line.partition(": ")
    return rest if kind.endswith("Error") and rest else line


def _recorded(folder: str, attempt: int, function: Callable[..., Any], *arguments: Any) -> None:
    """Run a rank; what it states goes into a file, and before any other rank can know of it."""
    from torch.distributed.elastic.multiprocessing.errors import record

    os.environ[RESTARTS[0]] = str(attempt)
    rank = os.environ["RANK"]

    def run() -> None:
        try:
            function(*arguments)
        except SherlockError as error:
            with contextlib.suppress(OSError):  # a full disk: the launcher still sees it fail
                _state(Path(folder), rank, str(error))
            raise

    record(run)()


def _state(folder: Path, rank: str, line: str) -> None:
    partial = folder / f"{int(rank):06}.tmp"
    partial.write_text(json.dumps({"rank": rank, "line": line}), encoding="utf-8")
    partial.rename(partial.with_suffix(".json"))
