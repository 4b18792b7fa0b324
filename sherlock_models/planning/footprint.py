"""What one training step takes, traced on the meta device: nothing is allocated, nothing guessed.

The model is built without storage and sent through the training's own forward pass, channel, loss
and backward pass. Every tensor that comes to be is counted until it goes; every operation is noted
with its floating-point operations and the bytes it reads and writes.

Legend: B = samples of this rank's share of a batch, G = samples of the global batch, U = units of
the brain layer, P = parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sherlock_models.config import RunConfig
from sherlock_models.feeding.batch import Batch
from sherlock_models.parallel import World
from sherlock_models.planning.step_trace import FLOAT32, META, Part, StepTrace
from sherlock_models.sizes import BRAIN, Sizes
from sherlock_models.training.channel import GlobalBatch, NoisyBrain
from sherlock_models.training.objective import Objective
from sherlock_models.zoo import build_model

#: AdamW's moments of a parameter
MOMENTS = 2
#: bytes read and written per parameter behind the backward pass: the norm of the gradient reads
#: it, clipping reads and writes it; fused AdamW reads weight, gradient and both moments and writes
#: all but the gradient
UPDATE_BYTES = FLOAT32 * (1 + 2 + 4 + 3)
#: TRs between the samples of the traced batch: far enough that all find a partner for their noise
_APART = 1_000


@dataclass(frozen=True)
class Footprint:
    """What a step takes on one rank, unsharded.

    Attributes
    ----------
    parameters, trainable : int
        Numbers; a frozen part has weights but neither gradients nor moments.
    parts : tuple of Part
        Leaves of the module tree, in order.
    blocks : tuple of int
        Trainable parameters of every block that is sharded on its own, the root's rest last.
    weights, gradients, optimizer : int
        Bytes, float32.
    activations : int
        Most bytes of everything else alive at one time: batch, activations, gradients of
        activations.
    batch : int
        Bytes of the batch alone, part of `activations`.
    peak : int
        Most bytes alive at one time. Less than the sum of the four where the activations are gone
        before the last gradient is there.
    resident : int
        Most bytes of the process that train it on a processor: what the C library's allocator
        takes below `step_trace.HEAP_BLOCK` it keeps when it is freed.
    forward_flops, flops : int
        Floating-point operations of the forward pass, and of the whole step; a multiplication with
        its addition counts as two.
    work : tuple of (int, int)
        FLOPs and bytes of every operation but the optimiser's.
    """

    parameters: int
    trainable: int
    parts: tuple[Part, ...]
    blocks: tuple[int, ...]
    weights: int
    gradients: int
    optimizer: int
    activations: int
    batch: int
    peak: int
    resident: int
    forward_flops: int
    flops: int
    work: tuple[tuple[int, int], ...]

    def seconds(self, flops_per_s: float, bytes_per_s: float, shards: int = 1) -> float:
        """Shortest time of a step: every operation waits for its sums or its bytes (roofline).

        Williams, Waterman & Patterson 2009, CACM 52(4). No kernel reaches the stated peaks.

        Parameters
        ----------
        flops_per_s, bytes_per_s : float
            Of the arithmetic units and of the memory.
        shards : int
            Ranks that share the update of the weights.
        """
        update = UPDATE_BYTES * self.trainable / shards / bytes_per_s
        return update + sum(max(f / flops_per_s, b / bytes_per_s) for f, b in self.work)


def measure(config: RunConfig, sizes: Sizes, batch: int, ranks: int = 1) -> Footprint:
    """Trace one training step of a configuration.

    Parameters
    ----------
    config : RunConfig
        Entry, options, precision, noise and forcing; needs no store.
    sizes : Sizes
    batch : int
        Global batch; the first of the `ranks` is traced.
    ranks : int
    """
    with META:
        model = build_model(config.model_entry, sizes, config.model_options)
    weights = _bytes(model.parameters(), FLOAT32)
    trainable = [p for p in model.parameters() if p.requires_grad]
    moving = sum(p.numel() for p in trainable)
    if config.precision == "bf16":
        model.to(torch.bfloat16)
    share = -(-batch // ranks)
    trace = StepTrace(model)
    batch_bytes = _step(config, sizes, model, trace, share, _Planned(0, ranks, META, batch))
    peak, activations, resident = trace.peaks()
    optimizer = MOMENTS * FLOAT32 * moving + FLOAT32 * len(trainable)
    static = weights + optimizer
    return Footprint(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=moving,
        parts=trace.parts(model),
        blocks=_blocks(model),
        weights=weights,
        gradients=FLOAT32 * moving,
        optimizer=optimizer,
        activations=activations,
        batch=batch_bytes,
        peak=static + peak,
        resident=static + resident,
        forward_flops=trace.forward_flops,
        flops=sum(flops for flops, _ in trace.work),
        work=tuple(trace.work),
    )


def _step(
    config: RunConfig,
    sizes: Sizes,
    model: nn.Module,
    trace: StepTrace,
    share: int,
    world: _Planned,
) -> int:
    """Forward pass, channel, loss and backward pass, as `Trainer.step` makes them.

    Returns
    -------
    int
        Bytes of the batch.
    """
    terms = config.terms
    objective = Objective(
        variance=dict.fromkeys(terms, 1.0),
        weights={term: config.weights.get(term, 1.0) for term in terms},
    )
    with META:
        variance = torch.ones(sizes.units)
    noise = NoisyBrain(config.brain_noise, config.brain_forcing, 0, world, variance)
    rows = np.arange(world.batch)
    whole = GlobalBatch(np.zeros_like(rows), rows * _APART, np.zeros_like(rows))
    model.train()
    with trace:
        batch = _batch(config, sizes, share)
        batch_bytes = trace.kept
        channel = None if config.is_compressor else noise.at(0, whole, batch)
        dtype = next(model.parameters()).dtype
        with trace.tracker:
            output = model(
                {name: value.to(dtype) for name, value in batch.stimulus.items()},
                subject=batch.embedding if config.subject == "embedding" else None,
                signal=batch.signal,
                channel=channel,
            )
        sums, counts = objective.sums(output, batch), objective.counts(batch)
        trace.forward_is_done()
        loss = objective.combine(sums / counts.clamp(min=1).float())
        torch.autograd.backward(loss)
    return batch_bytes


def _batch(config: RunConfig, sizes: Sizes, samples: int) -> Batch:
    """Make a batch without values; only the positions, which index real tables, are real."""
    now = sizes.delays.index(0) if 0 in sizes.delays else None
    with META:
        brain = torch.empty(samples, math.prod(sizes.brain))
        signal = torch.ones(samples, math.prod(sizes.brain), dtype=torch.bool)
        index = torch.zeros(samples, dtype=torch.int64)
        stimulus = {
            name: brain[:, None]
            if name == BRAIN
            else torch.empty(samples, *sizes.input_shape(name))
            for name in sizes.stimulus
        }
        target = {
            name: torch.empty(samples, *sizes.output_shape(name))
            if now is None
            else stimulus[name][:, now]
            for name in config.terms
            if name != BRAIN
        }
    return Batch(
        stimulus=stimulus,
        target=target,
        brain=brain,
        signal=signal,
        subject=index,
        tr=index,
        run=index,
        embedding=index,
        position=torch.arange(samples),
    )


@dataclass(frozen=True)
class _Planned(World):
    """A rank among others that are not there."""

    batch: int

    def sum(self, values: Tensor) -> Tensor:
        """Nothing to add."""
        return values

    def gather(self, rows: Tensor, batch: int) -> Tensor:
        """Take the memory that everyone's rows would."""
        if self.size == 1:
            return rows
        pieces = [torch.empty_like(rows) for _ in range(self.size)]
        return torch.cat(pieces)[:batch]


def _bytes(parameters: Iterable[nn.Parameter], each: int) -> int:
    return sum(p.numel() * each for p in parameters)


def _blocks(model: nn.Module) -> tuple[int, ...]:
    """Trainable parameters of the blocks that are sharded each on its own; the rest comes last."""
    taken: set[int] = set()
    sizes = []
    for block in [*model.blocks(), model]:  # type: ignore[operator]
        own = [p for p in block.parameters() if id(p) not in taken]
        taken |= {id(p) for p in own}
        sizes.append(sum(p.numel() for p in own))
    return tuple(sizes)
