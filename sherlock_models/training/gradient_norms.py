"""The size of gradients; of a dense layer's, from what went into the layer and what came back.

The gradient of its weight is one product, G = g' x, so that with B rows and few of them

    |G|² = sum over pairs of rows  (g g')_bc (x x')_bc

is known without G (after Goodfellow 2015, arXiv:1510.01799). A weight of the brain's width has
millions of numbers, and a processor reads them no faster than memory gives them
(`benchmarks/step.py`).

Legend: B = rows of a batch, I = inputs of a layer, O = outputs.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import torch
from torch import Tensor, nn

#: multiplications for each number of a weight up to which they take less time than to read it
_PAYS = 4
#: numbers of a gradient whose squares are summed in float32
_PIECE = 1 << 20
#: of a gradient's sum of squares, how far off the products may be to be believed
_TOLERANCE = 1e-4
#: share of the pairs' sizes that their sum must be: where rows pull against each other, as subjects
#: who saw the same TR do near a minimum, their float32 products leave nothing but rounding
_LEFT = 1e-2


class DenseNorms:
    """Sums of squares of the gradients of dense layers; of a step, when asked for.

    A layer counts once its sum agreed with its gradient itself in the first step that was asked
    for: a weight that is used elsewhere too has another gradient. In a step in which a layer was
    called twice, or in another precision, or its rows cancel, nothing is known of it.

    Parameters
    ----------
    model : nn.Module
        Its gradients are whole, and of one backward pass each.
    least : int
        Numbers of a weight from which a layer is watched: smaller gradients are as quickly read.
    """

    def __init__(self, model: nn.Module, least: int = 1 << 20) -> None:
        self._squares: dict[Tensor, Tensor] = {}
        self._calls: Counter[Tensor] = Counter()
        self._agreed: dict[Tensor, bool] = {}
        self._hooks = [
            layer.register_forward_hook(self._called)
            for layer in model.modules()
            if isinstance(layer, nn.Linear) and layer.weight.numel() >= least
        ]

    def squares(self) -> dict[Tensor, Tensor]:
        """Return the sums of the last backward pass, float64, by weight, and forget them."""
        found = {weight: total for weight, total in self._squares.items() if self._holds(weight)}
        self._squares.clear()
        self._calls.clear()
        return found

    def close(self) -> None:
        """Let the model go."""
        for hook in self._hooks:
            hook.remove()

    def _called(self, layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not output.requires_grad:
            return
        self._calls[layer.weight] += 1
        rows = inputs[0].detach().flatten(0, -2)
        products = len(rows) ** 2 * (layer.in_features + layer.out_features)
        if rows.dtype == torch.float32 and products <= _PAYS * layer.weight.numel():
            output.register_hook(partial(self._came_back, layer.weight, rows))  # type: ignore[no-untyped-call]

    def _came_back(self, weight: Tensor, rows: Tensor, gradient: Tensor) -> None:
        if gradient.dtype == torch.float32:
            back = gradient.flatten(0, -2)
            pairs = (back @ back.T).double() * (rows @ rows.T).double()
            total = pairs.sum()
            if total >= _LEFT * pairs.abs().sum():
                self._squares[weight] = total

    def _holds(self, weight: Tensor) -> bool:
        if self._calls[weight] != 1 or weight.grad is None:
            return False
        if weight not in self._agreed:
            read, known = sum_of_squares(weight.grad), self._squares[weight]
            self._agreed[weight] = bool((known - read).abs() <= _TOLERANCE * read)
        return self._agreed[weight]


def sum_of_squares(values: Tensor) -> Tensor:
    """Return the sum of squares, float64: of a piece in float32, by BLAS.

    One float32 sum of millions of squares is off in its third digit on a processor, differently for
    a whole gradient and for its shards; a copy in float64 would double the gradient's memory.
    """
    pieces = torch.split(values.detach().reshape(-1), _PIECE)
    return torch.stack([torch.dot(piece, piece) for piece in pieces]).double().sum()
