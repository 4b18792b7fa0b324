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
    part_means,
    picture_parts,
    variance_of,
)
from sherlock_models.scoring.heldout import Side
from sherlock_models.scoring.scores import FloatArray
from sherlock_models.sizes import Sizes

if TYPE_CHECKING:
    from sherlock_models.run import Run


def decoding_of(
    run: Run, train: Side, test: Side, fast: bool = True
) -> tuple[Decoding, FloatArray]:
    """Cut a run's decoder, and lay the held-out stimuli beside it.

    Parameters
    ----------
    run : Run
    train, test : Side
    fast : bool
        Whether to use the cuts.

    Returns
    -------
    decoding : Decoding
    variance : ndarray of float64, (R,)
        Of every part over the training TRs, as the loss has it.
    """
    sizes = run.model.sizes
    parts, power = {}, []
    for name in test.data.tables:
        target = train.data.stimulus_target(name, train.data.split.train)
        parts[name], means = _parts(run, sizes, name, torch.from_numpy(target))
        power.append(variance_of(means))
    decoding = Decoding(
        cut=CutDecoder.of(run.model.decoder, sizes.units, fast),
        parts=parts,
        target={
            name: torch.from_numpy(test.data.stimulus_target(name, test.trs)) for name in parts
        },
        trs=test.trs,
        fast=fast,
    )
    return decoding, np.concatenate(power)


def _parts(run: Run, sizes: Sizes, name: str, target: Tensor) -> tuple[ErrorParts, FloatArray]:
    """Return the parts of a stimulus, and their means over training TRs."""
    shape = sizes.output_shape(name)
    if len(shape) == 3:
        return picture_parts(name, target)
    parts = VectorParts(name, stimuli.feature_groups(run.config.data, name, shape[0]))
    return parts, part_means(parts, target)
