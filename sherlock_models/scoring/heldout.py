"""Held-out brains, and the four brains a run's decoder is asked to read.

Legend: t = held-out TRs of a subject, U = units of the brain layer. "Measured" is the
subject's standardised BOLD (or code of it), "predicted" the encoder's; both 0 where there is no
signal. A compressor predicts its free code, from the measured brain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sherlock_models.scoring.ceiling import SeriesArray
from sherlock_models.scoring.scores import BoolArray, IntArray, TimeBlocks
from sherlock_models.scoring.space import UnitSpace
from sherlock_models.sizes import BRAIN

if TYPE_CHECKING:
    from sherlock_models.feeding.batch import SampleTable
    from sherlock_models.feeding.dataset import MovieBrainData
    from sherlock_models.run import Run

#: a residual is borrowed from a TR at least this far away
FAR_TRS = 10
BATCH = 32

#: the table's names of the brains a decoder reads
PREDICTED, NOISY = "model", "model/noisy-brain"
MEASURED, SHUFFLED = "model/measured-brain", "model/shuffled-brain"


@dataclass(frozen=True)
class Side:
    """Samples of one side of the split, subject by subject.

    Attributes
    ----------
    data : MovieBrainData
    samples : SampleTable
    """

    data: MovieBrainData
    samples: SampleTable

    @classmethod
    def of(cls, data: MovieBrainData, side: str) -> Side:
        """Return the side ``"train"`` or ``"test"`` of a dataset."""
        return cls(data, data.samples(side))

    @property
    def subjects(self) -> IntArray:
        """Indices of the subjects that have a sample."""
        return np.unique(self.samples.subject)

    @property
    def trs(self) -> IntArray:
        """Stimulus TRs of any subject, sorted."""
        return np.unique(self.samples.tr)

    def of_subject(self, subject: int) -> IntArray:
        """Stimulus TRs of one subject, sorted: those whose volume is valid."""
        return np.sort(self.samples.tr[self.samples.subject == subject])

    def measured(self, subject: int, trs: IntArray) -> SeriesArray:
        """Standardised BOLD paired with stimulus TRs ``trs``: float32 (n, U), 0 without signal."""
        return UnitSpace(self.data).measured(subject, trs)


def with_nan(values: NDArray[np.float32], signal: BoolArray) -> SeriesArray:
    """NaN in units without signal, so that no score counts them."""
    return np.where(signal, values, np.float32(np.nan))


def run_index(data: MovieBrainData) -> IntArray:
    """Index of the run of every TR of the scan, int64 (time,)."""
    return np.asarray(data.brains.run.numpy(), dtype=np.int64)


def make_blocks(test: Side, draws: int, seed: int) -> TimeBlocks:
    """Time blocks over the held-out TRs, the same for all subjects and scores."""
    return TimeBlocks.make(test.trs, run_index(test.data), draws=draws, seed=seed)


@dataclass
class Reader:
    """A trained model asked about held-out TRs.

    Attributes
    ----------
    run : Run
    test : Side
    seed : int
        For the borrowed residuals and the shuffle.
    """

    run: Run
    test: Side
    seed: int = 0
    _encoded: dict[int, SeriesArray] = field(default_factory=dict, repr=False)

    def predicted(self, subject: int) -> SeriesArray:
        """Brain the encoder predicts at the subject's held-out TRs, (t, U), 0 without signal.

        A model that does not know the subjects apart is run once for all of them.
        """
        config = self.run.config
        apart = config.subject == "embedding" or config.is_compressor
        key = subject if apart else -1
        mine = self.test.of_subject(subject)
        known = mine if apart else self.test.trs
        if key not in self._encoded:
            self._encoded[key] = self._encode(known, subject if apart else None)
        brain = self._encoded[key][np.searchsorted(known, mine)]
        # a free code has no units without signal
        return brain if config.is_compressor else np.asarray(brain * self.test.data.signal[subject])

    @property
    def components(self) -> int:
        """Units of a compressor's code; 0 for any other model."""
        return self.run.model.sizes.units if self.run.config.is_compressor else 0

    def _row(self, subject: int) -> int:
        """Row of the subject embedding; -1, the mean of all rows, for a held-out subject."""
        known = self.test.data.split.train_subjects
        name = self.test.data.subjects[subject]
        return known.index(name) if name in known else -1

    @torch.inference_mode()
    def _encode(self, trs: IntArray, subject: int | None) -> SeriesArray:
        data = self.test.data
        parts = []
        for start in range(0, len(trs), BATCH):
            some = trs[start : start + BATCH]
            row = None if subject is None else torch.full((len(some),), self._row(subject))
            seen = data.stimulus_inputs(some)
            if data.sees_brain and subject is not None:
                seen = {BRAIN: torch.from_numpy(self.test.measured(subject, some))[:, None]}
            brain = self.run.model.encode(seen, row)
            parts.append(brain.float().numpy())
        return np.concatenate(parts)

    def brains(self, subject: int) -> dict[str, SeriesArray]:
        """Return the four brains the decoder reads, each (t, U), by the table's names.

        The noisy one is the prediction plus the residual of another held-out TR of the same
        subject, at least ``FAR_TRS`` away: as noisy as this subject's brain really is. The
        shuffled one is the measured brain in another order.
        """
        trs = self.test.of_subject(subject)
        predicted = self.predicted(subject)
        measured = self.test.measured(subject, trs)
        rng = np.random.default_rng([self.seed, subject])
        other = partners(trs, rng)
        return {
            PREDICTED: predicted,
            NOISY: predicted + (measured - predicted)[other],
            MEASURED: measured,
            SHUFFLED: measured[rng.permutation(len(trs))],
        }

    @torch.inference_mode()
    def decode(self, brain: SeriesArray) -> dict[str, NDArray[np.float32]]:
        """Decode a brain (t, U): every stimulus in normalised units, (t, 3, H, W) or (t, F)."""
        parts: dict[str, list[NDArray[np.float32]]] = {}
        for start in range(0, len(brain), BATCH):
            read = torch.from_numpy(np.ascontiguousarray(brain[start : start + BATCH]))
            for name, values in self.run.model.decode(read).items():
                parts.setdefault(name, []).append(values.float().numpy())
        return {name: np.concatenate(values) for name, values in parts.items()}


def partners(trs: IntArray, rng: np.random.Generator) -> IntArray:
    """Another row for each TR, at least ``FAR_TRS`` away, else the farthest there is."""
    distance = np.abs(trs[:, None] - trs)
    draw = np.where(distance >= FAR_TRS, rng.random(distance.shape), -1.0)
    found = np.where(draw.max(axis=1) >= 0, draw.argmax(axis=1), distance.argmax(axis=1))
    return np.asarray(found)


def frames(data: MovieBrainData, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn a stimulus' normalised pictures (t, 3, H, W) into grey levels (t, H, W, 3), 0 to 255."""
    levels = data.normaliser.inverse(name, torch.from_numpy(np.ascontiguousarray(values)))
    return np.asarray(np.clip(levels.movedim(1, -1).numpy(), 0, 255))
