"""How a training is spread over its ranks, and who is told: nothing that decides its outcome."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Spread(BaseModel):
    """Settings that a run may be resumed with otherwise: losses agree but for rounding.

    Attributes
    ----------
    parallel : {"auto", "ddp", "fsdp", "hybrid"}
        `ddp`: a whole model on every rank; `fsdp`: weights, gradients and optimiser state divided
        among all ranks; `hybrid`: divided among `shard_ranks` ranks, with one replica for each such
        group; `auto` takes the first that fits (`sherlock_models.training.sharding`).
    shard_ranks : int or None
        Ranks that hold one replica between them under `hybrid`; None: those of a machine.
    offload : bool
        Keep weights, gradients and optimiser state in the machine's memory, and the optimiser's
        step on its processor; needs `fsdp` or `hybrid`.
    recompute : bool
        Compute encoder and decoder again in the backward pass instead of keeping their activations.
    accumulate : int
        Micro-batches that a rank's share of a global batch is worked off in.
    restarts : int
        How often a training whose rank died is begun again from its last checkpoint.
    tracker : {"none", "wandb", "trackio"}
        Who is told of every step beside TensorBoard (`sherlock_models.training.trackers`).
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    parallel: Literal["auto", "ddp", "fsdp", "hybrid"] = "auto"
    shard_ranks: int | None = Field(default=None, gt=0)
    offload: bool = False
    recompute: bool = False
    accumulate: int = Field(default=1, gt=0)
    restarts: int = Field(default=3, ge=0)
    tracker: Literal["none", "wandb", "trackio"] = "none"


def without_spread(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's values without those that only say how it is spread."""
    return {key: value for key, value in values.items() if key not in Spread.model_fields}
