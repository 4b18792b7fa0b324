"""Time series of units (voxels, blocks of voxels, parcels) out of a complete volumes store.

Legend: T = TRs, U = units, V = voxels read. One pass per subject, a shard of TRs at a time: volumes
are inflated in their order on disk, the units' voxels picked out (and averaged, where a unit is
more than one voxel), mean and standard deviation of every run gathered on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sherlock_data import store
from sherlock_data.contract import CHUNK_TRS, SHARD_TRS
from sherlock_data.store import ArraySpec, Results

FloatArray = NDArray[np.float32]

#: a chunk is at least this large where few units allow many TRs in one
CHUNK_BYTES = 256 * 1024
SHARD_BYTES = 4 * 1024 * 1024
#: units whose moments are taken at a time, few enough to stay in the processor's cache
MOMENT_COLUMNS = 4096
#: shards in work at once, each with its own buffer
THREADS = 2


@dataclass(frozen=True)
class Units:
    """Which voxels make up which unit.

    Attributes
    ----------
    voxel : ndarray of int64, shape (V,)
        Positions in a volume as stored, the units one after the other.
    unit : ndarray of int64, shape (V,)
        Unit of each, ascending.
    size : int
        Number of units, empty ones included.
    """

    voxel: NDArray[np.int64]
    unit: NDArray[np.int64]
    size: int

    @property
    def single(self) -> bool:
        """Whether every unit is one voxel, so that values are copied and never averaged."""
        return len(self.voxel) == self.size and bool(np.all(np.diff(self.unit) == 1))

    def within(self, has_signal: NDArray[np.bool_]) -> Units:
        """Only the voxels where ``has_signal`` (V,) is True."""
        return Units(self.voxel[has_signal], self.unit[has_signal], self.size)

    def counts(self) -> NDArray[np.int64]:
        """Voxels of each unit, shape (U,), int64."""
        return np.bincount(self.unit, minlength=self.size).astype(np.int64)


class Reader:
    """Turns volumes as stored into rows of units."""

    def __init__(self, units: Units) -> None:
        self.units = units
        self.single = units.single
        self.present, self.starts = np.unique(units.unit, return_index=True)
        self.count = np.diff([*self.starts, len(units.unit)])

    def read(self, volumes: NDArray[Any], out: FloatArray) -> None:
        """Fill ``out`` (n, U) from ``volumes`` (n, x * y * z); units without a voxel become NaN."""
        if self.single:
            np.take(volumes, self.units.voxel, axis=1, out=out, mode="clip")
            return
        out[:] = np.nan
        if not len(self.present):
            return
        values = np.take(volumes, self.units.voxel, axis=1)
        with np.errstate(invalid="ignore"):  # infinities of both signs: seen in the next line
            means = np.add.reduceat(values, self.starts, axis=1, dtype=np.float64) / self.count
        if not np.isfinite(means).all():
            means = self._finite_means(values)
        out[:, self.present] = means

    def _finite_means(self, values: FloatArray) -> NDArray[np.float64]:
        """Means over the finite voxels of a unit at each TR; NaN where there is none."""
        finite = np.isfinite(values)
        total = np.add.reduceat(np.where(finite, values, 0), self.starts, axis=1, dtype=np.float64)
        count = np.add.reduceat(finite, self.starts, axis=1, dtype=np.int64)
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


class Moments:
    """Mean and variance of each unit over TRs, in one pass and mergeable.

    Sums are taken of the distance to the first finite value, which keeps float64 from cancelling
    on raw scanner values, whose mean is a hundred times their spread.
    """

    def __init__(self, size: int) -> None:
        self.count = np.zeros(size, dtype=np.int64)
        self.mean = np.zeros(size)
        self.squares = np.zeros(size)

    def add(self, rows: FloatArray) -> None:
        """Add rows (n, U); values that are not finite do not count."""
        if not len(rows):
            return
        size = len(self.count)
        count, mean, squares = np.empty(size, np.int64), np.empty(size), np.empty(size)
        for first in range(0, size, MOMENT_COLUMNS):
            columns = slice(first, first + MOMENT_COLUMNS)
            count[columns], mean[columns], squares[columns] = _moments(rows[:, columns])
        self._merge(count, mean, squares)

    def merge(self, other: Moments) -> None:
        """Add another's TRs."""
        self._merge(other.count, other.mean, other.squares)

    def _merge(
        self, count: NDArray[np.int64], mean: NDArray[np.floating], squares: NDArray[np.floating]
    ) -> None:
        """Chan, Golub and LeVeque's pairwise update (1983)."""
        both = np.maximum(self.count + count, 1)
        delta = mean - self.mean
        self.mean += delta * count / both
        self.squares += squares + delta**2 * self.count * count / both
        self.count += count

    def result(self) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation (ddof 0), shape (U,); NaN where nothing was finite."""
        known = self.count > 0
        mean = np.where(known, self.mean, np.nan)
        variance = np.maximum(self.squares, 0) / np.maximum(self.count, 1)
        return mean.astype(np.float32), np.where(known, np.sqrt(variance), np.nan).astype(
            np.float32
        )


def _moments(
    rows: FloatArray,
) -> tuple[NDArray[np.int64] | int, NDArray[np.floating], NDArray[np.floating]]:
    """Finite values of each column, their mean, and the sum of squared distances to it."""
    finite = np.isfinite(rows)
    count: NDArray[np.int64] | int = len(rows)
    if finite.all():
        shift = rows[0]
        far = rows - shift
    else:
        first = rows[finite.argmax(axis=0), np.arange(rows.shape[1])]
        shift = np.where(finite.any(axis=0), first, np.float32(0))
        far = np.where(finite, rows, shift) - shift
        count = finite.sum(axis=0)
    total = far.sum(axis=0, dtype=np.float64)
    np.square(far, out=far)
    safe = np.maximum(count, 1)
    return count, shift + total / safe, far.sum(axis=0, dtype=np.float64) - total**2 / safe


def chunk_trs(units: int, least_bytes: int = CHUNK_BYTES) -> int:
    """TRs of a chunk: few enough for random reads, more where a TR is small."""
    trs = CHUNK_TRS
    while trs < SHARD_TRS and trs * units * 4 < least_bytes:
        trs *= 2
    return trs


def shard_trs(units: int, times: int) -> int:
    """TRs of a shard: whole chunks, as many as make a file worth having."""
    trs = SHARD_TRS
    while trs < times and trs * units * 4 < SHARD_BYTES:
        trs *= 2
    return trs


def array_spec(subjects: int, times: int, units: int, dim: str, attrs: dict[str, Any]) -> ArraySpec:
    """Spec of ``bold (subject, time, <dim>)``."""
    return ArraySpec(
        dims=("subject", "time", dim),
        shape=(subjects, times, units),
        dtype="float32",
        chunks=(1, chunk_trs(units), units),
        shards=(1, shard_trs(units, times), units),
        fill_value=float("nan"),
        attrs=attrs,
    )


@dataclass(frozen=True)
class SeriesPart:
    """One subject's series.

    Attributes
    ----------
    name : str
        Subject.
    weight : float
    row : int
        The subject's place in both stores.
    volumes : str
        The complete volumes store.
    units : Units
        For this subject: where it has no signal, a voxel takes no part in a mean.
    valid : ndarray of bool, shape (T,)
    runs : tuple of (int, int)
        First TR and one past the last of each run.
    """

    name: str
    weight: float
    row: int
    volumes: str
    units: Units
    valid: NDArray[np.bool_]
    runs: tuple[tuple[int, int], ...]

    def run(self, path: str, report: Callable[[float], None]) -> Results:
        """Write the subject's rows; return ``mean`` and ``std``, shape (run, U), over valid TRs."""
        bold = store.open_array(path, "bold")
        source = store.stored_view(self.volumes, "bold", "r")
        shard = (bold.shards or bold.chunks)[1]
        block = source.chunks[1]
        reader = Reader(self.units)
        times = len(self.valid)

        def one_shard(start: int) -> list[tuple[int, Moments]]:
            stop = min(start + shard, times)
            rows = np.empty((stop - start, self.units.size), dtype=np.float32)
            for first in range(start, stop, block):
                last = min(first + block, stop)
                volumes = np.asarray(source[self.row, first:last]).reshape(last - first, -1)
                reader.read(volumes, rows[first - start : last - start])
            bold[self.row : self.row + 1, start:stop] = rows[None]
            with np.errstate(over="ignore"):  # squares beyond float32: an infinite std says so
                return self._moments(rows, start)

        found = [Moments(self.units.size) for _ in self.runs]
        with ThreadPoolExecutor(THREADS) as pool:
            starts = range(0, times, shard)
            for done, moments in enumerate(pool.map(one_shard, starts), start=1):
                for run, moment in moments:
                    found[run].merge(moment)
                report(done / len(starts))
        mean, std = zip(*(moments.result() for moments in found), strict=True)
        return {"mean": np.stack(mean), "std": np.stack(std)}

    def _moments(self, rows: FloatArray, start: int) -> list[tuple[int, Moments]]:
        """Moments of the valid TRs of a shard, run by run."""
        found = []
        for run, (first, last) in enumerate(self.runs):
            lo, hi = max(first, start), min(last, start + len(rows))
            if lo >= hi:
                continue
            moments = Moments(self.units.size)
            part, valid = rows[lo - start : hi - start], self.valid[lo:hi]
            moments.add(part if valid.all() else part[valid])
            found.append((run, moments))
        return found
