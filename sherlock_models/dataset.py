"""Pairs of stimulus and brain, standardised on training TRs, gathered into batches from memory.

Legend: B = samples of a batch, D = delays, S = subjects, T = TRs, U = units of the brain layer,
F = features, H, W = height and width of the video. A sample is (subject, stimulus TR t): the
encoder sees the stimulus at t - d for every delay d, all in t's run; its brain TR is t + lag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data import store
from sherlock_data.errors import ConfigError, StoreError, did_you_mean
from sherlock_data.fitting import overlap, ranges
from sherlock_data.splits import Split, make_split
from sherlock_data.timing import Clock, Run, shifted_index
from sherlock_models import stimuli
from sherlock_models.batch import Batch, SampleTable
from sherlock_models.brains import BrainTable, average, load_bold, standardise
from sherlock_models.config import RunConfig, StoreIdentity
from sherlock_models.normaliser import Normaliser, fit_scale
from sherlock_models.sizes import Sizes
from sherlock_models.stimuli import StimulusTable

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
    brains : BrainTable
    tables : dict of StimulusTable
    sizes : Sizes
        What the model's layers take their sizes from.
    lag_trs : int
    delays : tuple of int
    usable : ndarray of bool, (T,)
        Stimulus TRs a sample can have.
    unit_names : ndarray of str, (U,)
        Labels of the brain layer's units (parcel names, voxel numbers).
    notes : tuple of str
        What an evaluation must say about this data.
    """

    clock: Clock
    subjects: tuple[str, ...]
    split: Split
    normaliser: Normaliser
    brains: BrainTable
    tables: dict[str, StimulusTable]
    sizes: Sizes
    lag_trs: int
    delays: tuple[int, ...]
    usable: BoolArray
    unit_names: NDArray[np.object_]
    notes: tuple[str, ...] = ()
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
        return np.asarray(self.brains.signal.numpy())

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        tensors = [self.brains.raw, self.brains.mean, self.brains.inverse_std]
        tensors += [table.values for table in self.tables.values()]
        return sum(tensor.nbytes for tensor in tensors)

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

    def batch(self, samples: SampleTable, indices: IntArray, first: int = 0) -> Batch:
        """Gather samples, standardised and normalised on the way.

        Parameters
        ----------
        samples : SampleTable
        indices : ndarray of int64, (B,)
            Samples of the table.
        first : int
            Position in the global batch of the first one; a rank's share is contiguous.
        """
        subject = torch.from_numpy(samples.subject[indices])
        tr = torch.from_numpy(samples.tr[indices])
        brain, signal = self.brains.rows(subject, tr + self.lag_trs)
        stimulus = {name: self._delayed(name, tr) for name in self.tables}
        return Batch(
            stimulus=stimulus,
            target={name: self._current(name, tr, stimulus[name]) for name in self.tables},
            brain=brain,
            signal=signal,
            subject=subject,
            tr=tr,
            run=self.brains.run[tr],
            embedding=self._embedding[subject],
            position=torch.arange(first, first + len(tr)),
        )

    def _delayed(self, name: str, tr: Tensor) -> Tensor:
        """Stimulus at every delay, (B, D, ...)."""
        values = self.tables[name].values
        rows = values.index_select(0, (tr[:, None] - self._delays).flatten())
        seen = self.normaliser.forward(name, rows)
        return seen.view(len(tr), len(self.delays), *values.shape[1:])

    def _current(self, name: str, tr: Tensor, delayed: Tensor) -> Tensor:
        if 0 in self.delays:
            return delayed[:, self.delays.index(0)]
        return self.normaliser.forward(name, self.tables[name].values.index_select(0, tr))

    def brain_matrix(self, subject: int) -> NDArray[np.float32]:
        """Return a subject's standardised BOLD on the scan clock, (T, U); row t is volume t.

        0 where the subject has no signal; rows of invalid volumes mean nothing (see `valid`).
        """
        trs = torch.arange(self.clock.volumes)
        bold, _ = self.brains.rows(torch.full_like(trs, subject), trs)
        return np.asarray(bold.numpy(), dtype=np.float32)

    def stimulus_target(self, name: str, trs: IntArray) -> NDArray[np.float32]:
        """Return a stimulus at `trs` in normalised units: (n, 3, H, W) or (n, F)."""
        rows = self.tables[name].values[torch.from_numpy(np.asarray(trs, dtype=np.int64))]
        return np.asarray(self.normaliser.forward(name, rows).numpy(), dtype=np.float32)

    def stimulus_inputs(self, trs: IntArray) -> dict[str, Tensor]:
        """Return what the encoder sees at `trs`: `video` (n, D, 3, H, W), vectors (n, D, F)."""
        rows = torch.from_numpy(np.asarray(trs, dtype=np.int64))
        return {name: self._delayed(name, rows) for name in self.tables}


