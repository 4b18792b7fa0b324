"""The whole way in one go, on made-up data whose answer is known (``make demo``).

Runs the very commands a user would type, prints each, and ends with what they found.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import xarray as xr
from sherlock_cli import data, models, options, train
from sherlock_cli.console import handled, print_table, say, seconds, size

from sherlock_data import store as stores
from sherlock_models.page.overview import write_overview
from sherlock_models.run import load
from sherlock_models.scoring.evaluate import load_evaluation
from sherlock_models.scoring.planted import found, load_truth

ENTRY = "conv-parcels"
TRAINING = ["--batch-size", "32", "--set", "width=0.25", "--set", "learning_rate=0.003"]
STEPS = {"tiny": 60, "demo": 400}


@click.command(context_settings=options.HELP)
@click.argument("out", type=click.Path(path_type=Path), default=Path("demo"))
@click.option(
    "--size",
    "size_name",
    type=click.Choice(["tiny", "demo"]),
    default="demo",
    show_default=True,
    help="tiny takes a minute and finds little; demo some minutes.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Steps of the training.  [default: 60 of size tiny, 400 of size demo]",
)
@handled
def main(out: Path, size_name: str, steps: int | None) -> None:
    """Make raw files, build stores, train, evaluate, lesion and report in the folder OUT.

    \b
    Examples:
      python -m sherlock_cli.demo demo
      python -m sherlock_cli.demo demo --size tiny
    """  # noqa: D301 - click's mark for text that keeps its lines
    raw, built, run = out / "raw", out / "stores", out / "runs" / ENTRY
    catalog = ["--catalog", str(raw / "catalog.yaml")]
    training = ["--steps", str(steps or STEPS[size_name]), *TRAINING]
    started = time.perf_counter()
    if not (raw / "catalog.yaml").exists():
        _step(data.main, "sherlock-data", "synth", raw, "--size", size_name)
    _step(data.main, "sherlock-data", "build", "synth", *catalog, "--out", built)
    if (run / "config.yaml").exists():
        _step(train.main, "sherlock-train", "--resume", run)
    else:
        target = ["--data", built / "synth", "--out", run]
        _step(train.main, "sherlock-train", ENTRY, *target, *catalog, *training)
    _step(models.main, "sherlock-models", "evaluate", run)
    _step(models.main, "sherlock-models", "lesion", run)
    _step(models.main, "sherlock-models", "report", run, "--truth", raw / "truth.zarr")
    picture = write_overview(load(run))
    _print_stores(built / "synth")
    _print_scores(*load_evaluation(run), load_truth(raw / "truth.zarr"))
    say(f"{seconds(time.perf_counter() - started)} in all")
    say(f"a picture: {picture}")
    say(f"the page: {run / 'report.html'}")


@contextmanager
def _timed() -> Iterator[None]:
    start = time.perf_counter()
    yield
    say(f"  {seconds(time.perf_counter() - start)}", style="dim")


def _step(command: click.Command, name: str, *args: object) -> None:
    words = [str(arg) for arg in args]
    say(f"$ {shlex.join([name, *words])}", style="bold")
    with _timed():
        command.main(args=words, prog_name=name, standalone_mode=False)


def _print_stores(folder: Path) -> None:
    print_table(
        "What was built",
        ["store", "size", "sha256"],
        [
            [name, size(stores.bytes_on_disk(path)), stores.fingerprint(path)[:16]]
            for name, path in stores.list_stores(folder).items()
        ],
        numeric=[1],
    )


def _print_scores(evaluation: dict[str, Any], arrays: xr.Dataset, truth: xr.Dataset) -> None:
    """Print the few numbers that tell a good model from none, on held-out blocks."""
    rows = {(r["predictor"], r["target"], r["metric"]): r["value"] for r in evaluation["rows"]}
    wanted = [
        ("brain: r over time, model", "model", "brain", "r"),
        ("brain: r over time, delayed ridge", "delayed-ridge", "brain", "r"),
        ("brain: R2, model (the mean scores 0)", "model", "brain", "r2"),
        ("movie: PSNR in dB, model", "model", "video", "psnr"),
        ("movie: PSNR in dB, mean frame", "mean-frame", "video", "psnr"),
        ("movie: R2 from the predicted brain", "model", "video", "r2"),
        ("movie: R2 from one measured brain", "model/measured-brain", "video", "r2"),
        ("sound: R2 from the predicted brain", "model", "audio", "r2"),
        ("sound: R2 from one measured brain", "model/measured-brain", "audio", "r2"),
    ]
    table = [[label, _number(rows.get(tuple(key)))] for label, *key in wanted]
    table += [
        [f"time index alone: brain r under --split {kind}", _number(evaluation["canary"][kind])]
        for kind in ("block", "random")
    ]
    print_table("On held-out blocks", ["", "value"], table, numeric=[1])
    print_table(
        "Planted regions found (held-out r above chance, FDR .05; of 'none', false alarms)",
        ["modality", "found", "of"],
        [[row.modality, row.found, row.total] for row in found(arrays, truth)],
        numeric=[1, 2],
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
