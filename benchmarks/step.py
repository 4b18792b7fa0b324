"""One training step of ours beside the same modules in a bare loop over tensors in memory.

Prints one table of one run: milliseconds of a step, ours over the bare loop's, and the share of the
time that ours waited for its data. Ours is everything a training does: gathering and standardising
the batch, the noisy brain channel, the reduced losses, clipping, the learning rate, a line in the
journal. The bare loop has its batches ready, adds up squared errors and calls fused AdamW.

    python benchmarks/step.py                     conv-parcels and conv-voxels at full size, 4 GB
    python benchmarks/step.py --entry conv-parcels --steps 30

The two take turns, step by step, in one process; the ratio is the median over the pairs. CPU time
is shown too: on a busy machine it is the fairer of the two.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from feeding import write_stores
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from sherlock_data.catalog import load_catalog
from sherlock_models import parallel
from sherlock_models.feeding.batch import Batch
from sherlock_models.feeding.loading import load_data
from sherlock_models.resolve import resolve
from sherlock_models.training.journal import Journal
from sherlock_models.training.train import settle
from sherlock_models.training.trainer import Trainer
from sherlock_models.zoo import build_model

ENTRIES = ("conv-parcels", "conv-voxels")


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


def timed(step: Callable[[int], None], number: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    step(number)
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(entry: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    units = (load_catalog().model(entry).sizes or {})["brain"][0]
    stores = argparse.Namespace(subjects=args.subjects, trs=args.trs, voxels=units)
    write_stores(folder, stores)
    # the brain of `units` units is in the store `voxels`; the modules know its size only
    options = {"brain": "voxels", "batch_size": args.batch, "steps": 10_000, "split": "random"}
    settled = resolve(entry, folder / "feeding", options=options)
    with parallel.world("cpu") as world:
        data = load_data(settled, world)
        settled = settle(settled, data)
        trainer = Trainer(settled, data, world)
        ready = [data.batch(trainer.samples, trainer.batches.at(step)) for step in range(4)]
        twin = build_model(settled.model_entry, data.sizes, settled.model_options)
        (folder / "run").mkdir()
        journal = Journal(folder / "run", 0, settled)
        steps = {"ours": ours(trainer, journal), "bare": bare(twin, ready, 1e-3)}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
        for number in range(args.warmup + args.steps):
            if number == args.warmup:
                trainer.feed.waited_s = 0.0
                taken = {name: [] for name in steps}
            turns = list(steps.items())
            for name, step in turns if number % 2 else reversed(turns):
                taken[name].append(timed(step, number))
        waited = trainer.feed.waited_s
        journal.close("finished")
        trainer.close()
    pairs = list(zip(taken["ours"], taken["bare"], strict=True))
    return {
        "entry": entry,
        "parameters": trainer.parameters,
        "ours_s": statistics.median(wall for wall, _ in taken["ours"]),
        "bare_s": statistics.median(wall for wall, _ in taken["bare"]),
        "ratio": statistics.median(a[0] / b[0] for a, b in pairs),
        "cpu_ratio": sum(a[1] for a, _ in pairs) / sum(b[1] for _, b in pairs),
        "waiting": waited / sum(wall for wall, _ in taken["ours"]),
    }


def show(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    threads = torch.get_num_threads()
    table = Table(title=f"a training step, batches of {args.batch}, {threads} threads, CPU")
    for column in ("", "parameters", "ours ms", "bare ms", "ours / bare", "CPU time", "waiting"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(
            row["entry"],
            f"{row['parameters']:,}",
            f"{1e3 * row['ours_s']:.0f}",
            f"{1e3 * row['bare_s']:.0f}",
            f"{row['ratio']:.3f}",
            f"{row['cpu_ratio']:.3f}",
            f"{100 * row['waiting']:.2f} %",
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entry", choices=ENTRIES, action="append", help="default: both")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--subjects", type=int, default=2)
    parser.add_argument("--trs", type=int, default=300)
    parser.add_argument("--threads", type=int, help="of torch; default: its own choice")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows there too")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.threads:
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
