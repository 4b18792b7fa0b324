"""From a catalogue entry to its stores: which to build, in what order, with what progress.

Each store is a graph of independent parts (one per subject, say) and one finish. The graph runs on
dask: threads of this process by default, or the workers of a ``distributed`` cluster.
"""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import dask
import psutil

from sherlock_data import store as stores
from sherlock_data.catalog import Catalog
from sherlock_data.contract import SUFFIX
from sherlock_data.errors import NoSpaceError, SherlockError, StoreError, UnavailableError
from sherlock_data.provenance import completed_inputs, differences, remember_times
from sherlock_data.recipes import Recipe
from sherlock_data.scan import Scan
from sherlock_data.store import StorePlan

#: stores that others are derived from come first
ORDER = ("volumes", "voxels", "parcels", "stimulus", "annotations")
#: bytes before compression that one core turns into a store per second; `benchmarks/build.py`
#: prints what this machine does
BYTES_PER_SECOND = 2e8
#: kinds that read the complete volumes store
DERIVED = ("voxels", "parcels")


@dataclass(frozen=True)
class Outcome:
    """What happened to one store.

    Attributes
    ----------
    store : str
    status : str
        ``"built"``, ``"up to date"``, ``"skipped"`` or ``"planned"`` (dry run).
    detail : str
        A line for people: size, or why it was skipped.
    nbytes, memory_bytes : int
        Size before compression, and the most one worker holds.
    problems : list of dict
        ``code``, ``where``, ``message``, recorded in the store.
    """

    store: str
    status: str
    detail: str = ""
    nbytes: int = 0
    memory_bytes: int = 0
    problems: tuple[dict[str, str], ...] = ()


class Progress(Protocol):
    """What a front end does with the news of a build."""

    def start(self, store: str, total: float, done: float) -> None:
        """Say that a store begins, with ``done`` of ``total`` units left from an earlier build."""

    def update(self, store: str, done: float) -> None:
        """Report ``done`` units so far."""

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


@dataclass(frozen=True)
class Options:
    """How a build runs.

    Attributes
    ----------
    scheduler : str or None
        Address of a ``distributed`` scheduler; None: threads of this process.
    workers : int or None
        Parts done at once; None: as many as cores and memory allow.
    overwrite, dry_run : bool
    """

    scheduler: str | None = None
    workers: int | None = None
    overwrite: bool = False
    dry_run: bool = False


