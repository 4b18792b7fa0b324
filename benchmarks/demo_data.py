"""What the benchmarks of models have in common: the demo data, and numbers in a table."""

from __future__ import annotations

from pathlib import Path

from sherlock_data.build import build
from sherlock_data.catalog import load_catalog
from sherlock_data.scan import resolve
from sherlock_data.synthetic import synth


def demo_stores(folder: Path, *names: str) -> Path:
    """Synthesise the demo data and build the stores that are named; the dataset folder."""
    synth(folder / "raw", size="demo", seed=0)
    catalog = load_catalog(folder / "raw" / "catalog.yaml")
    planned = resolve("synth", catalog.dataset("synth"), folder / "raw")
    build(planned, catalog, folder / "stores", names)
    return folder / "stores" / "synth"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
