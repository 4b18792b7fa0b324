"""Layers that the architectures share, each with the start it trains well from.

Legend: B = samples of a batch, H = hidden features, S = subjects.

Hidden layers start so that the size of the activations stays the same from layer to layer (He et
al. 2015, ICCV), with biases at zero. The layers that predict something (brain, stimuli) start
small: an untrained model then predicts about the mean of every target, which scores 1. In a toy
movie this start was down to a given loss two to four times sooner than one at full size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

#: gain of a layer that a ReLU follows
HIDDEN = math.sqrt(2.0)
#: gain of a layer that predicts a standardised target
PREDICTION = 0.1


def narrow(features: int, width: float) -> int:
    """Return the size of a hidden layer under `--set width=`: at least 1."""
    return max(1, round(features * width))


def _start(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, fan_in: float, gain: float) -> None:
    bound = gain * math.sqrt(3.0 / fan_in)
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class Dense(nn.Linear):
    """A dense layer, (B, inputs) to (B, outputs)."""

    def __init__(self, inputs: int, outputs: int, gain: float = HIDDEN) -> None:
        self.gain = gain
        super().__init__(inputs, outputs)

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's generator."""
        _start(self, self.in_features, self.gain)


class Down(nn.Conv2d):
    """A 3 x 3 convolution with stride 2 and padding 1: halves a picture, rounding up."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=3, stride=2, padding=1)

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's generator."""
        _start(self, self.weight[0].numel(), HIDDEN)


class Up(nn.ConvTranspose2d):
    """The mirror of `Down`: brings a picture back to exactly the size it was halved from.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    small, large : tuple of int
        (H, W) before and after; the output padding of each axis follows from them, since `Down`
        gives 2n and 2n - 1 the same n.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        small: tuple[int, int],
        large: tuple[int, int],
        gain: float = HIDDEN,
    ) -> None:
        self.gain = gain
        missing = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
        super().__init__(
            inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=missing
        )

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's generator."""
        # with stride 2 in both axes a pixel is the sum of a quarter of the kernel's 9 taps
        _start(self, self.in_channels * 9 / 4, self.gain)


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of a picture behind `Down`."""
    return ((size[0] + 1) // 2, (size[1] + 1) // 2)


def dense_stack(features: Sequence[int], last: float = HIDDEN) -> nn.Sequential:
    """Dense layers with ReLU between them and none behind the last.

    Parameters
    ----------
    features : sequence of int
        Sizes from the input to the output.
    last : float
        Gain of the last layer.
    """
    layers: list[nn.Module] = []
    pairs = list(pairwise(features))
    for index, (inputs, outputs) in enumerate(pairs):
        is_last = index == len(pairs) - 1
        layers += [Dense(inputs, outputs, last if is_last else HIDDEN)]
        layers += [] if is_last else [nn.ReLU()]
    return nn.Sequential(*layers)


class SubjectEmbedding(nn.Module):
    """A learned vector per subject, added to the encoder's last hidden layer *before* its ReLU.

    Behind the ReLU it could only shift each unit of the brain by a constant, which data that are
    standardised per subject do not have; before it, it decides which hidden features a subject's
    brain answers to. All vectors start at zero: every subject begins as the group.

    Parameters
    ----------
    subjects, features : int
    """

    def __init__(self, subjects: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(subjects, features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make every subject the same again."""
        nn.init.zeros_(self.weight)

    def forward(self, hidden: Tensor, subject: Tensor | None) -> Tensor:
        """Add the subjects' vectors.

        Parameters
        ----------
        hidden : Tensor, (B, H)
        subject : Tensor of int64, (B,), or None
            Row of each sample; -1, and None for all, is someone unseen: the mean of the rows.
        """
        mean = self.weight.mean(dim=0, keepdim=True)
        if subject is None:
            return hidden + mean
        # the mean is the last row, so that -1 finds it by itself
        return hidden + torch.cat([self.weight, mean])[subject]
