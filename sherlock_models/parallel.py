"""Ranks and their collectives; how a model lies on them is `sharding`'s, starting them `launch`'s.

A single process is a world of one: it has a process group too and takes the same path.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from sherlock_models.feeding.sampler import rank_share

TIMEOUT = timedelta(minutes=10)
#: seconds between the last barrier and the end of the group: gloo's threads may still be closing
#: a connection, and a teardown now and then aborted without it
_TEARDOWN_S = 0.1


@dataclass(frozen=True)
class World:
    """The ranks of a run.

    Attributes
    ----------
    rank, size : int
    device : torch.device
        Of this rank.
    local : int
        Ranks of a machine.
    """

    rank: int
    size: int
    device: torch.device
    local: int = field(default=1, kw_only=True)

    @property
    def main(self) -> bool:
        """Whether this rank writes files and speaks to people."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Positions of a global batch that are this rank's."""
        return rank_share(batch, self.rank, self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks, in place; the same bits on every rank."""
        dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.device.type == "cuda":
            dist.barrier(device_ids=[self.device.index or 0])
        else:
            dist.barrier()

    def gather(self, rows: Tensor, batch: int) -> Tensor:
        """Gather every rank's rows into the order of the global batch.

        Parameters
        ----------
        rows : Tensor, (share, ...)
            Detached; no gradient flows through.
        batch : int
            Rows of the global batch.

        Returns
        -------
        Tensor, (batch, ...)
        """
        if self.size == 1:
            return rows
        shares = [rank_share(batch, rank, self.size) for rank in range(self.size)]
        longest = max(share.stop - share.start for share in shares)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        pieces = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(pieces, padded)
        return torch.cat(
            [piece[: s.stop - s.start] for piece, s in zip(pieces, shares, strict=True)]
        )

    def side_group(self) -> dist.ProcessGroup:
        """Make a group for collectives that run beside the steps; every rank must ask for it.

        Two threads that share a group mix their messages up.
        """
        group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=TIMEOUT)
        return group

    def agree(self, mine: str | None) -> list[str]:
        """Return what any rank has to say, in the order of ranks; the same on every rank."""
        said: list[str | None] = [None] * self.size
        dist.all_gather_object(said, mine)
        return [line for line in said if line is not None]


def is_rank() -> bool:
    """Whether this process was started by a launcher (torchrun, srun with its variables)."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


@contextmanager
def world(device: str = "auto") -> Iterator[World]:
    """Join the run's ranks, or be a world of one; leave them carefully.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        `auto` takes the GPU where there is one.
    """
    kind = "cuda" if device == "auto" and torch.cuda.is_available() else device
    kind = "cpu" if kind == "auto" else kind
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(place)
    hook = sys.excepthook
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    if is_rank():
        if kind == "cpu":
            _divide_cores()
        dist.init_process_group(backend, timeout=TIMEOUT)
    else:
        alone = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=alone, rank=0, world_size=1, timeout=TIMEOUT)
    try:
        size = dist.get_world_size()
        joined = World(dist.get_rank(), size, place, local=_on_a_machine(size))
        yield joined
        gc.collect()
        joined.barrier()
        time.sleep(_TEARDOWN_S)
    finally:
        dist.destroy_process_group()
        sys.excepthook = hook  # joining put the rank before every line of a traceback


def _on_a_machine(size: int) -> int:
    """Ranks of a machine; a launcher that does not say has one machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size)) if is_rank() else 1


def _divide_cores() -> None:
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if ranks > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
