"""Convolutions for the video, dense paths for everything else (Architecture 2 of the analysis).

Legend: B = samples of a batch, D = delays, F = features of a vector stimulus, U = units of the
brain layer, C = channels of a picture, (h, w) = its size behind the convolutions, V = width of the
video's path, A = width of every other path, H = hidden layer before the brain.

    video  (B, D x 3, y, x) - Conv2D ... (C, h, w) - C h w - V \
                                                                 V + A - H - brain (B, U)
    audio  (B, D x F) ------------------------------------- A /
    brain  (B, U) - H - V + A - video: V - C h w - ConvTranspose2D ... (B, 3, y, x)
                              - audio: A - A - F

Convolutions are 3 x 3 with stride 2 and padding 1. ReLU behind every hidden layer, none on the
brain layer or the outputs. A silent movie has no path of its own for the sound.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sherlock_data.errors import ConfigError
from sherlock_models.architectures.autoencoder import BrainAutoencoder, Options
from sherlock_models.architectures.layers import (
    PREDICTION,
    Dense,
    Down,
    Up,
    dense_stack,
    halved,
    narrow,
)
from sherlock_models.sizes import Sizes

VIDEO = "video"


class ConvOptions(Options):
    """Options of `conv`.

    Attributes
    ----------
    channels : tuple of int
        Of the convolutions in order; each halves the picture.
    video : int
        Width V of the video's path.
    audio : int
        Width A of the path of the audio, and of any other vector stimulus.
    hidden : int
        Width H of the layer before the brain.
    """

    channels: tuple[PositiveInt, ...] = Field(default=(32, 64, 128, 256), min_length=1)
    video: PositiveInt = 1024
    audio: PositiveInt = 256
    hidden: PositiveInt = 512

    def narrowed(self) -> ConvOptions:
        """Return the layers' own sizes, `width` multiplied out."""
        sizes = {
            name: narrow(getattr(self, name), self.width) for name in ("video", "audio", "hidden")
        }
        channels = tuple(narrow(n, self.width) for n in self.channels)
        return self.model_copy(update={**sizes, "channels": channels, "width": 1.0})


class ConvTrunk(nn.Module):
    """Paths of the stimuli, joined in the last hidden layer."""

    def __init__(self, sizes: Sizes, layers: ConvOptions) -> None:
        super().__init__()
        delays = len(sizes.delays)
        channels = (3 * delays, *layers.channels)
        picture = _picture_sizes(sizes, len(layers.channels))[-1]
        self.vectors = tuple(sizes.vectors)
        self.convolutions = nn.Sequential(
            *(step for pair in pairwise(channels) for step in (Down(*pair), nn.ReLU()))
        )
        self.video = Dense(channels[-1] * math.prod(picture), layers.video)
        self.others = nn.ModuleList(
            Dense(delays * features, layers.audio) for features in sizes.vectors.values()
        )
        self.join = Dense(layers.video + len(self.vectors) * layers.audio, layers.hidden)

    def forward(self, stimulus: dict[str, Tensor]) -> Tensor:
        """Take the stimuli to (B, H), without a ReLU behind it."""
        picture = self.convolutions(stimulus[VIDEO].flatten(1, 2))
        paths = [self.video(picture.flatten(1))]
        paths += [
            path(stimulus[name].flatten(1))
            for name, path in zip(self.vectors, self.others, strict=True)
        ]
        joined: Tensor = self.join(torch.relu(torch.cat(paths, dim=1)))
        return joined


class ConvDecoder(nn.Module):
    """The mirror of the encoder, for the current TR alone."""

    def __init__(self, sizes: Sizes, layers: ConvOptions) -> None:
        super().__init__()
        pictures = _picture_sizes(sizes, len(layers.channels))[::-1]
        channels = (*reversed(layers.channels), 3)
        self.vectors = tuple(sizes.vectors)
        self.widths = [layers.video, *(layers.audio for _ in self.vectors)]
        self.first = (channels[0], *pictures[0])
        self.split = dense_stack((sizes.units, layers.hidden, sum(self.widths)))
        self.video = Dense(layers.video, math.prod(self.first))
        self.convolutions = _growing(channels, pictures)
        self.others = nn.ModuleList(
            dense_stack((layers.audio, layers.audio, features), PREDICTION)
            for features in sizes.vectors.values()
        )

    def forward(self, read: Tensor) -> dict[str, Tensor]:
        """Take the brain (B, U) to the stimuli."""
        paths = torch.split(torch.relu(self.split(read)), self.widths, dim=1)
        picture = torch.relu(self.video(paths[0])).reshape(len(read), *self.first)
        decoded = {VIDEO: self.convolutions(picture)}
        for name, path, hidden in zip(self.vectors, self.others, paths[1:], strict=True):
            decoded[name] = path(hidden)
        return decoded


def _growing(channels: tuple[int, ...], pictures: list[tuple[int, int]]) -> nn.Sequential:
    """Transposed convolutions from the smallest picture to the whole, no ReLU behind the last."""
    steps: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise(channels)):
        is_last = index == len(channels) - 2
        gain = {"gain": PREDICTION} if is_last else {}
        steps.append(Up(inputs, outputs, pictures[index], pictures[index + 1], **gain))
        steps += [] if is_last else [nn.ReLU()]
    return nn.Sequential(*steps)


def _picture_sizes(sizes: Sizes, convolutions: int) -> list[tuple[int, int]]:
    """(H, W) of the video before and behind every convolution."""
    height, width, _ = sizes.stimulus[VIDEO]
    pictures = [(height, width)]
    for _ in range(convolutions):
        pictures.append(halved(pictures[-1]))
    return pictures


def build(sizes: Sizes, options: ConvOptions) -> BrainAutoencoder:
    """Build the model for a video, with any other stimuli beside it.

    Raises
    ------
    ConfigError
        If there is no video.
    """
    if VIDEO not in sizes.stimulus:
        raise ConfigError(
            f"wants the stimulus 'video', found {', '.join(sizes.stimulus)}",
            where="architecture conv",
            remedy="name video in --set stimulus=, or train a dense entry",
        )
    layers = options.narrowed()
    trunk, decoder = ConvTrunk(sizes, layers), ConvDecoder(sizes, layers)
    return BrainAutoencoder.around(sizes, trunk, layers.hidden, decoder, options)
