"""Squared error of a decoded stimulus: whole, and by part.

A picture's parts are its quadrants and its octaves of spatial frequency, a sound's its bands, any
other short vector's its features. Quadrants and octaves each add up to the whole.

Legend: B = samples of a batch, P = numbers of a stimulus in one TR, R = parts, the whole first,
H = inputs of a dense last layer; (C, y, x) = a picture's colours and size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

#: upper edges of the octaves, cycles over the picture's width; the last is open
OCTAVES = (2.0, 4.0, 8.0, 16.0)
#: a vector with more features than this has no parts
MOST_FEATURES = 64
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

    def project(self, error: Tensor) -> list[Tensor]:
        """Each part of the error alone, (B, P): orthogonal projections."""
        ...

    def gram(self, weight: Tensor) -> Tensor:
        """Inner products of a dense layer's columns within every part: (P, H) to (R, H, H)."""
        ...


class PictureParts:
    """Quadrants and octaves of a picture.

    Parameters
    ----------
    name : str
        Of the stimulus.
    shape : tuple of int
        (C, y, x).
    """

    def __init__(self, name: str, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        _, height, width = shape
        self.half = ((height + 1) // 2, (width + 1) // 2)
        edges = (0.0, *OCTAVES)
        octaves = [f"{a:g}-{b:g} cycles" for a, b in zip(edges, OCTAVES, strict=False)]
        parts = (*QUADRANTS, *octaves, f"above {OCTAVES[-1]:g} cycles")
        self.names = (name, *(f"{name}/{part}" for part in parts))
        down = torch.fft.fftfreq(height, 1 / height) * (width / height)
        across = torch.fft.rfftfreq(width, 1 / width)
        cycles = (down[:, None].square() + across.square()).sqrt()
        self.octave = torch.bucketize(cycles, torch.tensor(OCTAVES), right=True)
        mirrored = torch.full((len(across),), 2.0)
        mirrored[0] = 1.0
        if width % 2 == 0:
            mirrored[-1] = 1.0
        self.weight = mirrored.expand_as(cycles)
        low = self.octave < len(OCTAVES)
        self.all_low = bool(low.all())
        self.down, turns = _waves(height, int(low.any(1)[: height // 2 + 1].sum()))
        self.across, more = _waves(width, int(low.any(0).sum()))
        octave = self.octave[turns][:, more].flatten()
        self.member = (octave == torch.arange(len(OCTAVES))[:, None]).float()

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
        whole = corners.sum(0, keepdim=True)
        octaves = self.member @ self._low_power(side_by_side)
        # what is left of the whole (Parseval): few waves are below the last octave
        rest = (whole - octaves.sum(0, keepdim=True)).clamp(min=0)
        above = torch.zeros_like(rest) if self.all_low else rest
        return torch.cat([whole, corners, octaves, above]).T

    def _low_power(self, side_by_side: Tensor) -> Tensor:
        """Power of the W waves below the last octave, over all colours: (y, x, C, B) to (W, B)."""
        height, width, colours, samples = side_by_side.shape
        lines = self.down @ side_by_side.reshape(height, -1)
        waves = self.across @ lines.view(-1, width, colours * samples)
        power: Tensor = waves.view(-1, colours, samples).square().sum(1)
        return power

    def project(self, error: Tensor) -> list[Tensor]:
        """Each part of the error alone, (B, P)."""
        error = error.reshape(-1, *self.shape)
        found = [error]
        for down, across in self._quadrants():
            part = torch.zeros_like(error)
            part[:, :, down, across] = error[:, :, down, across]
            found.append(part)
        waves, size = torch.fft.rfft2(error, norm="ortho"), self.shape[1:]
        for octave in range(len(OCTAVES) + 1):
            found.append(torch.fft.irfft2(waves * (self.octave == octave), s=size, norm="ortho"))
        return [part.flatten(1) for part in found]

    def gram(self, weight: Tensor) -> Tensor:
        """Inner products of a dense layer's columns within every part: (P, H) to (R, H, H)."""
        columns = weight.T.reshape(-1, *self.shape)
        corners = [_gram(columns[:, :, v, h].flatten(1)) for v, h in self._quadrants()]
        octaves = [torch.zeros_like(corners[0]) for _ in range(len(OCTAVES) + 1)]
        for colour in range(self.shape[0]):
            waves = torch.fft.rfft2(columns[:, colour], norm="ortho") * self.weight.sqrt()
            for octave, total in enumerate(octaves):
                total += _gram(torch.view_as_real(waves[:, self.octave == octave]).flatten(1))
        return torch.stack([torch.stack(corners).sum(0), *corners, *octaves])

    def _quadrants(self) -> list[tuple[slice, slice]]:
        down, across = self.half
        rows, columns = (
            (slice(None, down), slice(down, None)),
            (slice(None, across), slice(across, None)),
        )
        return [(v, h) for v in rows for h in columns]


def _waves(length: int, number: int) -> tuple[Tensor, Tensor]:
    """Real orthonormal Fourier basis of a line: its slowest waves, (rows, length), and their turns.

    A wave of a picture and its mirror image, of the same octave, are spanned by the four products
    of cosine and sine: the sum of these four squares is the power of both.
    """
    place, rows, turns = torch.arange(length), [], []
    for turn in range(number):
        angle = 2 * torch.pi / length * turn * place.double()
        alone = turn == 0 or 2 * turn == length  # no sine
        for wave in [angle.cos()] if alone else [angle.cos(), angle.sin()]:
            rows.append(wave / wave.norm())
            turns.append(turn)
    return torch.stack(rows).float(), torch.tensor(turns)


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

    def project(self, error: Tensor) -> list[Tensor]:
        """Each part of the error alone, (B, P)."""
        return [error * column for column in self.member.T]

    def gram(self, weight: Tensor) -> Tensor:
        """Inner products of a dense layer's columns within every part: (P, H) to (R, H, H)."""
        return torch.stack([weight.T @ (weight * column[:, None]) for column in self.member.T])


def _gram(rows: Tensor) -> Tensor:
    return rows @ rows.T


def part_variance(parts: ErrorParts, target: Tensor, block: int = 64) -> np.ndarray:
    """Mean over training TRs of the sum of squares in every part, (R,): what the mean scores.

    Parameters
    ----------
    parts : ErrorParts
    target : Tensor, (t, ...)
        Of the training TRs, around their mean.
    """
    total = torch.zeros(len(parts.names), dtype=torch.float64)
    for start in range(0, len(target), block):
        total += parts.of(target[start : start + block]).double().sum(0)
    mean = np.asarray((total / len(target)).numpy())
    return np.where(mean > 0, mean, 1.0)
