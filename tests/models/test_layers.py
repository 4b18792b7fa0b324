"""The layers one by one: sizes that come back, delays, and the size of activations."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sherlock_models.architectures.layers import (
    SOUND_STRIDE,
    Conv3,
    Dense,
    Down,
    Down3,
    DownSound,
    Kernel,
    Up,
    Up3,
    UpSound,
    narrow,
    shrunk,
)


@given(st.integers(1, 70), st.integers(1, 70))
@settings(deadline=None, max_examples=40)
def test_any_picture_comes_back_at_its_own_size(height: int, width: int) -> None:
    small = shrunk((height, width), 1)[-1]
    down, up = Down(1, 1), Up(1, 1, small, (height, width))
    picture = torch.zeros(1, 1, height, width)
    assert down(picture).shape[2:] == small
    assert up(down(picture)).shape == picture.shape


def test_the_analysis_pictures_are_halved_as_it_drew_them() -> None:
    sizes = shrunk((90, 160), 4)
    assert sizes == [(90, 160), (45, 80), (23, 40), (12, 20), (6, 10)]
    paddings = [Up(1, 1, small, large).output_padding for large, small in pairwise(sizes)]
    assert paddings[::-1] == [(1, 1), (0, 1), (0, 1), (1, 1)]


@given(st.tuples(*[st.integers(1, 12)] * 3))
@settings(deadline=None, max_examples=30)
def test_any_grid_comes_back_at_its_own_size(size: tuple[int, int, int]) -> None:
    small = shrunk(size, 1)[-1]
    grid = torch.zeros(1, 1, *size)
    assert Down3(1, 2)(grid).shape[2:] == small
    assert Up3(2, 1, small, size)(Down3(1, 2)(grid)).shape == Conv3(1, 1)(grid).shape == grid.shape


def test_the_seed_of_the_sherlock_grid() -> None:
    assert shrunk((61, 73, 61), 3)[-1] == (8, 10, 8)


@given(st.integers(1, 300))
@settings(deadline=None, max_examples=40)
def test_any_sound_comes_back_at_its_own_length(samples: int) -> None:
    ((small,),) = shrunk((samples,), 1, SOUND_STRIDE)[1:]
    sound = torch.zeros(1, 1, samples)
    assert DownSound(1, 1)(sound).shape[2] == small
    assert UpSound(1, 1, small, samples)(DownSound(1, 1)(sound)).shape == sound.shape


def test_a_stride_sees_the_channels_in_the_same_order() -> None:
    """Interleaved samples: what is heard on the left alone moves the weights of the left alone."""
    layer = DownSound(1, 1)
    left = torch.zeros(1, 1, 64)
    left[..., ::2] = 1.0
    layer(left).sum().backward()
    reached = layer.weight.grad[0, 0] != 0
    assert reached[::2].all()
    assert not reached[1::2].any()


def test_a_kernel_keeps_the_size_of_independent_features() -> None:
    torch.manual_seed(0)
    weighed = Kernel(45, 200)(torch.randn(64, 45, 200))
    assert weighed.std().item() == pytest.approx(1, abs=0.05)


def test_a_kernel_of_one_tr_is_the_feature_itself() -> None:
    values = torch.randn(4, 1, 3)
    assert torch.equal(Kernel(1, 3)(values), values[:, 0])


@pytest.mark.parametrize(
    ("features", "width", "narrowed"),
    [
        pytest.param(512, 1.0, 512, id="whole"),
        pytest.param(512, 0.25, 128, id="quarter"),
        pytest.param(3, 0.01, 1, id="never-zero"),
    ],
)
def test_narrow(features: int, width: float, narrowed: int) -> None:
    assert narrow(features, width) == narrowed


def test_a_hidden_layer_keeps_the_size_of_its_activations() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 400)
    for _ in range(6):
        x = torch.relu(Dense(400, 400)(x))
    assert 0.5 < x.square().mean() < 2
