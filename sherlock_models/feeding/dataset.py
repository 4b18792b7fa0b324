"""Pairs of stimulus and brain, standardised on training TRs, gathered into batches from memory.

Legend: B = samples of a batch, D = delays, S = subjects, T = TRs, U = units of the brain layer,
F = features, H, W = height and width of the video. A sample is (subject, stimulus TR t): the
encoder sees the stimulus at t - d for every delay d, all in t's run; its brain TR is t + lag.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data.errors import ConfigError, did_you_mean
from sherlock_data.splits import Split
from sherlock_data.timing import Clock
from sherlock_models.feeding.batch import Batch, SampleTable
from sherlock_models.feeding.brains import Brains, BrainTable
from sherlock_models.feeding.normaliser import Normaliser
from sherlock_models.feeding.placement import IN_PROCESS, Placement
from sherlock_models.feeding.stimuli import StimulusTable
from sherlock_models.sizes import BRAIN, Sizes

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

SIDES = ("train", "validation", "test")


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
    _everywhere: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_delays", torch.tensor(self.delays))
        rows = {name: row for row, name in enumerate(self.split.train_subjects)}
        embedding = torch.tensor([rows.get(name, -1) for name in self.subjects])
        object.__setattr__(self, "_embedding", embedding)
        object.__setattr__(self, "_everywhere", bool(self.brains.signal.all()))

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
            everywhere=self._everywhere,
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
