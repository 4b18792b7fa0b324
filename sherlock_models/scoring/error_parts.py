"""Squared error of a decoded stimulus: whole, and by part.

A picture's parts are its quadrants and its octaves of spatial frequency, a sound's its bands, any
other short vector's its features. Quadrants and octaves each add up to the whole.

Legend: B = samples of a batch, P = numbers of a stimulus in one TR, R = parts, the whole first,
H = inputs of a dense last layer; (C, y, x) = a picture's colours and size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sherlock_models.scoring.scores import FloatArray

#: upper edges of the octaves, cycles over the picture's width; the last is open
OCTAVES = (2.0, 4.0, 8.0, 16.0)
#: a vector with more features than this has no parts
MOST_FEATURES = 64
#: share of the whole's variance below which the last octave is summed over its own waves
FINE_SHARE = 0.01
#: share of it that is rounding
NOTHING = 1e-10
#: TRs that are summed at a time
BLOCK = 64
#: columns of a weight whose waves are computed at a time
COLUMNS = 256
QUADRANTS = ("upper left", "upper right", "lower left", "lower right")


class ErrorParts(Protocol):
    """What an error is summed over."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the R parts: the stimulus, then `stimulus/part`."""
        ...

    def of(self, error: Tensor) -> Tensor:
        """Sum of squares in every part: (B, ...) to (B, R)."""
        ...

    def slices(self, values: Tensor) -> Iterator[Tensor]:
        """Numbers of a stimulus that lie in each of some blocks: (P, m) to (r, m) each."""
        ...

    def octaves(self, values: Tensor) -> list[Tensor]:
        """Coefficients of orthonormal waves in each of further blocks: (P, m) to (r, m) each."""
        ...

    def joined(self, blocks: Tensor) -> Tensor:
        """Take sums of squares of the blocks, or their changes, to those of the parts, (R, ...)."""
        ...


