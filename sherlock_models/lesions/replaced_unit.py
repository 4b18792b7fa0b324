"""A unit replaced in any brain, whatever movie or person it comes from.

Legend: n = TRs, L = units of the brain layer, E = elements (the layer's own units or, behind a
code, the voxels).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
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
    replacing : Replacing
        Of which brain, and by what: `zero` or `mean`.
    name : str
    mode : {"lesion", "isolate"}
    index : ndarray of int64
        The unit's elements.
    space : Space
        Where elements are replaced.
    """

    replacing: Replacing
    name: str
    mode: str
    index: IntArray
    space: Space
    _by: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.replacing.replace == "shuffle":
            raise ConfigError(
                "brains come a few TRs at a time: another TR's value is not known yet",
                where="--replace shuffle",
                remedy="say zero or mean",
            )

    @classmethod
    def of(
        cls, run: Run, name: str, mode: str, replace: str = "zero", brain: str = "predicted"
    ) -> ReplacedUnit:
        """Find a unit by its name, or by an image.

        Parameters
        ----------
        run : Run
        name : str
        mode : {"lesion", "isolate"}
        replace : {"zero", "mean"}
            `mean` is over the training TRs of the subject's brain, or of another's where the
            subject was never trained on.
        brain : {"predicted", "measured"}
            Whose mean.

        Raises
        ------
        ConfigError, InputError, UnavailableError
            If there is no such unit, or the image cannot be used.
        """
        replacing = Replacing(run, Side.of(run.data, "test"), brain, replace)
        elements = Elements(run, replacing.signal, replacing.components)
        try:
            units = find_units(elements, [name])
        except ConfigError as error:
            raise ConfigError(error.what, where=f"--{mode}", remedy=error.remedy) from None
        index = np.unique(np.concatenate([unit.index for unit in units]))
        space = UnitSpace(run.data) if of_the_layer(units) else replacing.space
        return cls(replacing, name, mode, index, space)

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
        data, signal = self.replacing.run.data, torch.from_numpy(self.space.signal[subject])
        told = torch.from_numpy(self.space.told(subject, trs, read.numpy()))
        elements = torch.where(signal, told, 0.0)
        by = torch.where(signal, self._replacement(subject), 0.0).expand_as(elements)
        plain = Reading(trs, np.ones(len(trs)), read, by)
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

    def _replacement(self, subject: int) -> Tensor:
        """Return what replaces every element, (E,), or (1,) for all."""
        if self.replacing.replace == "zero":
            return torch.zeros(1)
        if subject not in self._by:
            mean = self.replacing.training_mean(subject, self.space)
            self._by[subject] = torch.from_numpy(mean)
        return self._by[subject]
