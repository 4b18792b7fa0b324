"""Read, check, split and standardise what a run needs.

Legend: S = subjects, T = TRs, U = units of the brain layer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data import store
from sherlock_data.fitting import FittedOn, ranges
from sherlock_data.splits import Split, make_split
from sherlock_data.timing import Clock, shifted_index
from sherlock_models import code
from sherlock_models.checks import (
    check_clock,
    check_fit,
    check_identities,
    refuse_overlap,
    store_path,
)
from sherlock_models.config import RunConfig
from sherlock_models.feeding import stimuli
from sherlock_models.feeding.brains import Brains, BrainTable, load_bold, read_valid, standardise
from sherlock_models.feeding.dataset import MovieBrainData
from sherlock_models.feeding.normaliser import Normaliser, fit_scale
from sherlock_models.feeding.placement import Placement, Room, choose
from sherlock_models.feeding.shared import Machine
from sherlock_models.feeding.stimuli import StimulusTable, read_clock
from sherlock_models.feeding.stream import StreamedBrains, read_brains
from sherlock_models.feeding.voxel_series import VoxelSeries, encode
from sherlock_models.memory import data_bytes
from sherlock_models.parallel import World
from sherlock_models.sizes import BRAIN
from sherlock_models.sources import sizes_for

_LOG = logging.getLogger(__name__)

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

#: the one subject of `subject=mean`
MEAN_SUBJECT = "mean"


def load_data(config: RunConfig, world: World | None = None) -> MovieBrainData:
    """Read, check, split and standardise what a run needs.

    Parameters
    ----------
    config : RunConfig
    world : World, optional
        Ranks that train on it, all of which must call; without one, data that are not streamed
        are this process's own.

    Raises
    ------
    StoreError
        If a store is not built, is damaged, is not the one the run was configured with, is on
        another clock, or was fitted on what the split holds out.
    ConfigError
        If the split, the lag or the stimuli do not fit the data.
    """
    with store.reading(config.data):
        data = _load(config, world)
    _LOG.info("%s: %s; %s", config.data, ", ".join(data.subjects), data.placement)
    return data


def _load(config: RunConfig, world: World | None) -> MovieBrainData:
    check_identities(config)
    data = store.open_store(store_path(config.data, config.brain))
    clock = read_clock(data.attrs["repetition_time_s"], data["run"].values)
    lag_trs = clock.lag_in_trs(float(data.attrs["lag_s"]))
    placement = choose(
        config.placement,
        _bytes_of(config, clock),
        Room.of(world),
        blocks=config.voxel_store is None and config.subject != "mean",
    )
    machine = Machine(world) if world is not None and placement.kind == "shared" else None
    tables = _tables(config, machine)
    check_clock(config, clock, tables)
    usable = usable_trs(clock, _present(config, clock, tables), _reach(config), lag_trs, data)
    subjects = tuple(str(name) for name in data["subject"].values)
    split = make_split(
        config.split,
        clock,
        usable,
        subjects,
        fold=config.fold,
        folds=config.folds,
        context_trs=config.context,
        lag_trs=lag_trs,
        repeats=[(repeat.volumes, repeat.at) for repeat in config.repeats],
        seed=config.seed,
    )
    check_fit(config, data.attrs, split, lag_trs)
    fitted_on = FittedOn(split, lag_trs, config.context).describe()
    used = np.flatnonzero(usable) + lag_trs
    brains = _placed_brains(config, placement, machine, (data, split, clock, used, lag_trs))
    brains.close(config.without)
    notes = _notes(config, split, brains)
    if config.subject == "mean":
        subjects = (MEAN_SUBJECT,)
        split = replace(split, train_subjects=subjects, test_subjects=subjects)
    scales = {
        name: fit_scale(table.values, split.train, table.one_scale, name.startswith("audio"))
        for name, table in tables.items()
    }
    found = MovieBrainData(
        clock=clock,
        subjects=subjects,
        split=split,
        normaliser=Normaliser(scales),
        brains=brains,
        tables=tables,
        sizes=sizes_for(config, len(split.train_subjects)),
        lag_trs=lag_trs,
        delays=config.delays,
        usable=usable,
        unit_names=_unit_names(config, data, brains.signal.shape[1]),
        fitted_on=fitted_on,
        sees_brain=config.is_compressor,
        notes=notes,
        placement=placement,
    )
    return found if world is None or placement.kind != "device" else found.to(world.device)


def _bytes_of(config: RunConfig, clock: Clock) -> int:
    sizes = sizes_for(config)
    subjects = 1 if config.subject == "mean" else sizes.subjects
    return data_bytes(sizes, subjects, clock.volumes, len(clock.runs))


def _tables(config: RunConfig, machine: Machine | None) -> dict[str, StimulusTable]:
    """Every stimulus, once per process or once per machine."""

    def read() -> dict[str, StimulusTable]:
        names = [name for name in config.stimulus if name != BRAIN]
        return {name: stimuli.load_stimulus(config.data, name) for name in names}

    if machine is None:
        return read()

    def tensors() -> dict[str, Tensor]:
        found = read()
        values = {f"{name}.values": table.values for name, table in found.items()}
        shown = {f"{name}.present": torch.from_numpy(t.present) for name, t in found.items()}
        return {**values, **shown}

    held = machine.hold(tensors)
    return {
        name: StimulusTable(name, held[f"{name}.values"], held[f"{name}.present"].numpy())
        for name in config.stimulus
        if name != BRAIN
    }


def _placed_brains(
    config: RunConfig,
    placement: Placement,
    machine: Machine | None,
    given: tuple[xr.Dataset, Split, Clock, IntArray, int],
) -> Brains:
    """Brains where they were chosen to lie."""
    data, split, clock, used, lag_trs = given
    if placement.kind == "stream":
        path, buffer_bytes = store_path(config.data, config.brain), int(config.buffer_gb * 1e9)
        return read_brains(path, data, clock, split.train + lag_trs, used, buffer_bytes)
    if machine is None:
        return _brains(config, *given)
    held = machine.hold(lambda: _brains(config, *given, empty=machine.empty).tensors())
    return BrainTable.from_tensors(held)


def _brains(
    config: RunConfig,
    data: xr.Dataset,
    split: Split,
    clock: Clock,
    used: IntArray,
    lag_trs: int,
    empty: Callable[[tuple[int, ...]], Tensor] = torch.empty,
) -> BrainTable:
    """Read or code the brains, and standardise them on the split's training TRs."""
    train = split.train + lag_trs
    averaged = config.subject == "mean"
    coded: code.Code | None = None
    if config.compressor is not None:
        coded, fitted_on = code.stage_one(config)
        refuse_overlap(config, fitted_on, split, lag_trs)
    elif config.voxel_store is not None and (
        averaged or data.attrs["fitted_on"]["trs"] != ranges(train)
    ):
        # the code of the mean brain: a mean of standardised codes would be no brain's. And where
        # the store standardised its voxels on other TRs, what counts is what this training sees
        coded = code.read_code(config)
    if coded is None:
        if not averaged:
            return standardise(*load_bold(data, empty), clock, train, used)
        # one subject in memory at a time
        return VoxelSeries.of(config.data, config.brain, clock, train, used, True).table(0)
    voxels = VoxelSeries.of(config.data, str(config.voxel_store), clock, train, used, averaged)
    names = [MEAN_SUBJECT] if averaged else [str(name) for name in data["subject"].values]
    return standardise(*encode(voxels, coded, names), clock, train, used)


