"""The stores that a configuration reads: their identities, and the sizes that a model takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sherlock_data import store
from sherlock_data.errors import ConfigError
from sherlock_models.checks import store_path
from sherlock_models.config import RunConfig, StoreIdentity
from sherlock_models.feeding import stimuli
from sherlock_models.sizes import BRAIN, Sizes


def dataset_name(config: RunConfig) -> str:
    """Name of the dataset, as the brain store has it."""
    return str(store.described(store_path(config.data, config.brain))["dataset"])


def identities(config: RunConfig) -> dict[str, StoreIdentity]:
    """Identity of every store a configuration reads.

    Raises
    ------
    StoreError, ConfigError
        If the brain's store is not built, or no store has a stimulus.
    """
    shown = (*config.stimulus, *config.split_stimulus)
    names = {config.brain, *(stimuli.store_of(config.data, s) for s in shown if s != BRAIN)}
    found = {}
    for name in sorted(names):
        path = store_path(config.data, name)
        recipe = store.described(path).get("recipe", {})
        found[name] = StoreIdentity(fingerprint=store.fingerprint(path), recipe=recipe)
    return found


def sizes_of(
    data: str | Path,
    brain: str,
    stimulus: Sequence[str],
    delays: Sequence[int] = (0,),
    subjects: int | None = None,
) -> Sizes:
    """Sizes a model takes from a dataset folder; reads metadata only.

    Parameters
    ----------
    data : path
        Dataset folder.
    brain : str
        Store of the brain layer.
    stimulus : sequence of str
    delays : sequence of int
    subjects : int, optional
        Rows of the subject embedding; all subjects of the store by default.
    """
    opened = store.open_store(store_path(str(data), brain))
    if "bold" not in opened:
        raise ConfigError(
            f"'{brain}' holds no BOLD", where="brain", remedy="name a store of brains, as parcels"
        )
    bold = opened["bold"]
    units = tuple(int(n) for dim, n in bold.sizes.items() if dim not in ("subject", "time"))
    return Sizes(
        stimulus={
            name: (math.prod(units),) if name == BRAIN else stimuli.size_of(str(data), name)
            for name in stimulus
        },
        brain=units,
        delays=tuple(delays),
        subjects=bold.sizes["subject"] if subjects is None else subjects,
    )


def sizes_for(config: RunConfig, subjects: int | None = None) -> Sizes:
    """Sizes of a configuration's model; a brain layer of stage-1 codes has the code's."""
    sizes = sizes_of(config.data, config.brain, config.stimulus, config.delays, subjects)
    if config.compressor is None or config.compressor.code is None:
        return sizes
    return replace(sizes, brain=(config.compressor.code,))
