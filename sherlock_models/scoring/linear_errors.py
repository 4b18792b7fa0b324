"""Squared errors of what a dense layer tells, from what the layer is given: whole, and by part.

A part of a stimulus is what some orthonormal rows S see of it: some of its numbers, or some waves.
With W the layer's weight, d what its inputs move by and e the error before,

    |S (W d + e)|² - |S e|²  =  |S W d|² + 2 (S e)' S W d,

so that the stimulus need not be made.

Legend: P = numbers of a stimulus in one TR, H = inputs of the layer, n = TRs, g = changes of each,
K = blocks that all parts are sums of, r = rows of one, R = parts.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from sherlock_models.scoring.error_parts import ErrorParts


class LinearErrors:
    """Errors behind a dense layer.

    Parameters
    ----------
    parts : ErrorParts
    weight : Tensor, (P, H)
    """

    def __init__(self, parts: ErrorParts, weight: Tensor) -> None:
        self.parts, self.weight = parts, weight
        self.octaves = parts.octaves(weight)
        self.squares = [_Square(rows) for rows in chain(parts.slices(weight), self.octaves)]

    @staticmethod
    def pays(parts: ErrorParts, weight: Tensor) -> bool:
        """Whether the products are less than half of what the layer itself would be."""
        outputs, inputs = weight.shape
        one = weight[:, :1]
        blocks = chain(parts.slices(one), parts.octaves(one))
        return 2 * sum(min(len(rows), inputs) for rows in blocks) < outputs

    def slope(self, error: Tensor) -> Tensor:
        """Slope of the squared error of every block: (n, P) to (K, n, H)."""
        slices = zip(self.parts.slices(error.T), self.parts.slices(self.weight), strict=True)
        octaves = zip(self.parts.octaves(error.T), self.octaves, strict=True)
        return torch.stack([2 * seen.T @ rows for seen, rows in chain(slices, octaves)])

    def change(self, moved: Tensor, slope: Tensor) -> Tensor:
        """Change of every part's squared error: (g, n, H) and (K, n, H) to (g, n, R)."""
        blocks = [
            square.of(moved) + (moved * steep).sum(-1)
            for square, steep in zip(self.squares, slope, strict=True)
        ]
        return self.parts.joined(torch.stack(blocks)).movedim(0, -1)


class _Square:
    """|A d|² of many d, by A (r, H) itself or, where that is less, by A'A."""

    def __init__(self, rows: Tensor) -> None:
        self.by_products = len(rows) >= rows.shape[1]
        self.matrix = rows.T @ rows if self.by_products else rows

    def of(self, moved: Tensor) -> Tensor:
        """Take (..., H) to (...)."""
        told = moved @ self.matrix.T
        return (told * moved).sum(-1) if self.by_products else told.square().sum(-1)
