"""Sheets of hand-made annotations: which seconds of the scan each row is about.

Three ways of saying so are read, in this order: columns of TRs (1-based, inclusive, counted over
all runs); BIDS events (``onset``, ``duration``); a start and an end in seconds. Seconds count from
the first volume of the row's run: the one in a ``run`` column, or, where seconds begin again from
the top, the next.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sherlock_data.errors import InputError, did_you_mean
from sherlock_data.timing import Clock, FloatArray, seconds_from_trs

SEPARATORS = {".csv": ",", ".tsv": "\t"}
#: first match wins; matched against column names in lower case
TR_START, TR_END = r"start.*\btrs?\b|tr_?start|start_tr", r"end.*\btrs?\b|tr_?end|end_tr"
START, END = r"(start|begin)( time)?( ?\(s\)|_s)?$", r"(end|stop)( time)?( ?\(s\)|_s)?$"


@dataclass(frozen=True)
class Segments:
    """Rows of a sheet on the scan clock.

    Attributes
    ----------
    starts, ends : ndarray of float64, shape (segment,)
        Seconds on the scan clock, over all runs.
    labels : pandas.DataFrame
        The other columns, one row per segment.
    timed_by : str
        ``"TRs"``, ``"onset and duration"`` or ``"start and end"``.
    dropped : int
        Rows without a time, or wholly outside the scan.
    """

    starts: FloatArray
    ends: FloatArray
    labels: pd.DataFrame
    timed_by: str
    dropped: int


def read_segments(path: Path, clock: Clock) -> Segments:
    """Read a sheet and place its rows on the scan clock.

    Parameters
    ----------
    path : Path
        ``.xlsx``, ``.csv`` or ``.tsv``, a header line first.
    clock : Clock

    Returns
    -------
    Segments

    Raises
    ------
    InputError
        If the file cannot be read, no columns say when, a row ends before it starts, TR columns
        are of another TR or reach beyond the scan, or a run is unknown.
    """
    table = _read(path)
    columns = {name: str(name).strip().lower() for name in table.columns}

    def find(pattern: str) -> str | None:
        return next((name for name, low in columns.items() if re.match(pattern, low)), None)

    run = find(r"run$")
    timings = {
        "TRs": (find(TR_START), find(TR_END)),
        "onset and duration": (find(r"onset$"), find(r"duration$")),
        "start and end": (find(START), find(END)),
    }
    timed_by = next((kind for kind, pair in timings.items() if None not in pair), None)
    if timed_by is None:
        raise InputError(
            f"no columns say when a row is (found: {', '.join(columns.values())})",
            where=path,
            remedy="name them onset and duration, or start and end (seconds), or start_tr, end_tr",
        )
    used = [name for pair in timings.values() for name in pair if name is not None]
    first, last = (_numbers(table, str(name), path) for name in timings[timed_by])
    timed = np.isfinite(first) & np.isfinite(last)
    first, last, rows = first[timed], last[timed], table[timed]
    try:
        if timed_by == "TRs":
            starts, ends = _from_trs(first, last, clock, str(timings[timed_by][0]))
        else:
            if timed_by == "onset and duration":
                last = first + last
            names = _named_runs(rows[run], clock) if run else _runs_by_restart(first, clock)
            starts, ends = _from_seconds(first, last, names, clock)
    except InputError as error:
        raise InputError(error.what, where=path, remedy=error.remedy) from None
    inside = (ends > starts) & (starts < clock.volumes * clock.repetition_time_s)
    labels = rows[inside].drop(columns=[*used, *([run] if run else [])]).reset_index(drop=True)
    if not len(labels):
        raise InputError("no row lies within the scan", where=path, remedy="check its time columns")
    return Segments(
        starts[inside], ends[inside], labels, timed_by, len(table) - int(np.sum(inside))
    )


def _read(path: Path) -> pd.DataFrame:
    suffix = path.suffix.lower()
    if suffix not in (*SEPARATORS, ".xlsx"):
        raise InputError(
            f"annotations in a '{suffix}' file", where=path, remedy="save as .xlsx, .csv, .tsv"
        )
    try:
        if suffix in SEPARATORS:
            table = pd.read_csv(path, sep=SEPARATORS[suffix], encoding="utf-8-sig")
        else:
            with warnings.catch_warnings():
                # newer Excels add sheet extensions that openpyxl need not understand to read cells
                warnings.filterwarnings(
                    "ignore", r"Unknown extension is not supported", UserWarning, r"openpyxl\."
                )
                table = pd.read_excel(path, engine="openpyxl")
    except Exception as error:  # a damaged sheet has expat, zlib and openpyxl raise what they like
        raise InputError(
            f"cannot be read as a table ({error})", where=path, remedy="save it again"
        ) from error
    table.columns = pd.Index([str(name) for name in table.columns])
    text = table.select_dtypes(include=["object", "string"]).columns
    table[text] = table[text].apply(lambda column: column.astype("string").str.strip())
    return table.replace({"": pd.NA}).dropna(how="all").reset_index(drop=True)


def _numbers(table: pd.DataFrame, name: str, path: Path) -> FloatArray:
    try:
        return pd.to_numeric(table[name]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"column '{name}' holds other things than numbers ({error})",
            where=path,
            remedy="correct these cells",
        ) from error


def _from_trs(
    first: FloatArray, last: FloatArray, clock: Clock, column: str
) -> tuple[FloatArray, FloatArray]:
    named = re.search(r"trs?,? *([\d.]+) *s", column.lower())
    if named and float(named.group(1)) != clock.repetition_time_s:
        raise InputError(
            f"its TRs are of {named.group(1)} s, the dataset's of {clock.repetition_time_s:g} s",
            remedy="correct repetition_time_s or take the TR columns out",
        )
    starts, ends = seconds_from_trs(first, last, clock.repetition_time_s)
    if len(first) and (first.min() < 1 or last.max() > clock.volumes):
        raise InputError(
            f"TRs {first.min():g} to {last.max():g}, the scan has 1 to {clock.volumes}",
            remedy="count TRs from 1 over all runs",
        )
    return starts, ends


def _named_runs(column: pd.Series, clock: Clock) -> list[str]:
    """Run names of a ``run`` column, which may hold names or numbers counted from 1."""
    known = list(clock.run_offsets)
    names = []
    for value in column:
        text = str(value).removesuffix(".0")
        if text not in known and text.isdigit() and 1 <= int(text) <= len(known):
            text = known[int(text) - 1]
        if text not in known:
            raise InputError(f"no run '{text}'", remedy=did_you_mean(text, known))
        names.append(text)
    return names


def _runs_by_restart(starts: FloatArray, clock: Clock) -> list[str]:
    """Name each row's run: seconds that fall back begin the next one."""
    known = list(clock.run_offsets)
    if len(known) == 1:
        return known * len(starts)
    order = np.cumsum(np.diff(starts, prepend=starts[:1]) < 0)
    if len(order) and order[-1] >= len(known):
        raise InputError(
            f"seconds fall back {order[-1]} times, the scan has {len(known)} runs",
            remedy="sort the rows within each run or add a column 'run'",
        )
    return [known[i] for i in order]


def _from_seconds(
    starts: FloatArray, ends: FloatArray, names: list[str], clock: Clock
) -> tuple[FloatArray, FloatArray]:
    """Seconds of a run to seconds of the scan, cut at the run's end so that no other run hears."""
    if np.any(ends < starts):
        raise InputError("a segment ends before it starts", remedy="check the time columns")
    tr_s = clock.repetition_time_s
    offset = np.array([clock.run_offsets[name] for name in names]) * tr_s
    length = np.array([clock.run(name).volumes for name in names]) * tr_s
    clipped = (np.clip(seconds, 0.0, length) + offset for seconds in (starts, ends))
    first, last = clipped
    return first, last
