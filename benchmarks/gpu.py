"""What a training step takes on the cards of this machine, beside what `plan` says: one command.

Prints one table of one run, and writes it as JSON for `benchmarks/performance.py`: time of a step,
samples a second, model FLOP utilisation (the step's traced FLOPs over time and the maker's peak),
the share of time that the step waited for data, and peak memory beside the plan's, for each entry
with its data on the device and streamed from disk, in fp32 and in bf16, and where there are several
cards also replicated (DDP) and sharded (FSDP) over all of them.

    python benchmarks/gpu.py --json gpu.json              every card there is; else the processor
    python benchmarks/gpu.py --device cpu --data stores/synth --entries conv-parcels --width 0.1
    python benchmarks/performance.py gpu.json --page docs/performance.md

Without `--data` the stores are made up at the catalogue's sizes. Every case runs in a process of
its own (torchrun's launcher where there are several ranks), so that its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from sherlock_data.catalog import load_catalog
from sherlock_data.errors import ConfigError, SherlockError
from sherlock_models import parallel
from sherlock_models.config import RunConfig
from sherlock_models.feeding.loading import load_data
from sherlock_models.planning import machines
from sherlock_models.planning.plan import plan
from sherlock_models.resolve import resolve, versions
from sherlock_models.training.train import settle
from sherlock_models.training.trainer import Trainer

ENTRIES = ("conv-parcels", "conv-voxels", "dense-voxels-slim")
#: subjects and TRs of the stores that are made up
SUBJECTS, TRS = 4, 512
#: line of a case's output that holds its result
MARK = "case: "
note = Console(stderr=True)


def cases(args: argparse.Namespace, ranks: int) -> Iterator[dict[str, Any]]:
    """One dict of settings for each row of the table."""
    ways = ("ddp", "fsdp") if "parallel" in RunConfig.model_fields else (None,)
    for entry in args.entries:
        for precision in ("fp32", "bf16"):
            for placement in ("device", "stream"):
                case = {"entry": entry, "precision": precision, "placement": placement}
                yield {**case, "ranks": 1, "parallel": None}
        for precision in ("fp32", "bf16") if ranks > 1 else ():
            for way in ways:
                case = {"entry": entry, "precision": precision, "placement": "auto"}
                yield {**case, "ranks": ranks, "parallel": way}


def options(case: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a case, as `--set` takes them."""
    given = {"batch_size": args.batch_size, "steps": 10_000, "width": args.width}
    given |= {key: case[key] for key in ("precision", "placement")}
    if case["parallel"]:
        given["parallel"] = case["parallel"]
    if not args.data:  # the store that is made up has the entry's units, whatever it is called
        given |= {"brain": "voxels", "split": "random"}
    return given


def card(device: str) -> machines.Machine:
    """Return what is known of this machine's card, or of its processor, which is timed."""
    if device == "cpu":
        return machines.machine("cpu", try_out=True)
    words = torch.cuda.get_device_name().lower().replace("-", " ").split()
    found = [name for name in machines.MACHINES if name in words or name in "".join(words)]
    if not found:
        total = torch.cuda.get_device_properties(0).total_memory
        return machines.Machine(torch.cuda.get_device_name(), total, None, None, None)
    return machines.machine(max(found, key=len))


def one(case: dict[str, Any], data: Path, args: argparse.Namespace) -> None:
    """Take steps as this rank; rank 0 prints what they took."""
    config = resolve(case["entry"], data, options=options(case, args))
    with parallel.world(args.device) as world:
        before = _resident()
        _reset_peak(world)
        loaded = load_data(config, world)
        trainer = Trainer(settle(config, loaded), loaded, world)
        taken = []
        for number in range(args.warmup + args.steps):
            if number == args.warmup:
                trainer.feed.waited_s = 0.0
            began = time.perf_counter()
            trainer.step(number)
            _settled(world)
            taken.append(time.perf_counter() - began)
        taken = taken[args.warmup :]
        found = {
            "step_s": statistics.median(taken),
            "waiting": trainer.feed.waited_s / sum(taken),
            "peak": _peak(world, before),
            "why": str(loaded.placement),
        }
        trainer.close()
        if world.main:
            print(MARK + json.dumps(found), flush=True)


