"""``sherlock-data``: from scans and a movie to labelled Zarr stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from sherlock_cli import completion, options
from sherlock_cli.console import (
    Group,
    files_in,
    handled,
    print_json,
    print_table,
    results,
    say,
    size,
)
from sherlock_cli.progress import BuildProgress
from sherlock_cli.stores import export, info, verify

from sherlock_data.errors import InputError, or_beside

_file = click.Path(path_type=Path)
_raw = click.option(
    "--raw",
    type=_file,
    metavar="DIR",
    shell_complete=completion.folders,
    help="Raw files.  [default: the folder of --catalog, or else this one]",
)
_out = click.option(
    "--out",
    default="stores",
    show_default=True,
    metavar="DIR",
    shell_complete=completion.folders,
    help="Where stores are, a folder or s3://...; DATASET/STORE.zarr in it.",
)


@click.group(cls=Group, context_settings=options.HELP)
@options.version
def main() -> None:
    """Turn NIfTI scans and their movie into labelled Zarr stores.

    \b
    Examples:
      sherlock-data synth raw --size tiny
      sherlock-data inspect synth --catalog raw/catalog.yaml
      sherlock-data build synth --catalog raw/catalog.yaml
      sherlock-data info stores/synth
    """  # noqa: D301 - click's mark for text that keeps its lines


for command in (info, verify, export):
    main.add_command(command)


@main.command("list")
@options.catalog
@_out
@_raw
@options.as_json("rows of dataset, title, store, kind, state, bytes, why, files")
@handled
def list_command(catalog: Path | None, out: str, raw: Path | None, as_json: bool) -> None:
    """What the catalogue offers, what of it is built, and its size.

    A store's state is absent, resumable (a build was stopped), complete, damaged, or n/a, with the
    reason why this dataset cannot have it.

    \b
    Examples:
      sherlock-data list
      sherlock-data list --catalog raw/catalog.yaml --out stores
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_data.catalog import load_catalog
    from sherlock_data.listing import list_datasets

    rows = list_datasets(load_catalog(catalog), out, _raw_folder(raw, catalog))
    if as_json:
        print_json({"rows": rows})
        return
    print_table(
        "Datasets and stores",
        ["dataset", "store", "kind", "state", "size", "raw files", "why not"],
        [
            [
                row["dataset"],
                row["store"],
                row["kind"],
                row["state"],
                "" if row["bytes"] is None else size(row["bytes"]),
                "here" if row["files"] else "not here",
                row["why"] or "",
            ]
            for row in rows
        ],
        numeric=[4],
    )


@main.command()
@click.argument(
    "targets",
    nargs=-1,
    required=True,
    metavar="DATASET | FILE...",
    shell_complete=completion.datasets_or_files,
)
@options.catalog
@_raw
@options.as_json("dataset, repetition_time_s, runs, subjects, problems; of files: files, problems")
@handled
def inspect(
    targets: tuple[str, ...], catalog: Path | None, raw: Path | None, as_json: bool
) -> None:
    """Headers, timing and problems of a dataset or of files.

    Says which TR the catalogue and the headers claim, which of them fits the length of the movie,
    and what is wrong with any volume. Every file is read; nothing is built.

    \b
    Examples:
      sherlock-data inspect sherlock --raw sherlock
      sherlock-data inspect sub-01_bold.nii.gz movie.mp4
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_data import inspect as inspection
    from sherlock_data.catalog import load_catalog
    from sherlock_data.scan import resolve

    if all(Path(target).is_file() for target in targets):
        document = inspection.inspect_files([Path(target) for target in targets])
    elif len(targets) == 1 and not Path(targets[0]).suffix and "/" not in targets[0]:
        entry = load_catalog(catalog).dataset(targets[0])
        scan = resolve(targets[0], entry, _raw_folder(raw, catalog), strict=False)
        with BuildProgress("reading") as progress:
            document = inspection.inspect_dataset(scan, progress=progress.fraction)
    else:
        missing = next(target for target in targets if not Path(target).is_file())
        remedy = or_beside(missing, "give one dataset, or files only")
        raise InputError("no such file", where=missing, remedy=remedy)
    if as_json:
        print_json(document)
    else:
        inspection.render(document, results)


@main.command()
@click.argument("out", type=_file, shell_complete=completion.folders)
@click.option(
    "--size",
    "size_name",
    type=click.Choice(["tiny", "demo", "full"]),
    default="tiny",
    show_default=True,
    help="tiny takes seconds, demo a minute; full is as large as the Sherlock dataset.",
)
@click.option(
    "--subjects",
    type=click.IntRange(min=2),
    metavar="N",
    help="How many subjects, 2 or more.  [default: the size's own number]",
)
@options.seed("The same seed makes the same files.")
@click.option(
    "--header-tr",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="TR that the NIfTI headers claim.  [default: the true one]",
)
@options.as_json("folder, catalog, files of path, bytes, sha256")
@handled
def synth(
    out: Path,
    size_name: str,
    subjects: int | None,
    seed: int,
    header_tr: float | None,
    as_json: bool,
) -> None:
    """Write raw files with a planted truth into the folder OUT.

    Scans, movies, an atlas, catalog.yaml and truth.zarr, as if from a scanner room: which parcels
    follow the picture or the sound is known.

    \b
    Examples:
      sherlock-data synth raw
      sherlock-data synth raw --size demo --subjects 4 --seed 1
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_data.synthetic import synth as make

    with BuildProgress("synthesising") as progress:
        make(
            out,
            size=size_name,
            subjects=subjects,
            seed=seed,
            header_tr_s=header_tr,
            progress=progress.fraction,
        )
    if as_json:
        print_json({"folder": out, "catalog": out / "catalog.yaml", "files": files_in(out)})
        return
    say(f"{out}: next, sherlock-data build synth --catalog {out / 'catalog.yaml'}")


