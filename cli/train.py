"""`sherlock-train`: train a zoo entry, or go on where a run stopped."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from sherlock_cli import completion, console, options

from sherlock_data.errors import ConfigError

if TYPE_CHECKING:
    from sherlock_models.config import RunConfig
    from sherlock_models.training.train import Cost


@click.command(context_settings=options.HELP)
@options.entry
@options.data("; also s3://...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="RUN",
    shell_complete=completion.folders,
    help="New folder of the run.  [default: runs/ENTRY, or the first free runs/ENTRY-2, ...]",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    metavar="N",
    help="Steps of the optimiser.  [default: --epochs]",
)
@click.option(
    "--epochs",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Passes over the training samples.  [default: 20]",
)
@options.batch_size("ranks")
@click.option(
    "--gpus",
    type=click.IntRange(1),
    metavar="N",
    help="Train on N GPUs, a rank on each.  [default: one, if there is one]",
)
@click.option(
    "--processes", type=click.IntRange(1), metavar="N", help="Train on CPUs, with N ranks."
)
@click.option(
    "--split",
    type=click.Choice(["block", "run", "subject", "random"]),
    help="What is held out: blocks of time, a run, subjects, or random TRs (which cheats).  "
    "[default: block]",
)
@click.option(
    "--fold",
    type=click.IntRange(0),
    metavar="N",
    help="Which of the folds is held out, from 0.  [default: 0]",
)
@options.precision
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    help="Of the weights and the order of samples.  [default: 0]",
)
@options.catalog
@options.settings("Any other setting of the run or the entry")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    shell_complete=completion.runs,
    help="Go on with RUN from its last checkpoint.",
)
@options.as_json("run, state, steps, best_step, validation")
@console.handled
def main(
    entry: str | None,
    data: str | None,
    out: Path | None,
    gpus: int | None,
    processes: int | None,
    catalog: Path | None,
    settings: tuple[str, ...],
    resume: Path | None,
    as_json: bool,
    **others: Any,
) -> None:
    """Train ENTRY on a dataset's stores, or go on with a run.

    ENTRY is one of those that sherlock-models list shows. A run that was stopped goes on from its
    last checkpoint; every validation writes one, and so does a SIGTERM.

    \b
    Examples:
      sherlock-train conv-parcels --data stores/sherlock --steps 1000
      sherlock-train conv-voxels --data stores/sherlock --gpus 8 --precision bf16
      sherlock-train conv-parcels --data stores/synth --set width=0.1
      sherlock-train --resume runs/conv-parcels
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_models import run
    from sherlock_models.config import validated
    from sherlock_models.resolve import resolve
    from sherlock_models.settings import parse_settings
    from sherlock_models.spread import Spread
    from sherlock_models.training import launch, train

    given = {key: value for key, value in others.items() if value is not None}
    if gpus and processes:
        raise click.UsageError("--gpus and --processes exclude each other")
    if resume is not None:
        spread = parse_settings(settings)
        if entry or data or out or given or catalog or set(spread) - set(Spread.model_fields):
            known = ", ".join(Spread.model_fields)
            raise click.UsageError(f"--resume takes all from RUN but ranks and --set of {known}")
        saved = run.load(resume).config.model_dump(mode="json")
        settled, path = validated({**saved, **spread}, where=resume), resume
    else:
        if entry is None or data is None:
            raise click.UsageError("name an ENTRY and its --data, or a run to --resume")
        given = {**parse_settings(settings), **given}
        settled = resolve(entry, data, catalog=catalog, options=given)
        path = out or _free(Path("runs"), entry)
        if not launch.restarted():
            train.check_new(path)
    _train(settled, path, resume is not None, gpus, processes)
    _conclude(path, as_json)


def _free(folder: Path, entry: str) -> Path:
    """`runs/ENTRY`, or the first of `runs/ENTRY-2`, ... that is not there."""
    from sherlock_models.training import launch

    names = [entry, *(f"{entry}-{number}" for number in range(2, 10_000))]
    free = next(at for at, name in enumerate(names) if not (folder / name).exists())
    # who takes the place of a rank that died goes on with the run that it began
    return folder / names[max(0, free - 1) if launch.restarted() else free]


def _train(
    settled: RunConfig, path: Path, resume: bool, gpus: int | None, processes: int | None
) -> None:
    from sherlock_models import parallel
    from sherlock_models.training import launch

    ranks = gpus or processes or 1
    if gpus:
        launch.check_gpus(gpus)
    device = "cuda" if gpus else "cpu" if processes else "auto"
    arguments = (settled.model_dump(mode="json"), str(path), resume, device)
    if ranks > 1 and not parallel.is_rank():
        with console.stoppable():  # until torch listens itself, some seconds after the start
            launch.launch(ranks, rank_main, *arguments, restarts=settled.restarts, tell=console.say)
    else:
        rank_main(*arguments)


