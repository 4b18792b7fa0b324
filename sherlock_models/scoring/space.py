"""The units a brain is judged in: those of the brain layer, or the voxels behind a code.

Legend: S = subjects, T = TRs of the scan, n = some TRs of a subject, L = units of the brain layer,
U = units of the space.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sherlock_models.code import Code, StageOneCode, read_code
from sherlock_models.feeding.voxel_series import VoxelSeries
from sherlock_models.scoring.ceiling import SeriesArray
from sherlock_models.scoring.scores import BoolArray, IntArray

if TYPE_CHECKING:
    from sherlock_models.feeding.dataset import MovieBrainData
    from sherlock_models.run import Run


class Space(Protocol):
    """Units in which brains are compared, one subject in memory at a time."""

    @property
    def names(self) -> NDArray[np.object_]:
        """Label of every unit, (U,)."""
        ...

    @property
    def signal(self) -> BoolArray:
        """Units in which each subject has signal, (S, U)."""
        ...

    def matrix(self, subject: int) -> SeriesArray:
        """Measured brain on the scan clock, standardised: (T, U), 0 without signal."""
        ...

    def measured(self, subject: int, trs: IntArray) -> SeriesArray:
        """Measured brain paired with stimulus TRs: (n, U), 0 without signal."""
        ...

    def told(self, subject: int, trs: IntArray, layer: SeriesArray) -> SeriesArray:
        """Tell what the brain layer (n, L) says of these units at stimulus TRs: (n, U)."""
        ...


@dataclass(frozen=True)
class UnitSpace:
    """The brain layer's own units.

    Attributes
    ----------
    data : MovieBrainData
    """

    data: MovieBrainData

    @property
    def names(self) -> NDArray[np.object_]:
        """Label of every unit, (U,)."""
        return self.data.unit_names

    @property
    def signal(self) -> BoolArray:
        """Units in which each subject has signal, (S, U)."""
        return self.data.signal

    def matrix(self, subject: int) -> SeriesArray:
        """Measured brain on the scan clock, standardised: (T, U), 0 without signal."""
        return self.data.brain_matrix(subject)

    def measured(self, subject: int, trs: IntArray) -> SeriesArray:
        """Measured brain paired with stimulus TRs: (n, U), 0 without signal."""
        rows = torch.from_numpy(np.asarray(trs, dtype=np.int64)) + self.data.lag_trs
        bold, _ = self.data.brains.rows(torch.full_like(rows, subject), rows)
        return np.asarray(bold.numpy(), dtype=np.float32)

    def told(self, subject: int, trs: IntArray, layer: SeriesArray) -> SeriesArray:
        """Return the brain layer as it is."""
        return layer


@dataclass(frozen=True)
class CompressedSpace(UnitSpace):
    """What a compressor is judged in: the brain that it saw, told by its free code.

    Attributes
    ----------
    code : Code
        The compressor's own.
    """

    code: Code

    def told(self, subject: int, trs: IntArray, layer: SeriesArray) -> SeriesArray:
        """Decode the code (n, L)."""
        name = self.data.subjects[subject]
        return np.asarray(self.code.to_voxels(torch.from_numpy(layer), name).numpy())


@dataclass(frozen=True)
class VoxelSpace:
    """The voxels behind a brain layer of codes, standardised as a model of them would see them.

    Attributes
    ----------
    data : MovieBrainData
    voxels : VoxelSeries
    code : Code
    """

    data: MovieBrainData
    voxels: VoxelSeries
    code: Code

    @property
    def names(self) -> NDArray[np.object_]:
        """Number of every voxel, (U,)."""
        return self.voxels.names

    @cached_property
    def signal(self) -> BoolArray:
        """Voxels in which each subject has signal, (S, U)."""
        return np.stack([self.voxels.signal(s) for s in range(len(self.data.subjects))])

    def matrix(self, subject: int) -> SeriesArray:
        """Measured voxels on the scan clock, standardised: (T, U), 0 without signal."""
        return self.voxels.matrix(subject)

    def measured(self, subject: int, trs: IntArray) -> SeriesArray:
        """Measured voxels paired with stimulus TRs: (n, U), 0 without signal."""
        rows = torch.from_numpy(np.asarray(trs, dtype=np.int64)) + self.data.lag_trs
        bold, _ = self.voxels.table(subject).rows(torch.zeros_like(rows), rows)
        return np.asarray(bold.numpy(), dtype=np.float32)

    def told(self, subject: int, trs: IntArray, layer: SeriesArray) -> SeriesArray:
        """Undo the standardisation of the codes (n, L) and decode them."""
        rows = torch.from_numpy(np.asarray(trs, dtype=np.int64)) + self.data.lag_trs
        which = torch.full_like(rows, subject)
        code = self.data.brains.restore(which, rows, torch.from_numpy(layer))
        name = self.data.subjects[subject]
        return np.asarray(self.code.to_voxels(code, name).numpy(), dtype=np.float32)


def space_of(run: Run) -> Space:
    """Return the units a run is judged in: voxels wherever there are voxels behind a code.

    Raises
    ------
    ConfigError, StoreError
        If what coded them is gone or is another.
    """
    config, data = run.config, run.data
    if config.is_compressor:
        return CompressedSpace(data, StageOneCode(run.model, {}))
    if config.voxel_store is None:
        return UnitSpace(data)
    voxels = VoxelSeries.of(
        config.data,
        config.voxel_store,
        data.clock,
        data.split.train + data.lag_trs,
        np.flatnonzero(data.usable) + data.lag_trs,
        averaged=config.subject == "mean",
    )
    return VoxelSpace(data, voxels, read_code(config))
