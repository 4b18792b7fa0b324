"""How a model lies on the ranks: replicated, sharded, or both; the models know nothing of it.

Legend: P = parameters, N = ranks. A replica takes 16 P bytes: weights, gradients and AdamW's two
moments, float32.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sherlock_data.errors import ConfigError
from sherlock_models.architectures.autoencoder import BrainAutoencoder
from sherlock_models.config import RunConfig
from sherlock_models.memory import free_memory
from sherlock_models.parallel import World
from sherlock_models.training.gradient_norms import sum_of_squares

#: bytes of a parameter: weight, gradient and AdamW's two moments, float32
BYTES_PER_PARAMETER = 16
#: bytes of a weight, float32
WEIGHT_BYTES = 4
#: share of the free memory that a replica may take; the rest is the activations'
REPLICA_SHARE = 0.5


@dataclass(frozen=True)
class Sharding:
    """What was chosen, and why.

    Attributes
    ----------
    kind : {"alone", "ddp", "fsdp", "hybrid"}
    why : str
    shards : int
        Ranks that hold one replica between them.
    """

    kind: Literal["alone", "ddp", "fsdp", "hybrid"]
    why: str
    shards: int

    def __str__(self) -> str:
        return f"parallel {self.kind} ({self.why})"


def choose(config: RunConfig, parameters: int, world: World) -> Sharding:
    """Decide how a model lies on the ranks; the same on every rank.

    Parameters
    ----------
    config : RunConfig
    parameters : int
    world : World

    Raises
    ------
    ConfigError
        If what was asked for does not go with the number of ranks.
    """
    _check(config, world)
    if world.size == 1:
        # copying every parameter through an all-gather of one costs up to a third of a step
        if config.precision == "fp32" and not config.offload:
            return Sharding("alone", "one rank", 1)
        return Sharding("fsdp", "one rank, for bf16 or offload", 1)
    inside = config.shard_ranks or world.local
    asked = {
        "ddp": Sharding("ddp", "as asked", 1),
        "fsdp": Sharding("fsdp", "as asked", world.size),
        "hybrid": Sharding("hybrid", f"as asked: {inside} ranks a replica", inside),
    }
    return asked.get(config.parallel) or _first_that_fits(config, parameters, world)


def _check(config: RunConfig, world: World) -> None:
    inside = config.shard_ranks or world.local
    if config.parallel == "hybrid" and world.size % inside:
        raise ConfigError(
            f"{inside} ranks a replica do not divide {world.size}",
            where="shard_ranks",
            remedy="choose a divisor of the number of ranks, or parallel=fsdp",
        )
    if config.offload and config.parallel == "ddp":
        raise ConfigError(
            "is for sharded models", where="offload", remedy="use --set parallel=fsdp or hybrid"
        )
    if config.accumulate * world.size > config.batch_size:
        raise ConfigError(
            f"{config.accumulate} micro-batches on {world.size} ranks are more than the "
            f"{config.batch_size} samples of a batch",
            where="accumulate",
            remedy="use fewer, or a larger --batch-size",
        )


def _first_that_fits(config: RunConfig, parameters: int, world: World) -> Sharding:
    """Take a replica per rank where it fits (it sends least), else one per machine, else one."""
    need, room = parameters * BYTES_PER_PARAMETER, int(_free(world) * REPLICA_SHARE)
    state = f"{need / 1e9:.1f} GB of weights, gradients and moments"
    if config.offload:
        return Sharding("fsdp", "auto: for offload", world.size)
    if config.precision == "bf16":
        # 2 x 2 P to gather and 4 P to scatter, where replicas sum 2 x 4 P; and shards take less
        return Sharding("fsdp", "auto: in bf16 shards send no more than replicas", world.size)
    if need <= room:
        return Sharding("ddp", f"auto: {state} fit in half of what each rank has free", 1)
    machines = world.size // world.local
    if machines > 1 and world.size % world.local == 0 and need <= room * world.local:
        return Sharding("hybrid", f"auto: {state} fit in half of a machine's memory", world.local)
    return Sharding("fsdp", f"auto: {state} do not fit in half of what a rank has free", world.size)


def _free(world: World) -> int:
    """Bytes of the tightest rank: of its GPU, or of its part of the machine."""
    if world.device.type == "cuda":
        mine = torch.cuda.mem_get_info(world.device)[0]
    else:
        mine = free_memory() // world.local
    found = world.gather(torch.tensor([mine]), world.size)
    return int(found.min())


def place(
    build: Callable[[], BrainAutoencoder],
    parameters: int,
    config: RunConfig,
    sharding: Sharding,
    world: World,
) -> nn.Module:
    """Build a model on this rank's device as was decided.

    Parameters
    ----------
    build : callable
        Gives the whole model, the same on every rank.
    parameters : int
        Of the model.
    config : RunConfig
        Precision, offload, recompute.
    sharding : Sharding
    world : World

    Returns
    -------
    nn.Module
        What is called in a step; :func:`bare` gives the model inside.
    """
    if sharding.kind == "alone":
        return _built(build, config).to(world.device)
    if sharding.kind == "ddp" and config.precision == "fp32":
        own = [world.device] if world.device.type == "cuda" else None
        return DistributedDataParallel(
            _built(build, config).to(world.device),
            device_ids=own,
            gradient_as_bucket_view=True,
        )
    mesh, turns = _mesh(sharding, world), _turns(parameters, world)
    mine = int(os.environ.get("LOCAL_RANK", "0")) % turns
    for _ in range(mine):
        world.barrier()
    model = _built(build, config)
    _shard(model, mesh, config)
    for _ in range(turns - mine):
        world.barrier()
    return model


def _built(build: Callable[[], BrainAutoencoder], config: RunConfig) -> BrainAutoencoder:
    model = build()
    if config.recompute:
        _recompute(model)
    return model


def _turns(parameters: int, world: World) -> int:
    """In how many turns the ranks of a machine build the model and keep their shards of it.

    1 where the whole models of all ranks fit beside each other on every machine, else a turn for
    each rank. The weights of all layers are drawn in order from one generator, so that a rank
    cannot draw its shard alone. The same on every rank.
    """
    mine = torch.tensor([[free_memory() // world.local, world.local]])
    found = world.gather(mine, world.size)
    fit = parameters * WEIGHT_BYTES <= int(found[:, 0].min()) * REPLICA_SHARE
    return 1 if fit else int(found[:, 1].max())


def bare(model: nn.Module) -> nn.Module:
    """Return the model without what DDP wraps around it: its own names, no hooks."""
    found: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
    return found


def _shard(model: BrainAutoencoder, mesh: DeviceMesh, config: RunConfig) -> None:
    """Shard block by block (FSDP2); only one block's weights are whole on a card at a time."""
    inner = whole = MixedPrecisionPolicy()
    if config.precision == "bf16":
        inner = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        # only the root's outputs: a block's feed bf16 weights of the block around it
        whole = replace(inner, output_dtype=torch.float32)
    offload = OffloadPolicy()
    if config.offload:
        offload = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda")
    for block in model.blocks():
        fully_shard(block, mesh=mesh, mp_policy=inner, offload_policy=offload)
    fully_shard(model, mesh=mesh, mp_policy=whole, offload_policy=offload)
    register_fsdp_forward_method(model, "encode")


