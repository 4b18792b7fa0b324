"""Entries trained at their real sizes on this machine: the loss, and the memory that was planned.

Prints one table of one run: parameters, seconds of a step, loss at the start and at the end, and
peak resident memory beside what `sherlock-models plan` foretells, while training and while the
checkpoint is written.

    python benchmarks/full_size_training.py                        the three of ENTRIES
    python benchmarks/full_size_training.py conv-voxels --steps 20 --batch-size 8

The layers have the sizes of the catalogue (83,300 voxels, 160 x 90 pixels, the whole grid); only
the number of subjects and TRs is small. Four planted tracks drive movie and brain, so there is
something to learn; a batch holds all training samples, so that losses of steps can be compared.
Each entry trains in a process of its own through `sherlock_models.training.train.fit`.
Resident memory is counted over what the process held after the same training at a toy's sizes:
Python, torch, the libraries and their threads. Needs 17 bytes of memory and 12 of disk for every
parameter, 10 GB and 7 GB for dense-voxels-slim: run it alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from sherlock_data.catalog import load_catalog

Float32 = NDArray[np.float32]
STRING = np.dtypes.StringDType()

ENTRIES = ("conv-voxels", "dense-voxels-slim", "spatial-seeded")
SUBJECTS, TRS, TRACKS = 1, 64, 4
#: sizes of the training that the libraries are warmed up with
TOY = {"brain": (64,), "video": (18, 32, 3), "audio": (4,)}
#: small enough for layers of 83,300 inputs to learn from their first steps on
LEARNING_RATE = 1e-5
#: of the peak, by which plan and measurement may differ
TOLERANCE = 0.15


def write_stores(folder: Path, brain: str, sizes: dict[str, tuple[int, ...]]) -> Path:
    """Write `FOLDER/full`: a brain store and a stimulus of the sizes, few subjects and TRs.

    Four AR(1) tracks drive every pixel, band and voxel; each subject has noise of its own.
    """
    tr_s = load_catalog().dataset("sherlock").repetition_time_s or 1.0
    rng = np.random.default_rng(0)
    tracks = rng.standard_normal((TRS, TRACKS), dtype=np.float32)
    for t in range(1, TRS):
        tracks[t] = 0.7 * tracks[t - 1] + np.sqrt(1 - 0.7**2) * tracks[t]

    def driven(*shape: int) -> Float32:
        return np.tensordot(tracks, rng.standard_normal((TRACKS, *shape), dtype=np.float32), axes=1)

    time_coords = {
        "time": ("time", np.arange(TRS) * tr_s, {"units": "s"}),
        "run": ("time", np.full(TRS, "run-1", dtype=STRING)),
        "run_time": ("time", np.arange(TRS) * tr_s, {"units": "s"}),
        "tr": ("time", np.arange(TRS)),
    }
    attrs = {"schema_version": 1, "dataset": "full", "created_by": "benchmark", "inputs": []}
    attrs |= {"space": "MNI152", "repetition_time_s": tr_s, "lag_s": 0.0}
    made = {brain: brains(driven(*sizes["brain"]), rng), "stimulus": stimulus(driven, sizes)}
    for store, data in made.items():
        data = data.assign_coords(time_coords)
        data = data.assign_attrs(attrs | {"store": store, "recipe": {"kind": store}})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            data.to_zarr(folder / "full" / f"{store}.zarr", mode="w", zarr_format=3)
    return folder / "full"


def brains(signal: Float32, rng: np.random.Generator) -> xr.Dataset:
    """BOLD of every subject: common signal (TR, ...) and noise; a grid has an ellipsoid head."""
    shape = signal.shape[1:]
    dims = ("voxel",) if len(shape) == 1 else ("x", "y", "z")
    bold = np.empty((SUBJECTS, *signal.shape), dtype=np.float32)
    for subject in bold:
        rng.standard_normal(out=subject, dtype=np.float32)
        subject += signal
    here = np.ones(shape, dtype=bool)
    if len(shape) == 3:
        axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
        here &= sum(axis**2 for axis in axes) < 0.6
    variables = {
        "bold": (("subject", "time", *dims), bold),
        "valid": (("subject", "time"), np.ones((SUBJECTS, TRS), dtype=bool)),
        "has_signal": (("subject", *dims), np.stack([here] * SUBJECTS)),
    }
    if len(shape) == 3:
        variables["mask"] = (dims, here)
    names = np.array([f"sub-{s + 1:02d}" for s in range(SUBJECTS)], dtype=STRING)
    return xr.Dataset(variables, coords={"subject": names})


def stimulus(driven: Callable[..., Float32], sizes: dict[str, tuple[int, ...]]) -> xr.Dataset:
    """Pictures and sound of the same tracks."""
    height, width, _ = sizes["video"]
    video = np.clip(120 + 25 * driven(height, width, 3), 0, 255).astype(np.uint8)
    bands = -30 + 5 * driven(2, sizes["audio"][0] // 2)
    return xr.Dataset(
        {
            "video": (("time", "height", "width", "rgb"), video),
            "audio_bands": (("time", "channel", "band"), bands),
            "has_stimulus": ("time", np.ones(TRS, dtype=bool)),
        }
    )


def resident(which: str = "VmRSS") -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most since the mark was last taken back."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024


def take_back_mark() -> None:
    """Let the peak of resident memory start again from now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def train(entry: str, data: Path, steps: int, batch_size: int) -> dict[str, Any]:
    """Train in this process; returns losses, seconds and peaks."""
    from sherlock_models.resolve import resolve
    from sherlock_models.training.train import Silent, fit

    class Watcher(Silent):
        def __init__(self) -> None:
            self.peak: dict[str, int] = {}
            self.losses: list[float] = []
            self.times = [time.perf_counter()]

        def started(self, cost: object, done: int) -> None:
            self.peak["loading"] = resident("VmHWM")
            take_back_mark()
            self.times = [time.perf_counter()]

        def step(self, step: int, values: dict[str, float], steps_per_s: float) -> None:
            self.losses.append(values["loss"])
            self.times.append(time.perf_counter())

        def validated(self, step: int, values: dict[str, float], best: bool) -> None:
            self.peak["training"] = resident("VmHWM")
            take_back_mark()

    brain = load_catalog().model(entry).brain
    options = {"steps": steps, "batch_size": batch_size, "validate_every": steps}
    options |= {"learning_rate": LEARNING_RATE, "warmup": 0.0}
    toy = write_stores(data.parent / "toy", brain, TOY)
    few = {**options, "steps": 2, "validate_every": 2, "width": 0.1, "brain": brain}
    fit(resolve("conv-voxels", toy, options=few), data.parent / "run-toy", device="cpu")
    config = resolve(entry, data, options=options)
    watcher, before = Watcher(), resident()
    take_back_mark()
    fit(config, data.parent / f"run-{entry}", device="cpu", progress=watcher)
    watcher.peak["checkpoint"] = resident("VmHWM")
    return {
        "losses": watcher.losses,
        "step_s": float(np.median(np.diff(watcher.times))),
        "peak": {name: value - before for name, value in watcher.peak.items()},
        "before": before,
    }


