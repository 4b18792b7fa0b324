"""Rows of the table whose target is the brain: the model and its baselines, over held-out TRs.

Legend: t = held-out TRs of a subject, U = units, S = subjects. One subject is in memory at a time.
The units are those of a space (`scoring.space`): of the brain layer, or voxels behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from sherlock_models.scoring import baselines
from sherlock_models.scoring.ceiling import (
    Ceiling,
    SeriesArray,
    masked_mean,
    noise_ceiling,
    others_sum,
)
from sherlock_models.scoring.heldout import PREDICTED, Reader, Side, run_index, with_nan
from sherlock_models.scoring.scores import (
    BoolArray,
    FloatArray,
    IntArray,
    Score,
    TimeBlocks,
    average,
    correlation_score,
    identification_score,
    nan_mean,
    r2_score,
)
from sherlock_models.scoring.significance import NULL_DRAWS, PhaseNull, fdr
from sherlock_models.scoring.space import Space, UnitSpace

Say = Callable[[str], None]


@dataclass
class BrainScores:
    """One predictor's scores, gathered subject by subject.

    Attributes
    ----------
    name : str
    scores : dict of list of Score
        By metric, one per subject.
    r : list of ndarray, each (U,)
        Per subject.
    null : PhaseNull
    p, q : ndarray of float64, (U,)
    significant : ndarray of bool, (U,)
    """

    name: str
    null: PhaseNull
    scores: dict[str, list[Score]] = field(default_factory=dict)
    r: list[FloatArray] = field(default_factory=list)

    def add(
        self,
        blocks: TimeBlocks,
        trs: IntArray,
        predicted: SeriesArray,
        measured: SeriesArray,
        ceiling: Ceiling,
    ) -> None:
        """Score one subject's prediction (t, U); NaN in units without signal."""
        r, plain, over = correlation_score(blocks, trs, predicted, measured, ceiling.usable)
        self.r.append(r)
        found = {
            "r": plain,
            "r_over_ceiling": over,
            "r2": r2_score(blocks, trs, predicted, measured),
            "identification": identification_score(blocks, trs, predicted, measured),
        }
        for metric, score in found.items():
            self.scores.setdefault(metric, []).append(score)
        rows = np.searchsorted(blocks.trs, trs)
        self.null.add(_on(blocks, rows, predicted), _on(blocks, rows, measured))

    def finish(self, draws: int, seed: int) -> None:
        """Test every unit against the phase-randomised null, with the FDR over units."""
        _, self.p = self.null.test(draws, seed)
        self.q, self.significant = fdr(self.p)

    @property
    def unit_r(self) -> FloatArray:
        """Mean over subjects of each unit's r, (U,)."""
        return nan_mean(np.stack(self.r), axis=0)

    def rows(self) -> Iterator[tuple[str, Score]]:
        """Metric and score, averaged over subjects."""
        for metric, scores in self.scores.items():
            yield metric, average(scores)
        tested = np.isfinite(self.p)
        share = float(self.significant[tested].mean()) if tested.any() else float("nan")
        yield "significant", Score(share, np.zeros(0), int(tested.sum()))


def _on(blocks: TimeBlocks, rows: IntArray, values: SeriesArray) -> SeriesArray:
    """Spread a subject's rows over all held-out TRs, NaN where its volume is invalid."""
    if len(rows) == len(blocks.trs):
        return values
    spread = np.full((len(blocks.trs), values.shape[1]), np.nan, dtype=np.float32)
    spread[rows] = values
    return spread


def ceiling_of(test: Side, space: Space | None = None) -> Ceiling:
    """Noise ceiling over every valid volume: nothing is fitted, and more TRs steady it."""
    data, units = test.data, space or UnitSpace(test.data)

    def subject(index: int) -> tuple[SeriesArray, BoolArray]:
        return with_nan(units.matrix(index), units.signal[index]), data.valid[index]

    return noise_ceiling(subject, len(data.subjects), run_index(data))


def group_brain(train: Side, space: Space) -> SeriesArray:
    """Mean brain of the training subjects at each training TR, (t, U), NaN where there is none."""

    def subject(index: int) -> tuple[SeriesArray, BoolArray]:
        valid = np.isin(train.trs, train.of_subject(index))
        return with_nan(space.measured(index, train.trs), space.signal[index]), valid

    total, count = others_sum(subject, train.subjects)
    return np.asarray(masked_mean(total, count), dtype=np.float32)


def brain_scores(
    reader: Reader,
    train: Side,
    blocks: TimeBlocks,
    *,
    space: Space | None = None,
    null_draws: int = NULL_DRAWS,
    seed: int = 0,
    say: Say = lambda line: None,
) -> tuple[dict[str, BrainScores], Ceiling, list[str]]:
    """Score the model and the baselines on every test subject.

    Parameters
    ----------
    reader : Reader
    train : Side
    blocks : TimeBlocks
    space : Space, optional
        Units of the comparison; those of the brain layer by default.
    null_draws, seed : int
    say : callable

    Returns
    -------
    scores : dict of BrainScores, by predictor
    ceiling : Ceiling
    notes : list of str
        What each baseline was fitted on.
    """
    test, data = reader.test, reader.test.data
    space = space or UnitSpace(data)
    ceiling = ceiling_of(test, space)
    predict = Baselines(train, test, space, reader.components)
    runs = run_index(data)[blocks.trs]
    found: dict[str, BrainScores] = {}
    for subject in test.subjects:
        say(f"brain of {data.subjects[subject]}")
        trs, signal = test.of_subject(subject), space.signal[subject]
        measured = with_nan(space.measured(subject, trs), signal)
        told = space.told(subject, trs, reader.predicted(subject))
        predictions = {PREDICTED: told, **predict.of(subject)}
        for name, values in predictions.items():
            if name not in found:
                found[name] = BrainScores(name, PhaseNull(runs, measured.shape[1]))
            found[name].add(blocks, trs, with_nan(values, signal), measured, ceiling)
    for scores in found.values():
        scores.finish(null_draws, seed)
    return found, ceiling, predict.notes


