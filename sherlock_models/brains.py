"""Measured brains in memory, standardised per subject, run and unit on training TRs.

Legend: S = subjects, T = TRs, R = runs, U = units of the brain layer (voxels, parcels, grid cells).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data.errors import StoreError
from sherlock_data.timing import Clock

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

#: a unit whose standard deviation is below this share of its mean is constant
_CONSTANT = 1e-6


@dataclass(frozen=True)
class BrainTable:
    """BOLD of every subject, raw, with what standardises it on the way out.

    Attributes
    ----------
    raw : Tensor of float32, (S, T, U)
        As in the store, 0 where it is not finite.
    valid : ndarray of bool, (S, T)
        False for missing and constant volumes.
    signal : Tensor of bool, (S, U)
        False where a subject has no signal, or no variance, in a unit.
    mean, inverse_std : Tensor of float32, (S, R, U)
        Of that run's training TRs; of all its valid TRs in the runs of `own_statistics`.
    run : Tensor of int64, (T,)
    own_statistics : tuple of str
        Runs that are wholly held out and so had to be standardised with their own statistics.
    """

    raw: Tensor
    valid: BoolArray
    signal: Tensor
    mean: Tensor
    inverse_std: Tensor
    run: Tensor
    own_statistics: tuple[str, ...] = ()

    def rows(self, subject: Tensor, tr: Tensor) -> tuple[Tensor, Tensor]:
        """Gather standardised rows.

        Parameters
        ----------
        subject, tr : Tensor of int64, (B,)
            Subject index and brain TR.

        Returns
        -------
        bold : Tensor of float32, (B, U)
            0 where there is no signal.
        signal : Tensor of bool, (B, U)
        """
        times, runs = self.raw.shape[1], self.mean.shape[1]
        bold = self.raw.flatten(0, 1).index_select(0, subject * times + tr)
        which = subject * runs + self.run[tr]
        bold -= self.mean.flatten(0, 1).index_select(0, which)
        bold *= self.inverse_std.flatten(0, 1).index_select(0, which)
        return bold, self.signal.index_select(0, subject)


def load_bold(data: xr.Dataset) -> tuple[Tensor, BoolArray, BoolArray]:
    """Read a brain store.

    Returns
    -------
    raw : Tensor of float32, (S, T, U)
        A grid is flattened in the order (x, y, z).
    valid : ndarray of bool, (S, T)
    signal : ndarray of bool, (S, U)
        What the store declares; outside the mask of a grid there is none.
    """
    bold = data["bold"]
    units = int(np.prod([n for dim, n in bold.sizes.items() if dim not in ("subject", "time")]))
    raw = torch.empty(bold.sizes["subject"], bold.sizes["time"], units)
    for index in range(len(raw)):
        values = bold.isel(subject=index).transpose("time", ...).values
        raw[index] = torch.from_numpy(values.reshape(len(values), units).astype(np.float32))
    signal = data["has_signal"].transpose("subject", ...).values.reshape(len(raw), units).copy()
    if "mask" in data:
        signal &= data["mask"].values.reshape(1, units)
    return raw, data["valid"].transpose("subject", "time").values.copy(), signal


def standardise(
    raw: Tensor,
    valid: BoolArray,
    declared: BoolArray,
    clock: Clock,
    train: IntArray,
    used: IntArray,
) -> BrainTable:
    """Fit mean and standard deviation of every subject, run and unit.

    Parameters
    ----------
    raw : Tensor of float32, (S, T, U)
        Taken over; values that are not finite become 0.
    valid : ndarray of bool, (S, T)
    declared : ndarray of bool, (S, U)
        Units the store says have signal.
    clock : Clock
    train : ndarray of int64
        Brain TRs (stimulus TR + lag) of the training side.
    used : ndarray of int64
        Brain TRs of any side: a run without one asks nothing of a unit.
    """
    subjects, times, units = raw.shape
    run_names = clock.run_of_tr()
    training, wanted = np.zeros(times, dtype=bool), np.zeros(times, dtype=bool)
    training[train], wanted[used] = True, True
    mean = torch.zeros(subjects, len(clock.runs), units)
    inverse_std = torch.zeros_like(mean)
    signal = torch.from_numpy(declared)
    own: list[str] = []
    for r, run in enumerate(clock.runs):
        here = run_names == run.name
        alone = not training[here].any()
        if alone and wanted[here].any():
            own.append(run.name)
        for s in range(subjects):
            fit_on = here & valid[s] & (training if not alone else True)
            rows = raw[s, torch.from_numpy(np.flatnonzero(fit_on))].double()
            if len(rows) < 2:
                continue
            mu, sd = rows.mean(0), rows.std(0, correction=0)
            varies = sd.isfinite() & (sd > _CONSTANT * mu.abs()) & (sd > 0)
            mean[s, r] = torch.where(varies, mu, 0.0)
            inverse_std[s, r] = torch.where(varies, 1 / sd, 0.0)
            if wanted[here].any():
                signal[s] &= varies
    run_index = {run.name: r for r, run in enumerate(clock.runs)}
    inverse_std *= signal[:, None, :]
    raw.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    if not signal.any():
        raise StoreError(
            "no unit varies over the training TRs", remedy="check the mask and the scans"
        )
    runs = torch.tensor([run_index[name] for name in run_names])
    return BrainTable(raw, valid, signal, mean, inverse_std, runs, tuple(own))


def average(table: BrainTable) -> tuple[Tensor, BoolArray, BoolArray]:
    """Average the standardised BOLD over the subjects that are valid and have signal.

    Returns
    -------
    raw : Tensor of float32, (1, T, U)
    valid : ndarray of bool, (1, T)
        Where at least one subject is valid.
    signal : ndarray of bool, (1, U)
    """
    subjects, times, units = table.raw.shape
    total, count = torch.zeros(times, units), torch.zeros(times, units)
    everything = torch.arange(times)
    for s in range(subjects):
        bold, signal = table.rows(torch.full((times,), s), everything)
        there = signal & torch.from_numpy(table.valid[s])[:, None]
        total += bold * there
        count += there
    valid = np.asarray(table.valid.any(axis=0))[None]
    return (total / count.clamp(min=1))[None], valid, table.signal.any(0).numpy()[None].copy()
