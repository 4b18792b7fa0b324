"""A dataset folder in a bucket: trained on and judged as if it lay on the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sherlock_models.config import RunConfig
from sherlock_models.scoring.evaluate import evaluate
from sherlock_models.training.train import fit

DATA = "s3://lab/stores/toy"
QUICK = {"steps": 6, "batch_size": 16, "validate_every": 3}


@pytest.mark.parametrize("placement", ["auto", "stream"])
def test_the_losses_are_those_of_the_disk(
    stores: Path, bucket: Any, configure: Callable[..., RunConfig], tmp_path: Path, placement: str
) -> None:
    bucket.put(str(stores), DATA, recursive=True)
    options = {**QUICK, "placement": placement}
    there = fit(configure(DATA, **options), tmp_path / "there")
    here = fit(configure(**options), tmp_path / "here")
    assert there.config.data == DATA
    assert there.metrics() == here.metrics()
    scores = [evaluate(run, draws=20, null_draws=20)["rows"] for run in (there, here)]
    assert scores[0] == scores[1]
