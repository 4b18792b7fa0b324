"""Layers are skipped only where nothing but their own stimulus comes from them, unchanged.

Each decoder here looks as if it could be cut and says something else if it is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sherlock_models.architectures.paths import PictureBack
from sherlock_models.lesions.effects import increases
from sherlock_models.lesions.first_layer import CutDecoder
from tests.models.by_hand import decoding_of, each_unit, reading_of

UNITS, TRS, PICTURE = 6, 18, (8, 12)
NUMBERS = 3 * 8 * 12
Told = dict[str, Tensor]


class Decoder(nn.Module):
    """A dense layer, and what a case makes of its output by convolutions and a dense layer."""

    def __init__(self, told: Callable[[Decoder, Tensor], Told]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.told = nn.Linear(UNITS, 4), told
        self.back = PictureBack(PICTURE, (3, 4), width=4)
        self.dense, self.sound = nn.Linear(4, NUMBERS), nn.Linear(NUMBERS, 5)
        self.refine = nn.Sequential(nn.ConvTranspose2d(3, 3, 3, 2, 1, 1))
        for layer in (self.back.convolutions[-1], self.dense):
            nn.init.normal_(layer.weight)

    def forward(self, read: Tensor) -> Told:
        return self.told(self, torch.relu(self.first(read)))


def picture(values: Tensor) -> Tensor:
    return values.view(-1, 3, *PICTURE)


def convolutions_twice(own: Decoder, hidden: Tensor) -> Told:
    return {"frame": own.back(hidden), "video": own.back(hidden.flip(1))}


def dense_twice(own: Decoder, hidden: Tensor) -> Told:
    return {"frame": picture(own.dense(hidden)), "video": picture(own.dense(hidden.flip(1)))}


def sound_of_convolutions(own: Decoder, hidden: Tensor) -> Told:
    video = own.back(hidden)
    return {"video": video, "audio": own.sound(video.flatten(1))}


def sound_of_dense(own: Decoder, hidden: Tensor) -> Told:
    video = own.dense(hidden)
    return {"video": picture(video), "audio": own.sound(video)}


def refined(own: Decoder, hidden: Tensor) -> Told:
    coarse = own.back(hidden)
    return {"frame": coarse, "video": own.refine(coarse)}


def clipped(own: Decoder, hidden: Tensor) -> Told:
    return {"video": picture(own.dense(hidden).clamp(-9, 9))}


def clipped_convolutions(own: Decoder, hidden: Tensor) -> Told:
    return {"video": own.back(hidden).clamp(-9, 9)}


def rectified(own: Decoder, hidden: Tensor) -> Told:
    return {"video": picture(torch.relu(own.dense(hidden) + 9))}


class OneLayer(nn.Module):
    """The first layer is the last one, of two stimuli."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.only = nn.Linear(UNITS, NUMBERS + 5)

    def forward(self, read: Tensor) -> Told:
        told = self.only(read)
        return {"video": picture(told[:, :NUMBERS]), "audio": told[:, NUMBERS:]}


def effects(decoder: nn.Module, fast: bool) -> np.ndarray:
    generator = torch.Generator().manual_seed(1)
    read = 3 * torch.randn(TRS, UNITS, generator=generator)
    target = {
        name: torch.randn(values.shape, generator=generator)
        for name, values in decoder(read).items()
    }
    reading, decoding = reading_of(read), decoding_of(decoder, UNITS, target, fast)
    assert decoding.fast == fast
    sizes = np.array([target[name.split("/")[0]][0].numel() for name in decoding.names])
    return increases(decoding, reading, each_unit(reading), read).mean(axis=1) / sizes


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(convolutions_twice, id="convolutions tell two pictures"),
        pytest.param(dense_twice, id="a dense layer tells two pictures"),
        pytest.param(sound_of_convolutions, id="sound told from the decoded picture"),
        pytest.param(sound_of_dense, id="sound told from a dense layer's picture"),
        pytest.param(refined, id="a coarse picture is refined"),
        pytest.param(clipped, id="clipped beyond what is usual"),
        pytest.param(clipped_convolutions, id="convolutions clipped"),
        pytest.param(rectified, id="ReLU beyond what is usual"),
        pytest.param(None, id="the first layer is the last"),
    ],
)
@torch.inference_mode()
def test_fast_and_plain_say_the_same(told: Callable[[Decoder, Tensor], Told] | None) -> None:
    decoder = OneLayer() if told is None else Decoder(told)
    plain = effects(decoder, fast=False)
    assert np.abs(plain).min(axis=0).max() > 1e-3
    np.testing.assert_allclose(effects(decoder, fast=True), plain, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_what_can_be_skipped_is() -> None:
    def both(own: Decoder, hidden: Tensor) -> Told:
        return {"video": own.back(hidden), "frame": picture(own.dense(hidden))}

    cut = CutDecoder.of(Decoder(both), UNITS)
    assert set(cut.pictures) == {"video"}
    assert set(cut.last) == {"frame"}
