"""Rows of the table whose target is the movie: decoded from four brains, beside the baselines.

Legend: t = held-out TRs, H, W = height and width of the video, F = features of a vector stimulus,
P = pixels times colours, or features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sherlock_models.scoring import baselines
from sherlock_models.scoring.ceiling import SeriesArray
from sherlock_models.scoring.heldout import MEASURED, NOISY, PREDICTED, Reader, Side, frames
from sherlock_models.scoring.picture_scores import psnr_score, spatial_r_score, ssim_score
from sherlock_models.scoring.scores import (
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

Say = Callable[[str], None]
#: TRs whose decoded pictures are kept for the page
SHOWN_TRS = 6


@dataclass
class StimulusScores:
    """One predictor's scores of one stimulus, gathered subject by subject.

    Attributes
    ----------
    scores : dict of list of Score
        By metric, one per subject.
    r : list of ndarray, each (P,)
        r over time of every pixel or feature, per subject.
    decoded : ndarray or None
        What the first subject's brain gave, in normalised units, (t, ...).
    """

    scores: dict[str, list[Score]] = field(default_factory=dict)
    r: list[FloatArray] = field(default_factory=list)
    decoded: SeriesArray | None = None

    def add(self, scores: dict[str, Score], r: FloatArray) -> None:
        """Add one subject's scores."""
        self.r.append(r)
        for metric, score in scores.items():
            self.scores.setdefault(metric, []).append(score)

    @property
    def unit_r(self) -> FloatArray:
        """Mean over subjects of each pixel's or feature's r, (P,)."""
        return nan_mean(np.stack(self.r), axis=0)

    def rows(self) -> Iterator[tuple[str, Score]]:
        """Metric and score, averaged over subjects."""
        for metric, scores in self.scores.items():
            yield metric, average(scores)


Table = dict[str, dict[str, StimulusScores]]


def stimulus_scores(
    reader: Reader, train: Side, blocks: TimeBlocks, say: Say = lambda line: None
) -> tuple[Table, list[str]]:
    """Score every stimulus of a run.

    Returns
    -------
    table : dict
        Stimulus name -> predictor -> StimulusScores.
    notes : list of str
    """
    test, data = reader.test, reader.test.data
    table: Table = {name: {} for name in data.tables}
    if not table:  # a compressor decodes no movie
        return table, []
    truth = {name: data.stimulus_target(name, test.trs) for name in data.tables}
    notes: list[str] = []
    for name in data.tables:
        for prediction in _baselines(name, train, test):
            scored = table[name].setdefault(prediction.name, StimulusScores())
            scored.add(*score(test, name, blocks, test.trs, prediction.values, truth[name]))
            scored.decoded = prediction.values
            notes.append(f"{prediction.name} ({name}): {prediction.fitted_on}")
    last: dict[str, tuple[SeriesArray, IntArray]] = {}
    for subject in test.subjects:
        say(f"movie from the brain of {data.subjects[subject]}")
        trs = test.of_subject(subject)
        rows = np.searchsorted(test.trs, trs)
        for brain, read in reader.brains(subject).items():
            same = brain in last and _same(last[brain], (read, trs))
            last[brain] = (read, trs)
            decoded = {} if same else reader.decode(read)
            for name in data.tables:
                scored = table[name].setdefault(brain, StimulusScores())
                if same:  # the model does not know the subjects apart: nothing new to score
                    scored.add({m: s[-1] for m, s in scored.scores.items()}, scored.r[-1])
                    continue
                values = decoded[name]
                scored.add(*score(test, name, blocks, trs, values, truth[name][rows]))
                if scored.decoded is None and len(trs) == len(test.trs):
                    scored.decoded = values
    return table, notes


def _same(a: tuple[SeriesArray, IntArray], b: tuple[SeriesArray, IntArray]) -> bool:
    return bool(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]))


def _baselines(name: str, train: Side, test: Side) -> list[baselines.Prediction]:
    data = test.data
    video = data.tables[name].is_video
    known = data.stimulus_target(name, train.trs)
    mean = baselines.training_mean("mean-frame" if video else "mean", known, len(test.trs))
    before = baselines.previous_tr(
        "previous-frame" if video else "previous-tr",
        data.stimulus_target(name, data.clock.tr()),
        test.trs,
        data.tables[name].present,
        data.clock,
        mean.values[0],
    )
    return [mean, before]


def score(
    test: Side,
    name: str,
    blocks: TimeBlocks,
    trs: IntArray,
    decoded: NDArray[np.float32],
    truth: NDArray[np.float32],
) -> tuple[dict[str, Score], FloatArray]:
    """Score one decoded stimulus, in normalised units (zero is the training mean).

    Parameters
    ----------
    decoded, truth : ndarray of float32, (t, 3, H, W) or (t, F)

    Returns
    -------
    scores : dict of Score
    r : ndarray of float64, (P,)
        r over time of every pixel or feature.
    """
    flat, true = decoded.reshape(len(decoded), -1), truth.reshape(len(truth), -1)
    r, plain, _ = correlation_score(blocks, trs, flat, true)
    found = {
        "r": plain,
        "r2": r2_score(blocks, trs, flat, true),
        "identification": identification_score(blocks, trs, flat, true),
    }
    if test.data.tables[name].is_video:
        pictures = frames(test.data, name, decoded), frames(test.data, name, truth)
        found["psnr"] = psnr_score(blocks, trs, *pictures)
        found["ssim"] = ssim_score(blocks, trs, *pictures)
        found["r_spatial"] = spatial_r_score(blocks, trs, *pictures)
    return found, r


def smuggled(table: Table) -> dict[str, dict[str, float]]:
    """Tell how much better a predicted brain is decoded than a measured one.

    Returns
    -------
    dict
        By stimulus, differences of R²: ``total`` = predicted - measured, the sum of
        ``below_noise`` = predicted - noisy (carried below the brain's noise) and ``small_noise`` =
        noisy - measured (carried where the brain's noise is small).
    """
    found = {}
    for name, predictors in table.items():
        r2 = {
            key: average(predictors[key].scores["r2"]).value for key in (PREDICTED, NOISY, MEASURED)
        }
        found[name] = {
            "total": r2[PREDICTED] - r2[MEASURED],
            "below_noise": r2[PREDICTED] - r2[NOISY],
            "small_noise": r2[NOISY] - r2[MEASURED],
        }
    return found


def shown_trs(trs: IntArray, n: int = SHOWN_TRS) -> IntArray:
    """Rows of ``n`` held-out TRs spread evenly over the test."""
    return np.unique(np.linspace(0, len(trs) - 1, min(n, len(trs))).round().astype(np.int64))