class Baselines:
    """Baselines of the brain, fitted on the training side.

    Parameters
    ----------
    train, test : Side
    space : Space, optional
        Units of the predictions; those of the brain layer by default.
    components : int
        Principal components that a compressor is compared with; 0 for any other model.
    """

    def __init__(
        self, train: Side, test: Side, space: Space | None = None, components: int = 0
    ) -> None:
        self.train, self.test = train, test
        data = test.data
        self.space = space or UnitSpace(data)
        self.notes: list[str] = []
        self.run_of_tr = run_index(data)
        self.group = group_brain(train, self.space)
        self.ridges = self._ridges() if data.tables else {}
        self.pca = baselines.Reconstruction(_Rows(train), components) if components else None
        self.total, self.count = self._everyone()

    def _ridges(self) -> dict[str, SeriesArray]:
        """Predictions of the linear maps at the test TRs, each (t, U), by name."""
        data, train = self.test.data, self.train
        features = [data.stimulus_target(name, data.clock.tr()) for name in data.tables]
        present = np.logical_and.reduce([table.present for table in data.tables.values()])
        known = np.isfinite(self.group).any(axis=1)
        brain = np.nan_to_num(self.group[known])
        kinds: list[type[baselines.DelayedRidge]] = [baselines.DelayedRidge, baselines.PcaRidge]
        if len(features) > 1:
            kinds.append(baselines.BandedRidge)
        else:
            self.notes.append("banded-ridge: left out, there is one stimulus")
        predictions = {}
        for kind in kinds:
            ridge = kind(data.clock).fit(features, present, train.trs[known], brain)
            found = ridge.predict(self.test.trs)
            predictions[found.name] = found.values
            self.notes.append(
                f"{found.name}: the mean brain of {len(train.subjects)} training subjects at "
                f"{found.fitted_on}"
            )
        return predictions

    def of(self, subject: int) -> dict[str, SeriesArray]:
        """Predictions for one test subject, each (t, U)."""
        trs = self.test.of_subject(subject)
        rows = np.searchsorted(self.test.trs, trs)
        own = self.train.of_subject(subject)
        if len(own):
            brain, known = self.space.measured(subject, own), own
        else:
            brain, known = np.nan_to_num(self.group), self.train.trs
            self._note("mean, time-index: the mean of the training subjects for an unseen subject")
        series = np.zeros((self.test.data.clock.volumes, brain.shape[1]), dtype=np.float32)
        series[known] = brain
        found = [
            baselines.training_mean("mean", brain, len(trs)),
            baselines.time_index(series, known, trs, self.run_of_tr),
        ]
        for prediction in found:
            self._note(f"{prediction.name}: {prediction.fitted_on} of the subject")
        predictions = {prediction.name: prediction.values for prediction in found}
        predictions |= {name: values[rows] for name, values in self.ridges.items()}
        if self.pca is not None:
            back = self.pca.predict(self.space.measured(subject, trs))
            predictions[back.name] = back.values
            self._note(f"{back.name}: {back.fitted_on}")
        others = self._others(subject, trs, rows)
        if others is not None:
            predictions["other-subjects"] = others
        return predictions

    def _note(self, line: str) -> None:
        names = {note.split(":")[0] for note in self.notes}
        if line.split(":")[0] not in names:  # once, not for every subject
            self.notes.append(line)

    def _everyone(self) -> tuple[SeriesArray, SeriesArray]:
        """Sum and number of all subjects' brains at the held-out TRs."""
        data, trs = self.test.data, self.test.trs

        def subject(index: int) -> tuple[SeriesArray, BoolArray]:
            valid = data.valid[index][trs + data.lag_trs]
            return with_nan(self.space.measured(index, trs), self.space.signal[index]), valid

        return others_sum(subject, range(len(data.subjects)))

    def _others(self, subject: int, trs: IntArray, rows: IntArray) -> SeriesArray | None:
        """Mean of the other subjects' measured brains at the same TRs; None if there are none."""
        if len(self.test.data.subjects) < 2:
            self._note("other-subjects: left out, there is one subject")
            return None
        own = self.space.measured(subject, trs)
        signal = self.space.signal[subject]
        rest = self.count[rows] - signal
        self._note("other-subjects: measured brains of the others at the same TRs; nothing fitted")
        return np.asarray(masked_mean(self.total[rows] - own * signal, rest), dtype=np.float32)


@dataclass(frozen=True)
class _Rows:
    """Training brains one below the other, as `sherlock_data.decomposition` reads a matrix."""

    train: Side

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and units."""
        return len(self.train.samples), self.train.data.signal.shape[1]

    @property
    def rank(self) -> int:
        """Dimensions left: standardising takes one for every subject and run."""
        samples = self.train.samples
        runs = run_index(self.train.data)[samples.tr]
        groups = len(np.unique(np.stack([samples.subject, runs]), axis=1)[0])
        return min(len(samples) - groups, int(self.train.data.signal.any(axis=0).sum()))

    def read(self, start: int, stop: int) -> SeriesArray:
        """Return standardised rows."""
        some = self.train.samples.take(np.arange(start, stop))
        bold, _ = self.train.data.brains.rows(
            torch.from_numpy(some.subject), torch.from_numpy(some.tr) + self.train.data.lag_trs
        )
        return np.asarray(bold.numpy(), dtype=np.float32)
