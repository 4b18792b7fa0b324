"""Lesions of decoders that are made by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from sherlock_models.lesions.brain import Reading
from sherlock_models.lesions.effects import Change, Decoding
from sherlock_models.lesions.first_layer import CutDecoder
from sherlock_models.scoring.error_parts import PictureParts, VectorParts


def reading_of(read: Tensor) -> Reading:
    """A brain (TRs, units) that is read as it is, its units replaced by zero."""
    trs = np.arange(len(read))
    return Reading(trs, np.ones(len(read)), read, torch.zeros_like(read))


def decoding_of(
    decoder: nn.Module, units: int, target: dict[str, Tensor], fast: bool = True
) -> Decoding:
    """A decoder and what it should tell: pictures (TRs, C, y, x), and bands of sounds (TRs, n)."""
    parts = {
        name: PictureParts(name, values.shape[1:])
        if values.ndim == 4
        else VectorParts(name, [f"band {band}" for band in range(values.shape[1])])
        for name, values in target.items()
    }
    trs = np.arange(len(next(iter(target.values()))))
    return Decoding(CutDecoder.of(decoder, units, fast), parts, target, trs, fast)


def each_unit(reading: Reading, isolate: bool = False) -> list[Callable[[slice], Change]]:
    """Every unit replaced, or everything but it."""
    units = [np.array([unit]) for unit in range(reading.read.shape[1])]
    return [partial(reading.change, unit, isolate=isolate) for unit in units]
