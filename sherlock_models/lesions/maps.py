"""Where in the picture a lesion is seen: the increase of squared error at every pixel.

Legend: n = units that are mapped, t = held-out TRs, (C, y, x) = a picture's colours and size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sherlock_models.lesions.brain import Reading
from sherlock_models.lesions.effects import TRS, Change
from sherlock_models.scoring.scores import FloatArray, IntArray

if TYPE_CHECKING:
    from sherlock_models.lesions.study import Study


@dataclass(frozen=True)
class Maps:
    """Maps of a picture.

    Attributes
    ----------
    rows : ndarray of int64, (n,)
        Units that are mapped.
    maps : dict of ndarray of float32, each (n, y, x)
        By stimulus; the mean over pixels is the effect.
    """

    rows: IntArray
    maps: dict[str, NDArray[np.float32]]


def maps_of(study: Study, effect: FloatArray, mapped: int, report: Callable[[int], None]) -> Maps:
    """Map the units with the largest effects on any picture.

    Parameters
    ----------
    study : Study
    effect : ndarray of float64, (U, R)
    mapped : int
        How many; 0 for none.
    report : callable
    """
    pictures = [name for name in study.stimuli if study.decoding.target[name].ndim == 4]
    if not pictures or not mapped:
        return Maps(np.zeros(0, dtype=np.int64), {})
    columns = [study.targets.index(name) for name in pictures]
    rows = np.argsort(-effect[:, columns].max(axis=1), kind="stable")[:mapped]
    totals = {
        name: np.zeros((len(rows), *study.decoding.target[name].shape[2:])) for name in pictures
    }
    weight = sum(float(reading.weight.sum()) for reading in study.readings)
    for reading in study.readings:
        changes = study.changes(reading, [study.units[row].index for row in rows])
        for name, increase in _increase(study, reading, changes, pictures).items():
            totals[name] += increase
    sign = -1.0 if study.isolate else 1.0
    names = study.decoding.names
    maps = {}
    for name, total in totals.items():
        pixel = study.variance[names.index(name)] / total[0].size
        maps[name] = (sign * total / (weight * pixel)).astype(np.float32)
    return Maps(rows, maps)


def _increase(
    study: Study,
    reading: Reading,
    changes: list[Callable[[slice], Change]],
    pictures: list[str],
) -> dict[str, FloatArray]:
    """Sum over TRs and subjects of the increase at every pixel, each (n, y, x)."""
    decoding, start = study.decoding, reading.start(study.isolate)
    found: dict[str, list[FloatArray]] = {name: [] for name in pictures}
    for change in changes:
        totals: dict[str, FloatArray] = {}
        for begin in range(0, len(reading.trs), TRS):
            rows = slice(begin, begin + TRS)
            columns, moved = change(rows)
            brain = start[rows].clone()
            brain[:, columns] += moved
            before, after = decoding.cut(start[rows]), decoding.cut(brain)
            truth = decoding.truth(reading.trs[rows])
            weight = torch.from_numpy(reading.weight[rows]).float()
            for name in pictures:
                worse, base = (told[name] - truth[name] for told in (after, before))
                square = worse.square() - base.square()
                part = torch.einsum("tcyx,t->yx", square, weight).double().numpy()
                totals[name] = totals.get(name, 0.0) + part
        for name, total in totals.items():
            found[name].append(total)
    return {name: np.stack(values) for name, values in found.items()}
