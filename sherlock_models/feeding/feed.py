"""The batches of one rank, step by step, and how long a training waited for them."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from sherlock_models.feeding.batch import Batch, SampleTable
from sherlock_models.feeding.dataset import MovieBrainData
from sherlock_models.feeding.sampler import BlockBatches, GlobalBatches
from sherlock_models.feeding.stream import StreamedBrains, Windows, block_batches
from sherlock_models.parallel import World


def order(
    data: MovieBrainData, samples: SampleTable, batch_size: int, seed: int
) -> GlobalBatches | BlockBatches:
    """Return the order of the samples: fully random in memory, by blocks from disk."""
    if isinstance(data.brains, StreamedBrains):
        return block_batches(data.brains, samples, data.lag_trs, batch_size, seed)
    return GlobalBatches(len(samples), batch_size, seed)


class Feed:
    """One rank's share of every global batch, on its device.

    Rows on disk are read a window ahead; a batch that has to travel to a GPU is gathered, and sent
    from pinned memory, while the step before it is computed.

    Parameters
    ----------
    data : MovieBrainData
    samples : SampleTable
    batches : GlobalBatches or BlockBatches
    world : World

    Attributes
    ----------
    waited_s : float
        Seconds that :meth:`at` took so far: the time a training waits for its data.
    """

    def __init__(
        self,
        data: MovieBrainData,
        samples: SampleTable,
        batches: GlobalBatches | BlockBatches,
        world: World,
    ) -> None:
        self.data, self.samples, self.batches, self.world = data, samples, batches, world
        self.waited_s = 0.0
        self._windows: Windows | None = None
        if isinstance(data.brains, StreamedBrains) and isinstance(batches, BlockBatches):
            self._windows = Windows(data.brains, batches, world)
        travels = world.device.type == "cuda" and data.device.type == "cpu"
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="feed") if travels else None
        self._sent: tuple[int, Future[Batch]] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers that rows on disk are read into."""
        return self._windows.nbytes if self._windows else 0

    def at(self, step: int) -> Batch:
        """Return this rank's share of the global batch of a 0-based step."""
        began = time.perf_counter()
        batch = self._gather(step) if self._sender is None else self._received(step)
        self.waited_s += time.perf_counter() - began
        return batch

    def close(self) -> None:
        """Stop reading ahead."""
        if self._sender is not None:
            self._sender.shutdown(wait=True, cancel_futures=True)
        if self._windows is not None:
            self._windows.close()

    def _received(self, step: int) -> Batch:
        assert self._sender is not None  # noqa: S101 - for the type checker
        if self._sent is None or self._sent[0] != step:
            self._sent = (step, self._sender.submit(self._pinned, step))
        batch = self._sent[1].result().to(self.world.device)
        self._sent = (step + 1, self._sender.submit(self._pinned, step + 1))
        return batch

    def _pinned(self, step: int) -> Batch:
        torch.cuda.set_device(self.world.device)
        return self._gather(step).pin()

    def _gather(self, step: int) -> Batch:
        chosen = self.batches.at(step)
        share = self.world.share(len(chosen))
        mine, brain = chosen[share], None
        if self._windows is not None:
            part = self.samples.take(mine)
            volumes = torch.from_numpy(part.tr + self.data.lag_trs)
            brain = self._windows.rows(step, torch.from_numpy(part.subject), volumes)
        return self.data.batch(self.samples, mine, share.start, brain)
