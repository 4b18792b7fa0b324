"""Everything that lesions of one run have in common, and the effects of some units.

A lesion of the predicted brain shows what the decoder reads there, which need not be what is in the
brain: a decoder reads the movie off any prediction, also where the brain answers to nothing. A unit
is believed only where its *measured* activity tells the target too. That activity, the mean over
the subjects, takes the place of the unit's prediction, once as it is and once upside down. Where it
has nothing to do with the target it is as likely to be the one as the other, so that the sign of
the difference can be flipped, block by block; the noise it brings along is the same both ways and
costs nothing. The p of a unit is the larger of the two: both must hold (an intersection-union test
needs no correction, Berger 1982, Technometrics 24).

Legend: t = held-out TRs, K = blocks of them, U = units, R = targets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sherlock_models.lesions.block_tests import (
    apart,
    autocorrelation_trs,
    q_values,
    sign_flip,
    time_blocks,
)
from sherlock_models.lesions.brain import Reading, Replacing
from sherlock_models.lesions.effects import TRS, Change, Decoding, increases
from sherlock_models.lesions.null import NullUnits, null_units
from sherlock_models.lesions.targets import decoding_of
from sherlock_models.lesions.units import Elements, Unit, find_units, is_image, of_the_layer
from sherlock_models.scoring.heldout import Side, run_index
from sherlock_models.scoring.scores import FloatArray, IntArray, TimeBlocks

if TYPE_CHECKING:
    from sherlock_models.run import Run

#: features that the autocorrelation is estimated from
_FEATURES = 2048


@dataclass(frozen=True)
class Cost:
    """What is about to be computed.

    Attributes
    ----------
    units, null_units, samples : int
        Samples: brains the decoder reads.
    seconds : float
        Estimated from one batch.
    fast : bool
        Whether the first layer is computed once.
    """

    units: int
    null_units: int
    samples: int
    seconds: float
    fast: bool


@dataclass(frozen=True)
class Effects:
    """Effects of some units.

    Attributes
    ----------
    effect : ndarray of float64, (U, R)
    increase : ndarray of float64, (K, U, R)
        What each block of held-out TRs adds to the effect, in the order of the TRs.
    judged : ndarray of float64, (K, U, R)
        The same over TRs that keep the blocks apart: what `p_lesion` tests.
    measured_gain : ndarray of float64, (K, U, R)
        How much better than upside down the unit's measured activity tells the target, over the
        same TRs and in the same units: what `p_measured` tests. NaN where not tested.
    p_lesion, p_measured : ndarray of float64, (U, R)
        NaN where not tested.
    """

    effect: FloatArray
    increase: FloatArray
    judged: FloatArray
    measured_gain: FloatArray
    p_lesion: FloatArray
    p_measured: FloatArray

    @property
    def p(self) -> FloatArray:
        """The larger of the two, (U, R); that of the lesion where a measured brain is read."""
        return np.fmax(self.p_lesion, self.p_measured)

    @property
    def q(self) -> FloatArray:
        """P with the FDR over units, (U, R)."""
        return q_values(self.p)


@dataclass
class Study:
    """Everything that is needed to lesion the units of a run.

    Attributes
    ----------
    run : Run
    mode : str
    replacing : Replacing
    elements : Elements
    asked : str
        The units as they were asked for.
    units : list of Unit
    decoding : Decoding
    variance : ndarray of float64, (parts,)
        Of every part over the training TRs.
    readings : list of Reading
        The brains as they are read.
    blocks : TimeBlocks
    autocorrelation : int
        Of the stimuli over the training TRs.
    """

    run: Run
    mode: str
    replacing: Replacing
    elements: Elements
    asked: str
    units: list[Unit]
    decoding: Decoding
    variance: FloatArray
    readings: list[Reading]
    blocks: TimeBlocks
    autocorrelation: int

    @classmethod
    def of(
        cls,
        run: Run,
        units: str | Sequence[str],
        mode: str = "lesion",
        replace: str = "zero",
        brain: str = "predicted",
        fast: bool = True,
        seed: int = 0,
    ) -> Study:
        """Read the data, the units and the brains; nothing is decoded yet."""
        train, test = Side.of(run.data, "train"), Side.of(run.data, "test")
        replacing = Replacing(run, test, brain, replace, seed)
        elements = Elements(run, replacing.signal, replacing.components)
        found = find_units(elements, units)
        decoding, variance = decoding_of(run, train, test, fast)
        length = _autocorrelation(train)
        return cls(
            run=run,
            mode=mode,
            replacing=replacing,
            elements=elements,
            asked=_asked(units),
            units=found,
            decoding=decoding,
            variance=variance,
            readings=replacing.readings(of_the_layer(found)),
            blocks=time_blocks(test.trs, run_index(run.data), length),
            autocorrelation=length,
        )

    @property
    def isolate(self) -> bool:
        """Whether everything but the unit is replaced."""
        return self.mode == "isolate"

    @property
    def confirms(self) -> bool:
        """Whether a unit must also be confirmed by its measured activity: if that is not read."""
        return self.replacing.brain == "predicted"

    @property
    def stimuli(self) -> tuple[str, ...]:
        """Stimuli that are decoded, in order."""
        return tuple(self.decoding.parts)

    @property
    def targets(self) -> tuple[str, ...]:
        """The R targets: the stimuli, the loss, then the parts."""
        parts = [name for name in self.decoding.names if name not in self.stimuli]
        return (*self.stimuli, "loss", *parts)

    def null(self, draws: int) -> NullUnits:
        """Draw random units as large as the real ones."""
        own_layer = of_the_layer(self.units)
        signal = np.ones(self.replacing.components, bool) if own_layer else self.elements.signal
        positions = None if own_layer else self.elements.positions
        return null_units(self.units, positions, signal, draws, self.replacing.seed)

    def cost(self, null: NullUnits, more: int = 0) -> Cost:
        """Count the samples, and time a batch a thread; the first sets up what the others use.

        Parameters
        ----------
        null : NullUnits
        more : int
            Samples that are decoded besides.
        """
        trs = sum(len(reading.trs) for reading in self.readings)
        each = 3 if self.confirms else 1
        samples = trs * (each * len(self.units) + len(null.index)) + more
        one = self.readings[0]
        some = Reading(one.trs[:TRS], one.weight[:TRS], one.read[:TRS], one.replacement[:TRS])
        changes = [lambda rows: _nothing(some, rows)] * (
            self.decoding.group * self.decoding.threads
        )
        taken = []
        for _ in range(2):
            begun = time.perf_counter()
            increases(self.decoding, some, changes, some.read)
            taken.append(time.perf_counter() - begun)
        seconds = taken[-1] / (len(changes) * len(some.trs)) * samples
        return Cost(len(self.units), len(null.index), samples, seconds, self.decoding.fast)

    def changes(
        self, reading: Reading, index: Sequence[IntArray]
    ) -> list[Callable[[slice], Change]]:
        """Return what lesioning, or isolating, each unit does to a brain."""

        def change(own: IntArray, rows: slice) -> Change:
            return reading.change(own, rows, self.isolate)

        return [partial(change, own) for own in index]

    def effects(
        self,
        index: Sequence[IntArray],
        report: Callable[[int], None] = lambda samples: None,
        tested: bool = False,
    ) -> Effects:
        """Compute the effects of units, by blocks of time.

        Parameters
        ----------
        index : sequence of ndarray of int64
            Elements of each unit.
        report : callable
            Told how many samples were decoded.
        tested : bool
            Whether p is wanted.
        """
        increase, judged, gain = self._sums(index, report, tested)
        nothing = np.full(increase.shape[1:], np.nan)
        confirmed = tested and self.confirms
        return Effects(
            effect=increase.sum(axis=0),
            increase=increase,
            judged=judged,
            measured_gain=gain if confirmed else np.full_like(gain, np.nan),
            p_lesion=sign_flip(judged, self.replacing.seed) if tested else nothing,
            p_measured=sign_flip(gain, self.replacing.seed) if confirmed else nothing,
        )

    def _sums(
        self, index: Sequence[IntArray], report: Callable[[int], None], tested: bool
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Compute what each block adds to the mean over readings, three times (K, U, R).

        The increase over all TRs, the same and the measured gain over TRs that keep blocks apart.
        """
        total = np.zeros((3, len(self.blocks.run), len(index), len(self.targets)))
        weight = np.zeros(2)
        inner = apart(self.blocks, self.autocorrelation)
        for reading in self.readings:
            start = reading.start(self.isolate)
            kept = reading.weight * inner[np.searchsorted(self.blocks.trs, reading.trs)]
            found = increases(self.decoding, reading, self.changes(reading, index), start, report)
            found *= -1.0 if self.isolate else 1.0
            total[0] += self._by_block(reading, found, reading.weight)
            total[1] += self._by_block(reading, found, kept)
            weight += reading.weight.sum(), kept.sum()
            if tested and reading.measured is not None:
                gain = self._measured_gain(reading, reading.measured, index, start, report)
                total[2] += self._by_block(reading, gain, kept)
        increase, judged, gain = total / weight[[0, 1, 1], None, None, None]
        return increase, judged, gain

    def _measured_gain(
        self,
        reading: Reading,
        measured: Tensor,
        index: Sequence[IntArray],
        start: Tensor,
        report: Callable[[int], None],
    ) -> FloatArray:
        """How much better a unit's measured activity tells than upside down, (U, t, R)."""
        held = (reading.holding(sign * measured, self.isolate) for sign in (1.0, -1.0))
        upright, inverted = (
            increases(self.decoding, other, self.changes(other, index), start, report)
            for other in held
        )
        return inverted - upright

    def _by_block(self, reading: Reading, found: FloatArray, weight: FloatArray) -> FloatArray:
        """Sum over TRs and subjects of each block, over the variances: (K, U, R)."""
        scaled = found / self.variance * weight[None, :, None]
        sums = self.blocks.sums(reading.trs, scaled.transpose(1, 0, 2))
        names = list(self.decoding.names)
        columns = {name: sums[..., names.index(name)] for name in names}
        weights = self.run.config.weights
        columns["loss"] = np.sum(
            [weights.get(name, 1.0) * columns[name] for name in self.stimuli], axis=0
        )
        return np.stack([columns[target] for target in self.targets], axis=-1)


def _asked(units: str | Sequence[str]) -> str:
    """Write down what was asked for, images by paths that mean the same from every folder."""
    names = [units] if isinstance(units, str) else units
    return ",".join(str(Path(name).resolve()) if is_image(name) else name for name in names)


def _nothing(reading: Reading, rows: slice) -> Change:
    return torch.arange(1), torch.zeros_like(reading.read[rows, :1])


def _autocorrelation(train: Side) -> int:
    """Longest of the stimuli's autocorrelations over the training TRs."""
    data, trs = train.data, train.data.split.train
    stretch = np.cumsum(np.diff(trs, prepend=trs[0]) != 1)
    stretch = stretch * len(data.clock.runs) + run_index(data)[trs]
    found = []
    for name in data.tables:
        series = data.stimulus_target(name, trs).reshape(len(trs), -1)
        step = -(-series.shape[1] // _FEATURES)
        found.append(autocorrelation_trs(series[:, ::step], stretch))
    return max(found)
