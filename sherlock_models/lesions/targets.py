"""What a lesion is judged by: the held-out movie, and the variance each part of it had in training.

Legend: t = held-out TRs, R = parts of all stimuli.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sherlock_models.feeding import stimuli
from sherlock_models.lesions.effects import Decoding
from sherlock_models.lesions.first_layer import CutDecoder
from sherlock_models.scoring.error_parts import (
    ErrorParts,
    VectorParts,
    part_variance,
    picture_parts,
)
from sherlock_models.scoring.heldout import Side
from sherlock_models.scoring.scores import FloatArray
from sherlock_models.sizes import Sizes

if TYPE_CHECKING:
    from sherlock_models.run import Run


def decoding_of(run: Run, train: Side, test: Side, fast: bool = True) -> Decoding:
    """Cut a run's decoder, and lay the held-out stimuli beside it.

    Parameters
    ----------
    run : Run
    train, test : Side
    fast : bool
        Whether to use the cuts.
    """
    sizes = run.model.sizes
    return Decoding(
        cut=CutDecoder.of(run.model.decoder, sizes.units, fast),
        parts={name: _parts(run, train, sizes, name) for name in test.data.tables},
        target={
            name: torch.from_numpy(test.data.stimulus_target(name, test.trs))
            for name in test.data.tables
        },
        trs=test.trs,
        fast=fast,
    )


def variances(decoding: Decoding, train: Side) -> FloatArray:
    """Mean over the training TRs of the squares of every part, (R,), as the loss has it."""
    found = [
        part_variance(parts, _training_target(train, name))
        for name, parts in decoding.parts.items()
    ]
    return np.concatenate(found)


def _parts(run: Run, train: Side, sizes: Sizes, name: str) -> ErrorParts:
    shape = sizes.output_shape(name)
    if len(shape) == 3:
        return picture_parts(name, _training_target(train, name))
    groups = stimuli.feature_groups(run.config.data, name, shape[0])
    return VectorParts(name, groups)


def _training_target(train: Side, name: str) -> Tensor:
    return torch.from_numpy(train.data.stimulus_target(name, train.data.split.train))