def rank_main(document: dict[str, Any], path: str, resume: bool, device: str) -> None:
    """Train as one rank; a SIGTERM that was answered with a checkpoint exits with 143."""
    from sherlock_models.config import validated
    from sherlock_models.memory import keep_freed
    from sherlock_models.training import launch
    from sherlock_models.training.train import StoppedError, fit

    keep_freed()
    main_rank = os.environ.get("RANK", "0") == "0"
    settled = validated(document, where=path)
    watcher = _Watcher() if main_rank else None
    try:
        again = launch.restarted()
        fit(settled, path, resume=resume, again=again, device=device, progress=watcher)
    except StoppedError as error:
        if main_rank:
            console.say(str(error))
        raise SystemExit(launch.TERMINATED) from None
    finally:
        if watcher is not None:
            watcher.close()


def _conclude(path: Path, as_json: bool) -> None:
    """Say where the run is and how well its best checkpoint does beside the mean."""
    from sherlock_models import run
    from sherlock_models.training import checkpoint

    if os.environ.get("RANK", "0") != "0":
        return
    found = run.load(path)
    index = checkpoint.read_index(path / run.CHECKPOINTS)
    lines = [m for m in found.metrics() if m["split"] == "validation" and m["step"] == index.best]
    if not lines:
        raise ConfigError("no validation was made", where=path, remedy="--resume it")
    best = lines[-1]
    terms = {term: best[term] for term in found.config.terms}
    if as_json:
        document = {
            "run": str(path),
            "state": found.state,
            "steps": index.last,
            "best_step": index.best,
            "validation": {"loss": best["loss"], **terms},
        }
        console.print_json(document)
        return
    rows = [(term, f"{value:.3f}", "1.000") for term, value in terms.items()]
    title = f"{path}: validation at its best, step {index.best} of {index.last}"
    console.print_table(title, ("term", "loss", "the mean"), rows, numeric=(1, 2))
    console.tell(f"next: sherlock-models evaluate {path}")


class _Watcher:
    """Rich progress on stderr: rate, time left, every term beside what the mean scores."""

    def __init__(self) -> None:
        from rich import progress as rp

        self._bar = rp.Progress(
            rp.TextColumn("[bold]step"),
            rp.MofNCompleteColumn(),
            rp.BarColumn(bar_width=20),
            rp.TextColumn("{task.fields[rate]}"),
            rp.TextColumn("{task.fields[terms]}"),
            rp.TimeRemainingColumn(),
            console=console.bars,
            transient=True,
        )
        self._task: Any = None
        self._steps, self._batch, self._rate = 0, 0, 0.0

    def started(self, cost: Cost, done: int) -> None:
        """Say what the run takes, before it takes it."""
        console.say(
            f"{cost.parameters:,} parameters, {cost.samples:,} training samples, {cost.steps:,} "
            f"steps ({cost.epochs:.3g} epochs) on {cost.ranks} x {cost.device}, "
            f"{console.size(cost.memory_bytes)} per rank before activations; "
            f"{cost.placement}; {cost.sharding}",
        )
        for note in cost.notes:
            console.say(f"note: {note}")
        if done:
            console.say(f"going on after step {done:,}")
        self._steps, self._batch = cost.steps, cost.batch_size
        self._task = self._bar.add_task("", total=cost.steps, completed=done, rate="", terms="")
        if sys.stderr.isatty():
            self._bar.start()

    def step(self, step: int, values: dict[str, float], steps_per_s: float) -> None:
        """Move the bar."""
        self._rate = steps_per_s
        if not self._bar.live.is_started:
            return
        self._bar.update(
            self._task,
            completed=step,
            rate=f"{steps_per_s * self._batch:,.0f} samples/s, {console.size(_resident())}",
            terms=f"loss {_terms(values)} (mean 1)",
        )

    def validated(self, step: int, values: dict[str, float], best: bool) -> None:
        """Write a line that stays."""
        mark = ", best so far" if best else ""
        left = (self._steps - step) / self._rate if self._rate else 0.0
        pace = f"{self._rate * self._batch:,.0f} samples/s, {console.seconds(left)} left"
        pace += f", {console.size(_resident())}"
        console.say(f"step {step:>6,}  validation {_terms(values)} (mean 1){mark}; {pace}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar.live.is_started:
            self._bar.stop()


def _resident() -> int:
    """Bytes that this rank holds: of its GPU, or of the machine."""
    import psutil
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)


def _terms(values: dict[str, float]) -> str:
    hidden = ("loss", "lr", "grad_norm", "unpartnered")
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items() if name not in hidden)
