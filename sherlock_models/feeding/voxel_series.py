"""Standardised voxels, one subject in memory at a time: what codes are made of and judged in.

Legend: S = subjects, T = TRs of the scan, V = voxels, K = units of a code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data import contract, store
from sherlock_data.timing import Clock
from sherlock_models.code import Code
from sherlock_models.feeding.brains import BrainTable, average, load_bold, standardise

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class VoxelSeries:
    """A store of voxels, standardised as a training on them would.

    Attributes
    ----------
    path : str
    clock : Clock
    train, used : ndarray of int64
        Brain TRs that standardise, and those of any side.
    averaged : bool
        One subject, the mean of all (`--set subject=mean`).
    """

    path: str
    clock: Clock
    train: IntArray
    used: IntArray
    averaged: bool = False
    _kept: dict[int, BrainTable] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, folder: str, name: str, clock: Clock, train: IntArray, used: IntArray, averaged: bool
    ) -> VoxelSeries:
        """Name a store of a dataset folder; nothing is read yet."""
        path = f"{folder.rstrip('/')}/{name}{contract.SUFFIX}"
        return cls(path, clock, train, used, averaged)

    @property
    def names(self) -> NDArray[np.object_]:
        """Number of every voxel as text, (V,)."""
        voxels = store.open_store(self.path)["voxel"].values
        return np.array([str(name) for name in voxels], dtype=object)

    def table(self, subject: int) -> BrainTable:
        """Return one subject's voxels, kept until another's are asked for: S = 1."""
        if subject not in self._kept:
            self._kept.clear()
            self._kept[subject] = self._average() if self.averaged else self._one(subject)
        return self._kept[subject]

    def matrix(self, subject: int) -> NDArray[np.float32]:
        """Return one subject's standardised voxels on the scan clock: (T, V), 0 without signal."""
        trs = torch.arange(self.clock.volumes)
        bold, _ = self.table(subject).rows(torch.zeros_like(trs), trs)
        return np.asarray(bold.numpy(), dtype=np.float32)

    def signal(self, subject: int) -> BoolArray:
        """Voxels in which one subject has signal, (V,)."""
        return np.asarray(self.table(subject).signal[0].numpy())

    def _one(self, subject: int) -> BrainTable:
        data = store.open_store(self.path).isel(subject=[subject])
        return standardise(*load_bold(data), self.clock, self.train, self.used, may_be_empty=True)

    def _average(self) -> BrainTable:
        subjects = store.open_store(self.path).sizes["subject"]
        mean = average(self._one(subject) for subject in range(subjects))
        return standardise(*mean, self.clock, self.train, self.used)


def encode(
    series: VoxelSeries, code: Code, subjects: Sequence[str]
) -> tuple[Tensor, BoolArray, BoolArray]:
    """Code the measured brain of every subject and TR, once.

    Parameters
    ----------
    series : VoxelSeries
    code : Code
    subjects : sequence of str
        Their names, in the series' order.

    Returns
    -------
    raw : Tensor of float32, (S, T, K)
        Not standardised; 0 at invalid TRs.
    valid : ndarray of bool, (S, T)
    signal : ndarray of bool, (S, K)
        False for a subject without any signal.
    """
    raw = torch.zeros(len(subjects), series.clock.volumes, code.units)
    valid = np.zeros(raw.shape[:2], dtype=np.bool_)
    signal = np.zeros((len(subjects), code.units), dtype=np.bool_)
    for index, name in enumerate(subjects):
        table = series.table(index)
        valid[index] = table.valid[0]
        signal[index] = bool(table.signal.any())
        there = torch.from_numpy(np.flatnonzero(valid[index]))
        bold, _ = table.rows(torch.zeros_like(there), there)
        raw[index, there] = code.from_voxels(bold, name)
    return raw, valid, signal
