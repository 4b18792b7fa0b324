"""Measured brains in memory, standardised per subject, run and unit on training TRs.

Legend: S = subjects, T = TRs, R = runs, U = units of the brain layer (voxels, parcels, grid cells).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data.errors import StoreError
from sherlock_data.timing import Clock
from sherlock_models.feeding import gather

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

#: rows standardised at a time where all are wanted
_BLOCK = 256
#: a unit whose standard deviation is below this share of its mean is constant
_CONSTANT = 1e-6


@dataclass(frozen=True, kw_only=True)
class Brains(ABC):
    """BOLD of every subject, raw, with what standardises it on the way out.

    Attributes
    ----------
    valid : ndarray of bool, (S, T)
        False for missing and constant volumes.
    signal : Tensor of bool, (S, U)
        False where a subject has no signal, or no variance, in a unit.
    mean, inverse_std : Tensor of float32, (S, R, U)
        Of that run's training TRs; of all its valid TRs in the runs of `own_statistics`.
    run : Tensor of int64, (T,)
        On the CPU.
    own_statistics : tuple of str
        Runs that are wholly held out and so had to be standardised with their own statistics.
    """

    valid: BoolArray
    signal: Tensor
    mean: Tensor
    inverse_std: Tensor
    run: Tensor
    own_statistics: tuple[str, ...] = ()

    @abstractmethod
    def rows(self, subject: Tensor, tr: Tensor) -> tuple[Tensor, Tensor]:
        """Gather standardised rows.

        Parameters
        ----------
        subject, tr : Tensor of int64, (B,)
            Subject index and brain TR, on the CPU.

        Returns
        -------
        bold : Tensor of float32, (B, U)
            0 where there is no signal.
        signal : Tensor of bool, (B, U)
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes held in memory."""

    @abstractmethod
    def mean_square(self, subject: Tensor, tr: Tensor) -> float:
        """Mean square of standardised rows over units with signal; their variance in training."""

    def close(self, units: Sequence[int]) -> None:
        """Take the signal of some units from everybody, for good."""
        if units:
            columns = torch.as_tensor(units, device=self.signal.device)
            self.signal[:, columns] = False
            self.inverse_std[:, :, columns] = 0.0

    def which(self, subject: Tensor, tr: Tensor) -> Tensor:
        """Row of the statistics, (B,): those of a subject's run."""
        return subject * self.mean.shape[1] + self.run[tr]

    def restore(self, subject: Tensor, tr: Tensor, bold: Tensor) -> Tensor:
        """Take standardised rows (B, U) back to the units of `raw`; the mean without signal."""
        which = self.which(subject, tr)
        scale = self.inverse_std.flatten(0, 1).index_select(0, which)
        mean = self.mean.flatten(0, 1).index_select(0, which)
        return torch.where(scale > 0, bold / scale.clamp(min=torch.finfo().tiny), 0.0) + mean


@dataclass(frozen=True, kw_only=True)
class BrainTable(Brains):
    """Brains in memory: this process's, a machine's, or a device's.

    Attributes
    ----------
    raw : Tensor of float32, (S, T, U)
        As in the store, 0 where it is not finite.
    """

    raw: Tensor

    def rows(self, subject: Tensor, tr: Tensor) -> tuple[Tensor, Tensor]:
        """Gather standardised rows; see `Brains.rows`."""
        bold = gather.standardised(
            self.raw.flatten(0, 1),
            self.mean.flatten(0, 1),
            self.inverse_std.flatten(0, 1),
            subject * self.raw.shape[1] + tr,
            self.which(subject, tr),
        )
        return bold, gather.picked(self.signal, subject)

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return sum(t.nbytes for t in (self.raw, self.mean, self.inverse_std, self.signal))

    def mean_square(self, subject: Tensor, tr: Tensor) -> float:
        """Mean square of standardised rows over units with signal, a block of rows at a time."""
        total, count = 0.0, 0.0
        for start in range(0, len(tr), _BLOCK):
            part = slice(start, start + _BLOCK)
            bold, signal = self.rows(subject[part], tr[part])
            total += float((bold.double().square() * signal).sum())
            count += float(signal.sum())
        return total / max(count, 1.0)

    def to(self, device: torch.device) -> BrainTable:
        """Move what rows are gathered from to a device."""
        names = ("raw", "signal", "mean", "inverse_std")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name, for ranks that share it."""
        told = torch.tensor(list("\n".join(self.own_statistics).encode()), dtype=torch.uint8)
        names = ("raw", "signal", "mean", "inverse_std", "run")
        valid = torch.from_numpy(self.valid)
        return {**{n: getattr(self, n) for n in names}, "valid": valid, "own_statistics": told}

    @classmethod
    def from_tensors(cls, held: dict[str, Tensor]) -> BrainTable:
        """Rebuild from :meth:`tensors`."""
        told = bytes(held["own_statistics"].tolist()).decode()
        names = ("raw", "signal", "mean", "inverse_std", "run")
        return cls(
            valid=held["valid"].numpy(),
            own_statistics=tuple(told.split("\n")) if told else (),
            **{name: held[name] for name in names},
        )


def load_bold(
    data: xr.Dataset, empty: Callable[[tuple[int, ...]], Tensor] = torch.empty
) -> tuple[Tensor, BoolArray, BoolArray]:
    """Read a brain store.

    Parameters
    ----------
    data : xarray.Dataset
    empty : callable
        Makes the tensor to read into from its shape.

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
    raw = empty((bold.sizes["subject"], bold.sizes["time"], units))
    for index in range(len(raw)):
        values = bold.isel(subject=index).transpose("time", ...).values
        raw[index] = torch.from_numpy(values.reshape(len(values), units).astype(np.float32))
    return raw, read_valid(data), declared_signal(data)


