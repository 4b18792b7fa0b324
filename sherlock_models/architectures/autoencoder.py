"""The frame of every architecture: movie -> brain -> movie, with the brain as the only way through.

Legend: B = samples of a batch, D = delays, F = features of a vector stimulus, H = features of the
encoder's last hidden layer, U = units of the brain layer, (3, y, x) = a picture's colours and size.

An architecture brings two modules and is done:

- a *trunk*, dict of stimuli -> (B, H), whose last ReLU is left out;
- a *decoder*, (B, U) -> dict of stimuli. It is handed the brain layer and nothing else.

Its file in this folder ends with ``ARCHITECTURE = Architecture(options, build)``; the catalogue's
rows know it by the file's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from sherlock_data.errors import ConfigError
from sherlock_models import notebook
from sherlock_models.architectures.layers import PREDICTION, Dense, SubjectEmbedding
from sherlock_models.output import Output
from sherlock_models.sizes import Sizes

#: weights from which a dense layer is sharded on its own
LARGE = 1_000_000


class Options(BaseModel):
    """Options that every architecture has; its own are added in a subclass.

    Attributes
    ----------
    width : float
        Factor on every hidden layer, never on the brain layer or the outputs.
    subject_embedding : bool
        Whether the encoder learns a vector per subject.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: float = Field(default=1.0, gt=0)
    subject_embedding: bool = False


class Encoder(nn.Module):
    """Trunk, subject, last ReLU, brain head.

    Parameters
    ----------
    trunk : nn.Module
        dict of stimuli -> (B, H), without its last ReLU.
    head : nn.Module
        (B, H) -> (B, U).
    embedding : SubjectEmbedding, optional
    """

    def __init__(
        self, trunk: nn.Module, head: nn.Module, embedding: SubjectEmbedding | None = None
    ) -> None:
        super().__init__()
        self.trunk, self.head, self.embedding = trunk, head, embedding

    def forward(self, stimulus: dict[str, Tensor], subject: Tensor | None) -> Tensor:
        """Predict the brain: (B, U)."""
        hidden = self.trunk(stimulus)
        if self.embedding is not None:
            hidden = self.embedding(hidden, subject)
        predicted: Tensor = self.head(torch.relu(hidden))
        return predicted


