"""Which files make up a dataset, on which grid, at which TR: headers only, nothing is inflated.

What the catalogue says wins over what headers say, and every disagreement is kept as a
:class:`Problem`. What would make a store wrong (another grid, volumes that do not add up) stops.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sherlock_data import patterns
from sherlock_data.agreement import (
    Findings,
    RunFiles,
    common_grid,
    repetition_time,
    run_lengths,
)
from sherlock_data.contract import subject_label
from sherlock_data.errors import InputError
from sherlock_data.grid import Grid
from sherlock_data.nifti import GZIP_MAGIC, read_header
from sherlock_data.quality import Problem
from sherlock_data.timing import Clock, Run

if TYPE_CHECKING:
    from sherlock_data.catalog import DatasetEntry, RunEntry

_LOG = logging.getLogger(__name__)

__all__ = ["GridHeader", "Problem", "Scan", "identify", "resolve"]

#: characters of a path that an error shows
_LONGEST = 200
MOVIE_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg"})


@dataclass(frozen=True)
class GridHeader:
    """What the files of a dataset have in common.

    Attributes
    ----------
    shape : tuple of int
        (x, y, z).
    affine : ndarray of float64, shape (4, 4)
    zooms : tuple of float
        Voxel size in mm.
    dtype : numpy.dtype
        Of the first file's stored values.
    space : str
        The catalogue's word for the space: ``"MNI152"`` or ``"native"``.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    zooms: tuple[float, float, float]
    dtype: np.dtype[Any]
    space: str

    @property
    def grid(self) -> Grid:
        """Shape and place alone."""
        return Grid(self.shape, self.affine, self.space)


@dataclass(frozen=True)
class Scan:
    """A dataset's files, clock and grid.

    Attributes
    ----------
    dataset : str
    clock : Clock
        A run whose movie file is missing has ``movie`` None.
    subjects : tuple of str
        ``"sub-01"``, ..., in natural order.
    files : dict
        Subject to run to file; the run None stands for one file that holds all runs. A run that a
        subject was not scanned in is absent.
    volumes : dict
        Volumes by each file's header.
    header : GridHeader
    header_repetition_time_s, catalogue_repetition_time_s : float or None
    movies : dict
        Run to movie file, where there is one.
    annotations : Path or None
    lag_s : float
    space : str
    raw : Path
        The folder that file names are relative to.
    problems : list of Problem
    """

    dataset: str
    clock: Clock
    subjects: tuple[str, ...]
    files: dict[str, RunFiles]
    volumes: dict[Path, int]
    header: GridHeader
    header_repetition_time_s: float | None
    catalogue_repetition_time_s: float | None
    movies: dict[str, Path]
    annotations: Path | None
    lag_s: float
    space: str
    raw: Path
    problems: list[Problem] = field(default_factory=list)

    def name_of(self, path: Path) -> str:
        """Return the path as seen from the raw folder."""
        return path.relative_to(self.raw).as_posix()

    def first_tr(self, run: str | None) -> int:
        """TR (0-based, over all runs) of the first volume of a run's file."""
        return 0 if run is None else self.clock.run_offsets[run]


def resolve(name: str, entry: DatasetEntry, raw: str | Path, *, strict: bool = True) -> Scan:
    """Find a dataset's files and read their headers.

    Parameters
    ----------
    name : str
        Of the dataset.
    entry : DatasetEntry
        What the catalogue says of it.
    raw : path
        Folder that the entry's paths are relative to.
    strict : bool
        Stop at what would make a store wrong. False (for ``inspect``): list it with the problems.

    Raises
    ------
    InputError
        If no file matches; one cannot be read, is no NIfTI series or is cut short; two files claim
        one run of a subject; and, if ``strict``, if grids differ (``grid-differs``) or volumes do
        not sum to the runs (``run-lengths``); if no TR is known.
    """
    try:
        return _resolve(name, entry, Path(raw), Findings(strict))
    except OSError as error:  # a name longer than a file system takes, a folder that is closed
        where = str(error.filename or raw)
        raise InputError(
            f"cannot be read ({error.strerror})",
            where=where if len(where) < _LONGEST else f"{where[:_LONGEST]}...",
            remedy="check the path and who may read it",
        ) from error


