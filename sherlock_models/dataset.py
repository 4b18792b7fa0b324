"""Pairs of stimulus and brain, standardised on training TRs, gathered into batches from memory.

Legend: B = samples of a batch, D = delays, S = subjects, T = TRs, U = units of the brain layer,
F = features, H, W = height and width of the video. A sample is (subject, stimulus TR t): the
encoder sees the stimulus at t - d for every delay d, all in t's run; its brain TR is t + lag.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data import store
from sherlock_data.errors import ConfigError, did_you_mean
from sherlock_data.fitting import FittedOn, ranges
from sherlock_data.splits import Split, make_split
from sherlock_data.timing import Clock, shifted_index
from sherlock_models import code, stimuli
from sherlock_models.batch import Batch, SampleTable
from sherlock_models.brains import Brains, BrainTable, load_bold, read_valid, standardise
from sherlock_models.checks import (
    check_clock,
    check_fit,
    check_identities,
    refuse_overlap,
    store_path,
)
from sherlock_models.config import RunConfig, StoreIdentity
from sherlock_models.normaliser import Normaliser, fit_scale
from sherlock_models.parallel import World
from sherlock_models.placement import IN_PROCESS, Placement, Room, choose
from sherlock_models.shared import Machine
from sherlock_models.sizes import BRAIN, Sizes
from sherlock_models.stimuli import StimulusTable, read_clock
from sherlock_models.stream import StreamedBrains, read_brains
from sherlock_models.voxel_series import VoxelSeries, encode

__all__ = ["Batch", "MovieBrainData", "SampleTable", "load_data", "sizes_of"]

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

SIDES = ("train", "validation", "test")
#: the one subject of `subject=mean`
MEAN_SUBJECT = "mean"


@dataclass(frozen=True)
class MovieBrainData:
    """A dataset as one run sees it, in memory: every TR's stimulus once, every brain once.

    Attributes
    ----------
    clock : Clock
    subjects : tuple of str
    split : Split
    normaliser : Normaliser
        Fitted on `split.train`.
    brains : Brains
    tables : dict of StimulusTable
    sizes : Sizes
        What the model's layers take their sizes from.
    lag_trs : int
    delays : tuple of int
    usable : ndarray of bool, (T,)
        Stimulus TRs a sample can have.
    unit_names : ndarray of str, (U,)
        Labels of the brain layer's units (parcel names, voxel numbers).
    fitted_on : dict
        On which subjects and brain TRs everything is fitted, as `sherlock_data.fitting` says it.
    sees_brain : bool
        Whether the stimulus is the sample's own brain (`sherlock_models.sizes.BRAIN`).
    notes : tuple of str
        What an evaluation must say about this data.
    placement : Placement
        Where it lies.
    """

    clock: Clock
    subjects: tuple[str, ...]
    split: Split
    normaliser: Normaliser
    brains: Brains
    tables: dict[str, StimulusTable]
    sizes: Sizes
    lag_trs: int
    delays: tuple[int, ...]
    usable: BoolArray
    unit_names: NDArray[np.object_]
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    sees_brain: bool = False
    notes: tuple[str, ...] = ()
    placement: Placement = IN_PROCESS
    _delays: Tensor = field(init=False, repr=False)
    _embedding: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_delays", torch.tensor(self.delays))
        rows = {name: row for row, name in enumerate(self.split.train_subjects)}
        embedding = torch.tensor([rows.get(name, -1) for name in self.subjects])
        object.__setattr__(self, "_embedding", embedding)

    @property
    def valid(self) -> BoolArray:
        """Volumes of each subject that are neither missing nor constant, (S, T)."""
        return self.brains.valid

    @property
    def signal(self) -> BoolArray:
        """Units in which each subject has signal, (S, U)."""
        return np.asarray(self.brains.signal.cpu().numpy())

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return self.brains.nbytes + sum(table.values.nbytes for table in self.tables.values())

    @property
    def device(self) -> torch.device:
        """Where batches are gathered."""
        return self.brains.signal.device

    def to(self, device: torch.device) -> MovieBrainData:
        """Move everything that batches are gathered from to a device; streamed brains stay."""
        if not isinstance(self.brains, BrainTable) or device == self.device:
            return self
        tables = {
            name: replace(table, values=table.values.to(device))
            for name, table in self.tables.items()
        }
        return replace(
            self,
            brains=self.brains.to(device),
            tables=tables,
            normaliser=self.normaliser.to(device),
        )

    def samples(self, side: str) -> SampleTable:
        """Return the samples of `train`, `validation` or `test`, by subject and then by TR.

        Raises
        ------
        ConfigError
            If the side is unknown, or has no sample (no valid volume there).
        """
        if side not in SIDES:
            raise ConfigError(f"no side '{side}'", remedy=did_you_mean(side, SIDES))
        trs = self.split.trs(side)
        wanted = self.split.subjects(side)
        subjects = [s for s, name in enumerate(self.subjects) if name in wanted]
        kept = [trs[self.valid[s, trs + self.lag_trs]] for s in subjects]
        table = SampleTable(
            np.repeat(np.array(subjects, dtype=np.int64), [len(k) for k in kept]),
            np.concatenate(kept).astype(np.int64) if kept else np.zeros(0, dtype=np.int64),
        )
        if not len(table):
            raise ConfigError(
                f"no sample on the {side} side: no subject has a valid volume there",
                where=f"split {self.split.kind}",
                remedy="use another fold",
            )
        return table

    def batch(
        self,
        samples: SampleTable,
        indices: IntArray,
        first: int = 0,
        brain: tuple[Tensor, Tensor] | None = None,
    ) -> Batch:
        """Gather samples, standardised and normalised on the way.

        Parameters
        ----------
        samples : SampleTable
        indices : ndarray of int64, (B,)
            Samples of the table.
        first : int
            Position in the global batch of the first one; a rank's share is contiguous.
        brain : (Tensor, Tensor), optional
            The samples' standardised BOLD and signal, where they are gathered already.
        """
        subject = torch.from_numpy(samples.subject[indices])
        tr = torch.from_numpy(samples.tr[indices])
        bold, signal = brain or self.brains.rows(subject, tr + self.lag_trs)
        stimulus = {name: self._delayed(name, tr) for name in self.tables}
        return Batch(
            stimulus={BRAIN: bold[:, None]} if self.sees_brain else stimulus,
            target={name: self._current(name, tr, stimulus[name]) for name in self.tables},
            brain=bold,
            signal=signal,
            subject=subject.to(self.device),
            tr=tr.to(self.device),
            run=self.brains.run[tr].to(self.device),
            embedding=self._embedding[subject].to(self.device),
            position=torch.arange(first, first + len(tr)),
        )

    def _delayed(self, name: str, tr: Tensor) -> Tensor:
        """Stimulus at every delay, (B, D, ...)."""
        values = self.tables[name].values
        seen = self.normaliser.pick(name, values, (tr[:, None] - self._delays).flatten())
        return seen.view(len(tr), len(self.delays), *values.shape[1:])

    def _current(self, name: str, tr: Tensor, delayed: Tensor) -> Tensor:
        if 0 in self.delays:
            return delayed[:, self.delays.index(0)]
        return self.normaliser.pick(name, self.tables[name].values, tr)

    def brain_matrix(self, subject: int) -> NDArray[np.float32]:
        """Return a subject's standardised BOLD on the scan clock, (T, U); row t is volume t.

        0 where the subject has no signal; rows of invalid volumes mean nothing (see `valid`).
        """
        trs = torch.arange(self.clock.volumes)
        bold, _ = self.brains.rows(torch.full_like(trs, subject), trs)
        return np.asarray(bold.cpu().numpy(), dtype=np.float32)

    def stimulus_target(self, name: str, trs: IntArray) -> NDArray[np.float32]:
        """Return a stimulus at `trs` in normalised units: (n, 3, H, W) or (n, F)."""
        rows = torch.from_numpy(np.asarray(trs, dtype=np.int64))
        values = self.normaliser.pick(name, self.tables[name].values, rows)
        return np.asarray(values.cpu().numpy(), dtype=np.float32)

    def stimulus_inputs(self, trs: IntArray) -> dict[str, Tensor]:
        """Return what the encoder sees at `trs`: `video` (n, D, 3, H, W), vectors (n, D, F)."""
        rows = torch.from_numpy(np.asarray(trs, dtype=np.int64))
        return {name: self._delayed(name, rows) for name in self.tables}


def dataset_name(config: RunConfig) -> str:
    """Name of the dataset, as the brain store has it."""
    return str(store.attributes(store_path(config.data, config.brain))["dataset"])


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
        recipe = store.attributes(path).get("recipe", {})
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
        If a store is not built, is not the one the run was configured with, is on another clock,
        or was fitted on what the split holds out.
    ConfigError
        If the split, the lag or the stimuli do not fit the data.
    """
    check_identities(config)
    data = store.open_store(store_path(config.data, config.brain))
    clock = read_clock(data.attrs["repetition_time_s"], data["run"].values)
    lag_trs = clock.lag_in_trs(float(data.attrs["lag_s"]))
    placement = choose(
        config.placement,
        _nbytes(config, clock.volumes),
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


def _nbytes(config: RunConfig, trs: int) -> int:
    """Bytes of the data in memory, once: BOLD and stimuli of every TR."""
    sizes = sizes_for(config)
    subjects = 1 if config.subject == "mean" else sizes.subjects
    shown = [
        math.prod(size) * (1 if len(size) == 3 else 4)
        for name, size in sizes.stimulus.items()
        if name != BRAIN
    ]
    return trs * (4 * subjects * math.prod(sizes.brain) + sum(shown))


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
