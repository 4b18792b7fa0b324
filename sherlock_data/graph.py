"""The parts of a store as a dask graph: threads of this process, or workers of a cluster."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from graphlib import TopologicalSorter
from typing import Any, Protocol

import dask
import psutil

from sherlock_data import store as stores
from sherlock_data.errors import SherlockError
from sherlock_data.store import StorePlan

#: seconds within which a scheduler has to answer
ANSWER_S = 10.0


class Progress(Protocol):
    """What a front end does with the news of a build."""

    def start(self, store: str, total: float, done: float) -> None:
        """Say that a store of ``total`` bytes begins, ``done`` of them by an earlier build."""

    def update(self, store: str, done: float) -> None:
        """Report ``done`` bytes so far (before compression)."""

    def end(self, store: str) -> None:
        """Close a store's line."""


class Silent:
    """No progress at all."""

    def start(self, store: str, total: float, done: float) -> None:
        """Say nothing."""

    def update(self, store: str, done: float) -> None:
        """Say nothing."""

    def end(self, store: str) -> None:
        """Say nothing."""


def workers_for(plan: StorePlan, wanted: int | None) -> int:
    """Parts to run at once: no more than cores, nor than three fifths of the free memory hold."""
    if wanted:
        return wanted
    memory = int(0.6 * psutil.virtual_memory().available) // max(1, plan.memory_bytes)
    return max(1, min(psutil.cpu_count() or 1, memory, len(plan.parts)))


def run_parts(
    name: str,
    plan: StorePlan,
    progress: Progress,
    scheduler: str | None = None,
    workers: int | None = None,
) -> dict[str, stores.Results]:
    """Run every part that has not finished before, and return the results of all.

    Parameters
    ----------
    name : str
        The store, as progress calls it.
    plan : StorePlan
    progress : Progress
    scheduler : str, optional
        Address of a ``distributed`` scheduler; threads of this process by default.
    workers : int, optional
        Parts at once; as many as cores and memory allow by default.

    Raises
    ------
    SherlockError
        If no scheduler answers, or whatever a part raises.
    """
    path = str(plan.path)
    results = {part.name: stores.load_part(path, part.name) for part in plan.parts}
    todo = _in_order([part for part in plan.parts if results[part.name] is None], plan.after)
    scale = plan.nbytes / max(1.0, sum(part.weight for part in plan.parts))
    done = scale * sum(part.weight for part in plan.parts if results[part.name] is not None)
    meter = _Meter(name, done, scale, progress)
    progress.start(name, plan.nbytes, done)
    if scheduler:
        finished = _run_on_cluster(path, todo, plan.after, scheduler, meter)
    else:
        run = dask.delayed(_run_part)
        graph: dict[str, Any] = {}
        for part in todo:
            before = [graph[other] for other in plan.after.get(part.name, ()) if other in graph]
            graph[part.name] = run(path, part, meter.of(part), before)
        # leaving the pool waits for the parts that run: after a failure they would still write
        with ThreadPoolExecutor(workers_for(plan, workers)) as pool:
            finished = dask.compute(*graph.values(), scheduler="threads", pool=pool)
    results.update({part.name: found for part, found in zip(todo, finished, strict=True)})
    return {key: value for key, value in results.items() if value is not None}


def _in_order(parts: list[stores.Part], after: Mapping[str, tuple[str, ...]]) -> list[stores.Part]:
    """Sort parts so that each comes behind those it waits for."""
    by_name = {part.name: part for part in parts}
    waits = {name: [o for o in after.get(name, ()) if o in by_name] for name in by_name}
    return [by_name[name] for name in TopologicalSorter(waits).static_order()]


def _run_part(
    path: str, part: stores.Part, report: Callable[[float], None], before: Any = None
) -> stores.Results:
    """Run one part; ``before`` only holds it back until the parts it waits for are done."""
    results = stores.run_part(path, part, report)
    report(1.0)
    return results


def _ignore(fraction: float) -> None:
    """Take no notice: a worker elsewhere reports whole parts only."""


def _run_on_cluster(
    path: str,
    todo: list[stores.Part],
    after: Mapping[str, tuple[str, ...]],
    address: str,
    meter: _Meter,
) -> list[stores.Results]:
    from distributed import KilledWorker, as_completed

    with connect(address) as client:
        submitted: dict[str, Any] = {}
        for part in todo:
            before = [submitted[o] for o in after.get(part.name, ()) if o in submitted]
            submitted[part.name] = client.submit(_run_part, path, part, _ignore, before, pure=False)
        futures = list(submitted.values())
        parts = dict(zip([future.key for future in futures], todo, strict=True))
        for future in as_completed(futures):
            if future.status == "finished":
                meter.of(parts[future.key])(1.0)
            elif future.status == "error":
                _let_running_end(client, futures)
                break
        try:
            return [future.result() for future in futures if not future.cancelled()]
        except KilledWorker as error:
            raise SherlockError(
                f"a part took its worker down again and again ({error.task})",
                where=address,
                remedy="give the workers more memory or fewer threads; build again to resume",
            ) from error


def connect(address: str) -> Any:
    """Return a client of a running scheduler.

    Raises
    ------
    SherlockError
        If none answers: at once where the port is closed, else after ten seconds.
    """
    from distributed import Client
    from distributed.comm import get_address_host_port

    try:
        # distributed itself would knock on a closed port until its time is up
        socket.create_connection(get_address_host_port(address, strict=True), ANSWER_S).close()
        return Client(address, timeout=ANSWER_S)
    except (OSError, ValueError) as error:
        raise SherlockError(
            f"no dask scheduler answers ({str(error) or type(error).__name__})",
            where=address,
            remedy="check --scheduler (tcp://HOST:PORT, as the scheduler prints it)",
        ) from error


def _let_running_end(client: Any, futures: list[Any]) -> None:
    """After a failure, take back what has not begun, and wait for what has: it still writes."""
    from distributed import wait

    running = {str(key) for keys in client.processing().values() for key in keys}
    begun = [future for future in futures if future.done() or future.key in running]
    client.cancel([future for future in futures if future not in begun])
    wait(begun)


class _Meter:
    """Adds up the fractions that parts report from their threads."""

    def __init__(self, store: str, done: float, scale: float, progress: Progress) -> None:
        self.store, self.base, self.scale, self.progress = store, done, scale, progress
        self.fractions: dict[str, float] = {}
        self.lock = threading.Lock()

    def of(self, part: stores.Part) -> Callable[[float], None]:
        """Return the reporter of one part."""

        def report(fraction: float) -> None:
            with self.lock:
                self.fractions[part.name] = fraction * part.weight * self.scale
                self.progress.update(self.store, self.base + sum(self.fractions.values()))

        return report
