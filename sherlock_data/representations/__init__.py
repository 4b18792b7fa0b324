"""Representations of the BOLD and of the stimulus: each module plans one kind of store."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from sherlock_data.catalog import Catalog
from sherlock_data.scan import Scan
from sherlock_data.store import StorePlan

#: plan(scan, recipe, path of the store, catalog)
Planner = Callable[[Scan, Any, Path, Catalog], StorePlan]


def _planner(module: str) -> Planner:
    """Import a kind's module when it is first asked for: librosa alone takes seconds."""

    def plan(scan: Scan, recipe: Any, out: Path, catalog: Catalog) -> StorePlan:
        planner: Planner = import_module(module).plan
        return planner(scan, recipe, out, catalog)

    return plan


PLANNERS: dict[str, Planner] = {
    "volumes": _planner("sherlock_data.representations.volumes"),
    "voxels": _planner("sherlock_data.representations.voxels"),
    "parcels": _planner("sherlock_data.representations.parcels"),
    "stimulus": _planner("sherlock_data.stimulus.stimulus_store"),
    "annotations": _planner("sherlock_data.stimulus.annotations"),
}
