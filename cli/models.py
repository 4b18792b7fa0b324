"""`sherlock-models`: the zoo, and what became of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from sherlock_cli import completion, console, options
from sherlock_cli.decode import decode
from sherlock_cli.lesion import lesion
from sherlock_cli.plan import plan_command
from sherlock_cli.progress import stages
from sherlock_cli.validate import validate

if TYPE_CHECKING:
    from sherlock_models.run import Run


@click.group(cls=console.Group, context_settings=options.HELP)
@options.version
def main() -> None:
    """Look at the zoo, judge a run, and show what it decodes.

    \b
    Examples:
      sherlock-models list
      sherlock-models plan conv-voxels --gpu a6000 --gpus 8
      sherlock-models show runs/conv-parcels
      sherlock-models evaluate runs/conv-parcels
      sherlock-models decode runs/conv-parcels movie.mp4 out.mp4
      sherlock-models report runs/conv-parcels
      sherlock-models export runs/conv-parcels exported
    """  # noqa: D301 - click's mark for text that keeps its lines


main.add_command(plan_command)
main.add_command(lesion)
main.add_command(validate)
main.add_command(decode)


@main.command("list")
@options.catalog
@options.as_json("rows of entry, input, brain, parameters, claimed")
@console.handled
def list_command(catalog: Path | None, as_json: bool) -> None:
    """Zoo entries: input, brain layer, parameters.

    Parameters are counted at the sizes of the first analysis; those of an entry whose sizes only a
    store can tell are not.

    \b
    Examples:
      sherlock-models list
      sherlock-models list --catalog mine.yaml --json
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_data.catalog import load_catalog
    from sherlock_models.zoo import list_models

    rows = list_models(load_catalog(catalog))
    if as_json:
        console.print_json({"rows": rows})
        return
    cells = [
        (
            row["entry"],
            row["input"],
            row["brain"],
            "from the store" if row["parameters"] is None else f"{row['parameters']:,}",
            row["claimed"],
        )
        for row in rows
    ]
    columns = ("entry", "input", "brain", "parameters", "first analysis said")
    console.print_table("Zoo, at the first analysis's sizes", columns, cells, numeric=(3,))


@main.command()
@options.run
@options.as_json(
    "run, entry, state, reason, step, steps, eta_s, terms of term, split, last, best, mean, curve"
)
@console.handled
def show(run: Path, as_json: bool) -> None:
    """State of RUN: losses beside their baselines, time left.

    Each loss is divided by its variance, so that predicting the mean scores 1. May be asked while
    the run is training, from any shell.

    \b
    Examples:
      sherlock-models show runs/conv-parcels
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_models.run import load

    summary = _summary(load(run))
    if as_json:
        console.print_json(summary)
        return
    left = f", {console.seconds(summary['eta_s'])} left" if summary["eta_s"] is not None else ""
    console.tell(
        f"{run}: {summary['entry']}, {summary['state']}, step {summary['step']} of "
        f"{summary['steps']}{left}"
    )
    if summary["reason"]:
        console.tell(f"because {summary['reason']}")
    rows = [
        (
            t["term"],
            t["split"],
            f"{t['last']:.3f}",
            f"{t['best']:.3f}",
            f"{t['mean']:.3f}",
            t["curve"],
        )
        for t in summary["terms"]
    ]
    columns = ("term", "split", "last", "best", "the mean", "over the steps")
    console.print_table("", columns, rows, numeric=(2, 3, 4))


def _summary(run: Run) -> dict[str, Any]:
    from sherlock_models.training.history import MEAN_SCORE, curves, sparkline

    progress = run.progress
    return {
        "run": str(run.path),
        "entry": run.config.entry,
        "state": run.state,
        "reason": progress.get("reason"),
        "step": progress["step"],
        "steps": progress.get("steps", run.config.steps),
        "eta_s": run.eta_s,
        "terms": [
            {
                "term": curve.term,
                "split": curve.split,
                "last": curve.last,
                "best": curve.best,
                "mean": MEAN_SCORE,
                "curve": sparkline(curve.value),
            }
            for curve in curves(run.metrics(), run.config.terms)
        ],
    }


@main.command()
@options.run
@options.seed("Of the resampling and the null.")
@options.as_json("run, split, rows of predictor, target, metric, value, low, high, n, and more")
@console.handled
@console.stoppable()
def evaluate(run: Path, seed: int, as_json: bool) -> None:
    """Score RUN on its held-out TRs, beside baselines and ceiling.

    Writes evaluation.json and evaluation.zarr into RUN.

    \b
    Examples:
      sherlock-models evaluate runs/conv-parcels
      sherlock-models evaluate runs/conv-parcels --json
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_models.run import load
    from sherlock_models.scoring import evaluate as scoring

    with stages() as say:
        document = scoring.evaluate(load(run), seed=seed, say=say)
    if as_json:
        console.print_json(document)
        return
    _print_scores(document)
    for note in document["notes"]:
        console.say(f"note: {note}")
    console.tell(f"intervals: {run / scoring.JSON}; next: sherlock-models report {run}")


