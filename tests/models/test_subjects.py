"""Whose brain it is, and the brain of the average subject: on every entry of the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sherlock_data.catalog import load_catalog
from sherlock_models import parallel
from sherlock_models.architectures.layers import SubjectEmbedding
from sherlock_models.config import RunConfig
from sherlock_models.feeding.loading import load_data
from sherlock_models.resolve import resolve
from sherlock_models.training.trainer import Trainer

CATALOG = load_catalog()
every_entry = pytest.mark.parametrize("name", CATALOG.models)


def configure(name: str, stores: Path, **options: Any) -> RunConfig:
    """An entry at a tiny width; from the sound alone where its architecture asks no picture."""
    entry = CATALOG.model(name)
    if entry.architecture in ("dense", "temporal"):
        shown: tuple[str, ...] = ("audio",)
    else:
        shown = ("brain",) if "brain" in entry.stimulus else ("video", "audio")
    sizes = {"code": 4} if "brain" in shown else {"delays": (0,)}
    quick = {"steps": 2, "batch_size": 12, "width": 0.02, "stimulus": shown, **sizes}
    return resolve(name, stores, options={**quick, **options})


@every_entry
def test_every_entry_learns_whose_brain_it_is(name: str, tiny_stores: Path):
    with parallel.world("cpu") as world:
        config = configure(name, tiny_stores, subject="embedding")
        trainer = Trainer(config, load_data(config), world)
        found = [m for m in trainer.model.modules() if isinstance(m, SubjectEmbedding)]
        assert [len(m.weight) for m in found] == [len(trainer.data.split.train_subjects)]
        assert not found[0].weight.any()
        values, _ = trainer.step(0)
        seen = trainer.samples.subject[trainer.batches.at(0)]
        moved = found[0].weight.detach().any(dim=1).numpy()
        assert moved[np.unique(seen)].all(), "every subject of the batch is told apart"
        assert np.isfinite(values["loss"])


@every_entry
def test_every_entry_learns_the_average_subject(name: str, tiny_stores: Path):
    with parallel.world("cpu") as world:
        config = configure(name, tiny_stores, subject="mean")
        trainer = Trainer(config, load_data(config), world)
        assert trainer.data.subjects == ("mean",)
        assert set(trainer.samples.subject) == {0}
        people = ["sub-01", "sub-02", "sub-03"]
        assert trainer.data.fitted_on["subjects"] == people, "what is fitted on names people"
        assert config.with_sizes(trainer.data.sizes).model_sizes.subjects == 1
        before = [p.detach().clone() for p in trainer.model.parameters()]
        values, _ = trainer.step(0)
        assert np.isfinite(values["loss"])
        after = list(trainer.model.parameters())
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert np.isfinite(trainer.validate(1)["loss"])
