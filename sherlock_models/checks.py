"""What a training refuses before it begins: stores that lack, are others, or saw too much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sherlock_data import store
from sherlock_data.errors import ConfigError, StoreError, or_beside
from sherlock_data.fitting import overlap, ranges
from sherlock_data.splits import Split
from sherlock_data.timing import Clock
from sherlock_models.feeding import stimuli
from sherlock_models.feeding.stimuli import StimulusTable

if TYPE_CHECKING:
    from sherlock_models.config import RunConfig


def store_path(data: str, name: str) -> str:
    """Path of a complete store of a dataset folder.

    Raises
    ------
    StoreError
        If it is not complete; the line names those that are built.
    """
    path = f"{data.rstrip('/')}/{name}.zarr"
    if store.state(path) != "complete":
        built = store.list_stores(data)
        raise StoreError(
            f"no complete store '{name}' (built: {', '.join(built) or 'none'})",
            where=data,
            remedy=or_beside(path, f"run sherlock-data build ... {name}"),
        )
    return path


def check_identities(config: RunConfig) -> None:
    """Refuse a store that is not the one the run was configured with, or that lost objects.

    Raises
    ------
    StoreError
    """
    for name, identity in config.stores.items():
        path = store_path(config.data, name)
        if store.fingerprint(path) != identity.fingerprint:
            raise StoreError(
                f"not the store this run was configured with (fingerprint "
                f"{store.fingerprint(path)}, was {identity.fingerprint})",
                where=path,
                remedy="build it with the same recipe and inputs, or train again",
            )
        store.check_present(path)


def check_clock(config: RunConfig, clock: Clock, tables: dict[str, StimulusTable]) -> None:
    """Refuse stimuli on another clock than the brain's, and those that are never shown.

    Raises
    ------
    StoreError, ConfigError
    """
    for name, table in tables.items():
        path = store_path(config.data, stimuli.store_of(config.data, name))
        theirs = stimuli.clock_of(config.data, name)
        if theirs != clock:
            raise StoreError(
                f"its TRs ({theirs.volumes} of {theirs.repetition_time_s} s) are not those of "
                f"'{config.brain}' ({clock.volumes} of {clock.repetition_time_s} s)",
                where=path,
                remedy="build both from the same catalogue entry",
            )
        if not table.present.any():
            raise ConfigError(
                f"no TR has the stimulus '{name}'",
                where=path,
                remedy="name another stimulus",
            )


def check_fit(config: RunConfig, attrs: Mapping[str, Any], split: Split, lag_trs: int) -> None:
    """Refuse a store that was fitted on what this training's split holds out.

    Parameters
    ----------
    config : RunConfig
    attrs : mapping
        Of the brain store; ``fitted_on`` says on which subjects and brain TRs it was fitted.
    split : Split
    lag_trs : int

    Raises
    ------
    StoreError
        Naming the subjects and TRs that both have.
    """
    fitted_on = attrs.get("fitted_on")
    if fitted_on is not None:
        refuse_overlap(config, fitted_on, split, lag_trs)


def refuse_overlap(
    config: RunConfig, fitted_on: Mapping[str, Any], split: Split, lag_trs: int
) -> None:
    """Refuse a pca store, or a stage-1 run, that was fitted on what the split holds out."""
    subjects, trs = overlap(fitted_on, split, lag_trs)
    shown = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in ranges(trs))
    seen = [f"{len(trs)} brain TRs ({shown})"] if len(trs) else []
    seen += [f"the subjects {', '.join(subjects)}"] if subjects else []
    if not seen:
        return
    theirs = f"--split {fitted_on['split']} --fold {fitted_on['fold']}"
    anew = f"build it with `fit: {split.kind}, fold: {split.fold}, context_trs: {config.context}`"
    where = store_path(config.data, config.brain)
    if config.compressor is not None:
        where = config.compressor.run
        shown_to = ",".join(config.stimulus)
        anew = (
            f"train it with --split {split.kind} --fold {split.fold} --set "
            f"context_trs={config.context} --set split_stimulus={shown_to}"
        )
    raise StoreError(
        f"was fitted on {' and '.join(seen)} that this training holds out",
        where=where,
        remedy=f"train with {theirs} (what it was fitted for), or {anew}",
    )
