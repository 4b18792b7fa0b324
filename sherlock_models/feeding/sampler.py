"""The order of the samples: a pure function of seed and step, the same for any number of ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

#: TRs of a block: one slice of a subject that is read at once, aligned to the store's chunks
BLOCK_TRS = 32


@dataclass
class GlobalBatches:
    """Global batches, each sample once per epoch, resumable at any step.

    Attributes
    ----------
    samples : int
        Samples of the training side.
    batch_size : int
        Of the global batch; the last one of an epoch is shorter and is kept.
    seed : int
    """

    samples: int
    batch_size: int
    seed: int
    _epoch: int = field(default=-1, init=False, repr=False)
    _order: IntArray = field(default_factory=lambda: np.zeros(0, np.int64), init=False, repr=False)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""
        return -(-self.samples // self.batch_size)

    def epoch(self, step: int) -> int:
        """Epoch of a 0-based step."""
        return step // self.steps_per_epoch

    def at(self, step: int) -> IntArray:
        """Sample indices of the global batch of a 0-based step, (batch,)."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.samples)
            self._epoch = epoch
        return self._order[within * self.batch_size : (within + 1) * self.batch_size]


@dataclass
class BlockBatches:
    """Global batches in an order that a store can be read in, a block of TRs at a time.

    The blocks (a subject's samples within `block_trs` TRs) are put in random order, end to end, and
    the sequence is cut into as many lanes as a batch has positions: position p of every batch is
    lane p's next sample. A batch so comes from as many places as it has samples. Within a lane,
    samples are shuffled in windows of `window_steps`. A rank that has some positions of the global
    batch needs those lanes only, and any number of ranks sees the same batches.

    Attributes
    ----------
    subject, tr : ndarray of int64, (N,)
        Subject and brain TR of every sample, by subject and then by TR.
    batch_size : int
        Of the global batch; the last one of an epoch is shorter and is kept.
    seed : int
    window_steps : int
        Steps that a window of the buffer feeds.
    block_trs : int
    """

    subject: IntArray
    tr: IntArray
    batch_size: int
    seed: int
    window_steps: int
    block_trs: int = BLOCK_TRS
    _epoch: int = field(default=-1, init=False, repr=False)
    _lanes: list[IntArray] = field(default_factory=list, init=False, repr=False)

    @property
    def samples(self) -> int:
        """Samples of the training side."""
        return len(self.tr)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""
        return -(-self.samples // self.batch_size)

    def epoch(self, step: int) -> int:
        """Epoch of a 0-based step."""
        return step // self.steps_per_epoch

    def at(self, step: int) -> IntArray:
        """Sample indices of the global batch of a 0-based step, (batch,)."""
        epoch, within = divmod(step, self.steps_per_epoch)
        lanes = self._ordered(epoch)
        return np.array([lane[within] for lane in lanes if within < len(lane)], dtype=np.int64)

    def window(self, step: int) -> range:
        """Return the steps of a step's window, which never spans two epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        first = within - within % self.window_steps
        stop = min(first + self.window_steps, self.steps_per_epoch)
        offset = epoch * self.steps_per_epoch
        return range(offset + first, offset + stop)

    def _ordered(self, epoch: int) -> list[IntArray]:
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            block = self.tr // self.block_trs
            changes = (np.diff(self.subject) != 0) | (np.diff(block) != 0)
            blocks = np.split(np.arange(self.samples), np.flatnonzero(changes) + 1)
            sequence = np.concatenate([blocks[b] for b in rng.permutation(len(blocks))])
            self._lanes = [self._shuffled(lane, rng) for lane in self._cut(sequence)]
            self._epoch = epoch
        return self._lanes

    def _cut(self, sequence: IntArray) -> list[IntArray]:
        """Cut into lanes: a sample for every step, the later lanes none for a short last one."""
        steps = self.steps_per_epoch
        whole = self.samples - (steps - 1) * self.batch_size
        lengths = np.full(self.batch_size, steps - 1)
        lengths[:whole] = steps
        return np.split(sequence, np.cumsum(lengths)[:-1])

    def _shuffled(self, lane: IntArray, rng: np.random.Generator) -> IntArray:
        windows = range(0, len(lane), self.window_steps)
        pieces = [rng.permutation(lane[w : w + self.window_steps]) for w in windows]
        return np.concatenate(pieces) if pieces else lane


def rank_share(batch: int, rank: int, ranks: int) -> slice:
    """Return a rank's contiguous positions in a global batch; shares differ by one at most."""
    return slice(batch * rank // ranks, batch * (rank + 1) // ranks)
