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


#: a convolution of a sound: samples it moves on by, and its length
SOUND_STRIDE, SOUND_KERNEL = 8, 17


def _start(layer: nn.Linear | nn.modules.conv._ConvNd, fan_in: float, gain: float) -> None:
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
        small: tuple[int, ...],
        large: tuple[int, ...],
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


class Conv3(nn.Conv3d):
    """A 3-D convolution that keeps the size of the grid.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel : int
        Odd; 1 mixes the channels of each cell.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, gain: float = HIDDEN) -> None:
        self.gain = gain
        super().__init__(inputs, outputs, kernel_size=kernel, padding=kernel // 2)

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's generator."""
        _start(self, self.weight[0].numel(), self.gain)


class Down3(nn.Conv3d):
    """A 3 x 3 x 3 convolution with stride 2 and padding 1: halves a grid, rounding up."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=3, stride=2, padding=1)

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's generator."""
        _start(self, self.weight[0].numel(), HIDDEN)


class Up3(nn.ConvTranspose3d):
    """The mirror of `Down3`: grows a grid to exactly the size it was halved from.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    small, large : tuple of int
        (x, y, z) before and after.
    """

    def __init__(
        self, inputs: int, outputs: int, small: tuple[int, ...], large: tuple[int, ...]
    ) -> None:
        x, y, z = (many - 2 * few + 1 for few, many in zip(small, large, strict=True))
        super().__init__(
            inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=(x, y, z)
        )

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's generator."""
        # with stride 2 in three axes a cell is the sum of an eighth of the kernel's 27 taps
        _start(self, self.in_channels * 27 / 8, HIDDEN)


class DownSound(nn.Conv1d):
    """A strided convolution over a sound's samples: an eighth of them is left, rounded up."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            inputs, outputs, SOUND_KERNEL, stride=SOUND_STRIDE, padding=SOUND_KERNEL // 2
        )

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's generator."""
        _start(self, self.weight[0].numel(), HIDDEN)


class UpSound(nn.ConvTranspose1d):
    """The mirror of `DownSound`: from `small` samples to exactly `large`."""

    def __init__(
        self, inputs: int, outputs: int, small: int, large: int, gain: float = HIDDEN
    ) -> None:
        self.gain = gain
        super().__init__(
            inputs,
            outputs,
            SOUND_KERNEL,
            stride=SOUND_STRIDE,
            padding=SOUND_KERNEL // 2,
            output_padding=large - SOUND_STRIDE * (small - 1) - 1,
        )

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's generator."""
        _start(self, self.in_channels * SOUND_KERNEL / SOUND_STRIDE, self.gain)


def shrunk(size: tuple[int, ...], times: int, by: int = 2) -> list[tuple[int, ...]]:
    """Return a size before and behind each of `times` convolutions with stride `by`.

    Works for a picture's (H, W), a grid's (x, y, z) and a sound's (samples,).
    """
    sizes = [size]
    for _ in range(times):
        sizes.append(tuple(-(-n // by) for n in sizes[-1]))
    return sizes


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


class Kernel(nn.Module):
    """A kernel over the delays for each feature, (B, D, features) to (B, features).

    It starts as the mean of the delays times sqrt(D), which keeps the size of features that are
    independent from TR to TR; with one delay, as the feature itself.

    Parameters
    ----------
    delays, features : int
    """

    def __init__(self, delays: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(delays, features))
        self.bias = nn.Parameter(torch.empty(features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make every delay count the same again."""
        nn.init.constant_(self.weight, 1 / math.sqrt(len(self.weight)))
        nn.init.zeros_(self.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Weigh the delays of each feature and add them."""
        return torch.einsum("bdf,df->bf", values, self.weight) + self.bias


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
