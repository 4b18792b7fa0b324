"""What a dataset's files hold and what is wrong with them; reads everything, builds nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sherlock_data import nifti
from sherlock_data.quality import Problem, VolumeCheck
from sherlock_data.scan import Scan, identify
from sherlock_data.timing import Run

if TYPE_CHECKING:
    from sherlock_data.stimulus.movie import MovieProbe

Document = dict[str, Any]
Progress = Callable[[float], None]

#: a movie file may go on this long after its run: the Sherlock file's last 7 s are black
SURPLUS_S = 10.0
#: volumes read at once
BLOCK = 8


def inspect_dataset(scan: Scan, progress: Progress | None = None) -> Document:
    """Read every file of a dataset once and compare it with the catalogue.

    Parameters
    ----------
    scan : Scan
        From ``resolve(..., strict=False)``, so that what would stop a build is listed too.
    progress : callable, optional
        Called with the share of all volumes that is read, 0 to 1.

    Returns
    -------
    dict
        The contract's ``inspect`` document. ``fits_movie`` says which TR fits a run's movie:
        ``"catalogue"``, ``"header"``, ``"both"``, ``"neither"``, or None without a movie.
        ``constant_volumes`` are TRs of the scan clock, 0-based and inclusive.

    Raises
    ------
    InputError
        If a file is damaged, or a movie does not decode.
    """
    problems = list(scan.problems)
    runs = [_run_row(scan, run, problems) for run in scan.clock.runs]
    total = sum(scan.volumes.values())
    done = 0
    subjects = []
    for subject, files in scan.files.items():
        ranges = []
        for run, path in files.items():
            width = scan.volumes[path] / total
            check, _ = _read(path, _share(progress, done / total, width))
            done += check.volumes
            first = scan.first_tr(run)
            ranges += [[a + first, b + first] for a, b in check.constant_ranges()]
            problems += check.problems(subject, first)
        subjects.append(
            {
                "subject": subject,
                "files": [scan.name_of(path) for path in files.values()],
                "volumes": sum(scan.volumes[path] for path in files.values()),
                "constant_volumes": ranges,
            }
        )
    return {
        "dataset": scan.dataset,
        "repetition_time_s": {
            "catalogue": scan.catalogue_repetition_time_s,
            "header": scan.header_repetition_time_s,
            "used": scan.clock.repetition_time_s,
        },
        "runs": runs,
        "subjects": subjects,
        "problems": [problem.to_dict() for problem in problems],
    }


def inspect_files(paths: Iterable[str | Path], progress: Progress | None = None) -> Document:
    """Describe loose files: scans, single images and movies.

    Returns
    -------
    dict
        ``{"files": [...], "problems": [...]}``; what a row holds depends on its ``kind``,
        ``"nifti"`` or ``"movie"``.

    Raises
    ------
    InputError
        If a file is neither, or is damaged.
    """
    kinds = identify(paths)
    rows: list[Document] = []
    problems: list[Problem] = []
    for done, (path, kind) in enumerate(kinds):
        if kind == "movie":
            rows.append({"file": str(path), "kind": kind, **_movie_facts(_probe(path))})
        else:
            check, stream = _read(path, _share(progress, done / len(kinds), 1 / len(kinds)))
            rows.append({"file": str(path), "kind": kind, **_scan_facts(stream, check)})
            problems += check.problems(str(path))
    return {"files": rows, "problems": [problem.to_dict() for problem in problems]}


def fits_movie(
    run: Run, movie_seconds: float, catalogue_s: float | None, header_s: float | None
) -> str:
    """Say which TR makes a run as long as its movie.

    Parameters
    ----------
    run : Run
    movie_seconds : float
        Length of the movie file; what precedes ``run.movie_start_s`` does not count.
    catalogue_s, header_s : float or None
        TRs in seconds.

    Returns
    -------
    str
        ``"catalogue"``, ``"header"``, ``"both"`` or ``"neither"``. A TR fits if the movie is at
        most one TR shorter and ``SURPLUS_S`` longer than the run.
    """

    def fits(tr_s: float | None) -> bool:
        if tr_s is None:
            return False
        surplus = movie_seconds - run.movie_start_s - run.volumes * tr_s
        return -tr_s <= surplus <= SURPLUS_S

    found = (fits(catalogue_s), fits(header_s))
    return {
        (True, True): "both",
        (True, False): "catalogue",
        (False, True): "header",
        (False, False): "neither",
    }[found]


def _run_row(scan: Scan, run: Run, problems: list[Problem]) -> Document:
    """Row of the timing table; adds what is wrong with the run's movie to ``problems``."""
    tr_s = scan.clock.repetition_time_s
    row: Document = {
        "run": run.name,
        "volumes": run.volumes,
        "seconds": run.volumes * tr_s,
        "movie": None,
        "movie_seconds": None,
        "fits_movie": None,
    }
    path = scan.movies.get(run.name)
    if path is None:
        return row
    probe = _probe(path)
    left = probe.video_seconds - run.movie_start_s
    if (short := row["seconds"] - left) > tr_s / 2:
        trs = min(int(np.ceil(short / tr_s - 1e-6)), run.volumes)
        message = f"{path.name} ends {short:.2f} s before the run: {trs} TRs are not wholly covered"
        problems.append(Problem("movie-shorter", run.name, message))
    if not probe.has_audio:
        problems.append(Problem("movie-silent", run.name, f"{path.name} has no sound"))
    fits = fits_movie(
        run,
        probe.duration_s,
        scan.catalogue_repetition_time_s,
        scan.header_repetition_time_s,
    )
    return {**row, "movie": run.movie, "movie_seconds": probe.duration_s, "fits_movie": fits}


