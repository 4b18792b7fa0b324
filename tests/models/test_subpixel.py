"""Pictures by ordinary convolutions: the same as by transposed ones, dealt out or not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sherlock_models.architectures.layers import Up
from sherlock_models.architectures.paths import PictureBack
from sherlock_models.lesions.first_layer import CutDecoder
from sherlock_models.lesions.subpixel import SubPixel, replace_pictures, undealt


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
@settings(deadline=None, max_examples=30)
@given(
    picture=st.tuples(st.integers(1, 21), st.integers(1, 21)),
    channels=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    batch=st.integers(1, 3),
)
def test_the_same_picture(picture: tuple[int, int], channels: list[int], batch: int) -> None:
    torch.manual_seed(0)
    back = PictureBack(picture, tuple(channels), width=4)
    for layer in back.convolutions:
        if isinstance(layer, Up):
            nn.init.normal_(layer.bias)
    hidden = torch.randn(batch, 4)
    wanted = back(hidden)
    (chain,) = replace_pictures(back)
    assert chain.whole == all(n % 2 == 0 for n in picture)
    close(back(hidden), wanted)


@torch.inference_mode()
def test_cells_are_the_pixels_in_another_order() -> None:
    layer = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1, bias=False)
    grid = torch.randn(2, 3, 4, 5)
    cells = SubPixel([layer]).cells(grid)
    close(cells.permute(0, 2, 3, 1), undealt(layer(grid)))


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(nn.ConvTranspose2d(2, 2, 5, stride=2, padding=2), id="a longer kernel"),
        pytest.param(nn.ConvTranspose2d(2, 2, 3, stride=1, padding=1), id="no stride"),
        pytest.param(nn.ConvTranspose2d(2, 2, 3, 2, 1, groups=2), id="channels apart"),
    ],
)
def test_other_convolutions_are_left_alone(layer: nn.Module) -> None:
    decoder = nn.Sequential(nn.Sequential(layer))
    assert not replace_pictures(decoder)
    assert decoder[0][0] is layer


class Told(nn.Module):
    """A picture from a brain of 6 units, as the convolutions give it or brightened afterwards."""

    def __init__(self, gain: float, size: tuple[int, int] = (8, 12)) -> None:
        super().__init__()
        self.gain = gain
        self.first = nn.Linear(6, 5)
        self.back = PictureBack(size, (3, 4), width=5)

    def forward(self, read: Tensor) -> dict[str, Tensor]:
        picture = self.back(torch.relu(self.first(read)))
        return {"video": picture if self.gain == 1 else picture * self.gain}


@pytest.mark.parametrize(
    ("decoder", "undealt_pictures"),
    [
        pytest.param(Told(1), {"video"}, id="as the convolutions give it"),
        pytest.param(Told(2), set(), id="changed afterwards"),
        pytest.param(Told(1, (7, 12)), set(), id="cells beyond the picture"),
    ],
)
def test_only_a_picture_that_is_all_of_the_cells_may_stay_undealt(
    decoder: Told, undealt_pictures: set[str]
) -> None:
    cut = CutDecoder.of(decoder, 6)
    assert set(cut.pictures) == undealt_pictures
    read = torch.randn(4, 6)
    with torch.inference_mode():
        close(cut.rest(cut.first_output(read))["video"], decoder(read)["video"])
    assert not CutDecoder.of(decoder, 6, fast=False).pictures