def declared_signal(data: xr.Dataset) -> BoolArray:
    """Units in which a store says each subject has signal, (S, U); none outside a grid's mask."""
    there = data["has_signal"].transpose("subject", ...).values
    signal = np.array(there.reshape(len(there), -1), dtype=np.bool_)
    if "mask" in data:
        signal &= data["mask"].values.reshape(1, -1)
    return signal


def read_valid(data: xr.Dataset) -> BoolArray:
    """Volumes of each subject that are neither missing nor constant, (S, T)."""
    return np.array(data["valid"].transpose("subject", "time").values, dtype=np.bool_)


def standardise(
    raw: Tensor,
    valid: BoolArray,
    declared: BoolArray,
    clock: Clock,
    train: IntArray,
    used: IntArray,
    *,
    may_be_empty: bool = False,
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
    may_be_empty : bool
        Whether a brain in which no unit varies is no error: one subject's of several.
    """
    subjects, times, units = raw.shape
    run_names = clock.run_of_tr()
    training, wanted = np.zeros(times, dtype=bool), np.zeros(times, dtype=bool)
    training[train], wanted[used] = True, True
    mean = torch.zeros(subjects, len(clock.runs), units)
    inverse_std = torch.zeros_like(mean)
    signal = torch.from_numpy(declared)
    for r, run in enumerate(clock.runs):
        here = run_names == run.name
        alone = not training[here].any()
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
    inverse_std *= signal[:, None, :]
    raw.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    if not may_be_empty and not signal.any():
        raise StoreError(
            "no unit varies over the training TRs", remedy="check the mask and the scans"
        )
    return BrainTable(
        raw=raw,
        valid=valid,
        signal=signal,
        mean=mean,
        inverse_std=inverse_std,
        run=run_index(clock),
        own_statistics=own_runs(clock, training, wanted),
    )


def own_runs(clock: Clock, training: BoolArray, used: BoolArray) -> tuple[str, ...]:
    """Name the runs that samples come from and no training TR (T,) lies in."""
    run_of_tr = clock.run_of_tr()
    inside = {run.name: run_of_tr == run.name for run in clock.runs}
    return tuple(
        name for name, here in inside.items() if used[here].any() and not training[here].any()
    )


def run_index(clock: Clock) -> Tensor:
    """Index of the run of every TR, int64 (T,)."""
    place = {run.name: index for index, run in enumerate(clock.runs)}
    return torch.tensor([place[name] for name in clock.run_of_tr()])


def average(tables: Iterable[BrainTable]) -> tuple[Tensor, BoolArray, BoolArray]:
    """Average the standardised BOLD over the subjects that are valid and have signal.

    Parameters
    ----------
    tables : iterable of BrainTable
        Of one or more subjects each; read one after the other.

    Returns
    -------
    raw : Tensor of float32, (1, T, U)
    valid : ndarray of bool, (1, T)
        Where at least one subject is valid.
    signal : ndarray of bool, (1, U)
    """
    total, count, valid, signals = torch.zeros(1), torch.zeros(1), [], []
    for table in tables:
        everything = torch.arange(table.raw.shape[1])
        for s in range(len(table.raw)):
            bold, signal = table.rows(torch.full_like(everything, s), everything)
            there = signal & torch.from_numpy(table.valid[s])[:, None]
            total = total + bold * there
            count = count + there
        valid.append(table.valid.any(axis=0))
        signals.append(table.signal.any(0).numpy())
    mean = total / count.clamp(min=1)
    return mean[None], np.logical_or.reduce(valid)[None], np.logical_or.reduce(signals)[None]