def _mesh(sharding: Sharding, world: World) -> DeviceMesh:
    kind = world.device.type
    if sharding.shards == world.size:
        return init_device_mesh(kind, (world.size,), mesh_dim_names=("shard",))
    # ranks of a replica are neighbours, so that a machine's fast links carry its gathering
    shape = (world.size // sharding.shards, sharding.shards)
    return init_device_mesh(kind, shape, mesh_dim_names=("replicate", "shard"))


def _recompute(model: BrainAutoencoder) -> None:
    """Keep the inputs of encoder and decoder alone; what is inside is computed again."""
    model.encoder.trunk = checkpoint_wrapper(model.encoder.trunk)
    model.decoder = checkpoint_wrapper(model.decoder)


@contextmanager
def micro_batch(model: nn.Module, last: bool) -> Iterator[None]:
    """Hold gradients back from other replicas until the last micro-batch of a step.

    Shards are reduced behind every micro-batch: to keep whole gradients would cost each rank the
    memory that sharding saves.
    """
    if isinstance(model, DistributedDataParallel) and not last:
        with model.no_sync():
            yield
        return
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(last)
    yield


def clip(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    largest: float,
    known: Mapping[Tensor, Tensor] | None = None,
) -> float:
    """Make the next step take gradients of a norm of at most `largest`; returns their norm.

    Gradients below it are left alone: multiplying them by 1 would cost a pass over all of them.
    Above it, a fused optimiser divides by its `grad_scale` (what `torch.amp.GradScaler` sets)
    while it reads them, which saves that pass; sharded gradients are scaled beforehand.
    `known` are sums of squares by parameter (`gradient_norms`), whose gradients are not read.
    """
    known = known or {}
    held = [p for p in model.parameters() if p.grad is not None]
    gradients = [p.grad for p in held if p.grad is not None]
    sharded = [g for g in gradients if isinstance(g, DTensor)]
    local = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    sizes = [
        known[p] if p in known else sum_of_squares(g) for p, g in zip(held, local, strict=True)
    ]
    total = torch.stack(sizes).sum()
    if sharded:
        dist.all_reduce(total, group=sharded[0].device_mesh.get_group("shard"))
    norm = float(total.sqrt())
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    if norm > largest and sharded:
        for gradient in local:
            gradient.mul_(largest / norm)
    elif norm > largest:
        scale = torch.tensor(norm / largest, dtype=torch.float32, device=local[0].device)
        optimizer.grad_scale = scale  # type: ignore[attr-defined]
    return norm
