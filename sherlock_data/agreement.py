"""What the files of a dataset must agree on: grid, TR, and the volumes of every run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sherlock_data import patterns
from sherlock_data.errors import CatalogError, InputError
from sherlock_data.grid import Grid
from sherlock_data.nifti import NiftiHeader
from sherlock_data.quality import Problem
from sherlock_data.timing import Run

if TYPE_CHECKING:
    from sherlock_data.catalog import DatasetEntry, RunEntry

#: files of a subject by run; the key None is one file that holds every run
RunFiles = dict[str | None, Path]


class Findings:
    """Collects problems; what is fatal stops at once unless the caller wants to see all."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.problems: list[Problem] = []

    def note(self, code: str, where: object, message: str) -> None:
        """Keep what a reader must know."""
        self.problems.append(Problem(code, str(where), message))

    def fatal(self, code: str, where: object, message: str, remedy: str) -> None:
        """Stop at what would make a store wrong, or keep it where all is to be listed."""
        if self.strict:
            raise InputError(f"{message} ({code})", where=where, remedy=remedy)
        self.note(code, where, f"{message}; {remedy}")


def common_grid(headers: dict[Path, NiftiHeader], found: Findings) -> NiftiHeader:
    """Return the first file's header, which every other must agree with on the grid."""
    first, reference = next(iter(headers.items()))
    grid = Grid(reference.shape[:3], reference.affine)
    for path, header in headers.items():
        if grid.same_as(header.shape[:3], header.affine):
            continue
        what = "an affine" if header.shape[:3] == grid.shape else f"a grid of {header.shape[:3]}"
        found.fatal(
            "grid-differs",
            path,
            f"has {what} other than that of {first} {grid.shape}",
            "resample it onto that grid, or leave it out",
        )
    return reference


def repetition_time(
    entry: DatasetEntry, headers: dict[Path, NiftiHeader], found: Findings
) -> tuple[float, float | None]:
    """TR used and TR of the headers (the most common one), in seconds."""
    by_value: dict[float, list[Path]] = {}
    for path, header in headers.items():
        if header.tr_s is not None:
            by_value.setdefault(header.tr_s, []).append(path)
    ranked = sorted(by_value, key=lambda value: -len(by_value[value]))
    in_header = ranked[0] if ranked else None
    used = entry.repetition_time_s or in_header
    if used is None:
        raise InputError(
            "holds no TR, nor does the catalogue",
            where=next(iter(headers)),
            remedy="give the dataset's `repetition_time_s` in the catalogue",
        )
    for value in ranked:
        if abs(value - used) > 1e-6 * used:
            paths = by_value[value]
            more = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
            source = "the catalogue" if entry.repetition_time_s else "most headers"
            message = f"header says a TR of {value} s, {source} {used} s: {used} s is used"
            found.note("tr-disagrees", f"{paths[0].name}{more}", message)
    return used, in_header


def run_lengths(
    entry: DatasetEntry,
    names: dict[str, RunEntry | None],
    files: dict[str, RunFiles],
    headers: dict[Path, NiftiHeader],
    found: Findings,
) -> tuple[Run, ...]:
    """Volumes of every run, which every file must agree with."""
    if patterns.has(entry.bold, "run"):
        lengths = _lengths_of_files(names, files, headers)
    else:
        whole = headers[next(iter(files.values()))[None]].volumes
        lengths = _lengths_in_whole(entry, names, whole)
    for runs in files.values():
        for run, path in runs.items():
            wanted = sum(lengths.values()) if run is None else lengths[run]
            there = headers[path].volumes
            if there == wanted:
                continue
            parts = [f"{length} of {name}" for name, length in lengths.items()]
            sums = f" ({' + '.join(parts)})" if run is None and len(parts) > 1 else ""
            found.fatal(
                "run-lengths",
                path,
                f"has {there} volumes, {run or 'the runs'} should have {wanted}{sums}",
                "mend `volumes` of the runs in the catalogue, or the file",
            )
    return tuple(
        Run(name, lengths[name])
        if run is None
        else Run(name, lengths[name], run.movie, run.movie_start_s)
        for name, run in names.items()
    )


def _lengths_of_files(
    names: dict[str, RunEntry | None],
    files: dict[str, RunFiles],
    headers: dict[Path, NiftiHeader],
) -> dict[str, int]:
    """Return declared volumes of each run, or those of the first subject that has it."""
    lengths = {}
    for name, run in names.items():
        paths = [runs[name] for runs in files.values() if name in runs]
        declared = run.volumes if run is not None else None
        if declared is None and not paths:
            raise InputError(
                "no file of this run was found",
                where=name,
                remedy="take the run out of the catalogue, or give its `volumes`",
            )
        lengths[name] = headers[paths[0]].volumes if declared is None else declared
    return lengths


def _lengths_in_whole(
    entry: DatasetEntry, names: dict[str, RunEntry | None], whole: int
) -> dict[str, int]:
    """Volumes of the runs in one file of ``whole``; the run that declares none takes the rest."""
    lengths = {name: None if run is None else run.volumes for name, run in names.items()}
    open_runs = [name for name, length in lengths.items() if length is None]
    if len(open_runs) > 1:
        raise CatalogError(
            f"{' and '.join(open_runs)} share a file and declare no volumes",
            where=f"bold: {entry.bold}",
            remedy="give `volumes` for all runs but one",
        )
    declared = sum(length for length in lengths.values() if length is not None)
    rest = whole - declared
    if open_runs and rest < 1:
        raise InputError(
            f"a file of {whole} volumes leaves none for {open_runs[0]}, "
            f"the other runs have {declared} (run-lengths)",
            where=entry.bold,
            remedy="mend `volumes` of the runs in the catalogue",
        )
    return {name: rest if length is None else length for name, length in lengths.items()}