def _resolve(name: str, entry: DatasetEntry, raw: Path, found: Findings) -> Scan:
    matches = patterns.find(entry.bold, raw)
    declared = _run_names(entry, matches, found)
    files = _files_by_subject(entry, matches, declared)
    _expect_subjects(entry, files, found, raw)
    headers = {path: read_header(path) for runs in files.values() for path in runs.values()}
    reference = common_grid(headers, found)
    used, in_header = repetition_time(entry, headers, found)
    runs = run_lengths(entry, declared, files, headers, found)
    _missing_runs(runs, files, found)
    clock, movies = _movies(Clock(used, runs), raw, found)
    clock.lag_in_trs(entry.lag_s)
    _LOG.info("%s: %d files of %d subjects in %s", name, len(headers), len(files), raw)
    return Scan(
        dataset=name,
        clock=clock,
        subjects=tuple(files),
        files=files,
        volumes={path: header.volumes for path, header in headers.items()},
        header=GridHeader(
            shape=reference.shape[:3],
            affine=reference.affine,
            zooms=reference.zooms,
            dtype=reference.dtype,
            space=entry.space,
        ),
        header_repetition_time_s=in_header,
        catalogue_repetition_time_s=entry.repetition_time_s,
        movies=movies,
        annotations=_annotations(entry, raw, found),
        lag_s=entry.lag_s,
        space=entry.space,
        raw=raw,
        problems=found.problems,
    )


def identify(paths: Iterable[str | Path]) -> list[tuple[Path, str]]:
    """Tell scans from movies: ``"nifti"`` by their first bytes, ``"movie"`` by their name.

    Raises
    ------
    InputError
        If a file cannot be read, or is neither.
    """
    kinds = []
    for path in map(Path, paths):
        try:
            with path.open("rb") as file:
                start = file.read(4)
        except OSError as error:
            raise InputError(
                f"cannot be read ({error.strerror})", where=path, remedy="check the path"
            ) from error
        sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
        if start[:2] == GZIP_MAGIC or sizes & {348, 540} or ".nii" in path.suffixes:
            kinds.append((path, "nifti"))
        elif path.suffix.lower() in MOVIE_SUFFIXES:
            kinds.append((path, "movie"))
        else:
            raise InputError(
                "is neither a NIfTI file nor a movie",
                where=path,
                remedy=f"give .nii, .nii.gz or {', '.join(sorted(MOVIE_SUFFIXES))}",
            )
    return kinds


def _run_names(
    entry: DatasetEntry, matches: list[patterns.Match], found: Findings
) -> dict[str, RunEntry | None]:
    """Names of the runs in order: the catalogue's, or those found in the file names."""
    if not patterns.has(entry.bold, "run"):
        return {run.name: run for run in entry.runs} or {"run-1": None}
    texts = sorted({match.run or "" for match in matches}, key=patterns.natural)
    if not entry.runs:
        return {f"run-{text}": None for text in texts}
    known = {_number(run.name) for run in entry.runs}
    if extra := [text for text in texts if _number(text) not in known]:
        message = f"runs {', '.join(extra)} have files but are not in the catalogue: left out"
        found.note("run-undeclared", entry.bold, message)
    return {run.name: run for run in entry.runs}


def _number(run: str) -> str:
    """Bring ``run-01``, ``01`` and ``1`` to one form."""
    text = run.removeprefix("run-")
    return str(int(text)) if text.isdecimal() else text


