"""The size of a dense layer's gradient is known without the gradient, or nothing is said of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sherlock_models.training import sharding
from sherlock_models.training.gradient_norms import DenseNorms


class Layers(nn.Module):
    """Two dense layers; what is asked of them differs."""

    def __init__(self, way: Callable[[Layers, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.first, self.last = way, nn.Linear(40, 30), nn.Linear(30, 40)

    def forward(self, values: Tensor) -> Tensor:
        return self.way(self, values)


def plainly(model: Layers, values: Tensor) -> Tensor:
    return model.last(torch.relu(model.first(values)))


def twice(model: Layers, values: Tensor) -> Tensor:
    return plainly(model, plainly(model, values))


def tied(model: Layers, values: Tensor) -> Tensor:
    return nn.functional.linear(torch.relu(model.first(values)), model.first.weight.T)


def halved(model: Layers, values: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return plainly(model, values)


def one_step(model: nn.Module, norms: DenseNorms, *shape: int) -> dict[Tensor, Tensor]:
    model.zero_grad()
    model(torch.randn(shape)).float().square().sum().backward()
    return norms.squares()


@settings(deadline=None, max_examples=30)
@given(rows=st.lists(st.integers(1, 4), min_size=1, max_size=2), seed=st.integers(0, 99))
def test_the_gradient_s_own(rows: list[int], seed: int) -> None:
    """Whatever the rows, in time too; a second step is another's."""
    model = Layers(plainly)
    norms = DenseNorms(model, least=1)
    torch.manual_seed(seed)
    for _ in range(2):
        found = one_step(model, norms, *rows, 40)
        if torch.tensor(rows).prod() <= 8:
            assert set(found) == {model.first.weight, model.last.weight}
        for weight, squares in found.items():
            assert weight.grad is not None
            exact = weight.grad.double().square().sum()
            torch.testing.assert_close(squares, exact, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize(
    ("way", "rows"),
    [
        pytest.param(twice, 4, id="a layer called twice"),
        pytest.param(tied, 4, id="a weight used elsewhere"),
        pytest.param(halved, 4, id="half the precision"),
        pytest.param(plainly, 100, id="more rows than pay"),
    ],
)
def test_nothing_is_said_of_another_gradient(way: Callable[..., Tensor], rows: int) -> None:
    model = Layers(way)
    norms = DenseNorms(model, least=1)
    assert not one_step(model, norms, rows, 40)
    assert not one_step(model, norms, rows, 40)


def test_what_is_small_or_let_go_is_not_watched() -> None:
    model = Layers(plainly)
    assert not one_step(model, DenseNorms(model, least=1_201), 4, 40)
    norms = DenseNorms(model, least=1)
    norms.close()
    assert not one_step(model, norms, 4, 40)


def test_without_gradients_nothing_is_counted() -> None:
    model = Layers(plainly)
    norms = DenseNorms(model, least=1)
    with torch.no_grad():
        model(torch.randn(4, 40))
    assert len(one_step(model, norms, 4, 40)) == 2


def test_clipping_by_it_is_clipping() -> None:
    model = Layers(plainly)
    known = one_step(model, DenseNorms(model, least=1), 4, 40)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    exact = sharding.clip(model, optimizer, 1e-3)
    for parameter in known:
        assert parameter.grad is not None
        parameter.grad.fill_(torch.nan)  # not read
    assert sharding.clip(model, optimizer, 1e-3, known) == pytest.approx(exact, rel=1e-5)


def test_of_millions_of_numbers_too() -> None:
    """Where one float32 sum of the squares is off in the third digit."""
    torch.manual_seed(0)
    layer = nn.Linear(4_000, 3_000, bias=False)
    norms = DenseNorms(layer)
    (squares,) = one_step(layer, norms, 4, 4_000).values()
    assert layer.weight.grad is not None
    exact = layer.weight.grad.double().square().sum()
    torch.testing.assert_close(squares, exact, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("left", [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 0.0])
def test_rows_that_cancel_leave_the_gradient_s_own_or_nothing(left: float) -> None:
    """Subjects who saw the same TR pull a weight to and fro: products are larger than their sum."""
    torch.manual_seed(0)
    layer = nn.Linear(400, 300, bias=False)
    norms = DenseNorms(layer, least=1)
    one_step(layer, norms, 6, 400)
    pull, drift = torch.randn(6, 300), torch.randn(300)
    layer.zero_grad()
    told = layer(torch.randn(1, 400).repeat(6, 1))
    (told * (pull - pull.mean(0) + left * drift)).sum().backward()
    assert layer.weight.grad is not None
    found = norms.squares()
    assert bool(found) == (left > 1e-2)
    for squares in found.values():
        exact = layer.weight.grad.double().square().sum()
        torch.testing.assert_close(squares, exact, rtol=1e-5, atol=0.0)
