"""A compressor of the brain, the movie model held to its code, and what they scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sherlock_models.config import RunConfig
from sherlock_models.resolve import resolve
from sherlock_models.run import Run
from sherlock_models.training.train import fit

CODE = 6
QUICK: dict[str, Any] = {"steps": 4, "batch_size": 16, "validate_every": 2, "width": 0.01}


def stage_one(data: Path, out: Path, **options: Any) -> Run:
    config = resolve("brain-compressor", data, options={**QUICK, "code": CODE, **options})
    return fit(config, out, device="cpu")


def stage_two(data: Path, run: Path | None = None, **options: Any) -> RunConfig:
    coded = {} if run is None else {"compressor": str(run)}
    return resolve("dense-compressed", data, options={**QUICK, **coded, **options})


def value(document: dict[str, Any], predictor: str, metric: str, target: str = "brain") -> float:
    rows = {(r["predictor"], r["target"], r["metric"]): r["value"] for r in document["rows"]}
    return rows[predictor, target, metric]
