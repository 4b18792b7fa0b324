"""Features that the user brings: a TR-aligned ``.npy`` with its clock beside it.

The clock is a ``.json`` of the same name: ``repetition_time_s`` and ``runs``, a list of ``run``,
``volumes`` and, where an array begins later than its run, ``first_tr`` (0-based). It is held
against the scan's clock, since an array that merely happens to be as long says nothing about when.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sherlock_data.errors import InputError, UnavailableError, did_you_mean
from sherlock_data.timing import Clock


class _RunRows(BaseModel):
    model_config = ConfigDict(extra="ignore")

    run: str
    volumes: int = Field(gt=0)
    first_tr: int = Field(default=0, ge=0)


class _ArrayClock(BaseModel):
    """What is read of the ``.json``; whatever else it says is the user's own."""

    model_config = ConfigDict(extra="ignore")

    repetition_time_s: float = Field(gt=0)
    runs: list[_RunRows] = Field(min_length=1)
    feature: list[str] | None = None
    units: str = "1"


@dataclass(frozen=True)
class TrArray:
    """An array and which TR each of its rows is.

    Attributes
    ----------
    file, clock_file : Path
    trs : ndarray of int64, shape (row,)
        TR (0-based, over all runs) of every row.
    features : int
    names : tuple of str or None
        Of its columns.
    units : str
    """

    file: Path
    clock_file: Path
    trs: NDArray[np.int64]
    features: int
    names: tuple[str, ...] | None
    units: str

    def values(self, volumes: int) -> NDArray[np.float32]:
        """Rows on the scan clock, (time, feature) float32; NaN where the array says nothing."""
        placed = np.full((volumes, self.features), np.nan, np.float32)
        placed[self.trs] = _rows(self.file)
        return placed


def read_array(file: Path, clock: Clock) -> TrArray:
    """Read an array's shape and clock, and hold them against the scan.

    Parameters
    ----------
    file : Path
        ``.npy`` of shape (row,) or (row, feature), any real dtype.
    clock : Clock
        Of the scan.

    Raises
    ------
    UnavailableError
        If the array or its clock is not there.
    InputError
        If the file is no such array, or its clock is not the scan's.
    """
    clock_file = file.with_suffix(".json")
    for path, what in ((file, "array"), (clock_file, "clock of the array")):
        if not path.is_file():
            example = ", ".join(
                f'{{"run": "{run.name}", "volumes": {run.volumes}}}' for run in clock.runs
            )
            raise UnavailableError(
                f"no {what}",
                where=path,
                remedy=f'write {{"repetition_time_s": {clock.repetition_time_s:g}, '
                f'"runs": [{example}]}} there'
                if path == clock_file
                else "check --raw and the store's `files`",
            )
    said = _clock_of(clock_file)
    rows = _rows(file)
    trs = _trs(said, clock, clock_file)
    if len(trs) != len(rows):
        raise InputError(
            f"{len(rows)} rows, its clock has {len(trs)} TRs",
            where=file,
            remedy="correct `runs` in its .json; nothing is ever stretched to fit",
        )
    if said.feature is not None and len(said.feature) != rows.shape[1]:
        raise InputError(
            f"{len(said.feature)} names of features, {rows.shape[1]} columns", where=clock_file
        )
    names = tuple(said.feature) if said.feature is not None else None
    return TrArray(file, clock_file, trs, rows.shape[1], names, said.units)


def _clock_of(path: Path) -> _ArrayClock:
    try:
        return _ArrayClock.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        first: Any = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise InputError(
            f"no clock ({what.removeprefix(': ')})",
            where=path,
            remedy=f"give it {json.dumps(['repetition_time_s', 'runs'])}",
        ) from None


def _rows(file: Path) -> NDArray[np.generic]:
    try:
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"no .npy array ({error})", where=file, remedy="save it with numpy.save"
        ) from error
    if not isinstance(values, np.ndarray):
        values.close()
        raise InputError(
            "an archive of arrays", where=file, remedy="save one array, with numpy.save"
        )
    if values.ndim not in (1, 2) or values.dtype.kind not in "fiub" or not values.size:
        raise InputError(
            f"an array of {values.dtype} {values.shape}",
            where=file,
            remedy="save real numbers of shape (TR, feature)",
        )
    rows: NDArray[np.generic] = values if values.ndim == 2 else values[:, None]
    if np.isinf(rows).any():
        raise InputError("it holds infinite values", where=file, remedy="use NaN where none is")
    return rows


def _trs(said: _ArrayClock, clock: Clock, where: Path) -> NDArray[np.int64]:
    if abs(said.repetition_time_s - clock.repetition_time_s) > 1e-6:
        raise InputError(
            f"its TR is {said.repetition_time_s:g} s, the scan's {clock.repetition_time_s:g} s",
            where=where,
            remedy="average it over the scan's TRs",
        )
    placed = []
    for rows in said.runs:
        if rows.run not in clock.run_offsets:
            raise InputError(
                f"no run '{rows.run}'",
                where=where,
                remedy=did_you_mean(rows.run, clock.run_offsets),
            )
        volumes = clock.run(rows.run).volumes
        if rows.first_tr + rows.volumes > volumes:
            raise InputError(
                f"{rows.volumes} TRs from TR {rows.first_tr} of {rows.run}, which has {volumes}",
                where=where,
                remedy="cut the array to the scan's TRs",
            )
        first = clock.run_offsets[rows.run] + rows.first_tr
        placed.append(np.arange(first, first + rows.volumes))
    trs = np.concatenate(placed)
    if len(np.unique(trs)) != len(trs):
        raise InputError("a run is named twice", where=where, remedy="name each once")
    return trs
