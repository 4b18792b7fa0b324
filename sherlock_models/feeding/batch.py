"""Samples, and what is gathered from them for one step.

Legend: N = samples, B = samples of a batch, D = delays, U = units of the brain layer, F = features,
H, W = height and width of the video.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class SampleTable:
    """Samples of one side of the split, by subject and then by TR.

    Attributes
    ----------
    subject : ndarray of int64, (N,)
        Index into `MovieBrainData.subjects`.
    tr : ndarray of int64, (N,)
        0-based stimulus TR over all runs.
    """

    subject: IntArray
    tr: IntArray

    def __len__(self) -> int:
        return len(self.tr)

    def take(self, indices: IntArray) -> SampleTable:
        """Return the samples at `indices`, in that order."""
        return SampleTable(self.subject[indices], self.tr[indices])


@dataclass(frozen=True)
class Batch:
    """Samples as a model takes them, in normalised units.

    Attributes
    ----------
    stimulus : dict of Tensor
        What the encoder sees: `video` (B, D, 3, H, W), vectors (B, D, F).
    target : dict of Tensor
        The current TR: `video` (B, 3, H, W), vectors (B, F).
    brain : Tensor of float32, (B, U)
        0 where there is no signal.
    signal : Tensor of bool, (B, U)
    subject, tr, run : Tensor of int64, (B,)
        Index of the subject, stimulus TR over all runs, index of the run.
    embedding : Tensor of int64, (B,)
        Row of the subject embedding, -1 for a subject that was held out.
    position : Tensor of int64, (B,)
        Place in the global batch, the same for any number of ranks; always on the CPU, where
        chance is drawn.
    everywhere : bool
        Whether all subjects have signal in all units, so that nothing needs to be masked.
    """

    stimulus: dict[str, Tensor]
    target: dict[str, Tensor]
    brain: Tensor
    signal: Tensor
    subject: Tensor
    tr: Tensor
    run: Tensor
    embedding: Tensor
    position: Tensor
    everywhere: bool = False

    def __len__(self) -> int:
        return len(self.tr)

    def to(self, device: torch.device | str) -> Batch:
        """Move everything but `position` to a device; what is there already stays."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def pin(self) -> Batch:
        """Copy into page-locked memory, from which a GPU fetches while it computes."""
        return self._each(lambda value: value.pin_memory())

    def part(self, rows: slice) -> Batch:
        """Return some of the samples, without a copy."""
        part = self._each(lambda value: value[rows])
        return replace(part, position=self.position[rows])

    def _each(self, move: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            stimulus={name: move(value) for name, value in self.stimulus.items()},
            target={name: move(value) for name, value in self.target.items()},
            **{
                name: move(getattr(self, name))
                for name in ("brain", "signal", "subject", "tr", "run", "embedding")
            },
            position=self.position,
            everywhere=self.everywhere,
        )