@main.command()
@click.argument("dataset", shell_complete=completion.datasets)
@click.argument("stores", nargs=-1, metavar="[STORE]...", shell_complete=completion.stores)
@options.catalog
@_raw
@_out
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Build on a running dask cluster, tcp://...  [default: in this process]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Parts done at once.  [default: as many as cores and memory allow]",
)
@click.option("--overwrite", is_flag=True, help="Replace stores of another recipe or input.")
@click.option("--repair", is_flag=True, help="Mend what verify finds damaged, and only that.")
@click.option("--dry-run", is_flag=True, help="Print sizes, memory and time; build nothing.")
@options.as_json("dataset, rows of store, status, detail, bytes, memory_bytes, seconds, problems")
@handled
def build(
    dataset: str,
    stores: tuple[str, ...],
    catalog: Path | None,
    raw: Path | None,
    out: str,
    scheduler: str | None,
    workers: int | None,
    overwrite: bool,
    repair: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Build a dataset's stores: those named, or all its inputs allow.

    Without a STORE the large ones, frames and features, are left out. A complete store is left as
    it is; one whose build was stopped is resumed.

    \b
    Examples:
      sherlock-data build sherlock --raw sherlock --dry-run
      sherlock-data build sherlock parcels stimulus --raw sherlock
      sherlock-data build synth --catalog raw/catalog.yaml --repair
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_data import build as builder
    from sherlock_data.catalog import load_catalog
    from sherlock_data.outcomes import describe
    from sherlock_data.scan import resolve

    known = load_catalog(catalog)
    scan = resolve(dataset, known.dataset(dataset), _raw_folder(raw, catalog))
    for problem in scan.problems:
        say(f"note: {problem.where}: {problem.message}")
    how = builder.Options(scheduler, workers, overwrite, dry_run, repair)
    with BuildProgress("building") as progress:
        outcomes = builder.build(scan, known, out, stores, how, progress)
    said = {(problem.where, problem.message) for problem in scan.problems}
    for problem in (p for outcome in outcomes for p in outcome.problems):
        if (problem["where"], problem["message"]) not in said:
            said.add((problem["where"], problem["message"]))
            say(f"note: {problem['where']}: {problem['message']}")
    rows = describe(outcomes)
    if as_json:
        print_json({"dataset": dataset, "rows": rows})
    else:
        _print_outcomes(rows, dry_run)


def _print_outcomes(rows: list[dict[str, Any]], dry_run: bool) -> None:
    columns = ["store", "status", "size", "memory", "about", "detail"]
    print_table(
        "What a build would do" if dry_run else "Stores",
        columns if dry_run else [columns[i] for i in (0, 1, 2, 5)],
        [
            [
                row["store"],
                row["status"],
                size(row["bytes"]) if row["bytes"] else "",
                *([size(row["memory_bytes"]), f"{row['seconds']:.0f} s"] if dry_run else []),
                row["detail"],
            ]
            for row in rows
        ],
        numeric=[2, 3, 4] if dry_run else [2],
    )


def _raw_folder(raw: Path | None, catalog: Path | None) -> Path:
    if raw is None:
        return catalog.parent if catalog is not None else Path()
    if not raw.is_dir():
        raise InputError("no such folder", where=raw, remedy=or_beside(raw, "check --raw"))
    return raw