def _settled(world: parallel.World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def _reset_peak(world: parallel.World) -> None:
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(world.device)


def _peak(world: parallel.World, before: int) -> int:
    """Most bytes that were taken: of the card, or of the process since it began to load."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated(world.device)
    return _resident("VmHWM") - before


def _resident(which: str = "VmRSS") -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024


def in_process(case: dict[str, Any], data: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run a case in processes of its own; its result, or why there is none."""
    launcher = [sys.executable]
    if case["ranks"] > 1:
        count = f"--nproc-per-node={case['ranks']}"
        launcher += ["-m", "torch.distributed.run", "--standalone", count]
    command = [*launcher, __file__, "--case", json.dumps(case), "--case-data", str(data)]
    for name in ("device", "steps", "warmup", "batch_size", "width"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    command += ["--data", str(args.data)] if args.data else []
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return {"failed": said}
    return dict(json.loads(lines[-1].removeprefix(MARK)))


def row(
    case: dict[str, Any], data: Path, args: argparse.Namespace, machine: machines.Machine
) -> dict[str, Any]:
    """Measure a case and put the plan beside it."""
    given = {key: value for key, value in options(case, args).items() if key != "parallel"}
    [planned] = plan(
        [machine], entries=[case["entry"]], data=data, gpus=case["ranks"], options=given
    )
    here = planned["machines"][0]
    found = {**case, "parameters": planned["parameters"], **in_process(case, data, args)}
    if "failed" in found:
        return found
    held = planned["data"] if case["placement"] == "device" else 0
    way = case["parallel"] or "fsdp"
    on_card = here["peak_unsharded"] if way == "ddp" else here["peak"]
    peak = planned["host"]["training"] if args.device == "cpu" else on_card + held
    rate = machine.flops(case["precision"])
    # ranks on a processor share it, and the rate was measured on all of it
    cards = case["ranks"] if args.device == "cuda" else 1
    return {
        **found,
        "samples_per_s": args.batch_size / found["step_s"],
        "flops": planned["flops"],
        "mfu": planned["flops"] / found["step_s"] / cards / rate if rate else None,
        "planned_step_s": here["step_s"],
        "planned_peak": peak if case["ranks"] == 1 or args.device != "cpu" else None,
    }


def stores_for(entry: str, folder: Path) -> Path:
    """Make up stores at the catalogue's sizes."""
    from feeding import write_stores

    sizes = load_catalog().model(entry).sizes
    if "brain" not in sizes:
        what = "the catalogue names no size of its brain layer"
        raise ConfigError(what, where=entry, remedy="give --data a dataset folder with its stores")
    units = sizes["brain"][0]
    write_stores(folder, argparse.Namespace(subjects=SUBJECTS, trs=TRS, voxels=units))
    return folder / "feeding"


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run every case; the document that `--json` writes."""
    machine = card(args.device)
    there = torch.cuda.device_count() if args.device == "cuda" else 1
    ranks = args.ranks or there
    rows = []
    planned = list(cases(args, ranks))
    note.print(f"{len(planned)} cases of {args.warmup + args.steps} steps on {machine.name}")
    for entry in args.entries:
        folder = Path(tempfile.mkdtemp(prefix="gpu-"))
        try:
            data = args.data or stores_for(entry, folder)
            for case in (case for case in planned if case["entry"] == entry):
                rows.append(row(case, data, args, machine))
                note.print(_label(rows[-1]), highlight=False)
        finally:
            shutil.rmtree(folder)
    return {
        "title": "Training steps on " + (machine.name if args.device == "cuda" else "a processor"),
        "command": "python benchmarks/gpu.py",
        "machine": machine.name,
        "device": args.device,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[1],
        "batch_size": args.batch_size,
        "width": args.width,
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
        "rows": rows,
    }


def _label(row: dict[str, Any]) -> str:
    name = f"{row['entry']}, {row['precision']}, {row['placement']}, {row['ranks']} ranks"
    name += f", {row['parallel']}" if row["parallel"] else ""
    return f"{name}: " + (row.get("failed") or f"{row['step_s']:.3g} s a step")


def show(document: dict[str, Any]) -> None:
    """Print the table."""
    from performance import COLUMNS, cells

    table = Table(title=f"{document['title']}, batches of {document['batch_size']}")
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if index > 3 else "left")
    for line in cells(document["rows"]):
        table.add_row(*line)
    Console(width=160).print(table)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", nargs="+", default=list(ENTRIES), metavar="ENTRY")
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--ranks", type=int, help="default: every card; 1 on the processor")
    parser.add_argument("--data", type=Path, help="dataset folder; made up without one")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--case-data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    warnings.simplefilter("ignore")
    try:
        if args.case:
            one(args.case, args.case_data, args)
            return
        document = measure(args)
    except SherlockError as error:
        raise SystemExit(str(error)) from None
    show(document)
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=2), encoding="utf-8")
    if all("failed" in row for row in document["rows"]):
        raise SystemExit("no case ran")


if __name__ == "__main__":
    main()