def build(
    scan: Scan,
    catalog: Catalog,
    out: Path,
    names: Sequence[str] = (),
    options: Options | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Build a dataset's stores.

    Parameters
    ----------
    scan : Scan
        The dataset's files and clock, from :func:`sherlock_data.scan.resolve`.
    catalog : Catalog
    out : Path
        Holds one folder per dataset.
    names : sequence of str
        Stores; none: all that the dataset's inputs allow.
    options : Options, optional
    progress : Progress, optional

    Returns
    -------
    list of Outcome
        In the order of building.

    Raises
    ------
    UnavailableError
        If a store that was named cannot be built from this dataset.
    StoreError
        If a complete store has another recipe or other inputs and ``overwrite`` is not set.
    NoSpaceError
        If the disk cannot hold the stores.
    """
    options, progress = options or Options(), progress or Silent()
    recipes = _wanted(scan, catalog, names)
    folder = out / scan.dataset
    outcomes = []
    for name, recipe in recipes.items():
        try:
            plan = _plan(name, recipe, scan, folder, catalog, options)
        except UnavailableError as error:
            if name in names:
                raise
            outcomes.append(Outcome(name, "skipped", str(error)))
            continue
        outcomes.append(_one(name, plan, options, progress))
    return outcomes


def _wanted(scan: Scan, catalog: Catalog, names: Sequence[str]) -> dict[str, Recipe]:
    """Recipes to build, in order; what a named store derives from comes along."""
    if names:
        recipes = {name: catalog.recipe(scan.dataset, name) for name in names}
    else:
        every = catalog.recipes(scan.dataset)
        recipes = {name: recipe for name, recipe in every.items() if recipe.by_default}
    if any(recipe.kind in DERIVED for recipe in recipes.values()):
        recipes.setdefault("volumes", catalog.recipe(scan.dataset, "volumes"))
    return dict(sorted(recipes.items(), key=lambda item: ORDER.index(item[1].kind)))


def _plan(
    name: str, recipe: Recipe, scan: Scan, folder: Path, catalog: Catalog, options: Options
) -> StorePlan:
    plan = _planners()[recipe.kind](scan, recipe, folder / f"{name}{SUFFIX}", catalog)
    plan.attrs["recipe"] = recipe.model_dump(mode="json", exclude_none=True)
    return plan


def _planners() -> dict[str, Callable[..., StorePlan]]:
    """Planner of every kind of store; imported late, since nilearn and librosa take seconds."""
    from sherlock_data.representations import parcels, volumes, voxels
    from sherlock_data.stimulus import annotations, stimulus_store

    return {
        "volumes": volumes.plan,
        "voxels": voxels.plan,
        "parcels": parcels.plan,
        "stimulus": stimulus_store.plan,
        "annotations": annotations.plan,
    }


def _one(name: str, plan: StorePlan, options: Options, progress: Progress) -> Outcome:
    outcome = Outcome(
        name,
        "built",
        nbytes=plan.nbytes,
        memory_bytes=plan.memory_bytes,
        problems=tuple(plan.problems),
    )
    found = stores.state(plan.path)
    if found == "complete" and not options.overwrite:
        reasons = differences(plan)
        if reasons:
            raise StoreError(
                f"complete, with {'; '.join(reasons)}",
                where=plan.path,
                remedy="build with --overwrite to replace it",
            )
        return replace(outcome, status="up to date", detail="same recipe and inputs")
    if options.dry_run:
        detail = "would be resumed" if found == "resumable" else ""
        return replace(outcome, status="planned", detail=detail)
    _check_space(plan)
    if found == "complete":
        stores.remove(plan.path)
    try:
        stores.begin(plan)
        results = _run_parts(name, plan, options, progress)
        inputs = completed_inputs(plan, results)
        stores.complete(plan, results, inputs)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                "the disk is full", where=plan.path, remedy="free some space and build again"
            ) from error
        raise
    finally:
        progress.end(name)
    remember_times(plan)
    return outcome


def _check_space(plan: StorePlan) -> None:
    """Refuse what cannot fit: noise hardly compresses, so the size before compression counts."""
    if "://" in str(plan.path):
        return
    folder = plan.path.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    done = sum(1 for part in plan.parts if stores.load_part(plan.path, part.name) is not None)
    needed = plan.nbytes * (1 - done / max(1, len(plan.parts)))
    if needed > free:
        raise NoSpaceError(
            f"needs up to {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=plan.path,
            remedy="free some space or choose another --out",
        )


def workers_for(plan: StorePlan, wanted: int | None) -> int:
    """Parts to run at once: no more than cores, nor than three fifths of the free memory hold."""
    if wanted:
        return wanted
    memory = int(0.6 * psutil.virtual_memory().available) // max(1, plan.memory_bytes)
    return max(1, min(psutil.cpu_count() or 1, memory, len(plan.parts)))


def _run_parts(
    name: str, plan: StorePlan, options: Options, progress: Progress
) -> dict[str, stores.Results]:
    path = str(plan.path)
    results = {part.name: stores.load_part(path, part.name) for part in plan.parts}
    todo = [part for part in plan.parts if results[part.name] is None]
    done = sum(part.weight for part in plan.parts if results[part.name] is not None)
    meter = _Meter(name, done, progress)
    progress.start(name, sum(part.weight for part in plan.parts), done)
    if options.scheduler:
        finished = _run_on_cluster(path, todo, options.scheduler, meter)
    else:
        graph = [dask.delayed(_run_part)(path, part, meter.of(part)) for part in todo]
        finished = dask.compute(
            *graph, scheduler="threads", num_workers=workers_for(plan, options.workers)
        )
    results.update({part.name: found for part, found in zip(todo, finished, strict=True)})
    return {key: value for key, value in results.items() if value is not None}


def _run_part(path: str, part: stores.Part, report: Callable[[float], None]) -> stores.Results:
    results = part.run(path, report)
    stores.save_part(path, part.name, results)
    report(1.0)
    return results


def _ignore(fraction: float) -> None:
    """Take no notice: a worker elsewhere reports whole parts only."""


def _run_on_cluster(
    path: str, todo: list[stores.Part], address: str, meter: _Meter
) -> list[stores.Results]:
    from distributed import Client, as_completed

    try:
        client = Client(address, timeout="10s")
    except OSError as error:
        raise SherlockError(
            f"no dask scheduler answers ({error})", where=address, remedy="check --scheduler"
        ) from error
    with client:
        futures = [client.submit(_run_part, path, part, _ignore, pure=False) for part in todo]
        parts = dict(zip([future.key for future in futures], todo, strict=True))
        for future in as_completed(futures):
            if future.status == "finished":
                meter.of(parts[future.key])(1.0)
        return [future.result() for future in futures]


class _Meter:
    """Adds up the fractions that parts report from their threads."""

    def __init__(self, store: str, done: float, progress: Progress) -> None:
        self.store, self.base, self.progress = store, done, progress
        self.fractions: dict[str, float] = {}
        self.lock = threading.Lock()

    def of(self, part: stores.Part) -> Callable[[float], None]:
        """Return the reporter of one part."""

        def report(fraction: float) -> None:
            with self.lock:
                self.fractions[part.name] = fraction * part.weight
                self.progress.update(self.store, self.base + sum(self.fractions.values()))

        return report


def describe(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Outcomes as JSON rows."""
    return [
        {
            "store": outcome.store,
            "status": outcome.status,
            "detail": outcome.detail,
            "bytes": outcome.nbytes,
            "memory_bytes": outcome.memory_bytes,
            "seconds": outcome.nbytes / BYTES_PER_SECOND,
            "problems": list(outcome.problems),
        }
        for outcome in outcomes
    ]
