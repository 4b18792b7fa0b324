"""What the benchmarks of models have in common: the demo data, and numbers in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sherlock_data.build import build
from sherlock_data.catalog import load_catalog
from sherlock_data.scan import resolve
from sherlock_data.synthetic import synth


def demo_stores(folder: Path, *names: str, size: str = "demo") -> Path:
    """Synthesise the demo data and build the stores that are named; the dataset folder.

    What is there already is left as it is.
    """
    if not (folder / "raw" / "catalog.yaml").exists():
        synth(folder / "raw", size=size, seed=0)
    catalog = load_catalog(folder / "raw" / "catalog.yaml")
    planned = resolve("synth", catalog.dataset("synth"), folder / "raw")
    build(planned, catalog, folder / "stores", names)
    return folder / "stores" / "synth"


class Scores:
    """Values of an evaluation by predictor, target and metric."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.rows = {(r["predictor"], r["target"], r["metric"]): r for r in document["rows"]}

    def value(self, predictor: str, target: str, metric: str) -> float | None:
        """One value, None where there is none."""
        return self.rows.get((predictor, target, metric), {}).get("value")

    def brain(self, predictor: str) -> dict[str, Any]:
        """Scores of a predicted brain: of a code, in its voxels."""
        r = self.rows.get((predictor, "brain", "r"), {})
        return {
            "r": r.get("value"),
            "r_low": r.get("low"),
            "r_high": r.get("high"),
            "r2": self.value(predictor, "brain", "r2"),
            "significant": self.value(predictor, "brain", "significant"),
        }


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