def _probe(path: Path) -> MovieProbe:
    """Probe a movie and decode its first frame; the module is loaded only where there is one."""
    from sherlock_data.stimulus.movie import check_decodes, probe

    found = probe(path)
    check_decodes(found)
    return found


def _read(path: Path, report: Progress) -> tuple[VolumeCheck, nifti.Stream]:
    """Read a file to its end."""
    check = VolumeCheck()
    with nifti.stream(path, BLOCK, series=False) as stream:
        for first, block in stream:
            check.update(block)
            report((first + len(block)) / stream.header.volumes)
    return check, stream


def _share(progress: Progress | None, start: float, width: float) -> Progress:
    """Map one file's progress onto its share of the whole."""

    def report(done: float) -> None:
        if progress is not None:
            progress(start + done * width)

    return report


def _scan_facts(stream: nifti.Stream, check: VolumeCheck) -> Document:
    header = stream.header
    return {
        "shape": list(header.shape[: header.dimensions]),
        "zooms_mm": list(header.zooms),
        "affine": header.affine.tolist(),
        "space": header.space,
        "repetition_time_s": header.tr_s,
        "dtype": header.dtype.name,
        "slope": header.slope,
        "inter": header.inter,
        "minimum": _finite(check.minimum),
        "maximum": _finite(check.maximum),
        "constant_volumes": [list(pair) for pair in check.constant_ranges()],
        "bytes": stream.bytes,
        "sha256": stream.sha256,
    }


def _movie_facts(probe: MovieProbe) -> Document:
    return {
        "seconds": probe.duration_s,
        "frame_rate": float(probe.frame_rate),
        "width": probe.width,
        "height": probe.height,
        "has_audio": probe.has_audio,
        "sample_rate": probe.sample_rate,
        "channels": probe.channels,
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def render(document: Document, console: Console) -> None:
    """Print what :func:`inspect_dataset` or :func:`inspect_files` found as tables."""
    if "files" in document:
        for row in document["files"]:
            console.print(_file_table(row))
    else:
        console.print(_timing_table(document))
        console.print(_runs_table(document["runs"]))
        console.print(_subjects_table(document["subjects"]))
    _render_problems(document["problems"], console)


def _timing_table(document: Document) -> Table:
    table = Table(title=Text(document["dataset"]), title_justify="left")
    for column in ("TR", "seconds"):
        table.add_column(column, overflow="fold")
    for source, value in document["repetition_time_s"].items():
        table.add_row(source, "none" if value is None else str(value))
    return table


def _runs_table(rows: list[Document]) -> Table:
    table = Table(title="Runs", title_justify="left")
    for column in ("run", "volumes", "seconds", "movie", "movie seconds", "TR that fits"):
        numeric = column in {"volumes", "seconds", "movie seconds"}
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        length = row["movie_seconds"]
        table.add_row(
            Text(row["run"]),
            f"{row['volumes']:,}",
            f"{row['seconds']:,.6g}",
            Text(row["movie"] or "none"),
            "" if length is None else f"{length:,.2f}",
            row["fits_movie"] or "",
        )
    return table


def _subjects_table(rows: list[Document]) -> Table:
    table = Table(title="Subjects", title_justify="left")
    for column in ("subject", "files", "volumes", "constant volumes"):
        number = column == "volumes"
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        files = row["files"]
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        table.add_row(
            row["subject"],
            Text(files[0] + more),
            f"{row['volumes']:,}",
            ", ".join(f"{first} to {last}" for first, last in row["constant_volumes"]),
        )
    return table


def _file_table(row: Document) -> Table:
    table = Table(show_header=False, title=Text(row["file"]), title_justify="left")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for key, value in row.items():
        if key == "affine":
            text = "\n".join(" ".join(f"{number:g}" for number in line) for line in value)
        elif isinstance(value, list):
            text = ", ".join(str(item) for item in value) or "none"
        else:
            text = "none" if value is None else str(value)
        if key != "file":
            table.add_row(key.replace("_", " "), Text(text))
    return table


def _render_problems(problems: list[dict[str, str]], console: Console) -> None:
    if not problems:
        console.print("No problems found.")
        return
    table = Table(title="Problems", title_justify="left")
    for column in ("code", "where", "message"):
        table.add_column(column, overflow="fold")
    for problem in problems:
        table.add_row(*(Text(problem[key]) for key in ("code", "where", "message")))
    console.print(table)
