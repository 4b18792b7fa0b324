"""What the movie loses, as tables of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sherlock_models.lesions import lesion_store
from sherlock_models.lesions.lesion_store import stimuli_of
from sherlock_models.page.report_regions import effects_at, find_regions
from sherlock_models.scoring.significance import FDR

if TYPE_CHECKING:
    from sherlock_models.run import Run

#: units shown of every stimulus, and rows of the matrix
SHOWN = 8


@dataclass(frozen=True)
class LesionTable:
    """One stimulus' strongest lesions.

    Attributes
    ----------
    target : str
    found, tested : int
        Units at q below the FDR, of all.
    rows : list of dict
        ``unit``, ``network``, ``effect``, ``z``, ``q``; the largest effect first.
    """

    target: str
    found: int
    tested: int
    rows: list[dict[str, Any]]


def read_lesions(run: Run) -> xr.Dataset | None:
    """Effects of the run's present best checkpoint; None where there are none."""
    if not lesion_store.is_current(run):
        return None
    return lesion_store.load_lesions(run).load()


def lesion_tables(lesions: xr.Dataset) -> list[LesionTable]:
    """Rank the units for every stimulus."""
    tables = []
    for column, target in enumerate(stimuli_of(lesions)):
        effect, z, q = (lesions[name].values[:, column] for name in ("effect", "z", "q"))
        order = np.argsort(-effect, kind="stable")[:SHOWN]
        rows = [
            {
                "unit": str(lesions["unit"].values[row]),
                "network": str(lesions["network"].values[row]),
                "effect": finite(effect[row]),
                "z": finite(z[row]),
                "q": finite(q[row]),
            }
            for row in order
        ]
        tables.append(LesionTable(target, int((q <= FDR).sum()), len(q), rows))
    return tables


def effect_maps(run: Run, lesions: xr.Dataset) -> dict[str, NDArray[np.float64]]:
    """Effect on every stimulus at each element of the brain, (E,); NaN where none was lesioned."""
    regions = find_regions(run, lesions)
    return {} if regions is None else effects_at(lesions, regions)


def matrix(lesions: xr.Dataset) -> dict[str, Any]:
    """Effects of the strongest units on every target, each as a share of its column's largest.

    Returns
    -------
    dict
        ``targets``; ``rows`` of ``unit`` and ``cells`` (``effect``, ``share`` in -1 to 1, ``q``).
    """
    whole = stimuli_of(lesions)
    effect, q = lesions["effect"].values, lesions["q"].values
    targets = [str(target) for target in lesions["target"].values]
    kept = [column for column, target in enumerate(targets) if target != "loss"]
    top = np.maximum(np.abs(effect).max(axis=0), 1e-12)
    order: dict[int, None] = {}
    for rank in range(len(effect)):
        for column in range(len(whole)):
            order[int(np.argsort(-effect[:, column], kind="stable")[rank])] = None
        if len(order) >= SHOWN:
            break
    return {
        "targets": [targets[column] for column in kept],
        "rows": [
            {
                "unit": str(lesions["unit"].values[row]),
                "cells": [
                    {
                        "effect": finite(effect[row, column]),
                        "share": float(effect[row, column] / top[column]),
                        "found": bool(q[row, column] <= FDR),
                    }
                    for column in kept
                ],
            }
            for row in order
        ],
    }


def finite(value: float) -> float | None:
    """Leave out what is undefined."""
    return float(value) if np.isfinite(value) else None
