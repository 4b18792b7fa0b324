"""What each rank holds of a model at its full size, and what a machine holds of the data.

Trains two steps of an entry at the catalogue's sizes (83,300 voxels, 160 x 90 pixels; few TRs) on 1
and 2 gloo ranks, and counts on every rank the bytes of weights, gradients and optimiser state that
are there when the optimiser steps. They shall fall as 1/N. The data are held once for all ranks:
the sum over ranks of their proportional part (Pss) of the shared tables is that of one copy.

    python benchmarks/sharded_memory.py
    python benchmarks/sharded_memory.py conv-voxels --ranks 1 2 4 --json OUT
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from full_size_training import write_stores
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.distributed.tensor import DTensor

from sherlock_data.catalog import load_catalog
from sherlock_models import parallel
from sherlock_models.config import RunConfig
from sherlock_models.training import launch

STEPS = 2
#: a rank may hold so much more than its Nth part: rows of a layer do not always divide
TOLERANCE = 0.01


def held(values: Iterable[Tensor]) -> int:
    """Bytes of this rank's shards."""
    own = (v.to_local() if isinstance(v, DTensor) else v for v in values)
    return sum(value.numel() * value.element_size() for value in own)


def shared_part() -> int:
    """Return this process's proportional part of the tables that all ranks share."""
    text = Path("/proc/self/smaps").read_text(encoding="utf-8")
    found = 0
    for mapping in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text):
        if "memfd:sherlock-models" in mapping.partition("\n")[0]:
            match = re.search(r"^Pss:\s+(\d+) kB", mapping, re.MULTILINE)
            found += 1024 * int(match[1]) if match else 0
    return found


def measure_as_rank(document: dict[str, Any], out: str) -> None:
    """Train, and note what is held when the optimiser steps."""
    from sherlock_models.feeding.loading import load_data
    from sherlock_models.training.train import settle
    from sherlock_models.training.trainer import Trainer

    config, found = RunConfig.model_validate(document), {}
    with parallel.world("cpu") as world:
        data = load_data(config, world)
        float(data.brains.raw.sum())  # every page is touched
        with closing(Trainer(settle(config, data), data, world)) as trainer:
            own = list(trainer.model.parameters())

            def note(*_: object) -> None:
                found["gradients"] = held(p.grad for p in own if p.grad is not None)

            trainer.optimizer.register_step_pre_hook(note)
            for step in range(STEPS):
                trainer.step(step)
            states = trainer.optimizer.state.values()
            found["weights"] = held(own)
            found["moments"] = held(value for state in states for value in state.values())
            found["parameters"] = trainer.parameters
            world.barrier()
            found["shared"] = shared_part()
            world.barrier()
        found["data"] = data.nbytes
        Path(out, f"{world.size}-{world.rank}.json").write_text(json.dumps(found), encoding="utf-8")


def main() -> None:
    """Measure every number of ranks in turn and print the table."""
    from sherlock_models.resolve import resolve

    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("entry", nargs="?", default="conv-voxels")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory(prefix="sharded-memory-") as name:
        model = load_catalog().model(args.entry)
        data = write_stores(Path(name), model.brain, model.sizes)
        options = {"steps": STEPS, "batch_size": args.batch_size, "parallel": "fsdp"}
        config = resolve(args.entry, data, options={**options, "placement": "shared"})
        for ranks in args.ranks:
            launch.launch(ranks, measure_as_rank, config.model_dump(mode="json"), name)
            found = [json.loads(p.read_text()) for p in Path(name).glob(f"{ranks}-*.json")]
            rows.append({"ranks": ranks, "each": found})
    worst = show(args.entry, rows)
    if args.json:
        args.json.write_text(json.dumps({"entry": args.entry, "rows": rows}, indent=2))
    raise SystemExit(worst > 1 + TOLERANCE)


def show(entry: str, rows: list[dict[str, Any]]) -> float:
    """Print the largest rank's bytes; returns how much more than its Nth part that is."""
    parameters = rows[0]["each"][0]["parameters"]
    table = Table(title=f"{entry}, {parameters:,} parameters: GB of the rank that holds most")
    names = ("weights", "gradients", "moments")
    for column in ("ranks", *names, "sum", "of 16 P / N", "data", "held of it by all"):
        table.add_column(column, justify="right")
    worst = 0.0
    for row in rows:
        each, ranks = row["each"], row["ranks"]
        most = {name: max(rank[name] for rank in each) for name in names}
        total = max(sum(rank[name] for name in names) for rank in each)
        share = total / (16 * parameters / ranks)
        worst = max(worst, share)
        data, shared = each[0]["data"], sum(rank["shared"] for rank in each)
        sizes = [f"{most[name] / 1e9:.3f}" for name in names]
        ends = [f"{total / 1e9:.3f}", f"{share:.3f}", f"{data / 1e9:.3f}", f"{shared / 1e9:.3f}"]
        table.add_row(str(ranks), *sizes, *ends)
    Console(width=100).print(table)
    return worst


if __name__ == "__main__":
    main()
