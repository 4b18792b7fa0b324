"""Ranks, sharding and collectives: the only room that knows `torch.distributed`'s processes.

A single process is a world of one: it has a process group too and takes the same path.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from sherlock_data.errors import ConfigError, SherlockError
from sherlock_models.sampler import rank_share

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    from sherlock_models.architectures.autoencoder import BrainAutoencoder

_LOG = logging.getLogger(__name__)

TIMEOUT = timedelta(minutes=10)
#: exit status after a SIGTERM that was answered with a checkpoint (128 + 15)
TERMINATED = 143
#: seconds between the last barrier and the end of the group: gloo's threads may still be closing
#: a connection, and a teardown now and then aborted without it
_TEARDOWN_S = 0.1


class WorkerError(SherlockError):
    """A rank of a run failed with something that is not a stated failure."""


@dataclass(frozen=True)
class World:
    """The ranks of a run.

    Attributes
    ----------
    rank, size : int
    device : torch.device
        Of this rank.
    """

    rank: int
    size: int
    device: torch.device

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

    def shard(self, model: BrainAutoencoder, precision: str) -> nn.Module:
        """Place a model on this rank's device, sharded over all ranks (FSDP2).

        A world of one in fp32 has nothing to shard, and copying every parameter through an
        all-gather of one would cost up to a third of a step, so the model stays as it is.
        """
        model = model.to(self.device)
        if self.size == 1 and precision == "fp32":
            return model
        inner = whole = MixedPrecisionPolicy()
        if precision == "bf16":
            inner = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
            # only the root's outputs: a block's feed bf16 weights of the block around it
            whole = replace(inner, output_dtype=torch.float32)
        mesh = init_device_mesh(self.device.type, (self.size,), mesh_dim_names=("shard",))
        for block in model.blocks():
            fully_shard(block, mesh=mesh, mp_policy=inner)
        fully_shard(model, mesh=mesh, mp_policy=whole)
        return model

    def clip(self, model: nn.Module, optimizer: torch.optim.Optimizer, largest: float) -> float:
        """Make the next step take gradients of a norm of at most `largest`; returns their norm.

        Gradients below it are left alone: multiplying them by 1 would cost a pass over all of them.
        Above it, a fused optimiser divides by its `grad_scale` (what `torch.amp.GradScaler` sets)
        while it reads them, which saves that pass; sharded gradients are scaled beforehand.
        """
        parameters = [p for p in model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        sharded = isinstance(norm, DTensor)
        found = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        if found > largest and sharded:
            nn.utils.clip_grads_with_norm_(parameters, largest, norm)
        elif found > largest:
            optimizer.grad_scale = norm / largest  # type: ignore[attr-defined]
        return found


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
        joined = World(dist.get_rank(), dist.get_world_size(), place)
        yield joined
        gc.collect()
        joined.barrier()
        time.sleep(_TEARDOWN_S)
    finally:
        dist.destroy_process_group()
        sys.excepthook = hook  # joining put the rank before every line of a traceback


def _divide_cores() -> None:
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if ranks > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))


def check_gpus(wanted: int) -> None:
    """Refuse to ask for more GPUs than there are."""
    there = torch.cuda.device_count()
    if wanted > there:
        raise ConfigError(
            f"{wanted} asked for, {there} there",
            where="--gpus",
            remedy="ask for fewer, or use --processes N for CPUs",
        )


def launch(ranks: int, function: Callable[..., Any], *arguments: Any) -> None:
    """Run `function(*arguments)` as `ranks` ranks of this machine (torchrun's elastic launcher).

    Raises
    ------
    SherlockError
        What the first failing rank said.
    SystemExit
        With 143 when the ranks were terminated and wrote a checkpoint.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for chatter in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(chatter).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        start_method="spawn",
    )
    try:
        elastic_launch(config, _recorded)(function, *arguments)
    except SignalException as error:
        raise SystemExit(128 + int(error.sigval)) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == TERMINATED:
            raise SystemExit(TERMINATED) from None
        raise WorkerError(_said(failure), where=f"rank {rank}") from None


def _said(failure: ProcessFailure) -> str:
    """Return the message of a rank's exception; its traceback goes to the log (`--debug`)."""
    message: Any = failure.message
    if isinstance(message, dict):
        _LOG.debug(message.get("extraInfo", {}).get("py_callstack", ""))
        message = message.get("message")
    line = (str(message).splitlines() or [""])[0] if message else f"exit {failure.exitcode}"
    kind, _, rest = line.partition(": ")
    return rest if kind.endswith("Error") and rest else line


def _recorded(function: Callable[..., Any], *arguments: Any) -> None:
    """Run a rank; a failure goes into the file that the launcher reads it from."""
    from torch.distributed.elastic.multiprocessing.errors import record

    record(function)(*arguments)