def planned(entry: str, data: Path, batch_size: int) -> dict[str, int]:
    """Ask `plan` what the training will take on this machine."""
    from sherlock_models.planning.plan import plan

    [row] = plan([], entries=[entry], data=data, options={"batch_size": batch_size})
    return {"parameters": row["parameters"], **row["host"]}


def in_process(entry: str, data: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Train in a process of its own."""
    command = [sys.executable, __file__, entry, "--data", str(data)]
    command += ["--steps", str(args.steps), "--batch-size", str(args.batch_size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure every entry in turn and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("entries", nargs="*", default=ENTRIES)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.data:
        print(json.dumps(train(args.entries[0], args.data, args.steps, args.batch_size)))
        return
    rows = []
    for entry in args.entries:
        folder = Path(tempfile.mkdtemp(prefix="full-size-"))
        try:
            model = load_catalog().model(entry)
            data = write_stores(folder, model.brain, model.sizes)
            plan = planned(entry, data, args.batch_size)
            rows.append({"entry": entry, "planned": plan, **in_process(entry, data, args)})
        finally:
            shutil.rmtree(folder)
    show(rows)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=2), encoding="utf-8")


def _off(planned_bytes: int, peak: int) -> str:
    """How far the plan is off; `!` beyond the tolerance."""
    off = planned_bytes / peak - 1
    return f"{off:+.1%}" + ("" if abs(off) <= TOLERANCE else " !")


def show(rows: list[dict[str, Any]]) -> None:
    """Print measured beside planned."""
    table = Table(title="Peak memory at the real sizes, GB over the libraries")
    for column in ("entry", "parameters", "s/step", "loss", "while", "planned", "peak", "off"):
        table.add_column(column, justify="left" if column in ("entry", "while") else "right")
    for row in rows:
        first = [row["entry"], f"{row['planned']['parameters']:,}", f"{row['step_s']:.2f}"]
        first.append(f"{row['losses'][0]:.3f} > {row['losses'][-1]:.3f}")
        for phase in ("training", "checkpoint"):
            ours, peak = row["planned"][phase], row["peak"][phase]
            cells = [phase, f"{ours / 1e9:.2f}", f"{peak / 1e9:.2f}", _off(ours, peak)]
            table.add_row(*first, *cells)
            first = [""] * 4
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
