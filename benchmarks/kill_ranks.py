"""Kill a random rank of trainings at a random instant, and count what went wrong.

Every trial trains a tiny model on two ranks (gloo); after a random delay one of them is killed by
SIGKILL, and the launcher starts all ranks again from the last checkpoint. Counted are trials whose
weights differ from those of an undisturbed training, that took longer than --limit seconds, that
ended otherwise than well, and checkpoints that were there under their name but not whole (each one
is read, checksums and all, after every trial). The instants range over the whole of a training:
joining, reading, steps, checkpoints, leaving.

    python benchmarks/kill_ranks.py --count 100 --seed 0
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import xarray as xr
from rich.console import Console
from rich.progress import track

from sherlock_data.errors import SherlockError
from sherlock_models.config import RunConfig
from sherlock_models.resolve import resolve
from sherlock_models.run import Run
from sherlock_models.training import checkpoint, launch

RANKS = 2
#: weights may differ by so much: the sum over ranks is the same, its order is
TOLERANCE = 1e-6
STEPS, EVERY = 20, 4
SUBJECTS, TRS, PARCELS, TRACKS = 2, 120, 8, 3
CATALOG = (
    "models:\n  tiny: {architecture: dense, brain: parcels, stimulus: [audio], hidden: [12]}\n"
)


@dataclass
class Counts:
    """What happened over all trials."""

    trials: int = 0
    killed: int = 0
    restarts: int = 0
    wrong_weights: int = 0
    failed: int = 0
    hung: int = 0
    partial_checkpoints: int = 0
    aborted_at_teardown: int = 0
    seconds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        """Trials' faults of any kind."""
        return (
            self.wrong_weights
            + self.failed
            + self.hung
            + self.partial_checkpoints
            + self.aborted_at_teardown
        )


def write_stores(folder: Path) -> Path:
    """Write `FOLDER/tiny`: parcels and sound that follow the same few tracks."""
    rng = np.random.default_rng(0)
    tracks = rng.standard_normal((TRS, TRACKS))
    string = np.dtypes.StringDType()
    coords = {
        "time": ("time", np.arange(TRS) * 2.0, {"units": "s"}),
        "run": ("time", np.full(TRS, "run-1").astype(string)),
        "run_time": ("time", np.arange(TRS) * 2.0, {"units": "s"}),
        "tr": ("time", np.arange(TRS)),
    }
    signal_ = tracks @ rng.standard_normal((TRACKS, PARCELS))
    bold = signal_ + rng.standard_normal((SUBJECTS, TRS, PARCELS))
    names = np.array([f"Toy_LH_Net_{p}" for p in range(PARCELS)], dtype=string)
    brains = xr.Dataset(
        {
            "bold": (("subject", "time", "parcel"), bold.astype(np.float32)),
            "valid": (("subject", "time"), np.ones((SUBJECTS, TRS), dtype=bool)),
            "has_signal": (("subject", "parcel"), np.ones((SUBJECTS, PARCELS), dtype=bool)),
        },
        coords={
            **coords,
            "subject": np.array([f"sub-{s + 1:02d}" for s in range(SUBJECTS)], dtype=string),
            "parcel": names,
        },
    )
    bands = np.tensordot(tracks, rng.standard_normal((TRACKS, 2, 4)), axes=1)
    sound = xr.Dataset(
        {
            "audio_bands": (("time", "channel", "band"), bands.astype(np.float32)),
            "has_stimulus": ("time", np.ones(TRS, dtype=bool)),
        },
        coords=coords,
    )
    for name, data in (("parcels", brains), ("stimulus", sound)):
        attrs: dict[str, Any] = {"schema_version": 1, "dataset": "tiny", "store": name}
        attrs |= {"recipe": {"kind": name}, "created_by": "benchmark", "inputs": []}
        attrs |= {"space": "MNI152", "repetition_time_s": 2.0, "lag_s": 0.0}
        data.attrs = {**attrs, "Conventions": "CF-1.11"}
        data.to_zarr(folder / "tiny" / f"{name}.zarr", mode="w", zarr_format=3, consolidated=True)
    return folder / "tiny"


def train_as_rank(document: dict[str, Any], out: str) -> None:
    """One rank; the launcher says whether it takes the place of one that died."""
    from sherlock_models.training.train import fit

    torch.set_num_threads(1)
    fit(RunConfig.model_validate(document), out, again=launch.restarted(), device="cpu")


def ranks_of(parent: int) -> list[psutil.Process]:
    """Find the ranks of the training: the forkserver's children, in order of age."""
    found = [p for p in psutil.Process(parent).children(recursive=True) if _is_rank(p)]
    return sorted(found, key=lambda process: process.create_time())


def _is_rank(process: psutil.Process) -> bool:
    try:
        return "RANK" in process.environ() or process.parent().ppid() == os.getpid()
    except (psutil.Error, AttributeError):
        return False


