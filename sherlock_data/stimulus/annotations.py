"""``annotations``: the hand-made labels of a movie, one variable per label, one value per TR.

Numbers and categories are averaged over the seconds that segments share with the TR (where segments
overlap, both count); text is that of the segment that shares most. Where segments cover less than
half of a TR it has NaN and no text, and ``has_stimulus (time)`` is False.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sherlock_data.catalog import Catalog
from sherlock_data.contract import strings, time_coords
from sherlock_data.errors import InputError, UnavailableError
from sherlock_data.plan import Results, StorePlan
from sherlock_data.provenance import describe_file, scan_attrs
from sherlock_data.recipes import AnnotationsRecipe
from sherlock_data.scan import Scan
from sherlock_data.stimulus.labels import Label, labels_of
from sherlock_data.stimulus.segments import Segments, read_segments
from sherlock_data.timing import Clock, Overlap, overlaps

#: share of a TR that segments must cover
COVERED = 0.5
#: encodings that a model takes as numbers
FEATURES = ("numeric", "one-hot")


def feature_names(annotations: xr.Dataset) -> list[str]:
    """Names of the variables a model takes: numeric and one-hot ones, sorted.

    Parameters
    ----------
    annotations : xarray.Dataset
        An ``annotations`` store; each label's attribute ``encoding`` is ``"numeric"``,
        ``"one-hot"`` or ``"text"``.
    """
    return sorted(
        str(name)
        for name, variable in annotations.data_vars.items()
        if variable.attrs.get("encoding") in FEATURES
    )


def to_dataset(segments: Segments, clock: Clock) -> xr.Dataset:
    """Average the labels of segments over TRs.

    Parameters
    ----------
    segments : Segments
    clock : Clock

    Returns
    -------
    xarray.Dataset
        Dims (time,): float32 variables (NaN where no segment says anything), text variables, and
        ``has_stimulus`` bool.
    """
    tr_s = clock.repetition_time_s
    edges = np.arange(clock.volumes + 1) * tr_s
    shared = overlaps(segments.starts, segments.ends, edges)
    has_stimulus = shared.covered >= COVERED * tr_s - 1e-6
    title = {"long_name": f"segments cover at least {COVERED:g} of the TR"}
    found = xr.Dataset({"has_stimulus": ("time", has_stimulus, title)}, coords=time_coords(clock))
    longest = _longest(shared, clock.volumes)
    for label in labels_of(segments.labels):
        attrs = {"long_name": label.name.replace("_", " "), **label.attrs}
        attrs["encoding"] = label.encoding
        if label.encoding == "text":
            text = np.where(has_stimulus, np.append(label.values, "")[longest], "")
            found[label.name] = strings("time", text, **attrs)
        else:
            values = np.where(has_stimulus, _mean(shared, label), np.nan).astype(np.float32)
            found[label.name] = ("time", values, {**attrs, "cell_methods": "time: mean"})
    return found


def _mean(shared: Overlap, label: Label) -> NDArray[np.float64]:
    """Time-weighted mean over the segments that have a value."""
    given = np.isfinite(label.values.astype(np.float64))[shared.source]
    known = Overlap(
        shared.source[given], shared.target[given], shared.seconds[given], shared.covered
    )
    return known.mean(label.values.astype(np.float64))


def _longest(shared: Overlap, volumes: int) -> NDArray[np.int64]:
    """Segment that shares most seconds with each TR (the first of equals), -1 without one."""
    order = np.lexsort((shared.source, -shared.seconds, shared.target))
    trs, first = np.unique(shared.target[order], return_index=True)
    longest = np.full(volumes, -1, dtype=np.int64)
    longest[trs] = shared.source[order][first]
    return longest


def plan(scan: Scan, recipe: AnnotationsRecipe, path: Path, catalog: Catalog) -> StorePlan:
    """Plan an annotations store; the sheet is small and read here.

    Parameters
    ----------
    scan : Scan
    recipe : AnnotationsRecipe
    path : Path
        The store.
    catalog : Catalog

    Returns
    -------
    StorePlan

    Raises
    ------
    UnavailableError
        If the dataset has no annotations.
    InputError
        If the sheet cannot be read, its times make no sense, or its columns are no labels.
    """
    if scan.annotations is None:
        raise UnavailableError(
            "it has no annotations", where=scan.dataset, remedy="name a sheet in the catalogue"
        )
    segments = read_segments(scan.annotations, scan.clock)
    attrs = scan_attrs(scan, recipe, path)
    attrs["timed_by"] = segments.timed_by
    attrs["segments"], attrs["segments_dropped"] = len(segments.starts), segments.dropped
    name = scan.annotations.name
    found = _labelled(segments, scan)
    return StorePlan(
        path=path,
        attrs=attrs,
        inputs=[describe_file(scan.annotations, name)],
        coords=found,
        arrays={},
        parts=[],
        finish=_nothing_more,
        memory_bytes=int(found.nbytes),
        problems=_problems(segments, name),
    )


def _labelled(segments: Segments, scan: Scan) -> xr.Dataset:
    try:
        found = to_dataset(segments, scan.clock)
    except InputError as error:
        raise InputError(error.what, where=scan.annotations, remedy=error.remedy) from None
    if set(found.data_vars) == {"has_stimulus"}:
        raise InputError(
            "says nothing beside its times", where=scan.annotations, remedy="add a column of labels"
        )
    return found


def _problems(segments: Segments, name: str) -> list[dict[str, str]]:
    if not segments.dropped:
        return []
    message = f"{segments.dropped} rows without a time within the scan are left out"
    return [{"code": "annotations-untimed", "where": name, "message": message}]


def _nothing_more(results: dict[str, Results]) -> xr.Dataset:
    return xr.Dataset()
