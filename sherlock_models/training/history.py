"""How a run's losses went: one series for each term and side, and a curve for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: the training mean scores exactly this on every term
MEAN_SCORE = 1.0
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Curve:
    """One loss term of one side over the steps.

    Attributes
    ----------
    term, split : str
    step, value : ndarray, shape (line,)
    """

    term: str
    split: str
    step: NDArray[np.int64]
    value: NDArray[np.float64]

    @property
    def last(self) -> float:
        """Latest value."""
        return float(self.value[-1])

    @property
    def best(self) -> float:
        """Least value."""
        return float(np.nanmin(self.value))

    def binned(self, bins: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Means of the steps and values in at most ``bins`` even pieces: a calmer curve."""
        pieces = np.array_split(np.arange(len(self.step)), min(bins, len(self.step)))
        step = np.array([self.step[p].mean() for p in pieces])
        return step, np.array([self.value[p].mean() for p in pieces])


def curves(metrics: Sequence[dict[str, Any]], terms: Sequence[str]) -> list[Curve]:
    """Sort the lines of `metrics.jsonl` into curves.

    Parameters
    ----------
    metrics : sequence of dict
    terms : sequence of str
        `brain`, then the stimuli.

    Returns
    -------
    list of Curve
        Terms in order, training before validation; those without a line are left out.
    """
    found = []
    for term in terms:
        for split in ("train", "validation"):
            lines = [m for m in metrics if m["split"] == split and m.get(term) is not None]
            if lines:
                steps = np.array([m["step"] for m in lines], dtype=np.int64)
                values = np.array([m[term] for m in lines], dtype=np.float64)
                found.append(Curve(term, split, steps, values))
    return found


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Draw a curve in one line of text, from the least to the largest value."""
    series = np.asarray(values, dtype=np.float64)
    if not len(series):
        return ""
    pieces = np.array_split(series, min(width, len(series)))
    means = np.array([piece.mean() for piece in pieces])
    spread = np.ptp(means)
    level = (means - means.min()) / spread if spread > 0 else np.zeros_like(means)
    return "".join(_BARS[round(float(v) * (len(_BARS) - 1))] for v in level)
