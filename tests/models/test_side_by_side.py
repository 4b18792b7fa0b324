"""Pictures of samples side by side: the same as by torch's transposed convolutions, made or not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sherlock_models.architectures.layers import Up
from sherlock_models.architectures.paths import PictureBack
from sherlock_models.lesions.first_layer import CutDecoder
from sherlock_models.lesions.lanes import LANES
from sherlock_models.lesions.side_by_side import beside, replace_pictures


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
@settings(deadline=None, max_examples=30)
@given(
    picture=st.tuples(st.integers(1, 21), st.integers(1, 21)),
    channels=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    batch=st.integers(1, 2 * LANES),
    upper=st.integers(0, 11),
)
def test_the_same_picture(
    picture: tuple[int, int], channels: list[int], batch: int, upper: int
) -> None:
    torch.manual_seed(0)
    back = PictureBack(picture, tuple(channels), width=4)
    for layer in back.convolutions:
        if isinstance(layer, Up):
            nn.init.normal_(layer.bias)
    hidden = torch.randn(batch, 4)
    wanted = back(hidden)
    (convolutions,) = replace_pictures(back)
    close(back(hidden), wanted)
    some = slice(0, LANES)
    grid = torch.relu(back.dense(hidden[some])).view(-1, *back.first)
    truth = torch.randn_like(wanted[some])
    error, power = convolutions.errors(grid, beside(truth), upper)
    close(error[..., :batch].permute(3, 2, 0, 1), wanted[some] - truth)
    halves = [error[:upper], error[upper:]]
    close(power, torch.stack([half.square().sum(0) for half in halves]))


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(nn.ConvTranspose2d(2, 2, 5, stride=2, padding=2), id="a longer kernel"),
        pytest.param(nn.ConvTranspose2d(2, 2, 3, stride=1, padding=1), id="no stride"),
        pytest.param(nn.ConvTranspose2d(2, 2, 3, 2, 1, groups=2), id="channels apart"),
        pytest.param(nn.ConvTranspose2d(2, 2, 3, 2, 1).double(), id="another precision"),
    ],
)
def test_other_convolutions_are_left_alone(layer: nn.Module) -> None:
    decoder = nn.Sequential(nn.Sequential(layer))
    assert not replace_pictures(decoder)
    assert decoder[0][0] is layer


def test_no_more_samples_than_lanes() -> None:
    """A compiled loop looks at no bounds: it would write past the end."""
    back = PictureBack((8, 12), (3, 4), width=5)
    (convolutions,) = replace_pictures(back)
    grid = torch.zeros(LANES + 1, *back.first)
    with pytest.raises(ValueError, match=f"{LANES + 1} samples for {LANES} lanes"):
        convolutions.errors(grid, torch.zeros(8, 12, 3, LANES), 4)


def test_uncompiled_torch_computes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """`NUMBA_DISABLE_JIT` is for debuggers: vectors exist in compiled loops only."""
    back = PictureBack((8, 12), (3, 4), width=5)
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert not replace_pictures(back)
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
    assert replace_pictures(back)


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
    ("decoder", "need_not_be_made"),
    [
        pytest.param(Told(1), {"video"}, id="as the convolutions give it"),
        pytest.param(Told(2), set(), id="changed afterwards"),
        pytest.param(Told(1, (7, 12)), {"video"}, id="cells beyond the picture"),
    ],
)
def test_only_a_picture_of_whole_cells_need_not_be_made(
    decoder: Told, need_not_be_made: set[str]
) -> None:
    cut = CutDecoder.of(decoder, 6)
    assert set(cut.pictures) == need_not_be_made
    read = torch.randn(4, 6)
    with torch.inference_mode():
        close(cut.rest(cut.first_output(read))["video"], decoder(read)["video"])
    assert not CutDecoder.of(decoder, 6, fast=False).pictures


@torch.inference_mode()
def test_twins_share_weights_and_nothing_else() -> None:
    """Threads decode side by side: each with its own room, all with the same weights."""
    cut = CutDecoder.of(Told(1), 6)
    hidden = torch.randn(200, 16, 5)
    wanted = [cut.rest(some)["video"] for some in hidden]
    twins = [cut.twin() for _ in range(3)]
    for twin in twins:
        own = {id(tensor) for tensor in (*twin.decoder.parameters(), *twin.decoder.buffers())}
        assert own == {id(t) for t in (*cut.decoder.parameters(), *cut.decoder.buffers())}
        assert twin.pictures["video"] is not cut.pictures["video"]

    @torch.inference_mode()
    def decoded(number: int) -> Tensor:
        return twins[number % 3].rest(hidden[number])["video"]

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two, ThreadPoolExecutor(1) as three:
        pools = [one, two, three]
        found = [pools[number % 3].submit(decoded, number) for number in range(len(hidden))]
        for own, picture in zip(found, wanted, strict=True):
            torch.testing.assert_close(own.result(), picture, rtol=0, atol=0)
