"""Two stages against one: a brain layer of codes, judged in the same voxels as one of voxels.

Trains on one dataset, one split and one budget of steps, then prints held-out scores side by side:

- stage 1, `brain-compressor`: the measured brain through a free code and back, beside as many
  principal components;
- stage 2, `dense-compressed`: movie -> code -> movie, its middle held to PCA and to stage 1's code,
  beside `dense-voxels`, whose middle is the voxels themselves, and beside what is fitted without a
  model: the mean, delayed ridge, and the time index as the canary.

    python benchmarks/two_stage.py                                  makes the demo data first
    python benchmarks/two_stage.py --data stores/synth --steps 2000 --width 0.1

All models are narrowed by `--width` (the code and the borders never are), which the title says.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from demo_data import Scores, demo_stores, number
from rich.console import Console
from rich.table import Table

from sherlock_data import store
from sherlock_models.resolve import resolve
from sherlock_models.scoring.evaluate import evaluate
from sherlock_models.training.train import fit

#: predictors that need no model of ours, in the order they are printed
BASELINES = ("mean", "time-index", "delayed-ridge", "other-subjects")
Row = dict[str, Any]


def trained(
    name: str, entry: str, args: argparse.Namespace, runs: Path, **options: Any
) -> tuple[Row, dict[str, Any]]:
    """Train and evaluate one entry; its row, and the evaluation."""
    common = {"batch_size": 64, "width": args.width, "seed": args.seed}
    config = resolve(entry, args.data, options={**common, "steps": args.steps, **options})
    started = time.perf_counter()
    run = fit(config, runs / name)
    seconds = time.perf_counter() - started
    document = evaluate(run, draws=200, null_draws=300)
    found = Scores(document)
    row = {
        "model": name,
        "parameters": run.model.count_parameters(),
        "seconds": seconds,
        "best_step": document["step"],
        **found.brain("model"),
        **{f"{target}_r2": found.value("model", target, "r2") for target in ("video", "audio")},
        "code_r": found.value("model", "code", "r"),
    }
    return row, document


def measure(args: argparse.Namespace, runs: Path) -> dict[str, Any]:
    """Train everything; the document that `--json` writes."""
    components = store.open_store(args.data / "pca.zarr").sizes["component"]
    one, first = trained(
        "stage 1",
        "brain-compressor",
        args,
        runs,
        code=components,
        steps=args.stage_one_steps,
        width=args.stage_one_width,
    )
    rows, last = [one], {}
    same = {"model": f"PCA, {components} components", **Scores(first).brain("pca")}
    for name, entry, options in (
        ("stage 2, PCA", "dense-compressed", {"brain": "pca"}),
        ("stage 2, stage 1's code", "dense-compressed", {"compressor": str(runs / "stage 1")}),
        ("dense-voxels", "dense-voxels", {"hidden": [10_000, 5_000]}),
    ):
        row, last = trained(name, entry, args, runs, **options)
        rows.append(row)
    baselines = [{"model": name, **Scores(last).brain(name)} for name in BASELINES]
    return {
        "data": str(args.data),
        "width": args.width,
        "stage_one_width": args.stage_one_width,
        "components": components,
        "steps": args.steps,
        "voxels": last["held_out"]["units"],
        "ceiling": last["ceiling"],
        "canary": last["canary"],
        "reconstruction": [rows[0], same],
        "prediction": [*rows[1:], *baselines],
    }


def show(document: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console(width=140)  # whole numbers in a pipe too
    ceiling, canary = document["ceiling"], document["canary"]
    for part, what in (
        ("reconstruction", "the measured brain through a code and back"),
        ("prediction", "the brain from the movie, judged in voxels"),
    ):
        width = document["stage_one_width" if part == "reconstruction" else "width"]
        table = Table(title=f"{what}: {document['voxels']:,} voxels, held-out; width {width:g}")
        table.add_column("model", no_wrap=True)
        columns = ("parameters", "s", "r", "95 %", "R²", "above null", "video R²", "audio R²")
        for column in columns:
            table.add_column(column, justify="right")
        for row in document[part]:
            interval = "" if row["r_low"] is None else f"{row['r_low']:.3f} to {row['r_high']:.3f}"
            count = f"{row['parameters']:,}" if "parameters" in row else ""
            seconds = f"{row['seconds']:.0f}" if "seconds" in row else ""
            numbers = [row.get(key) for key in ("r2", "significant", "video_r2", "audio_r2")]
            cells = [number(value) for value in numbers]
            table.add_row(row["model"], count, seconds, number(row["r"]), interval, *cells)
        console.print(table)
    console.print(
        f"noise ceiling r {ceiling['lower']:.3f} to {ceiling['upper']:.3f}; time index over the "
        f"folds of 'block' r {number(canary['block'])}, of 'random' r {number(canary['random'])}"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="dataset folder with voxels, pca and stimulus")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--stage-one-steps", type=int, default=200)
    parser.add_argument("--width", type=float, default=0.005)
    parser.add_argument("--stage-one-width", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    with tempfile.TemporaryDirectory() as folder:
        args.data = args.data or demo_stores(Path(folder), "voxels", "pca", "stimulus")
        document = measure(args, Path(folder) / "runs")
    show(document)
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
