"""Brains that are read from their store as they are needed, a block of TRs at a time.

Threads read, never forked workers: zarr's own threads do not survive a fork. What is read are
slices of a subject's TRs, which cost a chunk each where lists of single TRs would cost one per row.

Legend: S = subjects, T = TRs, R = runs, U = units of the brain layer, n = rows of a slice.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr
from numpy.typing import NDArray
from torch import Tensor
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from sherlock_data import store
from sherlock_data.errors import ConfigError, StoreError
from sherlock_data.remote import is_remote
from sherlock_data.standardisation import fit_subject, pieces
from sherlock_data.timing import Clock
from sherlock_models.feeding import gather
from sherlock_models.feeding.batch import SampleTable
from sherlock_models.feeding.brains import Brains, declared_signal, own_runs, read_valid, run_index
from sherlock_models.feeding.read_ahead import ReadAhead
from sherlock_models.feeding.sampler import BLOCK_TRS, BlockBatches
from sherlock_models.parallel import World

IntArray = NDArray[np.int64]

#: threads that read; zarr inflates in further ones of its own
READERS = 2
#: windows in memory at once: one that feeds the model, one that is being read
_WINDOWS = 2
#: TRs of one read where many rows are wanted in order
_READ_TRS = 64


class Source:
    """`bold` of a brain store, as (S, T, U): a grid is flattened in the order (x, y, z).

    Parameters
    ----------
    path : str
        A complete store.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with zarr.config.set(_codecs(path)):
            self._bold = store.open_array(path, "bold", "r")
        self.ahead = ReadAhead(self._bold)
        whole = self._bold.shape
        self.shape = (whole[0], whole[1], int(np.prod(whole[2:])))

    @property
    def block_trs(self) -> int:
        """TRs worth reading at once: whole chunks, `BLOCK_TRS` or more of them."""
        chunk = self._bold.chunks[1]
        return int(chunk * -(-BLOCK_TRS // chunk))

    def __getitem__(self, key: tuple[int, slice]) -> NDArray[np.float32]:
        subject, trs = key
        start, stop, _ = trs.indices(self.shape[1])
        out = np.empty((stop - start, self.shape[2]), dtype=np.float32)
        self.read(subject, start, out)
        return out

    def read(self, subject: int, start: int, out: NDArray[np.float32]) -> None:
        """Fill `out` (n, U), contiguous, with a subject's TRs from `start` on.

        Raises
        ------
        StoreError
            If a chunk is damaged, or the store has gone.
        """
        trs = slice(start, start + len(out))
        try:
            if self._bold.ndim == 3 and self._bold.dtype == out.dtype:
                target: Any = out[None]
                buffer = default_buffer_prototype().nd_buffer.from_ndarray_like(target)
                whole = (slice(subject, subject + 1), trs, slice(None))
                self._bold.get_basic_selection(whole, out=buffer)
            else:
                block: NDArray[Any] = np.asarray(self._bold[subject, trs])
                out[:] = block.reshape(out.shape)
        except (ValueError, RuntimeError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise StoreError(
                f"subject {subject}, TRs {start} to {trs.stop - 1} cannot be read: {reason}",
                where=self.path,
                remedy="run sherlock-data verify",
            ) from error
        # Zarr reads chunks that are not there as fill values, without a word
        if not is_remote(self.path) and not Path(self.path, "zarr.json").is_file():
            raise StoreError("is gone", where=self.path, remedy="build it again, then --resume")


def _codecs(path: str) -> dict[str, str]:
    """Name the faster codecs of `zarrs` where it is installed and the store is on a disk."""
    if find_spec("zarrs") is None or not isinstance(store.place(path, read_only=True), LocalStore):
        return {}
    return {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}


@dataclass(frozen=True, kw_only=True)
class StreamedBrains(Brains):
    """BOLD in its store, with what standardises it on the way out.

    Attributes
    ----------
    source : Source
    buffer_bytes : int
        Rows held in memory while training, over all ranks.
    training_rows : ndarray of int64, (S, R)
        Valid training TRs of each subject and run, on which its statistics were fitted.
    """

    source: Source
    buffer_bytes: int
    training_rows: IntArray

    @property
    def nbytes(self) -> int:
        """Bytes of the statistics; the rows of a training come on top."""
        return sum(t.nbytes for t in (self.mean, self.inverse_std, self.signal))

    @property
    def row_bytes(self) -> int:
        """Bytes of one TR."""
        return 4 * self.source.shape[2]

    def rows(self, subject: Tensor, tr: Tensor) -> tuple[Tensor, Tensor]:
        """Read and standardise rows: slices where TRs follow one another; see `Brains.rows`."""
        order = torch.argsort(subject * self.source.shape[1] + tr, stable=True)
        raw = torch.empty(len(tr), self.source.shape[2])
        _read_all(self.source, subject[order].numpy(), tr[order].numpy(), raw.numpy())
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        return self.standardised(raw, place, subject, tr)

    def standardised(
        self, raw: Tensor, row: Tensor, subject: Tensor, tr: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Standardise rows of a buffer (N, U): whose `row` is which subject's which TR."""
        bold = gather.standardised(
            raw,
            self.mean.flatten(0, 1),
            self.inverse_std.flatten(0, 1),
            row,
            self.which(subject, tr),
        )
        return bold, gather.picked(self.signal, subject)

    def mean_square(self, subject: Tensor, tr: Tensor) -> float:
        """Mean square over training rows, known without reading: they have variance 1.

        Every unit was divided by the standard deviation of these very rows.
        """
        present = (self.inverse_std > 0).sum(-1).double()
        rows = torch.from_numpy(self.training_rows).double()
        samples = torch.bincount(subject, minlength=len(self.signal)).double()
        total = (present * rows)[samples > 0].sum()
        return float(total / (samples * self.signal.sum(-1)).sum().clamp(min=1))


def _read_all(source: Source, subject: IntArray, tr: IntArray, out: NDArray[np.float32]) -> None:
    """Fill `out` with rows that are sorted by subject and TR, each read as often as asked for."""
    for piece in pieces(tr, subject, _READ_TRS):
        source.read(int(subject[piece.start]), int(tr[piece.start]), out[piece])


def read_brains(
    path: str, data: xr.Dataset, clock: Clock, train: IntArray, used: IntArray, buffer_bytes: int
) -> StreamedBrains:
    """Fit what standardises a store's brains, in one pass that holds a shard at a time.

    Parameters
    ----------
    path : str
    data : xarray.Dataset
        The same store, opened.
    clock : Clock
    train, used : ndarray of int64
        Brain TRs of the training side, and of any side.
    buffer_bytes : int

    Raises
    ------
    StoreError
        If no unit varies over the training TRs.
    """
    source = Source(path)
    valid, declared = read_valid(data), declared_signal(data)
    training, wanted = np.zeros(clock.volumes, np.bool_), np.zeros(clock.volumes, np.bool_)
    training[train], wanted[used] = True, True
    runs = run_index(clock).numpy()
    starts = [int(np.flatnonzero(runs == r)[0]) for r in range(len(clock.runs))]

    def fit(row: int) -> tuple[Tensor, Tensor]:
        found = fit_subject(source, row, starts, valid[row], training, wanted, declared[row])
        there = np.isfinite(found.std)
        inverse = np.divide(1, found.std, out=np.zeros_like(found.std), where=there)
        return torch.from_numpy(found.mean * there), torch.from_numpy(inverse)

    with ThreadPoolExecutor(READERS) as pool:
        mean, inverse_std = zip(*pool.map(fit, range(source.shape[0])), strict=True)
    rows = [(valid & training & (runs == r)).sum(1) for r in range(len(starts))]
    signal = torch.from_numpy(declared) & (torch.stack(inverse_std) > 0).any(1)
    if not signal.any():
        raise StoreError(
            "no unit varies over the training TRs", remedy="check the mask and the scans"
        )
    return StreamedBrains(
        valid=valid,
        signal=signal,
        mean=torch.stack(mean),
        inverse_std=torch.stack(inverse_std),
        run=run_index(clock),
        own_statistics=own_runs(clock, training, wanted),
        source=source,
        buffer_bytes=buffer_bytes,
        training_rows=np.stack(rows, axis=1).astype(np.int64),
    )


def block_batches(
    brains: StreamedBrains, samples: SampleTable, lag_trs: int, batch_size: int, seed: int
) -> BlockBatches:
    """Order samples so that they can be read in blocks and shuffled within the buffer.

    Raises
    ------
    ConfigError
        If the buffer does not hold two batches.
    """
    rows = brains.buffer_bytes // brains.row_bytes
    batch = min(batch_size, len(samples))
    if rows < _WINDOWS * batch:
        least = _WINDOWS * batch * brains.row_bytes / 1e9
        raise ConfigError(
            f"does not hold two batches ({least:.3g} GB)",
            where=f"buffer_gb={brains.buffer_bytes / 1e9:.3g}",
            remedy=f"use --set buffer_gb={max(0.001, 2 * least):.3g} or more",
        )
    return BlockBatches(
        samples.subject,
        samples.tr + lag_trs,
        batch_size,
        seed,
        window_steps=int(rows // (_WINDOWS * batch)),
        block_trs=brains.source.block_trs,
    )


@dataclass
class _Window:
    """Rows of some steps: sorted by subject and TR, in one of the two buffers."""

    steps: range
    key: IntArray
    buffer: Tensor
    reads: list[Future[None]]

    def wait(self) -> None:
        for read in self.reads:
            read.result()


@dataclass
class Windows:
    """The rows of one rank's batches, read a window ahead of the step that wants them.

    Attributes
    ----------
    brains : StreamedBrains
    batches : BlockBatches
    world : World
    """

    brains: StreamedBrains
    batches: BlockBatches
    world: World
    _pool: ThreadPoolExecutor = field(init=False, repr=False)
    _free: list[Tensor] = field(default_factory=list, init=False, repr=False)
    _now: _Window | None = field(default=None, init=False, repr=False)
    _next: _Window | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        share = -(-self.batches.batch_size // self.world.size)
        steps = min(self.batches.window_steps, self.batches.steps_per_epoch)
        rows = min(steps * share, self.batches.samples)
        self._free = [torch.empty(rows, self.brains.source.shape[2]) for _ in range(_WINDOWS)]

    @property
    def nbytes(self) -> int:
        """Bytes of this rank's buffers."""
        return _WINDOWS * self._free[0].nbytes if self._free else 0

    def rows(self, step: int, subject: Tensor, tr: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised rows of this rank's share of a step; see `Brains.rows`."""
        window = self._at(step)
        wanted = self._key(subject.numpy(), tr.numpy())
        row = torch.from_numpy(np.searchsorted(window.key, wanted))
        return self.brains.standardised(window.buffer, row, subject, tr)

    def close(self) -> None:
        """Stop reading."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _at(self, step: int) -> _Window:
        if self._now is None or step not in self._now.steps:
            for old in (self._now, self._next):
                if old is not None and step not in old.steps:
                    old.wait()
                    self._free.append(old.buffer)
            ahead = self._next if self._next is not None and step in self._next.steps else None
            self._now = ahead or self._begin(step)
            self._next = self._begin(self._now.steps.stop)
            self._now.wait()
        return self._now

    def _begin(self, step: int) -> _Window:
        """Ask for every row of this rank's part of a window."""
        steps = self.batches.window(step)
        mine = []
        for one in steps:
            chosen = self.batches.at(one)
            mine.append(chosen[self.world.share(len(chosen))])
        needed = np.sort(np.concatenate(mine))
        subject, tr = self.batches.subject[needed], self.batches.tr[needed]
        buffer = self._free.pop()
        block = subject * (self.brains.source.shape[1] + 1) + tr // self.batches.block_trs
        found = pieces(tr, block, self.batches.block_trs)
        wanted = [(int(subject[own.start]), int(tr[own.start]), buffer[own]) for own in found]
        source = self.brains.source
        for whose, start, out in wanted:
            source.ahead.expect(whose, start, start + len(out))
        reads = [
            self._pool.submit(source.read, whose, start, out.numpy())
            for whose, start, out in wanted
        ]
        return _Window(steps, self._key(subject, tr), buffer, reads)

    def _key(self, subject: IntArray, tr: IntArray) -> IntArray:
        return subject * self.brains.source.shape[1] + tr
