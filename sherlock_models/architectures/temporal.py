"""Features over a long stretch of the past, by a learned kernel over time, to the brain and back.

Legend: B = samples of a batch, D = delays, N = features of all stimuli in one TR, E = embedded
features, H = hidden layer before the brain, U = units of the brain layer.

    (B, D, N) - E at every delay - kernel over D, one per embedded feature (B, E) - H - brain (B, U)
    brain (B, U) - H - E - (B, N)

The dense layer of each TR and the kernel behind it, with no ReLU between, are a separable linear
filter: every embedded feature has a response of its own shape and latency, which a haemodynamic
response is to begin with (a finite impulse response, Dale 1999, Human Brain Mapping 8), and which
long movies stretch to a minute. With the one delay 0 the kernel is a number per feature: the same
model without a past. The movie comes back for the current TR alone.
"""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from sherlock_models.architectures.autoencoder import Architecture, BrainAutoencoder, Options
from sherlock_models.architectures.dense import DenseDecoder
from sherlock_models.architectures.layers import Dense, Kernel, narrow
from sherlock_models.sizes import Sizes


class TemporalOptions(Options):
    """Options of `temporal`.

    Attributes
    ----------
    embedded : int
        Features E that are kept of every TR, each with a kernel of its own.
    hidden : int
        Width H of the layer before the brain.
    """

    embedded: PositiveInt = 512
    hidden: PositiveInt = 512


class TemporalTrunk(nn.Module):
    """Every TR's features to the last hidden layer through a kernel over the delays."""

    def __init__(self, sizes: Sizes, embedded: int, hidden: int) -> None:
        super().__init__()
        self.names = tuple(sizes.stimulus)
        self.embed = Dense(sizes.features, embedded, gain=1.0)
        self.kernel = Kernel(len(sizes.delays), embedded)
        self.hidden = Dense(embedded, hidden)

    def forward(self, stimulus: dict[str, Tensor]) -> Tensor:
        """Take the stimuli to (B, H), without a ReLU behind it."""
        features = torch.cat([stimulus[name].flatten(2) for name in self.names], dim=2)
        hidden: Tensor = self.hidden(torch.relu(self.kernel(self.embed(features))))
        return hidden


def build(sizes: Sizes, options: TemporalOptions) -> BrainAutoencoder:
    """Build the model for any stimuli, any delays and any brain."""
    embedded, hidden = (narrow(n, options.width) for n in (options.embedded, options.hidden))
    trunk = TemporalTrunk(sizes, embedded, hidden)
    decoder = DenseDecoder(sizes, (embedded, hidden))
    return BrainAutoencoder.around(sizes, trunk, hidden, decoder, options)


ARCHITECTURE = Architecture(TemporalOptions, build)