def dataset_name(config: RunConfig) -> str:
    """Name of the dataset, as the brain store has it."""
    return str(store.attributes(_path(config.data, config.brain))["dataset"])


def identities(config: RunConfig) -> dict[str, StoreIdentity]:
    """Identity of every store a configuration reads.

    Raises
    ------
    StoreError, ConfigError
        If the brain's store is not built, or no store has a stimulus.
    """
    names = {config.brain, *(stimuli.store_of(config.data, s) for s in config.stimulus)}
    found = {}
    for name in sorted(names):
        path = _path(config.data, name)
        recipe = store.attributes(path).get("recipe", {})
        found[name] = StoreIdentity(fingerprint=store.fingerprint(path), recipe=recipe)
    return found


def _path(data: str, name: str) -> str:
    path = f"{data.rstrip('/')}/{name}.zarr"
    if store.state(path) != "complete":
        built = store.list_stores(data)
        raise StoreError(
            f"no complete store '{name}' (built: {', '.join(built) or 'none'})",
            where=data,
            remedy=f"run sherlock-data build ... {name}",
        )
    return path


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
    opened = store.open_store(_path(str(data), brain))
    if "bold" not in opened:
        raise ConfigError(
            f"'{brain}' holds no BOLD", where="brain", remedy="name a store of brains, as parcels"
        )
    bold = opened["bold"]
    units = tuple(int(n) for dim, n in bold.sizes.items() if dim not in ("subject", "time"))
    return Sizes(
        stimulus={name: stimuli.size_of(str(data), name) for name in stimulus},
        brain=units,
        delays=tuple(delays),
        subjects=bold.sizes["subject"] if subjects is None else subjects,
    )


def load_data(config: RunConfig) -> MovieBrainData:
    """Read, check, split and standardise what a run needs.

    Raises
    ------
    StoreError
        If a store is not built, is not the one the run was configured with, is on another clock,
        or was fitted on what the split holds out.
    ConfigError
        If the split, the lag or the stimuli do not fit the data.
    """
    _check_identities(config)
    data = store.open_store(_path(config.data, config.brain))
    clock = read_clock(data.attrs["repetition_time_s"], data["run"].values)
    lag_trs = clock.lag_in_trs(float(data.attrs["lag_s"]))
    tables = {name: stimuli.load_stimulus(config.data, name) for name in config.stimulus}
    _check_clock(config, clock, tables)
    raw, valid, declared = load_bold(data)
    usable = usable_trs(clock, tables, config.delays, lag_trs, valid)
    subjects = tuple(str(name) for name in data["subject"].values)
    split = make_split(
        config.split,
        clock,
        usable,
        subjects,
        fold=config.fold,
        folds=config.folds,
        context_trs=max(config.delays),
        lag_trs=lag_trs,
        repeats=[(repeat.volumes, repeat.at) for repeat in config.repeats],
        seed=config.seed,
    )
    check_fit(config, data.attrs, split, lag_trs)
    train, used = split.train + lag_trs, np.flatnonzero(usable) + lag_trs
    brains = standardise(raw, valid, declared, clock, train, used)
    notes = _notes(config, split, brains)
    if config.subject == "mean":
        brains = standardise(*average(brains), clock, train, used)
        subjects = (MEAN_SUBJECT,)
        split = replace(split, train_subjects=subjects, test_subjects=subjects)
    scales = {
        name: fit_scale(table.values, split.train, table.is_video, name.startswith("audio"))
        for name, table in tables.items()
    }
    return MovieBrainData(
        clock=clock,
        subjects=subjects,
        split=split,
        normaliser=Normaliser(scales),
        brains=brains,
        tables=tables,
        sizes=sizes_of(
            config.data, config.brain, config.stimulus, config.delays, len(split.train_subjects)
        ),
        lag_trs=lag_trs,
        delays=config.delays,
        usable=usable,
        unit_names=_unit_names(data, brains.signal.shape[1]),
        notes=notes,
    )