def _print_scores(document: dict[str, Any]) -> None:
    from sherlock_models.page.report import score_tables
    from sherlock_models.scoring.verdict import number

    for table in score_tables(document["rows"], intervals=False):
        columns = ["predictor", *(title for title, _ in table.columns)]
        cells = [[name, *values] for name, values in table.rows]
        console.print_table(table.target, columns, cells, numeric=range(1, len(columns)))
    extra = [(f"time index under '{k}'", f"r {number(r)}") for k, r in document["canary"].items()]
    ceiling = document["ceiling"]
    extra.append(("noise ceiling", f"r {number(ceiling['lower'])} to {number(ceiling['upper'])}"))
    for target, part in document["smuggled"].items():
        halves = f"{number(part['below_noise'])} below the noise + {number(part['small_noise'])}"
        extra.append(
            (f"smuggled, {target}", f"R² {number(part['total'])} = {halves} where it is small")
        )
    console.print_table("", ("check", "value"), extra)


@main.command()
@options.run
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    metavar="TRUTH.zarr",
    shell_complete=completion.store_folders,
    help="What sherlock-data synth planted, to be set beside what was found.",
)
@options.as_json("page, bytes")
@console.handled
@console.stoppable()
def report(run: Path, truth: Path | None, as_json: bool) -> None:
    """Write one self-contained HTML page about RUN.

    RUN is evaluated first if need be; its lesions are shown where they were computed.

    \b
    Examples:
      sherlock-models report runs/conv-parcels
      sherlock-models report runs/conv-parcels --truth raw/truth.zarr
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_models.page.report import write_report
    from sherlock_models.run import load
    from sherlock_models.scoring import evaluate as scoring
    from sherlock_models.scoring.planted import load_truth

    opened = load(run)
    if truth is not None:  # before the evaluation, which takes long
        load_truth(truth)
    with stages() as say:
        if not scoring.is_current(opened):
            scoring.evaluate(opened, say=say)
        say("drawing the page")
        page = write_report(opened, truth)
    if as_json:
        console.print_json({"page": page, "bytes": page.stat().st_size})
        return
    console.tell(f"{page} ({console.size(page.stat().st_size)})")


@main.command()
@options.run
@click.argument("out", type=click.Path(path_type=Path), shell_complete=completion.folders)
@options.as_json("folder, files of path, bytes, sha256")
@console.handled
@console.stoppable()
def export(run: Path, out: Path, as_json: bool) -> None:
    """Write RUN's best model and a model card into the folder OUT.

    model.safetensors holds the weights. The folder opens as a run does, without its training: it is
    all that somebody else needs to use the model.

    \b
    Examples:
      sherlock-models export runs/conv-parcels exported
      sherlock-models export runs/conv-parcels exported --json > files.json
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_models import export as exporting
    from sherlock_models.run import load

    exporting.export(load(run), out)
    files = console.files_in(out)
    if as_json:
        console.print_json({"folder": out, "files": files})
        return
    cells = [(row["path"].name, console.size(row["bytes"]), row["sha256"]) for row in files]
    console.print_table(str(out), ("file", "size", "SHA-256"), cells, numeric=(1,))
