"""One training step of ours beside the same modules in a bare loop over tensors in memory.

Prints one table of one run: milliseconds of a step, ours over the bare loop's, and the share of the
time that ours waited for its data. Ours is everything a training does: gathering and standardising
the batch, the noisy brain channel, the reduced losses, clipping, the learning rate, a line in the
journal. The bare loop has its batches ready, adds up squared errors and calls fused AdamW.

    python benchmarks/step.py                     conv-parcels and conv-voxels at full size, 8 GB
    python benchmarks/step.py --entry conv-parcels --steps 30

ours     as `sherlock-train` runs it, in a process that keeps the memory that it frees
bare     the loop in a process as Python starts it
limit    the loop in ours' own process, its memory kept as well

Ours and the limit take turns, step by step, then ours and bare: a third process between two steps
would take their caches. A ratio is the median over the turns. CPU time is shown too: on a busy
machine it is the fairer of the two.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from feeding import write_stores
from torch import Tensor, nn

from sherlock_data.catalog import load_catalog
from sherlock_models import parallel
from sherlock_models.feeding.batch import Batch
from sherlock_models.feeding.loading import load_data
from sherlock_models.memory import keep_freed
from sherlock_models.resolve import resolve
from sherlock_models.training.journal import Journal
from sherlock_models.training.train import settle
from sherlock_models.training.trainer import Trainer
from sherlock_models.zoo import build_model

ENTRIES = ("conv-parcels", "conv-voxels")

#: takes a step; its seconds of wall time and of CPU time
Step = Callable[[int], tuple[float, float]]


@dataclass
class Turns:
    """Seconds of the steps of ours and of another, and how long ours waited for its data."""

    ours: list[tuple[float, float]] = field(default_factory=list)
    other: list[tuple[float, float]] = field(default_factory=list)
    waited_s: float = 0.0


@dataclass
class Loops:
    """A step of ours and one of the bare loop, by name, and what takes ours."""

    steps: dict[str, Callable[[int], None]]
    trainer: Trainer


def bare(model: nn.Module, batches: list[Batch], rate: float) -> Callable[[int], None]:
    """Return a step: forward, squared errors, backward, fused AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
    model.train()

    def step(number: int) -> None:
        batch = batches[number % len(batches)]
        output = model(batch.stimulus)
        loss: Tensor = nn.functional.mse_loss(output.brain, batch.brain)
        for name, target in batch.target.items():
            loss = loss + nn.functional.mse_loss(output.stimulus[name], target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def ours(trainer: Trainer, journal: Journal) -> Callable[[int], None]:
    def step(number: int) -> None:
        values, _ = trainer.step(number)
        journal.line(number + 1, "train", values)

    return step


@contextmanager
def loops(entry: str, folder: Path, args: argparse.Namespace, keep: bool) -> Iterator[Loops]:
    """Ours and the bare loop, over the same stores; `keep` as `sherlock-train` does."""
    if keep:
        keep_freed()
    # the brain of `units` units is in the store `voxels`; the modules know its size only
    options = {"brain": "voxels", "batch_size": args.batch, "steps": 10_000, "split": "random"}
    settled = resolve(entry, folder / "feeding", options=options)
    with parallel.world("cpu") as world:
        data = load_data(settled, world)
        settled = settle(settled, data)
        trainer = Trainer(settled, data, world)
        ready = [data.batch(trainer.samples, trainer.batches.at(step)) for step in range(4)]
        twin = build_model(settled.model_entry, data.sizes, settled.model_options)
        (folder / f"run-{keep}").mkdir()
        journal = Journal(folder / f"run-{keep}", 0, settled)
        steps = {"ours": ours(trainer, journal), "bare": bare(twin, ready, 1e-3)}
        yield Loops(steps, trainer)
        journal.close("finished")
        trainer.close()


def as_python_starts(entry: str, folder: Path, args: argparse.Namespace, pipe: Connection) -> None:
    """Take steps of the bare loop when told to, in a process of its own."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    with loops(entry, folder, args, keep=False) as made:
        pipe.send(None)
        while (number := pipe.recv()) is not None:
            pipe.send(timed(made.steps["bare"], number))


def timed(step: Callable[[int], None], number: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    step(number)
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(entry: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    units = (load_catalog().model(entry).sizes or {})["brain"][0]
    write_stores(folder, argparse.Namespace(subjects=args.subjects, trs=args.trs, voxels=units))
    with loops(entry, folder, args, keep=True) as made:
        ours = partial(timed, made.steps["ours"])
        alone = in_turns(ours, partial(timed, made.steps["bare"]), made.trainer, args)
        with elsewhere(entry, folder, args) as bare:
            beside = in_turns(ours, bare, made.trainer, args)
    return {
        "entry": entry,
        "parameters": made.trainer.parameters,
        "waiting": alone.waited_s / sum(wall for wall, _ in alone.ours),
        "ours_s": statistics.median(wall for wall, _ in alone.ours),
        "limit_s": statistics.median(wall for wall, _ in alone.other),
        "bare_s": statistics.median(wall for wall, _ in beside.other),
        **ratios(beside, "bare"),
        **ratios(alone, "limit"),
    }


@contextmanager
def elsewhere(entry: str, folder: Path, args: argparse.Namespace) -> Iterator[Step]:
    """Start the process as Python starts it; what times a step there."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    child = spawn.Process(target=as_python_starts, args=(entry, folder, args, there), daemon=True)
    child.start()
    there.close()
    here.recv()

    def step(number: int) -> tuple[float, float]:
        here.send(number)
        found: tuple[float, float] = here.recv()
        return found

    yield step
    here.send(None)
    child.join()


def in_turns(ours: Step, other: Step, trainer: Trainer, args: argparse.Namespace) -> Turns:
    """Take steps of ours and of another, one after the other; the first are not counted."""
    turns = Turns()
    for number in range(args.warmup + args.steps):
        if number == args.warmup:
            turns, trainer.feed.waited_s = Turns(), 0.0
        ways = [(ours, turns.ours), (other, turns.other)]
        for step, taken in ways if number % 2 else reversed(ways):
            taken.append(step(number))
    turns.waited_s = trainer.feed.waited_s
    return turns


def ratios(turns: Turns, to: str) -> dict[str, float]:
    """Ours over the other, in wall time and in CPU time."""
    pairs = list(zip(turns.ours, turns.other, strict=True))
    return {
        f"to_{to}": statistics.median(a[0] / b[0] for a, b in pairs),
        f"cpu_to_{to}": sum(a[1] for a, _ in pairs) / sum(b[1] for _, b in pairs),
    }


def show(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    print(f"a training step, batches of {args.batch}, {args.threads} threads, CPU")
    heads = ("ours ms", "bare ms", "limit ms", "x bare", "CPU", "x limit", "CPU", "waiting")
    print(f"{'':14}" + "".join(f"{head:>10}" for head in heads))
    for row in rows:
        times = [f"{1e3 * row[f'{name}_s']:.0f}" for name in ("ours", "bare", "limit")]
        times += [f"{row[f'{k}to_{to}']:.3f}" for to in ("bare", "limit") for k in ("", "cpu_")]
        times += [f"{100 * row['waiting']:.2f} %"]
        print(f"{row['entry']:14}" + "".join(f"{value:>10}" for value in times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entry", choices=ENTRIES, action="append", help="default: both")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--subjects", type=int, default=2)
    parser.add_argument("--trs", type=int, default=300)
    threads = torch.get_num_threads()
    parser.add_argument("--threads", type=int, default=threads, help="of torch")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows there too")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    rows = []
    for entry in args.entry or ENTRIES:
        with tempfile.TemporaryDirectory() as scratch:
            rows.append(measure(entry, Path(scratch), args))
    show(args, rows)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
