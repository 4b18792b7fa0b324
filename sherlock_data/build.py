"""From a catalogue entry to its stores: which to build, in what order, with what progress.

Each store is a graph of independent parts (one per subject, say) and one finish. The graph runs on
dask: threads of this process by default, or the workers of a ``distributed`` cluster.
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sherlock_data import locks, repair
from sherlock_data import store as stores
from sherlock_data.catalog import Catalog
from sherlock_data.contract import SUFFIX
from sherlock_data.errors import InputError, NoSpaceError, StoreError
from sherlock_data.graph import Progress, Silent, connect, run_parts
from sherlock_data.outcomes import Outcome, outcome_of
from sherlock_data.planners import plan_all, plan_store, waits, wanted_recipes
from sherlock_data.provenance import (
    completed_inputs,
    differences,
    has_other_lag,
    remember_times,
)
from sherlock_data.remote import is_remote, locate
from sherlock_data.scan import Scan
from sherlock_data.store import StorePlan

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How a build runs.

    Attributes
    ----------
    scheduler : str or None
        Address of a ``distributed`` scheduler; None: threads of this process.
    workers : int or None
        Parts done at once; None: as many as cores and memory allow.
    overwrite, dry_run, repair : bool
    """

    scheduler: str | None = None
    workers: int | None = None
    overwrite: bool = False
    dry_run: bool = False
    repair: bool = False


