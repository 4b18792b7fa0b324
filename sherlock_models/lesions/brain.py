"""Brains with a unit replaced: what a decoder is handed instead.

Legend: t = held-out TRs of a reading, L = units of the brain layer, E = elements (the layer's own
units or, behind a code, the voxels), H = outputs of the decoder's first layer.

A brain behind a code is replaced in voxel space and coded again, so that a region means the same
whatever the brain layer is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data.errors import ConfigError
from sherlock_models.code import Code, PcaCode
from sherlock_models.scoring.heldout import Reader, Side, partners, run_index
from sherlock_models.scoring.space import Space, UnitSpace, VoxelSpace, space_of

if TYPE_CHECKING:
    from sherlock_models.run import Run

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

REPLACEMENTS = ("zero", "mean", "shuffle")
BRAINS = ("predicted", "measured")
#: key of the random order of `shuffle`
_SHUFFLE = 1


@dataclass
class Reading:
    """One brain over held-out TRs, and what its elements are replaced by.

    Attributes
    ----------
    trs : ndarray of int64, (t,)
        Stimulus TRs.
    weight : ndarray of float64, (t,)
        Subjects that share this brain at each TR.
    read : Tensor of float32, (t, L)
        What the decoder reads, 0 without signal.
    replacement : Tensor of float32, (t, E)
        Of every element, 0 without signal.
    measured : Tensor of float32, (t, E), or None
        Mean over the subjects of their standardised BOLD, around each one's mean over the held-out
        TRs of a run; 0 without signal. None where the measured brain is what is read.
    """

    trs: IntArray
    weight: NDArray[np.float64]
    read: Tensor
    replacement: Tensor
    measured: Tensor | None = None

    def start(self, isolate: bool) -> Tensor:
        """Return the brain before a unit is touched, (t, L): whole, or everything replaced."""
        return self.replacement if isolate else self.read

    @property
    def elements(self) -> Tensor:
        """What is replaced, (t, E)."""
        return self.read

    @cached_property
    def _difference(self) -> Tensor:
        return self.replacement - self.read

    def holding(self, activity: Tensor, isolate: bool) -> Self:
        """Return the reading whose changes bring other activity (t, E) into a unit.

        Lesioning then replaces the unit by its activity here, isolating brings that activity into a
        brain of which everything is replaced. The brain before the change is still this reading's.
        """
        return replace(self, read=activity) if isolate else replace(self, replacement=activity)

    def change(self, index: IntArray, rows: slice, isolate: bool) -> tuple[Tensor, Tensor]:
        """Return columns of the layer that a unit changes, and by how much.

        Parameters
        ----------
        index : ndarray of int64
            The unit's elements.
        rows : slice
            Some of the t TRs.
        isolate : bool
            Bring the unit back into a brain of which everything is replaced.

        Returns
        -------
        columns : Tensor of int64, (c,)
        change : Tensor, (rows, c)
        """
        columns = torch.from_numpy(index)
        change = self._difference[rows, columns]
        return columns, -change if isolate else change


@dataclass
class CodedReading(Reading):
    """A brain layer of codes, whose elements are voxels.

    Attributes
    ----------
    voxels : Tensor of float32, (t, E)
        What the layer says of the voxels.
    code : Code
    subject : str
    scale : Tensor of float32, (t, L)
        Factor from a code to the units the model sees.
    """

    voxels: Tensor = field(default_factory=lambda: torch.zeros(0))
    code: Code = field(default=None)  # type: ignore[assignment]
    subject: str = ""
    scale: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def elements(self) -> Tensor:
        """What is replaced, (t, E)."""
        return self.voxels

    def holding(self, activity: Tensor, isolate: bool) -> Self:
        """Return the reading whose changes bring other activity (t, E) into a unit."""
        return replace(self, voxels=activity) if isolate else replace(self, replacement=activity)

    def start(self, isolate: bool) -> Tensor:
        """Return the layer as it is, or coded from a brain of which everything is replaced."""
        if not isolate:
            return self.read
        return self.read + self._coded(self.replacement, slice(None))

    def change(self, index: IntArray, rows: slice, isolate: bool) -> tuple[Tensor, Tensor]:
        """Replace in voxel space and code again."""
        if isinstance(self.code, PcaCode):  # linear: the unit's own voxels suffice
            difference = self.replacement[rows, index] - self.voxels[rows, index]
            return self._projected(-difference if isolate else difference, index, rows)
        inside, outside = self.replacement[rows], self.voxels[rows]
        if isolate:
            inside, outside = outside, inside
        brain = outside.clone()
        brain[:, index] = inside[:, index]
        change = self._coded(brain, rows)
        if isolate:
            change -= self._coded(self.replacement[rows], rows)
        return self._columns, change

    def _projected(self, change: Tensor, index: IntArray, rows: slice) -> tuple[Tensor, Tensor]:
        loadings = self.code.loadings[:, index]  # type: ignore[attr-defined]
        return self._columns, (change @ loadings.T) * self.scale[rows]

    @cached_property
    def _columns(self) -> Tensor:
        return torch.arange(self.read.shape[1])

    def _coded(self, voxels: Tensor, rows: slice) -> Tensor:
        """Change of the layer that other voxels make, (rows, L)."""
        told = self.code.from_voxels(self.voxels[rows], self.subject)
        return (self.code.from_voxels(voxels, self.subject) - told) * self.scale[rows]


@dataclass(frozen=True)
class _Layer:
    """A brain layer that some subjects share: whose, when, (t, L)."""

    subjects: list[int]
    of: dict[int, IntArray]
    trs: IntArray
    weight: NDArray[np.float64]
    read: NDArray[np.float32]


@dataclass(frozen=True)
class Replacing:
    """How brains are read and replaced.

    Attributes
    ----------
    run : Run
    test : Side
    brain : {"predicted", "measured"}
    replace : {"zero", "mean", "shuffle"}
        `zero`: 0 of the standardised units the model sees. `mean`: the element's mean over the
        training TRs of the brain that is read, in the same units. `shuffle`: its value at another
        held-out TR, the same one for all units.
    seed : int
    """

    run: Run
    test: Side
    brain: str = "predicted"
    replace: str = "zero"
    seed: int = 0

    def __post_init__(self) -> None:
        for value, known, where in (
            (self.brain, BRAINS, "--brain"),
            (self.replace, REPLACEMENTS, "--replace"),
        ):
            if value not in known:
                raise ConfigError(f"no '{value}'", where=where, remedy=f"say {', '.join(known)}")
        if self.run.config.is_compressor:
            raise ConfigError(
                "a compressor decodes a brain, not a movie",
                where=self.run.path,
                remedy="lesion the stage-2 run that reads its code",
            )

    @cached_property
    def space(self) -> Space:
        """Where elements are replaced."""
        return space_of(self.run)

    @cached_property
    def signal(self) -> BoolArray:
        """Elements with signal in at least one held-out subject, (E,)."""
        return np.asarray(self.space.signal[self.test.subjects].any(axis=0))

    @property
    def components(self) -> int:
        """Units of the brain layer where it is a code, else 0."""
        return self.run.model.sizes.units if isinstance(self.space, VoxelSpace) else 0

    def readings(self, own_layer: bool = False) -> list[Reading]:
        """Return the brains to lesion: one for all subjects that share a prediction.

        Parameters
        ----------
        own_layer : bool
            Replace the layer's own units (components) although voxels lie behind them.
        """
        layers = self._layers(own_layer)
        return [self._reading(layer, layer.read, own_layer) for layer in layers]

    def _layers(self, own_layer: bool) -> list[_Layer]:
        reader = self._reader
        coded = isinstance(self.space, VoxelSpace) and not own_layer
        apart = self.run.config.subject == "embedding" or self.brain == "measured" or coded
        shared: dict[bytes, list[int]] = {}
        for subject in (int(s) for s in self.test.subjects):
            # subjects with signal in the same units have the same predicted brain
            key = bytes([subject]) if apart else self.test.data.signal[subject].tobytes()
            shared.setdefault(key, []).append(subject)
        found = []
        for subjects in shared.values():
            of = {s: self.test.of_subject(s) for s in subjects}
            trs = np.unique(np.concatenate(list(of.values())))
            read = np.zeros((len(trs), self.test.data.signal.shape[1]), dtype=np.float32)
            for subject, own in of.items():
                read[np.searchsorted(trs, own)] = self._read(reader, subject)
            weight = np.sum([np.isin(trs, own) for own in of.values()], axis=0)
            found.append(_Layer(subjects, of, trs, weight.astype(np.float64), read))
        return found

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.run, self.test, self.seed)

    @cached_property
    def _before(self) -> Reader:
        """The same of the training side."""
        return Reader(self.run, Side.of(self.test.data, "train"), self.seed)

    def _read(self, reader: Reader, subject: int) -> NDArray[np.float32]:
        """Brain layer of a subject at its own TRs of the reader's side."""
        if self.brain == "predicted":
            return reader.predicted(subject)
        return reader.test.measured(subject, reader.test.of_subject(subject))

    def _reading(self, layer: _Layer, read: NDArray[np.float32], own_layer: bool) -> Reading:
        space: Space = UnitSpace(self.test.data) if own_layer else self.space
        subject = max(layer.subjects, key=lambda s: len(layer.of[s]))
        signal = space.signal[subject]
        elements = np.asarray(space.told(subject, layer.trs, read) * signal, dtype=np.float32)
        replacement = self._replacement(layer, elements, subject, space) * signal
        reading = Reading(
            trs=layer.trs,
            weight=layer.weight,
            read=torch.from_numpy(read),
            replacement=torch.from_numpy(np.asarray(replacement, dtype=np.float32)),
            measured=None if self.brain == "measured" else self._measured(layer, space),
        )
        if not isinstance(space, VoxelSpace):
            return reading
        return CodedReading(
            **{f.name: getattr(reading, f.name) for f in fields(reading)},
            voxels=torch.from_numpy(elements),
            code=space.code,
            subject=self.test.data.subjects[subject],
            scale=self._scale(subject, layer.trs),
        )

    def _measured(self, layer: _Layer, space: Space) -> Tensor:
        """Mean measured brain of the layer's subjects, (t, E), each around its means of the runs.

        A mean that all blocks of a run share would tie their signs together.
        """
        runs = run_index(self.test.data)
        total, count = np.zeros((2, len(layer.trs), space.signal.shape[1]), dtype=np.float32)
        for subject, own in layer.of.items():
            measured, at = space.measured(subject, own), np.searchsorted(layer.trs, own)
            for run in np.unique(runs[own]):
                mine = runs[own] == run
                measured[mine] -= measured[mine].mean(axis=0)
            total[at] += measured
            count[at] += space.signal[subject]
        return torch.from_numpy(total / np.maximum(count, 1))

    def _replacement(
        self, layer: _Layer, elements: NDArray[np.float32], subject: int, space: Space
    ) -> NDArray[np.float32]:
        if self.replace == "zero":
            return np.zeros_like(elements)
        if self.replace == "shuffle":
            rng = np.random.default_rng([self.seed, _SHUFFLE])
            return np.asarray(elements[partners(layer.trs, rng)])
        return np.broadcast_to(self.training_mean(subject, space), elements.shape)

    def training_mean(self, subject: int, space: Space) -> NDArray[np.float32]:
        """Mean over the training TRs of what the read brain says of every element, (E,)."""
        known = self._before.test.of_subject(subject)
        if not len(known):  # an unseen subject: the mean of one that was seen
            subject = int(self._before.test.subjects[0])
            known = self._before.test.of_subject(subject)
        seen = space.told(subject, known, self._read(self._before, subject))
        return np.asarray(seen.mean(axis=0), dtype=np.float32)

    def _scale(self, subject: int, trs: IntArray) -> Tensor:
        brains, rows = self.test.data.brains, torch.from_numpy(trs) + self.test.data.lag_trs
        which = subject * brains.mean.shape[1] + brains.run[rows]
        return brains.inverse_std.flatten(0, 1).index_select(0, which)
