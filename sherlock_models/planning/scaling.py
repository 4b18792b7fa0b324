"""A step shared by several ranks: memory of each, bytes between them, time.

Legend: N = R S ranks on R machines with S each, P = trainable parameters, G = samples of the global
batch, U = units of the brain layer, b = parameters of a block that is sharded on its own, c = bytes
of a number that is computed with: 4 in fp32, 2 in bf16.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from sherlock_models.planning.footprint import Footprint
from sherlock_models.planning.machines import GPUS_PER_NODE, Machine
from sherlock_models.planning.step_trace import FLOAT32

#: copies of a gradient that cross the links when all ranks must have the sum: there and back
_ALL_REDUCE = 2
#: everything on every rank; divided among all; divided among a machine's, with a replica for each
Parallel = Literal["ddp", "fsdp", "hybrid"]


@dataclass(frozen=True)
class Traffic:
    """Bytes that a rank sends in a step, as many as it receives.

    Attributes
    ----------
    inside, between : int
        To ranks of its machine, and through its share of the machine's network.
    """

    inside: int
    between: int

    @property
    def whole(self) -> int:
        """All of them."""
        return self.inside + self.between


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
        """Bytes of a rank that holds its N-th of weights, gradients and moments (FSDP2)."""
        return self._divided(self.ranks)

    def peak(self, parallel: Parallel) -> int:
        """Bytes of a rank; `hybrid` divides by the ranks of a machine alone."""
        inside = min(self.ranks, GPUS_PER_NODE)
        return self._divided({"ddp": 1, "fsdp": self.ranks, "hybrid": inside}[parallel])

    def _divided(self, shards: int) -> int:
        """Bytes where so many ranks hold a replica between them.

        On top of them, for one block at a time, all of its weights, its gradient and the float32
        copy of that which is sent off, and the weights of the next block, which are on their way;
        and the activations.
        """
        one = self.footprint
        if shards == 1 and self.precision == "fp32":
            return one.peak
        held = (one.weights + one.gradients + one.optimizer) // shards
        return held + one.activations + self._transient()

    def _transient(self) -> int:
        *blocks, root = self.footprint.blocks
        pairs = [*pairwise([0, *blocks])]
        most = max((2 * self.number + FLOAT32) * b + self.number * next_ for next_, b in pairs)
        return most + self.number * root

    def sent(self, parallel: Parallel) -> Traffic:
        """Bytes of a step's collectives, per rank.

        A ring, or better, moves (N - 1) / N of what it gathers or scatters past each rank, and all
        of a sum twice (Rabenseifner 2004); of several machines the ring is two rings, so that
        each byte enters a machine once: (S - 1) / S inside, (R - 1) / R by its S ports together.

        ========  ==================================================================  =============
        way       what moves                                                          bytes
        ========  ==================================================================  =============
        `ddp`     the sum of the gradients                                            2 x 4 P
        `fsdp`    weights, gathered for the forward and the backward pass; gradients  2 c P + 4 P
        `hybrid`  the same inside; between machines the sum of each rank's gradients  2 x 4 P / S
        any       residuals of the noisy brain channel, gathered                      4 G U
        ========  ==================================================================  =============
        """
        inside, machines = min(self.ranks, GPUS_PER_NODE), -(-self.ranks // GPUS_PER_NODE)
        gradients = _ALL_REDUCE * FLOAT32 * self.footprint.trainable
        shards = (2 * self.number + FLOAT32) * self.footprint.trainable
        near = gradients if parallel == "ddp" else shards
        far = shards if parallel == "fsdp" else gradients
        return Traffic(
            (near + self.gathered) * (inside - 1) // inside,
            (far + self.gathered) * (machines - 1) // (machines * inside),
        )

    def compute_s(self, machine: Machine, parallel: Parallel) -> float | None:
        """Shortest time of a rank's own work; None where the machine's speed is unknown."""
        flops = machine.flops(self.precision)
        if flops is None or machine.bandwidth is None:
            return None
        inside = min(self.ranks, GPUS_PER_NODE)
        shards = {"ddp": 1, "fsdp": self.ranks, "hybrid": inside}[parallel]
        return self.footprint.seconds(flops, machine.bandwidth, shards)

    def communication_s(self, machine: Machine, parallel: Parallel) -> float | None:
        """Shortest time of what is sent, links and network at work together; None if unknown."""
        if self.ranks == 1:
            return 0.0
        sent = self.sent(parallel)
        return machine.transfer_s(sent.inside, sent.between)

    def step_s(self, machine: Machine, parallel: Parallel) -> float | None:
        """Shortest time of a step: what is sent hides behind the work, as far as it can."""
        compute = self.compute_s(machine, parallel)
        sending = self.communication_s(machine, parallel)
        return None if compute is None or sending is None else max(compute, sending)
