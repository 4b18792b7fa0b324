"""The order of the samples: a pure function of seed and step, the same for any number of ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


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


def rank_share(batch: int, rank: int, ranks: int) -> slice:
    """Return a rank's contiguous positions in a global batch; shares differ by one at most."""
    return slice(batch * rank // ranks, batch * (rank + 1) // ranks)
