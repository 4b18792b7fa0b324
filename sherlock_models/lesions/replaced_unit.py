"""A unit replaced in any brain, whatever movie or person it comes from.

Legend: n = TRs, L = units of the brain layer, E = elements (the layer's own units or, behind a
code, the voxels). Replaced is by 0 of the standardised units that the model sees: the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data.errors import ConfigError
from sherlock_models.lesions.brain import CodedReading, Reading, Replacing
from sherlock_models.lesions.units import Elements, find_units, of_the_layer
from sherlock_models.scoring.heldout import Side
from sherlock_models.scoring.space import Space, UnitSpace, VoxelSpace

if TYPE_CHECKING:
    from sherlock_models.run import Run

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ReplacedUnit:
    """One unit, or everything but it, taken out of brains.

    Attributes
    ----------
    run : Run
    name : str
    mode : {"lesion", "isolate"}
    index : ndarray of int64
        The unit's elements.
    space : Space
        Where elements are replaced.
    """

    run: Run
    name: str
    mode: str
    index: IntArray
    space: Space

    @classmethod
    def of(cls, run: Run, name: str, mode: str) -> ReplacedUnit:
        """Find a unit by its name, or by an image.

        Raises
        ------
        ConfigError, InputError, UnavailableError
            If there is no such unit, or the image cannot be used.
        """
        replacing = Replacing(run, Side.of(run.data, "test"))
        elements = Elements(run, replacing.signal, replacing.components)
        try:
            units = find_units(elements, [name])
        except ConfigError as error:
            raise ConfigError(error.what, where=f"--{mode}", remedy=error.remedy) from None
        index = np.unique(np.concatenate([unit.index for unit in units]))
        space = UnitSpace(run.data) if of_the_layer(units) else replacing.space
        return cls(run, name, mode, index, space)

    @property
    def isolate(self) -> bool:
        """Whether everything but the unit is replaced."""
        return self.mode == "isolate"

    def __call__(self, read: Tensor, subject: int, trs: IntArray) -> Tensor:
        """Replace in a brain layer.

        Parameters
        ----------
        read : Tensor of float32, (n, L)
        subject : int
            Whose brain it is; behind a code its statistics take codes to voxels.
        trs : ndarray of int64, (n,)
            Stimulus TRs of the scan that the brain belongs to, or whose run's statistics are used.

        Returns
        -------
        Tensor of float32, (n, L)
        """
        reading = self._reading(read, subject, trs)
        brain = reading.start(self.isolate).clone()
        columns, change = reading.change(self.index, slice(None), self.isolate)
        brain[:, columns] += change
        return brain

    def _reading(self, read: Tensor, subject: int, trs: IntArray) -> Reading:
        data = self.run.data
        told = torch.from_numpy(self.space.told(subject, trs, read.numpy()))
        elements = torch.where(torch.from_numpy(self.space.signal[subject]), told, 0.0)
        plain = Reading(trs, np.ones(len(trs)), read, torch.zeros_like(elements))
        if not isinstance(self.space, VoxelSpace):
            return plain
        run = data.brains.run[torch.from_numpy(trs) + data.lag_trs]
        return CodedReading(
            **{one.name: getattr(plain, one.name) for one in fields(plain)},
            voxels=elements,
            code=self.space.code,
            subject=data.subjects[subject],
            scale=data.brains.inverse_std[subject, run],
        )