def build(
    scan: Scan,
    catalog: Catalog,
    out: str | Path,
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
    out : path or URL
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
        If a complete store has another recipe or other inputs and ``overwrite`` is not set,
        another build of the store is running, or a store that is to be written is a link.
    NoSpaceError
        If the disk cannot hold the stores.
    """
    options, progress = options or Options(), progress or Silent()
    recipes = wanted_recipes(scan, catalog, names)
    folder = locate(out) / scan.dataset
    if options.scheduler and not options.dry_run:
        connect(options.scheduler).close()
        # its workers may stand in another folder
        folder = folder.absolute()

    def plan(name: str) -> StorePlan:
        return plan_store(name, recipes[name], scan, folder, catalog)

    outcomes: dict[str, Outcome] = {}
    paths = {name: folder / f"{name}{SUFFIX}" for name in recipes}
    mended = _mend(paths, plan, options, progress) if options.repair else {}
    if options.repair and options.dry_run:
        return list(mended.values())
    plans = plan_all(recipes, names, plan, outcomes)
    for name in plans:
        if waits(name, recipes, outcomes) or _is_to_do(
            plans[name], options.overwrite, named=not names or name in names
        ):
            _refuse_link(plans[name].path)
            outcomes[name] = outcome_of(name, plans[name], "planned")
        else:
            outcomes[name] = _up_to_date(name, plans[name])
    if options.dry_run:
        return [outcomes[name] for name in recipes]
    _check_space([plans[name] for name in plans if outcomes[name].status == "planned"])
    for name, first in plans.items():
        if outcomes[name].status == "up to date":
            repair.tidy(first.path)
            continue
        with locks.held(first.path) as dead:
            # a derived store knows its size, whether it can be and whether it still stands, once
            # its source is there
            if recipes[name].sources:
                again = plan_all({name: recipes[name]}, names, plan, outcomes)
                if name not in again:
                    continue
                now = again[name]
            else:
                now = first
            if _is_to_do(now, options.overwrite, named=not names or name in names):
                _LOG.info("building %s in %d parts", now.path, len(now.parts))
                outcomes[name] = _took_over(_one(name, now, options, progress), dead)
            elif has_other_lag(now):
                outcomes[name] = _record_lag(name, now, options, progress)
            else:
                outcomes[name] = _up_to_date(name, now)
    done = [mended.get(name, outcomes[name]) for name in recipes]
    for outcome in done:
        _LOG.info("%s: %s %s", outcome.store, outcome.status, outcome.detail)
    return done


def _refuse_link(path: str | Path) -> None:
    """Refuse to write through a symbolic link: what it leads to may be anybody's."""
    if not is_remote(path) and Path(path).is_symlink():
        raise StoreError(
            f"is a link to {Path(path).readlink()}, and only read",
            where=path,
            remedy="build into the folder itself, or remove the link",
        )


def _up_to_date(name: str, plan: StorePlan) -> Outcome:
    if has_other_lag(plan):
        return outcome_of(name, plan, "updated", f"would record lag_s = {plan.attrs['lag_s']:g}")
    return outcome_of(name, plan, "up to date", "same recipe and inputs")


def _record_lag(name: str, plan: StorePlan, options: Options, progress: Progress) -> Outcome:
    def resume(plan: StorePlan) -> Outcome:
        return _one(name, plan, options, progress)

    return outcome_of(name, plan, "updated", repair.record_lag(plan, resume))


def _took_over(outcome: Outcome, dead: locks.Holder | None) -> Outcome:
    if dead is None:
        return outcome
    said = f"took over from {dead}, which is gone"
    return replace(outcome, detail="; ".join(filter(None, (said, outcome.detail))))


def _mend(
    paths: Mapping[str, Path],
    plan: Callable[[str], StorePlan],
    options: Options,
    progress: Progress,
) -> dict[str, Outcome]:
    """Mend every damaged store, or on a dry run only say which those are."""
    for path in paths.values():
        _refuse_link(path)
    if options.dry_run:
        damage = {name: repair.find_damage(path, progress) for name, path in paths.items()}
        return {
            name: Outcome(name, "damaged", f"damaged objects: {len(found)}")
            for name, found in damage.items()
            if found
        }

    def one(name: str, now: StorePlan) -> Outcome:
        return _one(name, now, options, progress)

    mended = repair.mend_all(paths, plan, one, progress)
    return {name: outcome_of(name, *done) for name, done in mended.items()}


def _is_to_do(plan: StorePlan, overwrite: bool, named: bool) -> bool:
    """Whether a store is to be built; a complete one of another kind only with ``overwrite``."""
    if stores.state(plan.path) != "complete":
        return True
    reasons = differences(plan)
    if reasons and not overwrite:
        raise StoreError(
            f"complete, with {'; '.join(reasons)}",
            where=plan.path,
            remedy="build with --overwrite to replace it",
        )
    return overwrite and (named or bool(reasons))


def _one(name: str, plan: StorePlan, options: Options, progress: Progress) -> Outcome:
    if stores.state(plan.path) == "complete":
        stores.remove(plan.path)
    try:
        stores.begin(plan)
        results = run_parts(name, plan, progress, options.scheduler, options.workers)
        stores.complete(plan, results, completed_inputs(plan, results))
    except InputError:
        # a mended input is another input: nothing of this build could be used
        stores.remove(plan.path)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                "the disk is full", where=plan.path, remedy="free some space and build again"
            ) from error
        raise
    finally:
        progress.end(name)
    remember_times(plan)
    summary = str(stores.attributes(plan.path).get("summary", ""))
    return Outcome(name, "built", summary, plan.nbytes, plan.memory_bytes, tuple(plan.problems))


def _check_space(plans: Sequence[StorePlan]) -> None:
    """Refuse what cannot fit: noise hardly compresses, so the size before compression counts."""
    local = [plan for plan in plans if not is_remote(plan.path)]
    if not local:
        return
    folder = local[0].path.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    needed = sum(plan.nbytes * (1 - _share_done(plan)) for plan in local)
    if needed > free:
        raise NoSpaceError(
            f"the stores need up to {_size(needed)}, {_size(free)} are free",
            where=folder,
            remedy="free some space or choose another --out",
        )


def _size(nbytes: float) -> str:
    """Bytes for people, no less than a megabyte."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e8 else f"{max(1, round(nbytes / 1e6))} MB"


def _share_done(plan: StorePlan) -> float:
    done = [part for part in plan.parts if stores.load_part(plan.path, part.name) is not None]
    return len(done) / max(1, len(plan.parts))