def _present(config: RunConfig, clock: Clock, tables: dict[str, StimulusTable]) -> BoolArray:
    """TRs that have every stimulus; of a compressor those it is split over, else all."""
    shown = [table.present for table in tables.values()]
    shown += [stimuli.present_at(config.data, name) for name in config.split_stimulus]
    everything = np.ones(clock.volumes, dtype=np.bool_)
    return np.asarray(np.logical_and.reduce([everything, *shown]))


def _reach(config: RunConfig) -> Sequence[int]:
    """Delays at which a stimulus must be there."""
    return range(config.context + 1) if config.context > max(config.delays) else config.delays


def usable_trs(
    clock: Clock,
    present: BoolArray,
    delays: Sequence[int],
    lag_trs: int,
    data: xr.Dataset,
) -> BoolArray:
    """Stimulus TRs whose every delayed stimulus is present in the run, and brain TR valid.

    Returns
    -------
    ndarray of bool, (T,)
        The brain TR is valid for at least one subject.
    """
    usable = present.copy()
    for delay in delays:
        earlier = shifted_index(clock, -delay)
        usable &= (earlier >= 0) & present[earlier]
    later, anyone = shifted_index(clock, lag_trs), np.asarray(read_valid(data).any(axis=0))
    return np.asarray(usable & (later >= 0) & anyone[later], dtype=np.bool_)


def _notes(config: RunConfig, split: Split, brains: Brains) -> tuple[str, ...]:
    notes = [
        f"{run} is wholly held out: its BOLD is standardised with its own mean and standard "
        "deviation"
        for run in brains.own_statistics
    ]
    unseen = ", ".join(name for name in split.test_subjects if name not in split.train_subjects)
    if unseen and config.subject == "embedding":
        notes.append(f"unseen subjects ({unseen}) get the mean of the learned subject embeddings")
    if isinstance(brains, StreamedBrains):
        notes.append(
            "the brains are streamed: an evaluation holds none and has them read from the store, "
            "subject by subject"
        )
    if config.is_compressor:
        notes.append(
            "the code is free: no measured code to match, so no brain term and no noisy channel"
        )
        at = f"TRs with {' and '.join(config.split_stimulus)}" if config.split_stimulus else "TRs"
        notes.append(f"the split is over the {at}")
    if config.compressor is not None:
        notes.append(
            f"the brain layer is held to the code of {config.compressor.run}, frozen, of the "
            f"measured '{config.brain}'"
        )
    return tuple(notes)


def _unit_names(config: RunConfig, data: xr.Dataset, units: int) -> NDArray[np.object_]:
    if config.compressor is not None:
        return np.array([str(index) for index in range(units)], dtype=object)
    dims = [str(dim) for dim in data["bold"].dims[2:]]
    if len(dims) == 1 and dims[0] in data.coords:
        return np.array([str(name) for name in data[dims[0]].values], dtype=object)
    return np.array([str(index) for index in range(units)], dtype=object)
