"""`sherlock-data info`, `verify` and `export`: what is in stores, whether it is whole, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from sherlock_cli import completion, options
from sherlock_cli.console import handled, print_json, print_table, results, say, tell
from sherlock_cli.progress import BuildProgress

from sherlock_data.errors import ConfigError


@click.command()
@click.argument("path", shell_complete=completion.stores_or_datasets)
@options.as_json("rows of store, path, bytes, dims, coords, variables, attrs")
@handled
def info(path: str, as_json: bool) -> None:
    """What stores hold: dims, coordinates, sizes, and their origin.

    PATH is a store or a folder of stores; only metadata are read.

    \b
    Examples:
      sherlock-data info stores/sherlock
      sherlock-data info s3://lab/stores/sherlock/parcels.zarr
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_data.listing import describe_path, render_path

    documents = describe_path(path)
    if as_json:
        print_json({"rows": documents})
    else:
        render_path(documents, results)


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    shell_complete=completion.stores_or_datasets,
)
@options.as_json("rows of store, array, chunk, problem, path, key; none where all is whole")
@handled
def verify(paths: tuple[str, ...], as_json: bool) -> None:
    """Compare every byte of stores with what was written.

    Each PATH is a store or a folder of stores. Where anything is damaged, missing or foreign, it is
    listed, and the exit code is 1.

    \b
    Examples:
      sherlock-data verify stores/sherlock
      sherlock-data verify stores/sherlock/voxels.zarr stores/synth
    """  # noqa: D301 - click's mark for text that keeps its lines
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


@click.command()
@click.argument("store", shell_complete=completion.store_folders)
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.nii.gz")
@options.subject("Whose series; needed where the store holds several.")
@click.option(
    "--run",
    "run_name",
    metavar="RUN",
    shell_complete=completion.scan_runs,
    help="One run.  [default: all]",
)
@click.option(
    "--time",
    "time_range",
    metavar="A:B",
    help="From second A up to B on the scan clock; either may be left out.  [default: all]",
)
@options.as_json("file, bytes, sha256")
@handled
def export(
    store: str,
    out: Path,
    subject: str | None,
    run_name: str | None,
    time_range: str | None,
    as_json: bool,
) -> None:
    """Write a store's BOLD back to NIfTI, with its affine and TR.

    \b
    Examples:
      sherlock-data export stores/lab/volumes.zarr out.nii.gz --subject sub-01
      sherlock-data export stores/lab/parcels.zarr out.nii --run run-1 --time 9:30
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_data.images import export as write
    from sherlock_data.provenance import sha256_of

    with BuildProgress("exporting") as progress:
        write(
            store,
            out,
            subject=subject,
            run=run_name,
            time=_seconds(time_range),
            report=progress.fraction,
        )
    if as_json:
        print_json({"file": out, "bytes": out.stat().st_size, "sha256": sha256_of(out)})
        return
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
