"""What a store was made from, and whether that is still so.

Inputs are told apart by name, size and SHA-256. Files whose size and time of change are what they
were when the store was written are taken for the same without being read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sherlock_data import store as stores
from sherlock_data.contract import SUFFIX, store_attrs
from sherlock_data.errors import InputError, StoreError
from sherlock_data.manifest import TIMES
from sherlock_data.store import Results, StorePlan

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sherlock_data.scan import Scan


def scan_attrs(scan: Scan, recipe: BaseModel, path: Path) -> dict[str, Any]:
    """Attributes that every store of this scan has."""
    return store_attrs(
        dataset=scan.dataset,
        store=path.name.removesuffix(SUFFIX),
        recipe=recipe.model_dump(mode="json", exclude_none=True),
        space=scan.space,
        repetition_time_s=scan.clock.repetition_time_s,
        lag_s=scan.lag_s,
    )


def describe_file(path: Path, name: str | None = None) -> dict[str, Any]:
    """Return ``name``, ``path``, ``bytes``, ``modified_ns`` of an input file, unread."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", where=path, remedy="check --raw"
        ) from error
    return {
        "name": name or path.name,
        "path": str(path),
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
    }


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes as they lie on disk, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def completed_inputs(plan: StorePlan, results: dict[str, Results]) -> list[dict[str, Any]]:
    """Return the inputs with their hashes: those computed on the way, the others now."""
    for item in plan.inputs:
        _check_unchanged(item)
    on_the_way = {
        key.removeprefix("sha256/"): str(value)
        for part in results.values()
        for key, value in part.items()
        if key.startswith("sha256/")
    }
    return [
        {
            "name": item["name"],
            "bytes": int(item["bytes"]),
            "sha256": item.get("sha256")
            or on_the_way.get(item["name"])
            or sha256_of(Path(item["path"])),
        }
        for item in plan.inputs
    ]


def _check_unchanged(item: dict[str, Any]) -> None:
    if item.get("sha256"):
        return
    path = Path(item["path"])
    now = describe_file(path)
    if (now["bytes"], now["modified_ns"]) != (item["bytes"], item["modified_ns"]):
        raise InputError("changed while it was read", where=path, remedy="build again")


def differences(plan: StorePlan, attrs: Mapping[str, Any] | None = None) -> list[str]:
    """Return why a complete store is not the one the plan would build; empty: it is the same.

    ``attrs`` are the store's, where its root metadata is not to be trusted.
    """
    attrs = stores.attributes(plan.path) if attrs is None else attrs
    reasons = []
    if attrs.get("recipe") != plan.attrs["recipe"]:
        reasons.append(f"another recipe ({_changed_keys(attrs.get('recipe'), plan)})")
    for key in ("runs", "repetition_time_s", "space"):
        if attrs.get(key) != plan.attrs[key]:
            reasons.append(f"another {key} ({attrs.get(key)}, now {plan.attrs[key]})")
    if attrs.get("fitted_on") != plan.attrs.get("fitted_on"):
        reasons.append("other training TRs that it was fitted on")
    had = _inputs_of(attrs, plan.path)
    times = _times(plan)
    for item in plan.inputs:
        old = had.pop(item["name"], None)
        if old is None:
            reasons.append(f"no input '{item['name']}'")
        elif old[0] != item["bytes"] or not _same_content(item, old[1], times, attrs):
            reasons.append(f"another '{item['name']}'")
    reasons += [f"an input '{name}' that is gone" for name in had]
    return reasons


def _inputs_of(attrs: Mapping[str, Any], path: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each input by its name, as a store recorded them."""
    try:
        return {
            str(item["name"]): (int(item["bytes"]), str(item["sha256"]))
            for item in attrs.get("inputs", [])
        }
    except (KeyError, TypeError, ValueError):
        raise StoreError(
            "does not say what it was made from: its metadata are damaged",
            where=path,
            remedy="run sherlock-data verify",
        ) from None


def has_other_lag(plan: StorePlan) -> bool:
    """Whether a complete store that still stands records another lag than the catalogue's now.

    No store but a fit depends on the lag: it is applied when a dataset pairs brain and stimulus.
    """
    if stores.state(plan.path) != "complete":
        return False
    return bool(stores.attributes(plan.path).get("lag_s") != plan.attrs["lag_s"])


def _changed_keys(old: Any, plan: StorePlan) -> str:
    new = plan.attrs["recipe"]
    if not isinstance(old, dict):
        return "unreadable"
    keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return ", ".join(f"{key}: {old.get(key)}, now {new.get(key)}" for key in keys)


def _same_content(
    item: dict[str, Any], sha256: str, times: dict[str, int], attrs: Mapping[str, Any]
) -> bool:
    if item.get("sha256"):
        # a store whose recorded lag was changed since is the same data
        same = item["sha256"] == sha256
        is_store = str(item.get("path", "")).endswith(SUFFIX)
        return same or (is_store and stores.fingerprint(item["path"], attrs.get("lag_s")) == sha256)
    path = Path(item["path"])
    if times.get(item["name"]) == path.stat().st_mtime_ns:
        return True
    return sha256_of(path) == sha256


def remember_times(plan: StorePlan) -> None:
    """Note when each input last changed; a side file, since a copy of a store knows no times."""
    times = {item["name"]: item["modified_ns"] for item in plan.inputs if not item.get("sha256")}
    stores.write_bytes(stores.place(plan.path), TIMES, json.dumps(times).encode())


def _times(plan: StorePlan) -> dict[str, int]:
    data = stores.read_bytes(stores.place(plan.path, read_only=True), TIMES)
    try:
        return dict(json.loads(data or b"{}"))
    except (ValueError, TypeError):  # damaged: the inputs are read again
        return {}