def _files_by_subject(
    entry: DatasetEntry, matches: list[patterns.Match], runs: dict[str, RunEntry | None]
) -> dict[str, RunFiles]:
    """Sort the files by subject and run; only the subjects that a list in the catalogue names."""
    wanted = _named_subjects(entry)
    alone = wanted[0] if len(wanted) == 1 else "sub-01"
    names = {_number(name): name for name in runs} if entry.runs else {}
    files: dict[str, RunFiles] = {}
    for match in matches:
        subject = alone if match.subject is None else subject_label(match.subject)
        run = None
        if match.run is not None:
            run = names.get(_number(match.run)) if entry.runs else f"run-{match.run}"
            if run is None:
                continue
        if wanted and subject not in wanted:
            continue
        other = files.setdefault(subject, {}).setdefault(run, match.path)
        if other != match.path:
            raise InputError(
                f"is {subject} {run or ''} as {other.name} is",
                where=match.path,
                remedy="keep one of the two, or tell them apart in the pattern",
            )
    return {subject: _in_order(of, runs) for subject, of in files.items()}


def _in_order(files: RunFiles, runs: Iterable[str]) -> RunFiles:
    return files if None in files else {run: files[run] for run in runs if run in files}


def _named_subjects(entry: DatasetEntry) -> list[str]:
    named = entry.subjects if isinstance(entry.subjects, list | tuple) else ()
    return [subject_label(str(text)) for text in named]


def _expect_subjects(
    entry: DatasetEntry, files: dict[str, RunFiles], found: Findings, raw: Path
) -> None:
    """Compare the subjects found with those the catalogue expects."""
    if not files:
        raise InputError(
            f"'{entry.bold}' matches files, but of no subject and run that the catalogue names",
            where=raw,
            remedy="mend `subjects:` or `runs:`",
        )
    if entry.subjects is None:
        return
    if isinstance(entry.subjects, int):
        wanted = [subject_label(str(n + 1)) for n in range(entry.subjects)]
        count = entry.subjects
    else:
        wanted = _named_subjects(entry)
        count = len(wanted)
    if len(files) < count:
        missing = ", ".join(label for label in wanted if label not in files)
        named = f"; missing: {missing}" if set(files) <= set(wanted) else ""
        message = f"{len(files)} of {count} subjects are here{named}"
        found.note("subjects-missing", entry.bold, message)
    elif len(files) > count:
        message = f"{len(files)} subjects are here, the catalogue expects {count}: all are used"
        found.note("subjects-unexpected", entry.bold, message)


def _missing_runs(runs: tuple[Run, ...], files: dict[str, RunFiles], found: Findings) -> None:
    for subject, of in files.items():
        if None in of:
            continue
        for run in runs:
            if run.name not in of:
                message = f"no file of {run.name}: its {run.volumes} volumes are NaN and invalid"
                found.note("run-missing", subject, message)


def _movies(clock: Clock, raw: Path, found: Findings) -> tuple[Clock, dict[str, Path]]:
    """Take a movie whose file is not there from its run, and say so."""
    movies: dict[str, Path] = {}
    runs = []
    wanted = any(run.movie for run in clock.runs)
    for run in clock.runs:
        left = f"its {run.volumes} TRs have BOLD but no stimulus"
        if run.movie is None:
            if wanted:
                found.note("movie-missing", run.name, f"the catalogue names no movie: {left}")
        elif (raw / run.movie).is_file():
            movies[run.name] = raw / run.movie
            if run.movie_start_s < 0:
                found.note(
                    "movie-starts-late",
                    run.name,
                    f"movie_start_s is {run.movie_start_s:g}: the movie begins "
                    f"{-run.movie_start_s:g} s after the run's first volume, and the TRs before it "
                    "have no stimulus (a movie already running then has a positive movie_start_s)",
                )
        else:
            found.note("movie-missing", run.name, f"no file {raw / run.movie}: {left}")
        runs.append(run if run.name in movies else replace(run, movie=None))
    return replace(clock, runs=tuple(runs)), movies


def _annotations(entry: DatasetEntry, raw: Path, found: Findings) -> Path | None:
    if entry.annotations is None:
        return None
    path = raw / entry.annotations
    if path.is_file():
        return path
    found.note("annotations-missing", entry.annotations, f"no file {path}: no annotations store")
    return None
