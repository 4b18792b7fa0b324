"""Convolutions for pictures, dense paths for everything else (Architecture 2 of the analysis).

Legend: B = samples of a batch, U = units of the brain layer, V = width of a picture's path, A =
width of every other path, H = hidden layers before the brain.

    pictures ... - V \
                      V + A - H - brain (B, U) - H - V + A - split, and every stimulus back
    others   ... - A /

The paths are in `paths`. ReLU behind every hidden layer, none on the brain layer or the outputs. A
silent movie has no path of its own for the sound.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from sherlock_data.errors import ConfigError
from sherlock_models.architectures.autoencoder import Architecture, BrainAutoencoder, Options
from sherlock_models.architectures.layers import dense_stack, narrow
from sherlock_models.architectures.paths import (
    PictureBack,
    PicturePath,
    SoundBack,
    SoundPath,
    VectorPath,
    vector_back,
)
from sherlock_models.sizes import WAVEFORM, Sizes


class ConvOptions(Options):
    """Options of `conv`.

    Attributes
    ----------
    channels : tuple of int
        Of the convolutions of a picture in order; each halves it.
    sound : tuple of int
        Channels of the convolutions of `waveform` in order; each leaves an eighth.
    video : int
        Width V of the path of the video, and of any other picture.
    audio : int
        Width A of the path of the audio, and of any other stimulus.
    hidden : tuple of int
        Width H of the layers before the brain; one number is one layer.
    """

    #: what `width` multiplies
    NARROWED: ClassVar[tuple[str, ...]] = ("channels", "sound", "video", "audio", "hidden")

    channels: tuple[PositiveInt, ...] = Field(default=(32, 64, 128, 256), min_length=1)
    sound: tuple[PositiveInt, ...] = Field(default=(16, 32, 64, 128), min_length=1)
    video: PositiveInt = 1024
    audio: PositiveInt = 256
    hidden: tuple[PositiveInt, ...] = Field(default=(512,), min_length=1)

    @field_validator("hidden", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    def narrowed(self) -> Self:
        """Return the layers' own sizes, `width` multiplied out."""
        update: dict[str, Any] = {"width": 1.0}
        for name in self.NARROWED:
            value = getattr(self, name)
            several = isinstance(value, tuple)
            sizes = [narrow(n, self.width) for n in (value if several else (value,))]
            update[name] = tuple(sizes) if several else sizes[0]
        return self.model_copy(update=update)

    def path_width(self, sizes: Sizes, name: str) -> int:
        """Width of a stimulus' path."""
        return self.video if name in sizes.pictures else self.audio


class ConvTrunk(nn.Module):
    """Paths of the stimuli, joined in the last hidden layer."""

    def __init__(self, sizes: Sizes, layers: ConvOptions) -> None:
        super().__init__()
        self.names = tuple(sizes.stimulus)
        self.paths = nn.ModuleList(_path(sizes, name, layers) for name in self.names)
        joined = sum(layers.path_width(sizes, name) for name in self.names)
        self.join = dense_stack((joined, *layers.hidden))

    def forward(self, stimulus: dict[str, Tensor]) -> Tensor:
        """Take the stimuli to (B, H), without a ReLU behind it."""
        paths = [path(stimulus[name]) for name, path in zip(self.names, self.paths, strict=True)]
        joined: Tensor = self.join(torch.relu(torch.cat(paths, dim=1)))
        return joined


class ConvDecoder(nn.Module):
    """The mirror of the encoder, for the current TR alone.

    Parameters
    ----------
    sizes : Sizes
    layers : ConvOptions
        `width` multiplied out.
    inputs : int
        Numbers that are read of the brain.
    vector_layers : int
        Dense layers between the split and a vector stimulus.
    """

    def __init__(
        self, sizes: Sizes, layers: ConvOptions, inputs: int, vector_layers: int = 2
    ) -> None:
        super().__init__()
        self.names = tuple(sizes.stimulus)
        self.widths = [layers.path_width(sizes, name) for name in self.names]
        self.split = dense_stack((inputs, *reversed(layers.hidden), sum(self.widths)))
        self.paths = nn.ModuleList(
            _path_back(sizes, name, layers, vector_layers) for name in self.names
        )

    def forward(self, read: Tensor) -> dict[str, Tensor]:
        """Take the brain (B, inputs) to the stimuli."""
        pieces = torch.split(torch.relu(self.split(read)), self.widths, dim=1)
        return {
            name: path(piece)
            for name, path, piece in zip(self.names, self.paths, pieces, strict=True)
        }


def _path(sizes: Sizes, name: str, layers: ConvOptions) -> nn.Module:
    delays, shape = len(sizes.delays), sizes.stimulus[name]
    if name in sizes.pictures:
        return PicturePath(delays, shape[:2], layers.channels, layers.video)
    if name == WAVEFORM:
        return SoundPath(delays, shape[0], layers.sound, layers.audio)
    return VectorPath(delays, shape[0], layers.audio)


def _path_back(sizes: Sizes, name: str, layers: ConvOptions, vector_layers: int) -> nn.Module:
    shape = sizes.stimulus[name]
    if name in sizes.pictures:
        return PictureBack(shape[:2], layers.channels, layers.video)
    if name == WAVEFORM:
        return SoundBack(shape[0], layers.sound, layers.audio)
    return vector_back(shape[0], layers.audio, vector_layers)


def check_picture(sizes: Sizes, architecture: str) -> None:
    """Refuse stimuli without a picture.

    Raises
    ------
    ConfigError
    """
    if not sizes.pictures:
        raise ConfigError(
            f"wants a picture (video, frame), found {', '.join(sizes.stimulus)}",
            where=f"architecture {architecture}",
            remedy="name video in --set stimulus=, or train a dense entry",
        )


def build(sizes: Sizes, options: ConvOptions) -> BrainAutoencoder:
    """Build the model for pictures, with any other stimuli beside them.

    Raises
    ------
    ConfigError
        If there is no picture.
    """
    check_picture(sizes, "conv")
    layers = options.narrowed()
    trunk, decoder = ConvTrunk(sizes, layers), ConvDecoder(sizes, layers, sizes.units)
    return BrainAutoencoder.around(sizes, trunk, layers.hidden[-1], decoder, options)


ARCHITECTURE = Architecture(ConvOptions, build)
