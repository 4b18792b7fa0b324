"""Gradients of a large norm are scaled down before a step, those of a small one left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sherlock_models.training import sharding


def after_steps(clip: float, ours: bool) -> torch.Tensor:
    """Weights after three AdamW steps: clipped by us, or by torch's own function."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)
    norms = []
    for scale in (1.0, 100.0, 0.01):
        (scale * model(torch.randn(4, 7)).square().sum()).backward()
        if ours:
            norms.append(sharding.clip(model, optimizer, clip))
        else:
            norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), clip)))
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([torch.tensor(norms), *(p.detach().flatten() for p in model.parameters())])


@pytest.mark.parametrize(
    "clip",
    [
        pytest.param(1e9, id="never"),
        pytest.param(5.0, id="the large ones"),
        pytest.param(1e-3, id="always"),
    ],
)
def test_clipping_is_torch_s_own(clip: float) -> None:
    """Norms and weights are those of `clip_grad_norm_`, whose pass over the gradients is saved."""
    torch.testing.assert_close(after_steps(clip, True), after_steps(clip, False))


def test_the_norm_of_a_large_gradient_is_exact() -> None:
    """Its squares are not summed in float32, one after the other."""
    weight = nn.Parameter(torch.zeros(1_000, 4_321))
    weight.grad = torch.rand(1_000, 4_321, generator=torch.Generator().manual_seed(0))
    model = nn.ParameterList([weight])
    exact = float(weight.grad.double().norm())
    norm = sharding.clip(model, torch.optim.AdamW(model.parameters(), fused=True), 1e9)
    assert norm == pytest.approx(exact, rel=1e-6)
