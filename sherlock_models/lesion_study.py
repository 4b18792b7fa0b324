"""Everything that lesions of one run have in common, and the effects of some units.

A unit counts as found where its help is worth `NOISE_SHARE` of what its noise would cost. A
decoder's smallest weight on a predicted brain, which has no noise, helps a little at every TR, also
where the brain answers to nothing: such help is consistent, and worth less than the noise that a
real brain brings along.

Legend: t = held-out TRs, K = blocks of them, U = units, R = targets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from sherlock_models.heldout import Side, run_index
from sherlock_models.lesion_brain import Reading, Replacing
from sherlock_models.lesion_effects import Change, Decoding, increases
from sherlock_models.lesion_null import NullUnits, null_units
from sherlock_models.lesion_targets import decoding_of, variances
from sherlock_models.lesion_tests import (
    apart,
    autocorrelation_trs,
    q_values,
    sign_flip,
    time_blocks,
)
from sherlock_models.scores import FloatArray, IntArray, TimeBlocks
from sherlock_models.units import Elements, Unit, find_units

if TYPE_CHECKING:
    from sherlock_models.run import Run

#: share of the cost of its noise that a unit must be worth to be found; chosen on two synthetic
#: datasets, not derived: at 1 a quarter of the true audio parcels was found, at 0 a third of the
#: parcels with nothing planted
NOISE_SHARE = 0.5

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
        The same less what the unit's noise costs, over TRs that keep the blocks apart: what is
        tested.
    p, q : ndarray of float64, (U, R)
        NaN where not tested.
    """

    effect: FloatArray
    increase: FloatArray
    judged: FloatArray
    p: FloatArray
    q: FloatArray


@dataclass
class Study:
    """Everything that is needed to lesion the units of a run.

    Attributes
    ----------
    run : Run
    mode : str
    replacing : Replacing
    elements : Elements
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
        decoding = decoding_of(run, test, fast)
        length = _autocorrelation(train)
        return cls(
            run=run,
            mode=mode,
            replacing=replacing,
            elements=elements,
            units=found,
            decoding=decoding,
            variance=variances(decoding, train),
            readings=replacing.readings(_own_layer(found)),
            blocks=time_blocks(test.trs, run_index(run.data), length),
            autocorrelation=length,
        )

    @property
    def isolate(self) -> bool:
        """Whether everything but the unit is replaced."""
        return self.mode == "isolate"

    @property
    def noise_share(self) -> float:
        """Share of its noise's cost that a unit must be worth; a measured brain has paid it."""
        return NOISE_SHARE if self.replacing.brain == "predicted" else 0.0

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
        own_layer = _own_layer(self.units)
        signal = np.ones(self.replacing.components, bool) if own_layer else self.elements.signal
        positions = None if own_layer else self.elements.positions
        return null_units(self.units, positions, signal, draws, self.replacing.seed)

    def cost(self, null: NullUnits) -> Cost:
        """Count the samples, and time one batch of them."""
        trs = sum(len(reading.trs) for reading in self.readings)
        samples = trs * (len(self.units) + len(null.index))
        one = self.readings[0]
        some = Reading(one.trs[:4], one.weight[:4], one.read[:4], one.replacement[:4])
        begun = time.perf_counter()
        with torch.inference_mode():
            increases(self.decoding, some, [lambda rows: _nothing(some, rows)] * 4, some.read)
        seconds = (time.perf_counter() - begun) / 20 * samples
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
            Whether p and q are wanted.
        """
        found, judged = self._increase(index, report, tested and self.noise_share > 0)
        effect = found.sum(axis=0)
        p = sign_flip(judged, self.replacing.seed) if tested else np.full_like(effect, np.nan)
        return Effects(effect, found, judged, p, q_values(p) if tested else p)

    def _increase(
        self,
        index: Sequence[IntArray],
        report: Callable[[int], None],
        with_noise: bool,
    ) -> tuple[FloatArray, FloatArray]:
        """Compute what each block adds to the mean over readings: whole, and as it is judged."""
        total = np.zeros((2, len(self.blocks.run), len(index), len(self.targets)))
        weight = np.zeros(2)
        inner = apart(self.blocks, self.autocorrelation)
        for reading in self.readings:
            changes, start = self.changes(reading, index), reading.start(self.isolate)
            noise = self._noise(reading, index) if with_noise else None
            found = increases(self.decoding, reading, changes, start, report, noise)
            both = (found[0], found[1]) if with_noise else (found, found)
            kept = inner[np.searchsorted(self.blocks.trs, reading.trs)]
            for row, share in enumerate((reading.weight, reading.weight * kept)):
                total[row] += self._by_block(reading, both[row], share)
                weight[row] += share.sum()
        total *= -1.0 if self.isolate else 1.0
        return total[0] / weight[0], total[1] / weight[1]

    def _noise(self, reading: Reading, index: Sequence[IntArray]) -> FloatArray:
        """Noise of each unit over what is replaced in it, (U,), times `noise_share`.

        A standardised brain has variance 1, and what is not predicted of it is noise. To first
        order the decoder turns both into the stimulus alike.
        """
        told = reading.elements
        unexplained = 1 - told.var(0, correction=0).clamp(max=0.9)
        replaced = (reading.replacement - told).square().mean(0)
        ratio = [
            float(unexplained[own].sum() / replaced[own].sum().clamp(min=1e-12)) for own in index
        ]
        return self.noise_share * np.array(ratio) * (-1.0 if self.isolate else 1.0)

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


def _nothing(reading: Reading, rows: slice) -> Change:
    return torch.arange(1), torch.zeros_like(reading.read[rows, :1])


def _own_layer(units: Sequence[Unit]) -> bool:
    return all(unit.name.startswith("component-") for unit in units)


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