def read_clock(repetition_time_s: float, run_of_tr: NDArray[np.object_]) -> Clock:
    """Rebuild the scan clock from a store: its TR and the run of every TR."""
    names = [str(name) for name in run_of_tr]
    runs = tuple(Run(name, names.count(name)) for name in dict.fromkeys(names))
    return Clock(float(repetition_time_s), runs)


def usable_trs(
    clock: Clock,
    tables: dict[str, StimulusTable],
    delays: Sequence[int],
    lag_trs: int,
    valid: BoolArray,
) -> BoolArray:
    """Stimulus TRs whose every delayed stimulus is present in the run, and brain TR valid.

    Returns
    -------
    ndarray of bool, (T,)
        The brain TR is valid for at least one subject.
    """
    present = np.logical_and.reduce([table.present for table in tables.values()])
    usable = present.copy()
    for delay in delays:
        earlier = shifted_index(clock, -delay)
        usable &= (earlier >= 0) & present[earlier]
    later, anyone = shifted_index(clock, lag_trs), np.asarray(valid.any(axis=0))
    return np.asarray(usable & (later >= 0) & anyone[later], dtype=np.bool_)


def _check_identities(config: RunConfig) -> None:
    for name, identity in config.stores.items():
        path = _path(config.data, name)
        if store.fingerprint(path) != identity.fingerprint:
            raise StoreError(
                f"not the store this run was configured with (fingerprint "
                f"{store.fingerprint(path)}, was {identity.fingerprint})",
                where=path,
                remedy="build it with the same recipe and inputs, or train again",
            )


def _check_clock(config: RunConfig, clock: Clock, tables: dict[str, StimulusTable]) -> None:
    for name, table in tables.items():
        path = _path(config.data, stimuli.store_of(config.data, name))
        other = store.open_store(path)
        theirs = read_clock(other.attrs["repetition_time_s"], other["run"].values)
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
    if fitted_on is None:
        return
    subjects, trs = overlap(fitted_on, split, lag_trs)
    shown = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in ranges(trs))
    seen = [f"{len(trs)} brain TRs ({shown})"] if len(trs) else []
    seen += [f"the subjects {', '.join(subjects)}"] if subjects else []
    if seen:
        theirs = f"--split {fitted_on['split']} --fold {fitted_on['fold']}"
        raise StoreError(
            f"was fitted on {' and '.join(seen)} that this training holds out",
            where=_path(config.data, config.brain),
            remedy=f"train with {theirs} (what it was fitted for), or build it with "
            f"`fit: {split.kind}, fold: {split.fold}, context_trs: {max(config.delays)}`",
        )


def _notes(config: RunConfig, split: Split, brains: BrainTable) -> tuple[str, ...]:
    notes = [
        f"{run} is wholly held out: its BOLD is standardised with its own mean and standard "
        "deviation"
        for run in brains.own_statistics
    ]
    unseen = ", ".join(name for name in split.test_subjects if name not in split.train_subjects)
    if unseen and config.subject == "embedding":
        notes.append(f"unseen subjects ({unseen}) get the mean of the learned subject embeddings")
    return tuple(notes)


def _unit_names(data: xr.Dataset, units: int) -> NDArray[np.object_]:
    dims = [str(dim) for dim in data["bold"].dims[2:]]
    if len(dims) == 1 and dims[0] in data.coords:
        return np.array([str(name) for name in data[dims[0]].values], dtype=object)
    return np.array([str(index) for index in range(units)], dtype=object)