class PictureParts:
    """Quadrants and octaves of a picture.

    Parameters
    ----------
    name : str
        Of the stimulus.
    shape : tuple of int
        (C, y, x).
    complete : bool
        Whether the last octave is summed over its own waves. Else it is what is left of the whole
        (Parseval): few waves are below it, and it is known to some 1e-7 of the whole.
    """

    def __init__(self, name: str, shape: tuple[int, int, int], complete: bool = False) -> None:
        self.shape = shape
        _, height, width = shape
        self.half = ((height + 1) // 2, (width + 1) // 2)
        edges = (0.0, *OCTAVES)
        octaves = [f"{a:g}-{b:g} cycles" for a, b in zip(edges, OCTAVES, strict=False)]
        parts = (*QUADRANTS, *octaves, f"above {OCTAVES[-1]:g} cycles")
        self.names = (name, *(f"{name}/{part}" for part in parts))
        below = math.inf if complete else OCTAVES[-1]
        self.down, cycles_down = _waves(height, width / height, below)
        self.across, cycles_across = _waves(width, 1.0, below)
        cycles = torch.hypot(cycles_down[:, None], cycles_across).flatten()
        octave = torch.bucketize(cycles, torch.tensor(OCTAVES), right=True)
        low = int((octave < len(OCTAVES)).sum())
        self.complete = complete or low == height * width
        summed = torch.arange(len(OCTAVES) + self.complete)
        self.member = (octave == summed[:, None]).float()

    def of(self, error: Tensor) -> Tensor:
        """Sum of squares in every part: (B, C, y, x) to (B, R).

        Quickest with the samples side by side in memory, as `lesions.side_by_side` has them.
        """
        side_by_side = error.reshape(-1, *self.shape).permute(2, 3, 1, 0)
        up = self.half[0]
        power = torch.stack([half.square().sum(0) for half in side_by_side.tensor_split([up])])
        return self.of_halves(power, side_by_side)

    def of_halves(self, power: Tensor, side_by_side: Tensor) -> Tensor:
        """Sum of squares in every part, where halves are summed already: to (B, R).

        Parameters
        ----------
        power : Tensor, (2, x, C, B)
            Squares of the upper and of the lower half, summed over the rows.
        side_by_side : Tensor, (y, x, C, B)
            The errors.
        """
        sides = torch.tensor_split(power, [self.half[1]], 1)
        corners = torch.stack([side.sum((1, 2)) for side in sides], 1).flatten(0, 1)
        octaves = self.member @ self._waves(side_by_side).square().sum(1)
        sums = self.joined(torch.cat([corners, octaves]))
        return sums.clamp_(min=0).T

    def joined(self, blocks: Tensor) -> Tensor:
        """Take those of quadrants and octaves, (8 or 9, ...), to the parts', (R, ...)."""
        corners, octaves = blocks[: len(QUADRANTS)], blocks[len(QUADRANTS) :]
        whole = corners.sum(0, keepdim=True)
        if self.complete:
            return torch.cat([whole, blocks])
        return torch.cat([whole, blocks, whole - octaves.sum(0, keepdim=True)])

    def _waves(self, side_by_side: Tensor) -> Tensor:
        """Coefficients of the W waves that are summed: (y, x, C, B) to (W, C, B)."""
        height, width, colours, samples = side_by_side.shape
        lines = self.down @ side_by_side.reshape(height, -1)
        waves = self.across @ lines.view(-1, width, colours * samples)
        return waves.view(-1, colours, samples)

    def slices(self, values: Tensor) -> Iterator[Tensor]:
        """Pixels of each quadrant: (P, m) to (r, m) each."""
        pictures = values.view(*self.shape, -1)
        for down, across in self._quadrants():
            yield pictures[:, down, across].reshape(-1, values.shape[1])

    def octaves(self, values: Tensor) -> list[Tensor]:
        """Coefficients of the waves of each octave that is summed: (P, m) to (r, m) each."""
        found = []
        for some in torch.split(values, COLUMNS, 1):
            side_by_side = some.reshape(*self.shape, -1).permute(1, 2, 0, 3)
            found.append(self._waves(side_by_side))
        waves = torch.cat(found, -1)
        return [waves[member > 0].flatten(0, 1) for member in self.member]

    def _quadrants(self) -> list[tuple[slice, slice]]:
        down, across = self.half
        rows, columns = (
            (slice(None, down), slice(down, None)),
            (slice(None, across), slice(across, None)),
        )
        return [(v, h) for v in rows for h in columns]


def _waves(length: int, stretch: float, below: float) -> tuple[Tensor, Tensor]:
    """Waves of a line, (waves, length), and their cycles over the width, `below` so many.

    Part of a real orthonormal Fourier basis. A wave of a picture and its mirror image, of the same
    octave, are spanned by the four products of cosine and sine: the sum of their squares is the
    power of both.
    """
    place, waves, cycles = torch.arange(length), [], []
    for turn in range(length // 2 + 1):
        angle = 2 * torch.pi / length * turn * place.double()
        alone = turn == 0 or 2 * turn == length  # no sine
        for wave in [angle.cos()] if alone else [angle.cos(), angle.sin()]:
            if turn * stretch < below:
                waves.append(wave / wave.norm())
                cycles.append(turn * stretch)
    return torch.stack(waves).float(), torch.tensor(cycles)


class VectorParts:
    """Groups of a vector's features.

    Parameters
    ----------
    name : str
        Of the stimulus.
    groups : sequence of str
        Group of every feature; a vector of more than ``MOST_FEATURES`` groups, or of one, has none.
    """

    def __init__(self, name: str, groups: Sequence[str]) -> None:
        known = list(dict.fromkeys(groups))
        if not 1 < len(known) <= MOST_FEATURES:
            known = []
        self.names = (name, *(f"{name}/{group}" for group in known))
        member = torch.ones(len(groups), 1 + len(known))
        for column, group in enumerate(known):
            member[:, 1 + column] = torch.tensor([float(g == group) for g in groups])
        self.member = member

    def of(self, error: Tensor) -> Tensor:
        """Sum of squares in every part: (B, P) to (B, R)."""
        return error.square() @ self.member

    def slices(self, values: Tensor) -> Iterator[Tensor]:
        """Numbers of the whole and of each group: (P, m) to (r, m) each."""
        return (values[member > 0] for member in self.member.T)

    def octaves(self, values: Tensor) -> list[Tensor]:
        """None."""
        return []

    def joined(self, blocks: Tensor) -> Tensor:
        """Those of the blocks are the parts'."""
        return blocks


def picture_parts(name: str, target: Tensor) -> tuple[PictureParts, FloatArray]:
    """Return parts that tell the last octave of training pictures, however little is in it.

    Parameters
    ----------
    name : str
        Of the stimulus.
    target : Tensor, (t, C, y, x)

    Returns
    -------
    parts : PictureParts
    means : ndarray of float64, (R,)
        Of `part_means`.
    """
    _, colours, height, width = target.shape
    shape = (colours, height, width)
    complete = PictureParts(name, shape, complete=True)
    means = part_means(complete, target)
    fine = means[-1] < FINE_SHARE * means[0]
    return complete if fine else PictureParts(name, shape), means


def part_means(parts: ErrorParts, target: Tensor) -> FloatArray:
    """Mean over TRs of the sum of squares in every part, (R,), of a target (t, ...)."""
    total = torch.zeros(len(parts.names), dtype=torch.float64)
    for some in torch.split(target, BLOCK):
        total += parts.of(some).double().sum(0)
    return np.asarray((total / len(target)).numpy())


def variance_of(means: FloatArray) -> FloatArray:
    """Return what the training mean scores in every part, (R,), of `part_means` around it.

    A part that does not vary has the whole's, or 1 where that does not either.
    """
    whole = means[0] if means[0] > 0 else 1.0
    return np.where(means > NOTHING * whole, means, whole)
