"""What a model returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.export import register_dataclass


@dataclass
class Output:
    """One pass from the movie through the brain and back, in normalised units.

    Attributes
    ----------
    brain : Tensor, (B, U)
        The brain as the encoder predicts it; what the brain term of the loss compares.
    read : Tensor, (B, U)
        What the decoder read: `brain` through the channel, 0 where there is no signal.
    stimulus : dict of Tensor
        The decoded current TR: pictures (B, 3, H, W), every other stimulus (B, F).
    """

    brain: Tensor
    read: Tensor
    stimulus: dict[str, Tensor]


# sharding (FSDP) and compiling look for tensors inside an output; a plain dataclass hides them
register_dataclass(Output)
