"""Mend what ``verify`` names: a damaged store becomes an unfinished one, and its build is resumed.

What whole parts wrote stays where it is, and their records are laid beside the store again, as a
killed build would have left them. The root metadata goes before anything else, so the store opens
only when it is whole; a repair that is killed is resumed by any later build.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sherlock_data import locks
from sherlock_data import store as stores
from sherlock_data.errors import StoreError
from sherlock_data.graph import Progress
from sherlock_data.manifest import MANIFEST, TIMES, read_manifest
from sherlock_data.objects import (
    ROOT,
    build_place,
    clear,
    delete_keys,
    list_keys,
    place,
    read_bytes,
    write_bytes,
)
from sherlock_data.parts import kept_key, read_kept
from sherlock_data.plan import StorePlan
from sherlock_data.provenance import differences
from sherlock_data.remote import is_remote
from sherlock_data.verify import Damage, examine


def find_damage(path: str | Path, progress: Progress) -> list[Damage]:
    """Return what a repair has to mend; nothing where there is no store, or an unfinished one."""
    if stores.state(path) == "complete" or _lost_its_root(path):
        return examine(path, progress)
    return []


def mend_all(
    paths: Mapping[str, Path],
    plan: Callable[[str], StorePlan],
    build: Callable[[str, StorePlan], object],
    progress: Progress,
) -> dict[str, tuple[StorePlan, str, str]]:
    """Mend every damaged store.

    Parameters
    ----------
    paths : dict
        Stores by name, those that others derive from first.
    plan : callable
        Plans a store, once what it derives from is whole.
    build : callable
        Builds an unfinished store from its plan.
    progress : Progress

    Returns
    -------
    dict
        Mended stores: their plan, ``"repaired"``, and a line for people.

    Raises
    ------
    StoreError
        As :func:`mend`; or if another build of a store is running.
    """
    mended = {}
    for name, path in paths.items():
        if not find_damage(path, progress):
            continue
        with locks.held(path):
            # looked at again: another repair may have finished since
            if damaged := find_damage(path, progress):
                now = plan(name)
                detail = mend(now, damaged, partial(build, name), progress)
                mended[name] = (now, "repaired", detail)
    return mended


def tidy(path: Path) -> None:
    """Clean up after a build that was killed when its store was already complete."""
    if locks.exists(path):
        with suppress(StoreError), locks.held(path):  # held: someone else's affair
            stores.tidy(path)
    else:
        stores.tidy(path)


def _lost_its_root(path: str | Path) -> bool:
    """Whether a store without root metadata was complete once."""
    if stores.state(path) == "resumable" or not (is_remote(path) or Path(path).is_dir()):
        return False
    return read_bytes(place(path, read_only=True), MANIFEST) is not None


def mend(
    plan: StorePlan,
    damaged: Sequence[Damage],
    build: Callable[[StorePlan], object],
    progress: Progress,
) -> str:
    """Mend a damaged store.

    Parameters
    ----------
    plan : StorePlan
        As the store would be built now.
    damaged : sequence of Damage
        From :func:`find_damage`.
    build : callable
        Builds an unfinished store from its plan.
    progress : Progress

    Returns
    -------
    str
        A line for people: how many objects, which parts were done again.

    Raises
    ------
    StoreError
        If the recipe or the inputs are not those of the store any more (nothing is touched then),
        or the mended store is still damaged.
    """
    again = dismantle(plan, damaged)
    build(plan)
    left = examine(plan.path, progress)
    if left:
        raise StoreError(
            f"still damaged after the repair ({left[0].key}: {left[0].problem})",
            where=plan.path,
            remedy="check the disk, and build with --overwrite",
        )
    parts = f"; done again: {', '.join(again)}" if again else ""
    return f"{len(damaged)} damaged object{'s' if len(damaged) > 1 else ''}{parts}"


def record_lag(plan: StorePlan, build: Callable[[StorePlan], object]) -> str:
    """Let a complete store record the lag of the catalogue; none of its parts is done again.

    Returns
    -------
    str
        A line for people.
    """
    before = stores.attributes(plan.path).get("lag_s")
    dismantle(plan, [])
    build(plan)
    return f"lag_s was {before:g}, is now {plan.attrs['lag_s']:g}; the data are the same"


def dismantle(plan: StorePlan, damaged: Sequence[Damage]) -> list[str]:
    """Turn a damaged store into an unfinished one that keeps its whole parts.

    Returns
    -------
    list of str
        Parts that have to be done again.

    Raises
    ------
    StoreError
        If the recipe or the inputs are not those of the store any more.
    """
    store = place(plan.path)
    bad = {damage.key for damage in damaged}
    attrs = _attributes(plan, bad)
    reasons = differences(plan, attrs)
    if reasons:
        raise StoreError(
            f"damaged, and now with {'; '.join(reasons)}",
            where=plan.path,
            remedy="bring back what it was made from, or build with --overwrite",
        )
    # the same root as before, where the same was written: stores derived from this one still stand
    plan.attrs["created_by"] = attrs.get("created_by", plan.attrs["created_by"])
    beside = build_place(plan.path)
    clear(beside)
    again = _damaged_parts(plan, bad)
    whole: set[str] = set()
    for part in plan.parts:
        if part.name not in again and (kept := read_kept(store, part.name)):
            whole |= kept[1].keys()
            write_bytes(beside, f"{part.name}.npz", kept[0])
    write_bytes(beside, "plan.json", json.dumps(stores.identity(plan)).encode())
    delete_keys(store, [ROOT])
    # without a manifest nothing vouches for what no part wrote
    doubtful = set(list_keys(store)) - whole - {TIMES} if MANIFEST in bad else bad
    delete_keys(store, sorted(doubtful & set(list_keys(store))))
    return again


def _damaged_parts(plan: StorePlan, bad: set[str]) -> list[str]:
    """Return the parts that wrote something damaged, and those that read what they wrote."""
    store = place(plan.path, read_only=True)
    again = set()
    for part in plan.parts:
        kept = None if kept_key(part.name) in bad else read_kept(store, part.name)
        if kept is None or bad & kept[1].keys():
            again.add(part.name)
    while more := {name for name, others in plan.after.items() if again & {*others}} - again:
        again |= more
    return [part.name for part in plan.parts if part.name in again]


def _attributes(plan: StorePlan, bad: set[str]) -> dict[str, Any]:
    """Return what the store says it was made from, by whichever file is whole."""
    if MANIFEST not in bad:
        return read_manifest(place(plan.path, read_only=True)).attributes
    if ROOT not in bad:
        return stores.attributes(plan.path)
    raise StoreError(
        "its manifest and its root metadata are damaged, so nothing says what it was made from",
        where=plan.path,
        remedy="build with --overwrite",
    )
