"""From one stimulus to a few features and back: pictures, sounds and vectors by their own paths.

Legend: B = samples of a batch, D = delays, F = features of a vector, (3, y, x) = a picture's
colours and size, (h, w) and s = what convolutions leave of a picture and of a sound, C = channels,
P = width of a path.

    picture (B, D x 3, y, x) - Conv2D ... (C, h, w) - C h w - P ~ P - C h w - ConvTranspose2D ...
    sound   (B, D, F) -------- Conv1D ... (C, s) ---- C s --- P ~ P - C s --- ConvTranspose1D ...
    vector  (B, D x F) ---------------------------------------P ~ P - P - F

Convolutions of a picture are 3 x 3 with stride 2, of a sound 17 long with stride 8: as samples come
interleaved, an even stride always sees the channels in the same order. ReLU behind every layer but
the last. The way back gives the current TR alone.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from sherlock_models.architectures.layers import (
    PREDICTION,
    SOUND_STRIDE,
    Dense,
    Down,
    DownSound,
    Up,
    UpSound,
    dense_stack,
    shrunk,
)


class PicturePath(nn.Module):
    """A picture at every delay, (B, D, 3, y, x), to (B, P); no ReLU behind it."""

    def __init__(
        self, delays: int, picture: tuple[int, ...], channels: tuple[int, ...], width: int
    ) -> None:
        super().__init__()
        pairs = pairwise((3 * delays, *channels))
        self.convolutions = nn.Sequential(
            *(step for pair in pairs for step in (Down(*pair), nn.ReLU()))
        )
        left = shrunk(picture, len(channels))[-1]
        self.dense = Dense(channels[-1] * math.prod(left), width)

    def forward(self, picture: Tensor) -> Tensor:
        """Take the pictures to (B, P)."""
        width: Tensor = self.dense(self.convolutions(picture.flatten(1, 2)).flatten(1))
        return width


class PictureBack(nn.Module):
    """(B, P) to a picture (B, 3, y, x)."""

    def __init__(self, picture: tuple[int, ...], channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        sizes = shrunk(picture, len(channels))[::-1]
        self.first = (channels[-1], *sizes[0])
        self.dense = Dense(width, math.prod(self.first))
        self.relu = nn.ReLU()
        steps: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise((*reversed(channels), 3))):
            is_last = index == len(channels) - 1
            gain = {"gain": PREDICTION} if is_last else {}
            steps.append(Up(inputs, outputs, sizes[index], sizes[index + 1], **gain))
            steps += [] if is_last else [nn.ReLU()]
        self.convolutions = nn.Sequential(*steps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Take (B, P) to the picture."""
        first = self.relu(self.dense(hidden)).reshape(len(hidden), *self.first)
        picture: Tensor = self.convolutions(first)
        return picture


class SoundPath(nn.Module):
    """A sound's samples at every delay, (B, D, F), to (B, P); no ReLU behind it."""

    def __init__(self, delays: int, samples: int, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        pairs = pairwise((delays, *channels))
        self.convolutions = nn.Sequential(
            *(step for pair in pairs for step in (DownSound(*pair), nn.ReLU()))
        )
        (left,) = shrunk((samples,), len(channels), SOUND_STRIDE)[-1]
        self.dense = Dense(channels[-1] * left, width)

    def forward(self, sound: Tensor) -> Tensor:
        """Take the samples to (B, P)."""
        width: Tensor = self.dense(self.convolutions(sound).flatten(1))
        return width


class SoundBack(nn.Module):
    """(B, P) to a sound's samples (B, F)."""

    def __init__(self, samples: int, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        sizes = [n for (n,) in shrunk((samples,), len(channels), SOUND_STRIDE)][::-1]
        self.first = (channels[-1], sizes[0])
        self.dense = Dense(width, math.prod(self.first))
        self.relu = nn.ReLU()
        steps: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise((*reversed(channels), 1))):
            is_last = index == len(channels) - 1
            gain = {"gain": PREDICTION} if is_last else {}
            steps.append(UpSound(inputs, outputs, sizes[index], sizes[index + 1], **gain))
            steps += [] if is_last else [nn.ReLU()]
        self.convolutions = nn.Sequential(*steps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Take (B, P) to the samples."""
        first = self.relu(self.dense(hidden)).reshape(len(hidden), *self.first)
        # flatten of (B, 1, F) is a view, which the output of a sharded module must not be
        samples: Tensor = self.convolutions(first).flatten(1).clone()
        return samples


class VectorPath(nn.Module):
    """A vector at every delay, (B, D, F), to (B, P); no ReLU behind it."""

    def __init__(self, delays: int, features: int, width: int) -> None:
        super().__init__()
        self.dense = Dense(delays * features, width)

    def forward(self, vector: Tensor) -> Tensor:
        """Take the vectors to (B, P)."""
        width: Tensor = self.dense(vector.flatten(1))
        return width


def vector_back(features: int, width: int, layers: int) -> nn.Sequential:
    """(B, P) to a vector (B, F), by `layers` dense layers."""
    return dense_stack((width,) * layers + (features,), PREDICTION)
