"""Transposed convolutions of samples side by side, for a decoder run 100,000 times.

CPU libraries' own are slow for the few channels of a picture (`benchmarks/lesion.py`): the loop is
`lesions.lanes`. Few enough samples at a time stay in a core's cache.

Legend: B = samples, N = `LANES` of them side by side, K = channels of what goes in, C = of what
comes out, (h, w) = a grid of cells, (y, x) = the picture made of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sherlock_models.lesions.lanes import LANES, enlarge, enlarge_and_compare, lay

#: kernel, stride and padding of `architectures.layers.Up`
_SHAPE = ((3, 3), (2, 2), (1, 1))


class SideBySide(nn.Module):
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
            taps = layer.weight.detach().transpose(0, 1).flatten(2)
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
            out.copy_(self._bench(some).pictures(some).permute(3, 2, 0, 1)[: len(some)])
        return pictures

    def errors(self, grid: Tensor, truth: Tensor, upper: int) -> tuple[Tensor, Tensor]:
        """Take up to N samples (B, K, h, w) to their errors, and these squared and summed.

        Parameters
        ----------
        grid : Tensor, (B, K, h, w)
        truth : Tensor, (y, x, C, N)
            What to subtract, contiguous.
        upper : int
            Rows of the upper half.

        Returns
        -------
        error : Tensor, (y, x, C, N)
        power : Tensor, (2, x, C, N)
            Summed over the rows of either half. Both are in the bench's room: the next samples
            overwrite them.
        """
        return self._bench(grid).errors(grid, truth, upper)

    def _bench(self, grid: Tensor) -> Bench:
        if self.bench is None or self.bench.shape != grid.shape[1:]:
            sizes = list(zip(self.taps, self.biases, self.missing, strict=True))
            self.bench = Bench(sizes, *grid.shape[1:])
        return self.bench


def beside(samples: Tensor) -> Tensor:
    """Lay up to N pictures (B, C, y, x) side by side, (y, x, C, N), zeros in the place of more."""
    found = samples.new_zeros(*samples.shape[2:], samples.shape[1], LANES)
    found[..., : len(samples)] = samples.permute(2, 3, 1, 0)
    return found


class Bench:
    """Room for the work of one thread, taken once: taking it anew costs as much as the products.

    Parameters
    ----------
    layers : list of (Tensor, Tensor, tuple)
        Taps (C, K, 9), bias (C,), and of each axis 1 for 2h pixels, 0 for 2h - 1.
    channels, h, w : int
        Of the first grid.
    """

    def __init__(
        self,
        layers: list[tuple[Tensor, Tensor, tuple[int, ...]]],
        channels: int,
        h: int,
        w: int,
    ) -> None:
        self.shape = (channels, h, w)
        self.grid = _grid(h, w, channels)
        self.steps: list[tuple[Any, ...]] = []
        picture = self.grid
        for layer, (taps, bias, (more_rows, more_columns)) in enumerate(layers, 1):
            grid, h, w = picture, 2 * h - 1 + more_rows, 2 * w - 1 + more_columns
            is_last = layer == len(layers)
            room = (h, w, len(bias), LANES)
            picture = np.zeros(room, np.float32) if is_last else _grid(h, w, len(bias))
            floor = np.float32(-np.inf if is_last else 0)
            weights = taps.detach().numpy(), bias.detach().numpy(), floor
            self.steps.append((*weights, grid, h, w, picture))
        self.picture = torch.from_numpy(picture)
        self.power = torch.empty(2, *self.picture.shape[1:])

    def __deepcopy__(self, memo: dict[int, object]) -> None:
        # another thread needs a bench of its own
        return None

    def pictures(self, samples: Tensor) -> Tensor:
        """Take up to N samples (B, K, h, w) to their pictures, (y, x, C, N)."""
        self._lay(samples)
        for step in self.steps:
            enlarge(*step)
        return self.picture

    def errors(self, samples: Tensor, truth: Tensor, upper: int) -> tuple[Tensor, Tensor]:
        """Take up to N samples to their errors and their power; as `SideBySide.errors`."""
        self._lay(samples)
        for step in self.steps[:-1]:
            enlarge(*step)
        taps, bias, floor, grid, _, _, error = self.steps[-1]
        power = self.power.flatten(1).numpy()
        enlarge_and_compare(taps, bias, floor, grid, truth.numpy(), upper, error, power)
        return self.picture, self.power

    def _lay(self, samples: Tensor) -> None:
        if len(samples) > LANES:  # compiled loops look at no bounds
            raise ValueError(f"{len(samples)} samples for {LANES} lanes")
        lay(samples.numpy(), self.grid)


def _grid(h: int, w: int, channels: int) -> NDArray[np.float32]:
    """Room for a grid as `lanes` wants it."""
    return np.zeros((h + 1, w + w % 2 + 1, channels, LANES), np.float32)


def replace_pictures(decoder: nn.Module) -> list[SideBySide]:
    """Put a `SideBySide` in the place of every chain of transposed convolutions; return them."""
    found: list[SideBySide] = []
    if numba.config.DISABLE_JIT:  # by NUMBA_DISABLE_JIT: there are no vectors then
        return found
    for parent, name, chain in list(_chains(decoder)):
        found.append(SideBySide(chain))
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
