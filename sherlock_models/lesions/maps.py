"""Where in the picture a lesion is seen: the increase of squared error at every pixel.

Legend: n = units that are mapped, t = held-out TRs, (C, y, x) = a picture's colours and size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sherlock_models.lesions.brain import Reading
from sherlock_models.lesions.effects import TRS, Change, sharing
from sherlock_models.lesions.first_layer import CutDecoder
from sherlock_models.scoring.scores import FloatArray, IntArray

if TYPE_CHECKING:
    from sherlock_models.lesions.study import Study

#: by stimulus, weighted squared errors at every pixel, (y, x)
Squares = dict[str, FloatArray]


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
        Told how many samples were decoded.
    """
    pictures = _pictures(study)
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
        _add_increase(totals, study, reading, changes, report)
    sign = -1.0 if study.isolate else 1.0
    names = study.decoding.names
    maps = {}
    for name, total in totals.items():
        pixel = study.variance[names.index(name)] / total[0].size
        maps[name] = (sign * total / (weight * pixel)).astype(np.float32)
    return Maps(rows, maps)


def samples(study: Study, mapped: int) -> int:
    """Brains that are decoded for the maps of so many units."""
    units = min(mapped, len(study.units)) if _pictures(study) else 0
    return sum(len(reading.trs) for reading in study.readings) * (units + (units > 0))


def _pictures(study: Study) -> list[str]:
    return [name for name in study.stimuli if study.decoding.target[name].ndim == 4]


def _add_increase(
    totals: dict[str, FloatArray],
    study: Study,
    reading: Reading,
    changes: list[Callable[[slice], Change]],
    report: Callable[[int], None],
) -> None:
    """Add the increase at every pixel, summed over the TRs of a reading, to (n, y, x) each."""
    decoding, start = study.decoding, reading.start(study.isolate)

    def squares(
        rows: slice,
        truth: dict[str, Tensor],
        change: Callable[[slice], Change] | None,
        cut: CutDecoder,
    ) -> Squares:
        brain, weight = start[rows].clone(), torch.from_numpy(reading.weight[rows])
        if change is not None:
            columns, moved = change(rows)
            brain[:, columns] += moved
        told, found = cut(brain), {}
        for name in totals:
            square = (told[name] - truth[name]).square().sum(1).double()
            found[name] = torch.einsum("tyx,t->yx", square, weight).numpy()
        report(len(brain))
        return found

    with sharing(decoding) as share:
        for begin in range(0, len(reading.trs), TRS):
            rows = slice(begin, min(begin + TRS, len(reading.trs)))
            some = partial(squares, rows, decoding.truth(reading.trs[rows]))
            before, *after = share([partial(some, change) for change in (None, *changes)])
            for name, total in totals.items():
                total += np.stack([found[name] - before[name] for found in after])
