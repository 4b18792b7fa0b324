"""An entry ready to be planned: configuration, sizes and amount of data, from metadata alone.

Without stores the sizes are the entry's reference sizes, and subjects, TRs and runs those that the
catalogue declares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sherlock_data import store
from sherlock_data.catalog import Catalog
from sherlock_data.errors import ConfigError
from sherlock_data.splits import TEST, VALIDATION
from sherlock_models.config import BRAIN_ALIASES, RunConfig
from sherlock_models.feeding import stimuli
from sherlock_models.memory import data_bytes
from sherlock_models.planning.footprint import Footprint, measure
from sherlock_models.planning.scaling import Share
from sherlock_models.planning.step_trace import FLOAT32
from sherlock_models.resolve import described, resolve
from sherlock_models.sizes import BRAIN, Sizes
from sherlock_models.zoo import reference_sizes

#: dataset of the catalogue whose subjects, runs and TRs count where no store is named
REFERENCE = "sherlock"
#: numbers of GPUs that are tried to find how many are needed
TRIED = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Extent:
    """How much data there is.

    Attributes
    ----------
    subjects, trs, runs : int
    with_stimulus : int
        TRs that have every stimulus of the entry.
    """

    subjects: int
    trs: int
    runs: int
    with_stimulus: int

    @property
    def training_samples(self) -> int:
        """About as many as the default split leaves for training; gaps are not taken off."""
        return round(self.subjects * self.with_stimulus * (1 - VALIDATION - TEST))


@dataclass(frozen=True)
class Training:
    """An entry with everything that decides what it takes."""

    config: RunConfig
    sizes: Sizes
    extent: Extent

    @cached_property
    def _traced(self) -> dict[int, Footprint]:
        return {}

    def footprint(self, ranks: int = 1) -> Footprint:
        """Trace a rank's share of the batch, once."""
        if ranks not in self._traced:
            self._traced[ranks] = measure(self.config, self.sizes, self.config.batch_size, ranks)
        return self._traced[ranks]

    def share(self, ranks: int) -> Share:
        """Say what each of so many ranks takes."""
        batch = self.config.batch_size
        noisy = self.config.brain_noise == "residual" and not self.config.is_compressor
        gathered = FLOAT32 * batch * math.prod(self.sizes.brain) if noisy and ranks > 1 else 0
        return Share(ranks, self.footprint(ranks), self.config.precision, gathered)

    @property
    def data(self) -> int:
        """Bytes of the data in memory."""
        extent = self.extent
        return data_bytes(self.sizes, extent.subjects, extent.trs, extent.runs)

    def needed(self, usable: int, bytes_of: Callable[[Share], int]) -> int | None:
        """Fewest GPUs on which it fits, None if more than the most that are tried."""
        tried = [ranks for ranks in TRIED if ranks <= max(1, self.config.batch_size)]
        return next((ranks for ranks in tried if bytes_of(self.share(ranks)) <= usable), None)


def prepare(
    known: Catalog,
    entry: str,
    catalog: str | Path | None,
    data: str | Path | None,
    options: Mapping[str, Any],
) -> Training | None:
    """Settle an entry's configuration, sizes and data; None where only a store can tell."""
    if data is not None:
        config = resolve(entry, data, catalog=catalog, options=options)
        return Training(config, config.model_sizes, _extent_of(config))
    config = described(known, entry, catalog=catalog, options=options)
    model = known.model(entry)
    if config.compressor is not None:
        remedy = "add --data"
        raise ConfigError("compressor= names a run on a dataset", where="--set", remedy=remedy)
    own = (BRAIN_ALIASES.get(model.brain, model.brain), tuple(model.stimulus))
    if (config.brain, config.stimulus) != own:
        return None
    extent = _reference_extent(known, config)
    sizes = reference_sizes(model)
    if sizes is None:
        return None
    subjects = extent.subjects
    return Training(config, Sizes(sizes.stimulus, sizes.brain, config.delays, subjects), extent)


def _reference_extent(known: Catalog, config: RunConfig) -> Extent:
    """Subjects, TRs and runs as the catalogue declares them."""
    dataset = known.dataset(REFERENCE)
    declared = dataset.subjects
    subjects = declared if isinstance(declared, int) else len(declared or ())
    runs = dataset.runs or ()
    volumes = [run.volumes or 0 for run in runs]
    shown = [run.volumes or 0 for run in runs if run.movie or config.is_compressor]
    averaged = config.subject == "mean"
    return Extent(1 if averaged else subjects, sum(volumes), len(runs), sum(shown))


def _extent_of(config: RunConfig) -> Extent:
    """Subjects, TRs and runs of the stores; reads coordinates and flags only."""
    data = store.open_store(f"{config.data.rstrip('/')}/{config.brain}.zarr")
    shown = np.ones(data.sizes["time"], dtype=bool)
    for name in config.stimulus:
        if name != BRAIN:
            shown &= stimuli.present_at(config.data, name)
    subjects = 1 if config.subject == "mean" else data.sizes["subject"]
    runs = len(set(data["run"].values.tolist()))
    return Extent(subjects, data.sizes["time"], runs, int(shown.sum()))
