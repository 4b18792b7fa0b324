"""What a kernel over the past is worth: `temporal-features` against itself without a past.

From the planted feature tracks of `sherlock-data synth`, whose brains answer late (a lag, which the
store declares and the pairing applies) but at once: there a past can only cost. So a spread is
planted on top, in a copy of the brain store: the BOLD of every run convolved with a gamma response
(`--spread 0` leaves it as it is). Every model has the same split, TRs, steps and width; the one
with a kernel of 1 TR differs in its `delays` alone, and its split leaves the same room for a past.
Both stand beside delayed ridge, which sees 5 TRs, and the time index as the canary.

    python benchmarks/temporal.py                              makes the demo data first
    python benchmarks/temporal.py --data stores/synth --past 12 --folds 0 1 2 3 4

Scores are held-out r over time, averaged over units, subjects and folds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import scipy.stats
import torch
import xarray as xr
from demo_data import demo_stores, number
from rich.console import Console
from rich.table import Table

from sherlock_models.resolve import resolve
from sherlock_models.scoring.evaluate import evaluate
from sherlock_models.training.train import fit

ENTRY = "temporal-features"
#: the variable of the features store that holds the planted tracks
STIMULUS = "planted"
Row = dict[str, Any]


def spread_out(source: Path, brain: str, spread_trs: float, folder: Path) -> Path:
    """Copy the features, and the brains convolved with a gamma response.

    Parameters
    ----------
    source : Path
        Dataset folder.
    brain : str
        Store whose BOLD is spread.
    spread_trs : float
        Mean delay of the response; its standard deviation is half of that.
    folder : Path
    """
    out = folder / source.name
    shutil.copytree(source / "features.zarr", out / "features.zarr")
    data = xr.open_zarr(source / f"{brain}.zarr").load()
    lags = np.arange(int(4 * spread_trs) + 1)
    response = scipy.stats.gamma.pdf(lags + 0.5, a=4.0, scale=spread_trs / 4.0)
    bold = data["bold"].transpose("subject", "time", ...)
    filled = np.nan_to_num(bold.values)
    for run in np.unique(data["run"].values):
        here = np.flatnonzero(data["run"].values == run)
        mean = filled[:, here].mean(axis=1, keepdims=True)
        centred = filled[:, here] - mean
        filled[:, here] = mean + scipy.signal.lfilter(response, 1.0, centred, axis=1)
    data["bold"] = (bold.dims, np.where(np.isnan(bold.values), np.nan, filled).astype(np.float32))
    for variable in data.variables.values():
        variable.encoding = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        data.to_zarr(out / f"{brain}.zarr", zarr_format=3, consolidated=True)
    return out


def trained(delays: str, args: argparse.Namespace, fold: int, out: Path) -> Row:
    """Train and evaluate one model on one fold."""
    options = {
        "brain": args.brain,
        "stimulus": STIMULUS,
        "delays": delays,
        "context_trs": args.past - 1,
        "fold": fold,
        "steps": args.steps,
        "batch_size": 64,
        "learning_rate": args.learning_rate,
        "width": args.width,
        "seed": args.seed,
    }
    started = time.perf_counter()
    run = fit(resolve(ENTRY, args.data, options=options), out)
    seconds = time.perf_counter() - started
    document = evaluate(run, draws=200, null_draws=200)
    return {
        "parameters": run.model.count_parameters(),
        "seconds": seconds,
        "trs": document["held_out"]["test_trs"],
        "ceiling": document["ceiling"]["lower"],
        "canary": document["canary"]["block"],
        "scores": {
            (row["predictor"], row["target"], row["metric"]): row["value"]
            for row in document["rows"]
        },
    }


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train on every fold; the document that `--json` writes."""
    wide = f"0..{args.past - 1}"
    found: dict[str, list[Row]] = {"kernel": [], "one TR": []}
    for fold in args.folds:
        found["kernel"].append(trained(wide, args, fold, folder / f"kernel-{fold}"))
        found["one TR"].append(trained("0", args, fold, folder / f"one-{fold}"))
    rows = [
        {"model": f"{ENTRY}, a kernel of {args.past} TRs", **_summary(found["kernel"], "model")},
        {"model": f"{ENTRY}, a kernel of 1 TR", **_summary(found["one TR"], "model")},
    ]
    for name in ("delayed-ridge", "time-index", "other-subjects"):
        rows.append({"model": name, **_summary(found["kernel"], name, ours=False)})
    gains = [
        a["scores"]["model", "brain", "r"] - b["scores"]["model", "brain", "r"]
        for a, b in zip(found["kernel"], found["one TR"], strict=True)
    ]
    return {
        "data": str(args.data),
        "brain": args.brain,
        "spread_trs": args.spread,
        "width": args.width,
        "learning_rate": args.learning_rate,
        "steps": args.steps,
        "folds": args.folds,
        "held_out_trs": [row["trs"] for row in found["kernel"]],
        "ceiling": _mean([row["ceiling"] for row in found["kernel"]]),
        "canary": found["kernel"][0]["canary"],
        "rows": rows,
        "gain_r": {"mean": _mean(gains), "by_fold": gains},
    }


def _summary(rows: list[Row], predictor: str, ours: bool = True) -> Row:
    def over(target: str, metric: str) -> list[float | None]:
        return [row["scores"].get((predictor, target, metric)) for row in rows]

    own = {"parameters": rows[0]["parameters"], "seconds": sum(r["seconds"] for r in rows)}
    return {
        **(own if ours else {}),
        "r": _mean(over("brain", "r")),
        "r_by_fold": over("brain", "r"),
        "r2": _mean(over("brain", "r2")),
        "significant": _mean(over("brain", "significant")),
        "features_r2": _mean(over(STIMULUS, "r2")) if ours else None,
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def show(document: dict[str, Any]) -> None:
    """Print the table."""
    console = Console(width=140)  # whole numbers in a pipe too
    trs = ", ".join(map(str, document["held_out_trs"]))
    table = Table(
        title=f"held-out '{document['brain']}', folds {document['folds']} ({trs} TRs); response "
        f"spread over {document['spread_trs']:g} TRs; width {document['width']:g}, "
        f"{document['steps']} steps"
    )
    table.add_column("model", no_wrap=True)
    for column in ("parameters", "s", "r", "by fold", "R²", "above null", "features R²"):
        table.add_column(column, justify="right")
    for row in document["rows"]:
        table.add_row(
            row["model"],
            f"{row['parameters']:,}" if "parameters" in row else "",
            f"{row['seconds']:.0f}" if "seconds" in row else "",
            number(row["r"]),
            " ".join(number(value) or "-" for value in row["r_by_fold"]),
            *(number(row[key]) for key in ("r2", "significant", "features_r2")),
        )
    console.print(table)
    gain = document["gain_r"]
    by_fold = ", ".join(f"{value:+.3f}" for value in gain["by_fold"])
    console.print(
        f"the past is worth r {gain['mean']:+.3f} (by fold {by_fold}); noise ceiling r "
        f"{number(document['ceiling'])}; time index over the folds r {number(document['canary'])}"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="dataset folder with the features store")
    parser.add_argument("--brain", default="parcels")
    parser.add_argument("--past", type=int, default=12, help="TRs that the kernel sees")
    parser.add_argument("--spread", type=float, default=4.0, help="mean of the response, in TRs")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    with tempfile.TemporaryDirectory() as folder:
        args.data = args.data or demo_stores(Path(folder), args.brain, "features")
        if args.spread:
            args.data = spread_out(args.data, args.brain, args.spread, Path(folder) / "spread")
        document = measure(args, Path(folder) / "runs")
    show(document)
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
