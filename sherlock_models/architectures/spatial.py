"""A brain layer that keeps its three dimensions (Architecture 3 of the analysis).

Legend: B = samples of a batch, (x, y, z) = cells of the brain's grid, U = x y z, (i, j, k) = cells
of the seed, S = its channels, C = channels of a grid, H = hidden layers before the seed.

    stimuli - paths - joined - H - S i j k -> (S, i, j, k) - grown to (C, x, y, z) - (1, x, y, z)
    brain (B, U) -> (1, x, y, z) - (C, x, y, z) - shrunk to (S, i, j, k) -> S i j k - H - stimuli

The seed grows by transposed convolutions of stride 2, one of `growth` each, then by convolutions
at full size, `grid`; a 1 x 1 x 1 convolution makes the brain. All others are 3 x 3 x 3. With
`growth` left empty the seed has the grid's own size, as the analysis drew it, and the dense layers
to and from every cell of it hold nearly all parameters. The grid's size is the store's. ReLU behind
every hidden layer, none on the brain layer or the outputs, and no BatchNorm, whose running
statistics differ from rank to rank.

Cells outside the mask have no target and no noise: `forward`'s `signal` closes them.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sherlock_data.errors import ConfigError
from sherlock_models.architectures.autoencoder import Architecture, BrainAutoencoder, Encoder
from sherlock_models.architectures.conv import ConvDecoder, ConvOptions, ConvTrunk, check_picture
from sherlock_models.architectures.layers import (
    PREDICTION,
    Conv3,
    Dense,
    Down3,
    SubjectEmbedding,
    Up3,
    shrunk,
)
from sherlock_models.sizes import Sizes


class SpatialOptions(ConvOptions):
    """Options of `spatial`, beside those of `conv`.

    Attributes
    ----------
    seed_channels : int
        Channels S of the seed.
    growth : tuple of int
        Channels of the transposed convolutions in order; each doubles the grid.
    grid : tuple of int
        Channels of the convolutions at full size in order.
    vector_layers : int
        Dense layers between the split and a vector stimulus in the decoder.
    """

    NARROWED: ClassVar[tuple[str, ...]] = (
        *ConvOptions.NARROWED,
        "seed_channels",
        "growth",
        "grid",
    )

    seed_channels: PositiveInt = 64
    growth: tuple[PositiveInt, ...] = (32, 16, 8)
    grid: tuple[PositiveInt, ...] = ()
    vector_layers: int = Field(default=2, ge=1)


class GridHead(nn.Module):
    """The last hidden layer (B, H) to every cell of the brain's grid (B, U)."""

    def __init__(self, brain: tuple[int, ...], hidden: int, layers: SpatialOptions) -> None:
        super().__init__()
        sizes = shrunk(brain, len(layers.growth))[::-1]
        self.first = (layers.seed_channels, *sizes[0])
        self.seed = Dense(hidden, math.prod(self.first))
        channels = (layers.seed_channels, *layers.growth)
        steps: list[nn.Module] = []
        for index, pair in enumerate(pairwise(channels)):
            steps += [nn.ReLU(), Up3(*pair, sizes[index], sizes[index + 1])]
        for pair in pairwise((channels[-1], *layers.grid)):
            steps += [nn.ReLU(), Conv3(*pair)]
        last = (*channels, *layers.grid)[-1]
        steps += [nn.ReLU(), Conv3(last, 1, kernel=1, gain=PREDICTION)]
        self.convolutions = nn.Sequential(*steps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Predict the brain, its grid flattened in the order (x, y, z)."""
        seed = self.seed(hidden).reshape(len(hidden), *self.first)
        grid: Tensor = self.convolutions(seed)
        # flatten of (B, 1, x, y, z) is a view, which the output of a sharded module must not be
        return grid.flatten(1).clone()


class GridReader(nn.Module):
    """The brain (B, U) to its seed (B, S i j k), every layer with a ReLU behind it."""

    def __init__(self, brain: tuple[int, ...], layers: SpatialOptions) -> None:
        super().__init__()
        self.brain = brain
        self.features = layers.seed_channels * math.prod(shrunk(brain, len(layers.growth))[-1])
        full = (1, *reversed(layers.grid), (layers.seed_channels, *layers.growth)[-1])
        steps: list[nn.Module] = []
        for pair in pairwise(full):
            steps += [Conv3(*pair), nn.ReLU()]
        for pair in pairwise((*reversed(layers.growth), layers.seed_channels)):
            steps += [Down3(*pair), nn.ReLU()]
        self.convolutions = nn.Sequential(*steps)

    def forward(self, read: Tensor) -> Tensor:
        """Take the brain to the seed."""
        seed: Tensor = self.convolutions(read.reshape(len(read), 1, *self.brain))
        return seed.flatten(1)


class SpatialDecoder(nn.Module):
    """The brain (B, U) through its seed to the stimuli."""

    def __init__(self, sizes: Sizes, layers: SpatialOptions) -> None:
        super().__init__()
        self.reader = GridReader(sizes.brain, layers)
        self.stimuli = ConvDecoder(sizes, layers, self.reader.features, layers.vector_layers)

    def forward(self, read: Tensor) -> dict[str, Tensor]:
        """Take the brain to the stimuli."""
        decoded: dict[str, Tensor] = self.stimuli(self.reader(read))
        return decoded


def build(sizes: Sizes, options: SpatialOptions) -> BrainAutoencoder:
    """Build the model for pictures and a brain that is a grid.

    Raises
    ------
    ConfigError
        If there is no picture, or the brain is no grid.
    """
    check_picture(sizes, "spatial")
    if len(sizes.brain) != 3:
        raise ConfigError(
            f"wants a brain that is a grid (x, y, z), found {sizes.units:,} units in a row",
            where="architecture spatial",
            remedy="--set brain=grid (the store 'volumes')",
        )
    layers = options.narrowed()
    hidden = layers.hidden[-1]
    embedding = SubjectEmbedding(sizes.subjects, hidden) if options.subject_embedding else None
    head = GridHead(sizes.brain, hidden, layers)
    encoder = Encoder(ConvTrunk(sizes, layers), head, embedding)
    return BrainAutoencoder(sizes, encoder, SpatialDecoder(sizes, layers), options)


ARCHITECTURE = Architecture(SpatialOptions, build)
