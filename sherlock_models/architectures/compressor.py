"""A brain to a code and back: stage 1 of the analysis' two stages.

Legend: B = samples of a batch, U = units of the brain (voxels), C = units of the code, H = hidden.

    brain (B, U) - H - code (B, C) - H - brain (B, U)

Its stimulus is `brain`, the standardised brain of the sample's own subject and TR; what lies in the
middle is a free code, which has no target of its own. ReLU behind every hidden layer, none on the
code or the brain. It is the nonlinear sibling of PCA, and stage 2 (`dense-compressed`) holds its
own middle to either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pydantic import Field, PositiveInt
from torch import Tensor

from sherlock_data.errors import ConfigError
from sherlock_models.architectures.autoencoder import (
    Architecture,
    BrainAutoencoder,
    Encoder,
    Options,
)
from sherlock_models.architectures.dense import DenseDecoder, DenseTrunk
from sherlock_models.architectures.layers import Dense, SubjectEmbedding, narrow
from sherlock_models.output import Output
from sherlock_models.sizes import BRAIN, Sizes


class CompressorOptions(Options):
    """Options of `compressor`.

    Attributes
    ----------
    hidden : tuple of int
        Hidden layers between brain and code in order; the way back mirrors them.
    code : int
        Units C of the code; `width` leaves them alone.
    """

    hidden: tuple[PositiveInt, ...] = Field(default=(4_000,), min_length=1)
    code: PositiveInt = 5_000


class BrainCompressor(BrainAutoencoder):
    """A brain autoencoder around a free code.

    `sizes.stimulus` is `{"brain": (U,)}` and `sizes.brain` the code, `(C,)`; in an `Output`,
    `brain` is the code and `stimulus["brain"]` the brain that came back.
    """

    def compress(self, brain: Tensor, subject: Tensor | None = None) -> Tensor:
        """Take standardised brains to their codes.

        Parameters
        ----------
        brain : Tensor, (B, U)
            0 where the subject has no signal.
        subject : Tensor of int64, (B,), optional
            As :meth:`encode` takes it.

        Returns
        -------
        Tensor, (B, C)

        Raises
        ------
        ConfigError
            If the brains have another number of units.
        """
        return self.encode({BRAIN: brain[:, None]}, subject)

    def expand(self, code: Tensor) -> Tensor:
        """Take codes (B, C) back to standardised brains (B, U).

        Raises
        ------
        ConfigError
            If the codes have another number of units.
        """
        return self.decode(code)[BRAIN]

    def forward(
        self,
        stimulus: dict[str, Tensor],
        subject: Tensor | None = None,
        signal: Tensor | None = None,
        channel: Callable[[Tensor], Tensor] | None = None,
    ) -> Output:
        """From the brain through the code to the brain.

        Parameters
        ----------
        stimulus, subject
            As `encode` takes them.
        signal : Tensor of bool, (B, U), optional
            Where the subject's *brain* has signal (a code has it everywhere); the encoder reads 0
            elsewhere.
        channel : callable, optional
            What lies between the code and the one that is read, (B, C) to (B, C).
        """
        if signal is not None and BRAIN in stimulus:
            silent = signal.logical_not()[:, None]
            stimulus = {**stimulus, BRAIN: stimulus[BRAIN].masked_fill(silent, 0.0)}
        return super().forward(stimulus, subject, None, channel)


def build(sizes: Sizes, options: CompressorOptions) -> BrainCompressor:
    """Build the model for a brain that is its own stimulus.

    Parameters
    ----------
    sizes : Sizes
        `stimulus` is `{"brain": (U,)}`; `brain` is the store's, whose code takes its place here.
    options : CompressorOptions

    Raises
    ------
    ConfigError
        If it is given another stimulus, or delays: a code is of one TR.
    """
    if tuple(sizes.stimulus) != (BRAIN,) or tuple(sizes.delays) != (0,):
        raise ConfigError(
            f"wants the stimulus 'brain' at delay 0; found {', '.join(sizes.stimulus)} at "
            f"{', '.join(map(str, sizes.delays))}",
            where="architecture compressor",
            remedy="leave out --set stimulus= and delays=",
        )
    coded = replace(sizes, brain=(options.code,))
    hidden = tuple(narrow(features, options.width) for features in options.hidden)
    embedding = SubjectEmbedding(sizes.subjects, hidden[-1]) if options.subject_embedding else None
    # a free code starts at the size of the hidden layers: it has no target whose mean to predict
    encoder = Encoder(DenseTrunk(coded, hidden), Dense(hidden[-1], options.code), embedding)
    return BrainCompressor(coded, encoder, DenseDecoder(coded, hidden), options)


ARCHITECTURE = Architecture(CompressorOptions, build)
