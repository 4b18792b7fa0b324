"""A step shared by several ranks: memory of each, bytes between them, time.

Legend: N = ranks, P = trainable parameters, G = samples of the global batch, U = units of the brain
layer, b = parameters of a block that is sharded on its own, c = bytes of a number that is computed
with: 4 in fp32, 2 in bf16.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from sherlock_models.footprint import Footprint
from sherlock_models.machines import Machine
from sherlock_models.step_trace import FLOAT32

#: copies of a gradient that cross the links when all ranks must have the sum: there and back
_ALL_REDUCE = 2


@dataclass(frozen=True)
class Share:
    """One rank's share of a step.

    Attributes
    ----------
    ranks : int
    footprint : Footprint
        Of this rank's share of the global batch, unsharded.
    precision : {"fp32", "bf16"}
    gathered : int
        Bytes of the residuals that every rank gets of every other (the noisy brain channel), 4 G U.
    """

    ranks: int
    footprint: Footprint
    precision: str
    gathered: int = 0

    @property
    def number(self) -> int:
        """Bytes of a number that is computed with."""
        return 2 if self.precision == "bf16" else FLOAT32

    @property
    def unsharded(self) -> int:
        """Bytes of a rank that holds everything: weights, gradients, moments, activations."""
        return self.footprint.peak

    @property
    def sharded(self) -> int:
        """Bytes of a rank that holds its N-th of weights, gradients and moments (FSDP2).

        On top of them, for one block at a time, all of its weights, its gradient and the float32
        copy of that which is sent off, and the weights of the next block, which are on their way;
        and the activations.
        """
        one = self.footprint
        if self.ranks == 1 and self.precision == "fp32":
            return one.peak
        held = (one.weights + one.gradients + one.optimizer) // self.ranks
        return held + one.activations + self._transient()

    def _transient(self) -> int:
        *blocks, root = self.footprint.blocks
        pairs = [*pairwise([0, *blocks])]
        most = max((2 * self.number + FLOAT32) * b + self.number * next_ for next_, b in pairs)
        return most + self.number * root

    def sent(self, *, shards: bool) -> int:
        """Bytes that a rank sends in a step, as many as it receives.

        Sharded, the weights are gathered for the forward and for the backward pass and the
        gradients scattered, in float32: (N - 1) / N P (2 c + 4). Unsharded, the gradients are
        summed everywhere: 2 (N - 1) / N 4 P. Both with the ring or better (Rabenseifner 2004).
        """
        each = 2 * self.number + FLOAT32 if shards else _ALL_REDUCE * FLOAT32
        whole = each * self.footprint.trainable + self.gathered
        return whole * (self.ranks - 1) // self.ranks

    def compute_s(self, machine: Machine, *, shards: bool) -> float | None:
        """Shortest time of a rank's own work; None where the machine's speed is unknown."""
        flops = machine.flops(self.precision)
        if flops is None or machine.bandwidth is None:
            return None
        return self.footprint.seconds(flops, machine.bandwidth, self.ranks if shards else 1)

    def communication_s(self, machine: Machine, *, shards: bool) -> float | None:
        """Shortest time of what is sent; None where the links are unknown."""
        if self.ranks == 1:
            return 0.0
        joined = machine.joined(self.ranks)
        return None if joined is None else self.sent(shards=shards) / joined

    def step_s(self, machine: Machine, *, shards: bool) -> float | None:
        """Shortest time of a step: what is sent hides behind the work, as far as it can."""
        compute = self.compute_s(machine, shards=shards)
        sending = self.communication_s(machine, shards=shards)
        return None if compute is None or sending is None else max(compute, sending)
