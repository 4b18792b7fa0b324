"""What the movie loses without a part of the brain, or keeps with that part alone.

The effect of a lesion is the increase of the held-out squared error of each target over that
target's variance in training: 0.1 is a tenth of what the training mean leaves unexplained. Above 0
the target is decoded worse. `isolate` replaces everything but the unit; its effect is what the unit
alone explains, on the same scale.

Whether an effect is there is asked of brains as noisy as real ones. A decoder's smallest weight on
a predicted brain, which has no noise, helps a little at every TR, also where the brain answers to
nothing: such help is consistent, and worth less than the noise that a real brain brings along. In
the synthetic demo a third of the parcels with nothing planted were "found" without the noise.

Legend: t = held-out TRs, K = blocks of them, U = units, R = targets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import xarray as xr

from sherlock_data.errors import ConfigError
from sherlock_models import lesion_store
from sherlock_models.heldout import Side, run_index
from sherlock_models.lesion_brain import Reading, Replacing
from sherlock_models.lesion_effects import Change, Decoding, increases
from sherlock_models.lesion_maps import maps_of
from sherlock_models.lesion_null import NULL_DRAWS, NullUnits, null_units
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

MODES = ("lesion", "isolate")
#: units of which a map of the picture is kept, those with the largest effects
MAPPED = 20
#: share of the unit's noise that it must be worth; see docs of the module
NOISE_SHARE = 0.5
#: residuals that are added to, and taken away from, the predicted brain for the test
NOISE_DRAWS = 0
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


class Watcher(Protocol):
    """Who watches a lesion."""

    def started(self, cost: Cost) -> None:
        """Before the first unit."""

    def advanced(self, samples: int) -> None:
        """After every batch: samples decoded since the last call."""


class Silent:
    """Watches and says nothing."""

    def started(self, cost: Cost) -> None:
        """Before the first unit."""

    def advanced(self, samples: int) -> None:
        """After every batch."""


def lesion(
    run: Run,
    units: str | Sequence[str] = "parcels",
    *,
    mode: str = "lesion",
    replace: str = "zero",
    brain: str = "predicted",
    null_draws: int = NULL_DRAWS,
    noise_draws: int = NOISE_DRAWS,
    mapped: int = MAPPED,
    fast: bool = True,
    seed: int = 0,
    watcher: Watcher | None = None,
) -> xr.Dataset:
    """Replace every unit of a run's brain in turn, and see what is decoded worse.

    Parameters
    ----------
    run : Run
        Its best checkpoint, on the test side of its split.
    units : str or sequence of str
        As :func:`sherlock_models.units.find_units` takes them.
    mode : {"lesion", "isolate"}
    replace : {"zero", "mean", "shuffle"}
        As :class:`sherlock_models.lesion_brain.Replacing` has them.
    brain : {"predicted", "measured"}
        What the decoder reads.
    null_draws : int
        Random units of every size; 0 for none.
    noise_draws : int
        Noisy brains, in pairs, that p and q are computed from; 0 for the predicted brain itself.
    mapped : int
        Units of which a map of the picture is made.
    fast : bool
        Whether to start from the first layer's output; the plain way gives the same.
    seed : int
    watcher : Watcher, optional

    Returns
    -------
    xarray.Dataset
        As :func:`sherlock_models.lesion_store.gather` has it; not yet written.

    Raises
    ------
    ConfigError, InputError, UnavailableError
        If a unit, an option or an image cannot be used.
    """
    if mode not in MODES:
        raise ConfigError(f"no mode '{mode}'", where="--mode", remedy=f"say {', '.join(MODES)}")
    study = Study.of(run, units, mode, replace, brain, fast, seed, noise_draws)
    null = study.null(null_draws)
    watcher = watcher or Silent()
    watcher.started(study.cost(null))
    with torch.inference_mode():
        effects = study.effects([u.index for u in study.units], watcher.advanced, tested=True)
        chance = study.effects(null.index, watcher.advanced).effect if null.index else None
        maps = maps_of(study, effects.effect, mapped, watcher.advanced)
    return lesion_store.gather(study, effects, null, chance, maps)


@dataclass(frozen=True)
class Effects:
    """Effects of some units.

    Attributes
    ----------
    effect : ndarray of float64, (U, R)
    increase : ndarray of float64, (K, U, R)
        What each block of held-out TRs adds to the effect, in the order of the TRs.
    noisy : ndarray of float64, (K, U, R)
        The same in brains as noisy as real ones, over TRs that keep the blocks apart: what is
        tested.
    p, q : ndarray of float64, (U, R)
        NaN where not tested.
    """

    effect: FloatArray
    increase: FloatArray
    noisy: FloatArray
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
    readings, noisy : list of Reading
        The brains as they are read, and as noisy as real ones.
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
    noisy: list[Reading]
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
        noise_draws: int = NOISE_DRAWS,
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
            noisy=replacing.noisy(noise_draws, _own_layer(found)),
            blocks=time_blocks(test.trs, run_index(run.data), length),
            autocorrelation=length,
        )

    @property
    def isolate(self) -> bool:
        """Whether everything but the unit is replaced."""
        return self.mode == "isolate"

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
        noisy = sum(len(reading.trs) for reading in self.noisy)
        samples = (trs + noisy) * len(self.units) + trs * len(null.index)
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
        judged = tested and not self.noisy and self.replacing.brain == "predicted"
        found, noisy = self._increase(self.readings, index, report, judged)
        if tested and self.noisy:
            _, noisy = self._increase(self.noisy, index, report)
        effect = found.sum(axis=0)
        p = sign_flip(noisy, self.replacing.seed) if tested else np.full_like(effect, np.nan)
        return Effects(effect, found, noisy, p, q_values(p) if tested else p)

    def _increase(
        self,
        readings: Sequence[Reading],
        index: Sequence[IntArray],
        report: Callable[[int], None],
        judged: bool = False,
    ) -> tuple[FloatArray, FloatArray]:
        """Compute what each block adds to the mean over readings: whole, and kept apart."""
        total = np.zeros((2, len(self.blocks.run), len(index), len(self.targets)))
        weight = np.zeros(2)
        inner = apart(self.blocks, self.autocorrelation)
        for reading in readings:
            changes, start = self.changes(reading, index), reading.start(self.isolate)
            noise = self._noise(reading, index) if judged else None
            found = increases(self.decoding, reading, changes, start, report, noise)
            both = (found[0], found[1]) if judged else (found, found)
            kept = inner[np.searchsorted(self.blocks.trs, reading.trs)]
            for row, share in enumerate((reading.weight, reading.weight * kept)):
                total[row] += self._by_block(reading, both[row], share)
                weight[row] += share.sum()
        total *= -1.0 if self.isolate else 1.0
        return total[0] / weight[0], total[1] / weight[1]

    def _noise(self, reading: Reading, index: Sequence[IntArray]) -> FloatArray:
        """Noise of each unit over what is replaced in it, (U,), times ``NOISE_SHARE``.

        A standardised brain has variance 1, and what is not predicted of it is noise. To first
        order the decoder turns both into the stimulus alike.
        """
        told = reading.elements
        unexplained = 1 - told.var(0, correction=0).clamp(max=0.9)
        replaced = (reading.replacement - told).square().mean(0)
        ratio = [
            float(unexplained[own].sum() / replaced[own].sum().clamp(min=1e-12)) for own in index
        ]
        return NOISE_SHARE * np.array(ratio) * (-1.0 if self.isolate else 1.0)

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


def lesioned(
    run: Run, unit: str, trs: Sequence[int], *, mode: str = "lesion", replace: str = "zero"
) -> dict[str, dict[str, Any]]:
    """Decode stills with and without a unit, from the first reading of the predicted brain.

    Parameters
    ----------
    run : Run
    unit : str
        Name of a parcel or network, or an image.
    trs : sequence of int
        Held-out stimulus TRs.
    mode, replace : str

    Returns
    -------
    dict
        By stimulus: ``original``, ``decoded`` and ``lesioned``, float32 (n, ...) in normalised
        units (`MovieBrainData.normaliser` and `sherlock_models.heldout.frames` turn them back).

    Raises
    ------
    ConfigError
        If a TR is not held out, or the unit is unknown.
    """
    study = Study.of(run, [unit], mode, replace, noise_draws=0)
    reading = study.readings[0]
    rows = np.searchsorted(reading.trs, trs)
    known = np.isin(trs, reading.trs)
    if not known.all():
        missing = [int(tr) for tr, there in zip(trs, known, strict=True) if not there]
        raise ConfigError(f"TR {missing[0]} is not held out", where="trs", remedy="name test TRs")
    start = reading.start(study.isolate)
    brain = start.clone()
    for one in study.units:
        columns, change = reading.change(one.index, slice(None), study.isolate)
        brain[:, columns] += change
    with torch.inference_mode():
        whole, less = study.decoding.cut(reading.read[rows]), study.decoding.cut(brain[rows])
    truth = study.decoding.truth(np.asarray(trs))
    return {
        name: {
            "original": truth[name].numpy(),
            "decoded": whole[name].numpy(),
            "lesioned": less[name].numpy(),
        }
        for name in study.stimuli
    }
