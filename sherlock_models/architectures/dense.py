"""Dense layers from the whole stimulus to the brain and back (Architecture 1 of the analysis).

Legend: B = samples of a batch, D = delays, N = numbers of all stimuli in one TR, U = units of the
brain layer, H1 ... Hn = hidden layers.

    (B, D x N) - H1 - ... - Hn - brain (B, U) - Hn - ... - H1 - (B, N)

ReLU behind every hidden layer, none on the brain layer or the outputs. With one hidden layer before
a narrower "brain" it is also the stage that compresses a brain or reads a compressed one.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sherlock_models.architectures.autoencoder import Architecture, BrainAutoencoder, Options
from sherlock_models.architectures.layers import PREDICTION, dense_stack, narrow
from sherlock_models.sizes import Sizes


class DenseOptions(Options):
    """Options of `dense`.

    Attributes
    ----------
    hidden : tuple of int
        Hidden layers of the encoder in order; the decoder mirrors them.
    """

    hidden: tuple[PositiveInt, ...] = Field(default=(10_000, 5_000, 1_000, 500), min_length=1)


class DenseTrunk(nn.Module):
    """Every number of every stimulus at every delay, (B, D x N), to the last hidden layer."""

    def __init__(self, sizes: Sizes, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.names = tuple(sizes.stimulus)
        self.layers = dense_stack((len(sizes.delays) * sizes.features, *hidden))

    def forward(self, stimulus: dict[str, Tensor]) -> Tensor:
        """Take the stimuli to (B, Hn), without a ReLU behind it."""
        flat = torch.cat([stimulus[name].flatten(1) for name in self.names], dim=1)
        hidden: Tensor = self.layers(flat)
        return hidden


class DenseDecoder(nn.Module):
    """The brain (B, U) to every number of the current TR, given back by stimulus."""

    def __init__(self, sizes: Sizes, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.shapes = {name: sizes.output_shape(name) for name in sizes.stimulus}
        self.layers = dense_stack((sizes.units, *reversed(hidden), sizes.features), PREDICTION)

    def forward(self, read: Tensor) -> dict[str, Tensor]:
        """Take the brain (B, U) to the stimuli."""
        numbers = [math.prod(shape) for shape in self.shapes.values()]
        pieces = torch.split(self.layers(read), numbers, dim=1)
        # copies, since the output of a sharded module must not be a view
        return {
            name: piece.reshape(len(read), *shape).clone()
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }


def build(sizes: Sizes, options: DenseOptions) -> BrainAutoencoder:
    """Build the model for any stimuli and any brain."""
    hidden = tuple(narrow(features, options.width) for features in options.hidden)
    trunk, decoder = DenseTrunk(sizes, hidden), DenseDecoder(sizes, hidden)
    return BrainAutoencoder.around(sizes, trunk, hidden[-1], decoder, options)


ARCHITECTURE = Architecture(DenseOptions, build)
