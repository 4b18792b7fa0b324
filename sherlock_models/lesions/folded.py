"""Transposed convolutions as products that are folded together, for a decoder run 100,000 times.

A transposed convolution of stride 2 is one matrix product, a cell's channels by all nine taps of
the kernel, whose outcomes are added where they overlap (Chellapilla et al. 2006, IWFHR). A pixel
whose row and column are even takes one outcome, one whose row or column is odd two, another four.
With samples side by side in memory each of these sums is a few instructions, and few enough samples
at a time stay in a core's cache. For a picture's few channels that beats the convolutions of CPU
libraries (`benchmarks/lesion.py`).

Legend: B = samples, N = `LANES` of them side by side, K = channels of what goes in, C = of what
comes out, (h, w) = a grid of cells, (y, x) = the picture made of it, 2h or 2h - 1 high. Grids lie
as (K, h, w, N), products as (9, C, h, w, N).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sherlock_models.compiled import compiled

#: samples side by side: one or two of a processor's vectors
LANES = 16
#: kernel, stride and padding of `architectures.layers.Up`
_SHAPE = ((3, 3), (2, 2), (1, 1))


class Folded(nn.Module):
    """Transposed convolutions with ReLU between them, the same to within rounding; for inference.

    One thread may use it at a time.

    Parameters
    ----------
    layers : sequence of nn.ConvTranspose2d
        In order; float32 on the CPU, kernel 3, stride 2, padding 1.
    """

    def __init__(self, layers: list[nn.ConvTranspose2d]) -> None:
        super().__init__()
        self.taps, self.biases = nn.ParameterList(), nn.ParameterList()
        self.missing = [layer.output_padding for layer in layers]
        self.bench: Bench | None = None
        for layer in layers:
            taps = layer.weight.detach().permute(2, 3, 1, 0).reshape(-1, layer.in_channels)
            none = layer.weight.new_zeros(layer.out_channels)
            self.taps.append(taps.contiguous())
            self.biases.append(none if layer.bias is None else layer.bias.detach().clone())
        self.requires_grad_(False)

    def size(self, grid: Tensor) -> tuple[int, int, int, int]:
        """Size of the pictures (B, C, y, x) of a grid (B, K, h, w)."""
        y, x = grid.shape[2:]
        for more_rows, more_columns in self.missing:
            y, x = 2 * y - 1 + more_rows, 2 * x - 1 + more_columns
        return len(grid), len(self.biases[-1]), y, x

    def forward(self, grid: Tensor) -> Tensor:
        """Take (B, K, h, w) to the pictures (B, C, y, x)."""
        pictures = grid.new_empty(self.size(grid))
        for some, out in zip(torch.split(grid, LANES), torch.split(pictures, LANES), strict=True):
            out.copy_(self.side_by_side(some).permute(3, 0, 1, 2)[: len(some)])
        return pictures

    def side_by_side(self, grid: Tensor) -> Tensor:
        """Take up to N samples (B, K, h, w) to their pictures side by side, (C, y, x, N).

        They are in the bench's room: the next ones overwrite them.
        """
        if self.bench is None or self.bench.cells.shape[1:3] != grid.shape[2:]:
            sizes = list(zip(self.taps, self.biases, self.missing, strict=True))
            self.bench = Bench(sizes, *grid.shape[2:])
        return self.bench.pictures(grid)


def beside(samples: Tensor) -> Tensor:
    """Lay up to N samples (B, ...) side by side, (..., N), zeros in the place of more."""
    found = samples.new_zeros(*samples.shape[1:], LANES)
    found[..., : len(samples)] = samples.movedim(0, -1)
    return found


class Bench:
    """Room for the work of one thread, taken once: taking it anew costs as much as the products.

    Parameters
    ----------
    layers : list of (Tensor, Tensor, tuple)
        Taps (9C, K), bias (C,), and of each axis 1 for 2h pixels, 0 for 2h - 1.
    h, w : int
        Of the first grid.
    """

    def __init__(
        self, layers: list[tuple[Tensor, Tensor, tuple[int, ...]]], h: int, w: int
    ) -> None:
        cells = self.cells = torch.empty(layers[0][0].shape[1], h, w, LANES)
        self.steps: list[tuple[Tensor, Tensor, Tensor, tuple[Any, ...]]] = []
        for taps, bias, missing in layers:
            out = torch.empty(len(taps), cells[0].numel())
            products = out.numpy().reshape(9, len(bias), *cells.shape[1:])
            y, x = (2 * n - 1 + more for n, more in zip(cells.shape[1:3], missing, strict=True))
            picture = torch.empty(len(bias), y, x, LANES)
            floor = np.float32(-np.inf if len(self.steps) + 1 == len(layers) else 0)
            fold = (products, bias.numpy(), floor, picture.numpy())
            self.steps.append((taps.detach(), cells.flatten(1), out, fold))
            cells = picture
        self.picture = cells

    def __deepcopy__(self, memo: dict[int, object]) -> None:
        # another thread needs a bench of its own
        return None

    def pictures(self, grid: Tensor) -> Tensor:
        """Take up to N samples (B, K, h, w) to their pictures, (C, y, x, N)."""
        side_by_side = self.cells.view(-1, LANES)
        side_by_side[:, : len(grid)] = grid.flatten(1).T
        side_by_side[:, len(grid) :] = 0
        for taps, cells, products, fold in self.steps:
            torch.mm(taps, cells, out=products)
            _fold(*fold)
        return self.picture


def replace_pictures(decoder: nn.Module) -> list[Folded]:
    """Put a `Folded` in the place of every chain of transposed convolutions; return them."""
    found = []
    for parent, name, chain in list(_chains(decoder)):
        found.append(Folded(chain))
        setattr(parent, name, found[-1])
    return found


def _chains(decoder: nn.Module) -> Iterator[tuple[nn.Module, str, list[nn.ConvTranspose2d]]]:
    for parent in decoder.modules():
        for name, child in parent.named_children():
            layers = [*child] if isinstance(child, nn.Sequential) else []
            chain = [layer for layer in layers[::2] if _fits(layer)]
            relus = [layer for layer in layers[1::2] if isinstance(layer, nn.ReLU)]
            if chain and len(layers) % 2 and len(chain) + len(relus) == len(layers):
                yield parent, name, chain


def _fits(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.ConvTranspose2d)
        and (layer.kernel_size, layer.stride, layer.padding) == _SHAPE
        and (layer.groups, layer.dilation) == (1, (1, 1))
        and (layer.weight.device.type, layer.weight.dtype) == ("cpu", torch.float32)
    )


@compiled
def _taken(products: Any, c: int, i: int, odd: int, beyond: Any) -> Any:
    # tap 3 a + b of a cell (i, j) lands at row 2 i + a - 1 and column 2 j + b - 1: a cell's pixels
    # in the odd row take from the cells below too, those in the odd column from the right
    first = 3 + 3 * odd
    following, own, right = (
        products[first, c, i],
        products[first + 1, c, i],
        products[first + 2, c, i],
    )
    if odd == 0 or i + 1 == products.shape[2]:
        return own, right, following, beyond, beyond, beyond
    return (
        own,
        right,
        following,
        products[1, c, i + 1],
        products[2, c, i + 1],
        products[0, c, i + 1],
    )


@compiled
def _fold(products: Any, bias: Any, floor: Any, picture: Any) -> None:
    beyond = np.zeros(products.shape[3:], np.float32)
    for c in range(picture.shape[0]):
        for y in range(picture.shape[1]):
            _fold_row(_taken(products, c, y // 2, y % 2, beyond), bias[c], floor, picture[c, y])


@compiled
def _fold_row(taken: Any, bias: Any, floor: Any, row: Any) -> None:
    own, right, following, below, below_right, below_following = taken
    w = own.shape[0]
    for j in range(w):
        for n in range(LANES):
            value = own[j, n] + below[j, n] + bias
            row[2 * j, n] = floor if value < floor else value
    for j in range(w - 1):
        for n in range(LANES):
            value = (
                right[j, n] + following[j + 1, n] + below_right[j, n] + below_following[j + 1, n]
            )
            value += bias
            row[2 * j + 1, n] = floor if value < floor else value
    if 2 * w == row.shape[0]:
        for n in range(LANES):
            value = right[w - 1, n] + below_right[w - 1, n] + bias
            row[2 * w - 1, n] = floor if value < floor else value