class BrainAutoencoder(nn.Module):
    """A model whose middle layer is the brain.

    Parameters
    ----------
    sizes : Sizes
    encoder : Encoder
    decoder : nn.Module
        (B, U) -> dict of the current TR's stimuli.
    options : Options
        What it was built with; printed with the model.
    """

    def __init__(
        self, sizes: Sizes, encoder: Encoder, decoder: nn.Module, options: Options
    ) -> None:
        super().__init__()
        self.sizes, self.options = sizes, options
        self.encoder, self.decoder = encoder, decoder

    @classmethod
    def around(
        cls, sizes: Sizes, trunk: nn.Module, hidden: int, decoder: nn.Module, options: Options
    ) -> BrainAutoencoder:
        """Join trunk and decoder by a dense brain head.

        Parameters
        ----------
        sizes : Sizes
        trunk : nn.Module
            dict of stimuli -> (B, hidden).
        hidden : int
        decoder : nn.Module
        options : Options
        """
        embedding = SubjectEmbedding(sizes.subjects, hidden) if options.subject_embedding else None
        head = Dense(hidden, sizes.units, gain=PREDICTION)
        return cls(sizes, Encoder(trunk, head, embedding), decoder, options)

    def encode(self, stimulus: dict[str, Tensor], subject: Tensor | None = None) -> Tensor:
        """Predict the brain from the stimulus.

        Parameters
        ----------
        stimulus : dict of Tensor
            Pictures (B, D, 3, y, x), every other stimulus (B, D, F).
        subject : Tensor of int64, (B,), optional
            Row of the subject embedding; -1, and None for all, is someone unseen and gets the mean
            embedding. A model without an embedding does not look at it.

        Returns
        -------
        Tensor, (B, U)

        Raises
        ------
        ConfigError
            If a stimulus is missing, is not the model's, or has another shape.
        """
        self._check_stimulus(stimulus)
        predicted: Tensor = self.encoder(stimulus, subject)
        return predicted

    def decode(self, read: Tensor) -> dict[str, Tensor]:
        """Tell the current TR's stimuli from a brain, predicted, measured or lesioned.

        Parameters
        ----------
        read : Tensor, (B, U)

        Returns
        -------
        dict of Tensor
            Pictures (B, 3, y, x), every other stimulus (B, F).

        Raises
        ------
        ConfigError
            If the brain has another number of units.
        """
        if read.ndim != 2 or read.shape[1] != self.sizes.units:
            raise _wrong_shape("brain", (self.sizes.units,), tuple(read.shape[1:]))
        decoded: dict[str, Tensor] = self.decoder(read)
        return decoded

    def forward(
        self,
        stimulus: dict[str, Tensor],
        subject: Tensor | None = None,
        signal: Tensor | None = None,
        channel: Callable[[Tensor], Tensor] | None = None,
    ) -> Output:
        """From the movie through the brain to the movie.

        Parameters
        ----------
        stimulus, subject
            As `encode` takes them.
        signal : Tensor of bool, (B, U), optional
            Where the subject's brain has signal; elsewhere the decoder reads 0, whatever was
            predicted there and whatever the channel made of it.
        channel : callable, optional
            What lies between the predicted brain and the one that is read, (B, U) to (B, U).
        """
        predicted = self.encode(stimulus, subject)
        read = predicted if channel is None else channel(predicted)
        if signal is not None:
            # not a product: 0 times infinity would be a way through
            read = read.masked_fill(signal.logical_not(), 0.0)
        return Output(brain=predicted, read=read, stimulus=self.decode(read))

    def blocks(self) -> list[nn.Module]:
        """Submodules to shard each on its own, inner before outer; the rest is the root's.

        Every dense layer of at least `LARGE` weights, then trunk and decoder where anything of
        theirs is left.
        """
        large = [module for module in self.modules() if _is_large(module)]
        taken = {id(parameter) for module in large for parameter in module.parameters()}
        parts = (self.encoder.trunk, self.decoder)
        return large + [
            part for part in parts if any(id(own) not in taken for own in part.parameters())
        ]

    def count_parameters(self) -> int:
        """Numbers that training adjusts."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _repr_html_(self) -> str:
        return notebook.model_card(self)

    def describe(self) -> str:
        """Say in one line what goes in, what the brain is and with which options it was built."""
        stimuli = ", ".join(f"{name} {_times(size)}" for name, size in self.sizes.stimulus.items())
        return (
            f"{stimuli} -> brain {_times(self.sizes.brain)} -> {stimuli}; "
            f"{self.count_parameters():,} parameters; {', '.join(self._settings())}"
        )

    def extra_repr(self) -> str:
        """First line of `print(model)`."""
        return f"{self.describe()}"

    def _settings(self) -> Iterator[str]:
        yield f"delays {','.join(map(str, self.sizes.delays))}"
        yield from (f"{name} {value}" for name, value in self.options)

    def _check_stimulus(self, stimulus: dict[str, Tensor]) -> None:
        if stimulus.keys() != self.sizes.stimulus.keys():
            raise ConfigError(
                f"the model sees {', '.join(self.sizes.stimulus)}; "
                f"found {', '.join(stimulus) or 'nothing'}",
                where="stimulus",
                remedy="give it exactly the stimuli it was built for",
            )
        for name, value in stimulus.items():
            wanted = self.sizes.input_shape(name)
            if tuple(value.shape[1:]) != wanted:
                raise _wrong_shape(name, wanted, tuple(value.shape[1:]))


def _is_large(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and module.weight.numel() >= LARGE


def _wrong_shape(name: str, wanted: tuple[int, ...], found: tuple[int, ...]) -> ConfigError:
    return ConfigError(
        f"a sample has the shape {found}, the model wants {wanted}",
        where=name,
        remedy="build the model with the sizes of these data",
    )


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(f"{n:,}" for n in size)


@dataclass(frozen=True)
class Architecture:
    """How the entries of one architecture are built.

    Attributes
    ----------
    options : type of Options
        Keys it knows, with their defaults.
    build : callable
        (Sizes, its options) -> BrainAutoencoder.
    """

    options: type[Options]
    build: Callable[[Sizes, Any], BrainAutoencoder]
