"""The annotations' texts, each read once, and their mean over TRs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sherlock_data.errors import InputError, UnavailableError, did_you_mean
from sherlock_data.extractors import ExtractorEntry
from sherlock_data.scan import Scan
from sherlock_data.stimulus.annotations import COVERED
from sherlock_data.stimulus.labels import labels_of
from sherlock_data.stimulus.sampling import BATCH
from sherlock_data.stimulus.segments import read_segments
from sherlock_data.timing import Clock, FloatArray, overlaps


@dataclass(frozen=True)
class Texts:
    """Texts of the annotations that say something, on the scan clock.

    Attributes
    ----------
    starts, ends : ndarray of float64, shape (segment,)
        Seconds.
    which : ndarray of int64, shape (segment,)
        Index into ``distinct``.
    distinct : tuple of str
    file : Path
    """

    starts: FloatArray
    ends: FloatArray
    which: NDArray[np.int64]
    distinct: tuple[str, ...]
    file: Path


def read_texts(entry: ExtractorEntry, scan: Scan) -> Texts:
    """Read an extractor's label from the annotations.

    Raises
    ------
    UnavailableError
        If the dataset has no annotations.
    InputError
        If they have no such text label, or it is empty.
    """
    if scan.annotations is None:
        raise UnavailableError(
            "it has no annotations to read",
            where=scan.dataset,
            remedy="name a sheet in the catalogue",
        )
    segments = read_segments(scan.annotations, scan.clock)
    labels = {la.name: la for la in labels_of(segments.labels) if la.encoding == "text"}
    if entry.label not in labels:
        raise InputError(
            f"no text label '{entry.label}'",
            where=scan.annotations,
            remedy=did_you_mean(entry.label, labels),
        )
    cells = [str(cell).strip() for cell in labels[entry.label].values]
    said = np.array([bool(cell) for cell in cells])
    distinct, which = np.unique([cell for cell in cells if cell], return_inverse=True)
    if not len(distinct):
        raise InputError(f"'{entry.label}' is empty in every row", where=scan.annotations)
    return Texts(
        segments.starts[said],
        segments.ends[said],
        which.astype(np.int64),
        tuple(str(text) for text in distinct),
        scan.annotations,
    )


def text_means(
    texts: Texts, network: Any, clock: Clock, report: Callable[[float], None]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mean features (TR, feature) of the segments' texts, and where they cover enough of a TR."""
    found = []
    for first in range(0, len(texts.distinct), BATCH):
        found.append(network(texts.distinct[first : first + BATCH]))
        report(first / len(texts.distinct))
    edges = np.arange(clock.volumes + 1) * clock.repetition_time_s
    shared = overlaps(texts.starts, texts.ends, edges)
    mean = shared.mean(np.concatenate(found)[texts.which]).astype(np.float32)
    covered = shared.covered >= COVERED * clock.repetition_time_s - 1e-6
    mean[~covered] = np.nan
    return mean, covered
