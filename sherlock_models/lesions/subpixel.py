"""Transposed convolutions as ordinary ones, for a decoder that is run a hundred thousand times.

A transposed convolution of stride 2 makes each pixel from the cells around it, and which weights
it takes depends only on whether its row and its column are even or odd. So it is an ordinary
convolution of 2 x 2 cells to four times the channels, whose outputs are then dealt out into a
picture (sub-pixel convolution, Shi et al. 2016, CVPR). CPUs do that three times faster. Where only
the size of an error is wanted, the last picture need not be dealt at all.

Legend: B = samples, C = channels of what comes out, (h, w) = a grid of cells, (y, x) = the picture
dealt from it, 2h or 2h - 1 high; cells lie as (B, 2 x 2 x C, h, w), rows' parity first.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

#: kernel, stride and padding of `architectures.layers.Up`
_SHAPE = ((3, 3), (2, 2), (1, 1))
#: what makes an even pixel, and an odd one, of an axis: (cell from here on, tap of the kernel)
_TAPS = (((0, 1),), ((0, 2), (1, 0)))


class SubPixel(nn.Module):
    """Transposed convolutions with ReLU between them, the same to within rounding; for inference.

    Parameters
    ----------
    layers : sequence of nn.ConvTranspose2d
        In order; kernel 3, stride 2, padding 1.
    """

    def __init__(self, layers: list[nn.ConvTranspose2d]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(_as_convolution(layer) for layer in layers)
        self.missing = [layer.output_padding for layer in layers]

    @property
    def whole(self) -> bool:
        """Whether all cells of the last layer are seen: none lies beyond the picture."""
        return all(self.missing[-1])

    def forward(self, grid: Tensor) -> Tensor:
        """Take (B, channels, h, w) to the picture (B, C, y, x)."""
        return dealt(self.cells(grid), self.missing[-1])

    def cells(self, grid: Tensor) -> Tensor:
        """Take (B, channels, h, w) to the last layer's cells, (B, 4C, h', w')."""
        padded = nn.functional.pad(grid, (0, 1, 0, 1)).contiguous(memory_format=torch.channels_last)
        *hidden, last = self.convolutions
        for convolution, missing in zip(hidden, self.missing, strict=False):
            padded = dealt(convolution(padded).relu_(), missing, edge=1)
        cells: Tensor = last(padded)
        return cells


def dealt(cells: Tensor, missing: tuple[int, ...], edge: int = 0) -> Tensor:
    """Deal cells out into a picture.

    Parameters
    ----------
    cells : Tensor, (B, 4C, h, w)
    missing : tuple of int
        Of each axis, 1 for 2h pixels and 0 for 2h - 1.
    edge : {0, 1}
        Rows and columns of zeros behind the picture, as the next convolution wants them.

    Returns
    -------
    Tensor, (B, C, y + edge, x + edge), channels last
    """
    batch, channels, h, w = cells.shape
    y, x = (2 * n - 1 + more for n, more in zip((h, w), missing, strict=True))
    room = cells.new_empty(batch, max(y + edge, 2 * h), max(x + edge, 2 * w), channels // 4)
    into = room[:, : 2 * h, : 2 * w].view(batch, h, 2, w, 2, -1)
    into.copy_(cells.permute(0, 2, 3, 1).view(batch, h, w, 2, 2, -1).transpose(2, 3))
    if edge:
        room[:, y:] = 0
        room[:, :, x:] = 0
    return room[:, : y + edge, : x + edge].permute(0, 3, 1, 2)


def undealt(picture: Tensor) -> Tensor:
    """Bring a picture (B, C, 2h, 2w) into the order of cells: (B, h, w, 2 x 2 x C)."""
    batch, channels, y, x = picture.shape
    parts = picture.view(batch, channels, y // 2, 2, x // 2, 2)
    return parts.permute(0, 2, 4, 3, 5, 1).flatten(3)


def replace_pictures(decoder: nn.Module) -> list[SubPixel]:
    """Put a `SubPixel` in the place of every chain of transposed convolutions; return them."""
    found = []
    for parent, name, chain in list(_chains(decoder)):
        found.append(SubPixel(chain))
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
    )


def _as_convolution(layer: nn.ConvTranspose2d) -> nn.Conv2d:
    """Return the 2 x 2 convolution that makes the cells of a transposed one."""
    inputs, outputs = layer.in_channels, layer.out_channels
    made = nn.Conv2d(inputs, 4 * outputs, kernel_size=2, bias=layer.bias is not None)
    weight = layer.weight.new_zeros(2, 2, outputs, inputs, 2, 2)
    for y, row in enumerate(_TAPS):
        for x, column in enumerate(_TAPS):
            for down, tap_y in row:
                for across, tap_x in column:
                    weight[y, x, :, :, down, across] = layer.weight[:, :, tap_y, tap_x].T
    with torch.no_grad():
        made.weight.copy_(weight.view(4 * outputs, inputs, 2, 2))
        if made.bias is not None and layer.bias is not None:
            made.bias.copy_(layer.bias.repeat(4))
    return made.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
