"""``sherlock-data``: from scans and a movie to labelled Zarr stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from sherlock_cli.console import (
    handled,
    json_option,
    print_json,
    print_table,
    results,
    say,
    size,
    tell,
)
from sherlock_cli.progress import BuildProgress

from sherlock_data.errors import ConfigError, InputError, or_beside

_catalog = click.option(
    "--catalog", type=click.Path(path_type=Path), help="Your own catalogue, laid over the packaged."
)
_raw = click.option(
    "--raw",
    type=click.Path(path_type=Path),
    help="Folder of the raw files.  [default: the catalogue's own folder, or here]",
)
_out = click.option(
    "--out", default="stores", show_default=True, help="Folder (or s3://...) for the stores."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sherlock-zoo")
def main() -> None:
    """Turn NIfTI scans and their movie into labelled Zarr stores.

    \b
    sherlock-data synth raw --size demo
    sherlock-data inspect synth --catalog raw/catalog.yaml
    sherlock-data build synth --catalog raw/catalog.yaml --out stores
    """  # noqa: D301 - click's mark for text that keeps its lines


@main.command("list")
@_catalog
@_out
@_raw
@json_option
@handled
def list_command(catalog: Path | None, out: str, raw: Path | None, as_json: bool) -> None:
    """What the catalogue offers, what is built, and its size."""
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
@click.argument("targets", nargs=-1, required=True, metavar="DATASET | FILE...")
@_catalog
@_raw
@json_option
@handled
def inspect(
    targets: tuple[str, ...], catalog: Path | None, raw: Path | None, as_json: bool
) -> None:
    """Headers, timing and problems of a dataset or of files; builds nothing."""
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
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--size",
    "size_name",
    type=click.Choice(["tiny", "demo", "full"]),
    default="tiny",
    show_default=True,
)
@click.option("--subjects", type=click.IntRange(min=2), help="Instead of the size's own number.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--header-tr",
    type=click.FloatRange(min=0, min_open=True),
    help="Write this TR (s) into the headers, right or wrong.",
)
@handled
def synth(
    out: Path, size_name: str, subjects: int | None, seed: int, header_tr: float | None
) -> None:
    """Write raw files with a planted truth: scans, movies, atlas, catalog.yaml, truth.zarr."""
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
    say(f"{out}: next, sherlock-data build synth --catalog {out / 'catalog.yaml'}")


@main.command()
@click.argument("dataset")
@click.argument("stores", nargs=-1)
@_catalog
@_raw
@_out
@click.option("--scheduler", help="Address of a running dask scheduler (tcp://...).")
@click.option("--workers", type=click.IntRange(min=1), help="Parts at once.  [default: as fits]")
@click.option("--overwrite", is_flag=True, help="Replace stores of another recipe or inputs.")
@click.option("--repair", is_flag=True, help="First mend what verify names, and only that.")
@click.option("--dry-run", is_flag=True, help="Print sizes, memory and cost; build nothing.")
@json_option
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
    """Build a dataset's stores: all that its inputs allow, or those named."""
    from sherlock_data import build as builder
    from sherlock_data.catalog import load_catalog
    from sherlock_data.scan import resolve

    known = load_catalog(catalog)
    scan = resolve(dataset, known.dataset(dataset), _raw_folder(raw, catalog))
    for problem in scan.problems:
        say(f"note: {problem.where}: {problem.message}")
    options = builder.Options(scheduler, workers, overwrite, dry_run, repair)
    with BuildProgress("building") as progress:
        outcomes = builder.build(scan, known, out, stores, options, progress)
    said = {(problem.where, problem.message) for problem in scan.problems}
    for problem in (p for outcome in outcomes for p in outcome.problems):
        if (problem["where"], problem["message"]) not in said:
            said.add((problem["where"], problem["message"]))
            say(f"note: {problem['where']}: {problem['message']}")
    rows = builder.describe(outcomes)
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


@main.command()
@click.argument("path")
@json_option
@handled
def info(path: str, as_json: bool) -> None:
    """Dims, coordinates, sizes and provenance of a store or of a folder of stores."""
    from sherlock_data.listing import describe_path, render_path

    documents = describe_path(path)
    if as_json:
        print_json({"rows": documents})
    else:
        render_path(documents, results)


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@json_option
@handled
def verify(paths: tuple[str, ...], as_json: bool) -> None:
    """Hold every object of stores, or of folders of stores, to what was written.

    Exit code 1 and a list where anything is damaged, missing or foreign.
    """
    from sherlock_data import verify as verifying

    stores = verifying.find(paths)
    with BuildProgress("verifying") as progress:
        rows = verifying.verify(stores, progress)
    if as_json:
        print_json({"rows": rows})
    else:
        _print_damage(stores, rows)
    raise SystemExit(1 if rows else 0)


def _print_damage(stores: list[str], rows: list[dict[str, Any]]) -> None:
    for path in stores:
        if not any(row["path"] == path for row in rows):
            tell(f"{path}: whole")
    if rows:
        columns = ["store", "array", "chunk", "problem", "key"]
        cells = [[row[column] for column in columns] for row in rows]
        print_table("Damage", columns, cells)
        say("sherlock-data build --repair mends it")


@main.command()
@click.argument("store")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--subject", help="Needed where the store holds several.")
@click.option("--run", "run_name", help="One run; all by default.")
@click.option("--time", "time_range", metavar="A:B", help="Seconds on the scan clock.")
@handled
def export(
    store: str, out: Path, subject: str | None, run_name: str | None, time_range: str | None
) -> None:
    """Write a store's BOLD back to NIfTI, with its affine and TR."""
    from sherlock_data.images import export as write

    with BuildProgress("exporting") as progress:
        write(
            store,
            out,
            subject=subject,
            run=run_name,
            time=_seconds(time_range),
            report=progress.fraction,
        )
    say(f"{out}: written")


def _seconds(text: str | None) -> tuple[float | None, float | None] | None:
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    try:
        if not colon:
            raise ValueError(text)
        return (float(start) if start else None, float(stop) if stop else None)
    except ValueError:
        raise ConfigError(
            f"'{text}' is not a range of seconds", where="--time", remedy="write A:B, as 30:90"
        ) from None


def _raw_folder(raw: Path | None, catalog: Path | None) -> Path:
    if raw is None:
        return catalog.parent if catalog is not None else Path()
    if not raw.is_dir():
        raise InputError("no such folder", where=raw, remedy=or_beside(raw, "check --raw"))
    return raw
