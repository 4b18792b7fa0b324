"""Make several files at the same time, with one account of how far they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol

Progress = Callable[[float, str], None]


class Work(Protocol):
    """What makes a file and says how far it is."""

    def __call__(self, *, report: Callable[[float], None]) -> None:
        """Make the file; ``report`` is told the share that is done."""


class Stopped(Exception):  # noqa: N818 - it is no error of its own
    """Another job has failed: this one ends early."""


@dataclass(frozen=True)
class Job:
    """One file to make.

    Attributes
    ----------
    name : str
        The file's name, as progress shows it.
    weight : float
        Share of the work, in any unit.
    work : Work
    """

    name: str
    weight: float
    work: Work


def run_jobs(jobs: Sequence[Job], workers: int, progress: Progress | None) -> None:
    """Run all jobs in threads; the first failure stops the others and is raised.

    The work is done by numpy, zlib and ffmpeg, all of which let other threads run.
    """
    total = sum(job.weight for job in jobs)
    done = dict.fromkeys((job.name for job in jobs), 0.0)
    lock, stop = threading.Lock(), threading.Event()

    def start(job: Job) -> None:
        def report(share: float) -> None:
            if stop.is_set():
                raise Stopped
            with lock:
                done[job.name] = share * job.weight
                if progress is not None:
                    progress(sum(done.values()) / total, job.name)

        job.work(report=report)
        report(1.0)

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(start, job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if not all(future.done() for future in futures):
                stop.set()
    failures = [error for error in (future.exception() for future in futures) if error is not None]
    for error in sorted(failures, key=lambda error: isinstance(error, Stopped)):
        raise error