class Killer(threading.Thread):
    """Kills one rank after a delay; none where the training is over by then."""

    def __init__(self, delay: float, which: int) -> None:
        super().__init__(daemon=True)
        self.delay, self.which, self.killed = delay, which, False
        self.over = threading.Event()

    def run(self) -> None:
        """Wait, and kill."""
        if self.over.wait(self.delay):
            return
        ranks = ranks_of(os.getpid())
        if ranks:
            try:
                ranks[self.which % len(ranks)].send_signal(signal.SIGKILL)
                self.killed = True
            except psutil.NoSuchProcess:
                return


def trial(config: RunConfig, out: Path, killer: Killer | None, counts: Counts) -> float:
    """Train to the end; returns the seconds it took."""
    began, told = time.monotonic(), []
    if killer:
        killer.start()
    try:
        launch.launch(
            RANKS,
            train_as_rank,
            config.model_dump(mode="json"),
            str(out),
            restarts=3,
            tell=told.append,
            start_method="forkserver",
        )
    except SherlockError as error:
        counts.failed += 1
        counts.notes.append(f"{out.name}: {error}")
    if killer:
        killer.over.set()
        killer.join()
        counts.killed += killer.killed
    counts.restarts += len(told)
    # a rank that was not killed but aborted: SIGABRT, SIGSEGV
    aborted = [line for line in told if "SIGABRT" in line or "SIGSEGV" in line]
    counts.aborted_at_teardown += len(aborted)
    counts.notes += aborted
    return time.monotonic() - began


def judge(run: Run, expected: dict[str, torch.Tensor], counts: Counts) -> None:
    """Compare the last weights, and read every checkpoint that has a name."""
    from sherlock_models.zoo import build_model

    config = run.config
    for folder in (run.path / "checkpoints").glob("step-*"):
        model = build_model(config.model_entry, config.model_sizes, config.model_options)
        try:
            checkpoint.load_model(folder, model)
        except SherlockError as error:
            counts.partial_checkpoints += 1
            counts.notes.append(f"{run.path.name}: {error}")
    try:
        found = run.model_at("last").state_dict()
    except SherlockError as error:
        counts.notes.append(f"{run.path.name}: {error}")
        counts.wrong_weights += 1
        return
    off = max(float((found[name] - value).abs().max()) for name, value in expected.items())
    steps = [m["step"] for m in run.metrics() if m["split"] == "train"]
    if off > TOLERANCE or steps != list(range(1, STEPS + 1)) or run.state != "finished":
        counts.wrong_weights += 1
        counts.notes.append(f"{run.path.name}: off by {off:.1e}, {len(steps)} steps, {run.state}")


def main() -> None:
    """Run the trials and print what was counted."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a trial, at most")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args()
    multiprocessing.set_forkserver_preload(
        ["sherlock_models.training.train", "torch.utils.tensorboard"]
    )
    rng, counts = np.random.default_rng(args.seed), Counts()
    with tempfile.TemporaryDirectory(prefix="kill-ranks-") as name:
        folder = Path(name)
        (folder / "catalog.yaml").write_text(CATALOG, encoding="utf-8")
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        options: dict[str, Any] = {
            "steps": STEPS,
            "batch_size": 8,
            "validate_every": EVERY,
            "parallel": "fsdp",
        }
        data = write_stores(folder)
        config = resolve("tiny", data, catalog=folder / "catalog.yaml", options=options)
        trial(config, folder / "warm", None, counts)
        usual = trial(config, folder / "undisturbed", None, counts)
        expected = Run(folder / "undisturbed").model_at("last").state_dict()
        for number in track(range(args.count), console=Console(stderr=True)):
            killer = Killer(float(rng.uniform(0.1, 1.0)) * usual, int(rng.integers(RANKS)))
            out = folder / f"trial-{number}"
            took = trial(config, out, killer, counts)
            counts.trials += 1
            counts.seconds.append(took)
            counts.hung += took > args.limit
            judge(Run(out), expected, counts)
    report(counts, usual, args)
    raise SystemExit(bool(counts.bad))


def report(counts: Counts, usual: float, args: argparse.Namespace) -> None:
    """Print one line per count."""
    console = Console(width=100)
    rows = {key: value for key, value in asdict(counts).items() if isinstance(value, int)}
    for key, value in rows.items():
        console.print(f"{key.replace('_', ' '):<22}{value:>6}")
    longest = max(counts.seconds, default=0.0)
    console.print(f"undisturbed {usual:.1f} s; longest trial {longest:.1f} s of {args.limit:.0f}")
    for note in counts.notes:
        console.print(note, markup=False)
    if args.json:
        document = {**asdict(counts), "undisturbed_s": usual, "seed": args.seed}
        args.json.write_text(json.dumps(document, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
