"""Batches of a training in random order: ours in every placement, and what others would do.

Prints one table of one run: samples per second, the share of the limit, resident memory, and how
well the order is mixed. A sample is one TR of one subject: its voxels, standardised, and the
movie's picture and sound, normalised.

    python benchmarks/feeding.py                          83,300 voxels + 43,240 features, 4 GB
    python benchmarks/feeding.py --voxels 20000 --trs 200            quick

The limit is a memory map of finished float32 rows, gathered in random order. The others read
stores that this script writes, laid out as a build lays them out; all give batches of 32. The
methods take turns `--rounds` times, each in a process of its own, so that a busy machine is busy
for all; medians are shown. Before a turn from disk, the store is put out of the page cache
(`posix_fadvise`); --warm leaves it there. CPU seconds count all threads of a process.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr
import zarr
from numpy.typing import NDArray
from reference import TR_S
from rich.console import Console
from rich.table import Table

from sherlock_data.catalog import load_catalog
from sherlock_data.contract import compressors, strings, time_coords
from sherlock_data.representations.series import array_spec
from sherlock_data.timing import Clock, Run

#: reference sizes of the first analysis, from the catalogue
ENTRY = "conv-voxels"
SIZES = load_catalog().model(ENTRY).sizes or {}
(VIDEO, (SOUND,), (VOXELS,)) = (SIZES[name] for name in ("video", "audio", "brain"))
METHODS = ("map", "device", "shared", "stream", "items", "xbatcher")
NAMES = {
    "map": "memory map (the limit)",
    "device": "ours, in memory",
    "shared": "ours, shared memory",
    "stream": "ours, from disk",
    "items": "zarr items, DataLoader",
    "xbatcher": "xbatcher, in order",
}


def write_stores(folder: Path, args: argparse.Namespace) -> None:
    """Write voxels and stimulus of a few subjects at full width, and the rows of the limit."""
    runs = args.subjects, args.trs
    clock = Clock(TR_S, (Run("run-1", args.trs),))
    height, width, _ = VIDEO
    rng = np.random.default_rng(0)
    attrs = {
        "schema_version": 1,
        "dataset": "feeding",
        "recipe": {},
        "inputs": [],
        "space": "MNI152",
    }
    attrs |= {"repetition_time_s": TR_S, "lag_s": 0.0}
    subjects = strings("subject", [f"sub-{s:02d}" for s in range(1, args.subjects + 1)])
    everywhere = np.ones((args.subjects, args.voxels), dtype=bool)
    brain = xr.Dataset(
        {
            "valid": (("subject", "time"), np.ones(runs, dtype=bool)),
            "has_signal": (("subject", "voxel"), everywhere),
        },
        coords={"subject": subjects, "voxel": np.arange(args.voxels), **time_coords(clock)},
        attrs=attrs | {"store": "voxels"},
    )
    video = rng.integers(0, 256, (args.trs, height, width, 3), dtype=np.uint8)
    movie = xr.Dataset(
        {
            "video": (("time", "height", "width", "rgb"), video),
            "audio_bands": (
                ("time", "channel", "band"),
                rng.standard_normal((args.trs, 2, SOUND // 2), dtype=np.float32),
            ),
            "has_stimulus": ("time", np.ones(args.trs, dtype=bool)),
        },
        coords=time_coords(clock),
        attrs=attrs | {"store": "stimulus"},
    )
    data = folder / "feeding"
    for name, store in {"voxels": brain, "stimulus": movie}.items():
        store.to_zarr(data / f"{name}.zarr", zarr_format=3, consolidated=False)
    spec = array_spec(args.subjects, args.trs, args.voxels, "voxel", {})
    bold = zarr.create_array(
        data / "voxels.zarr",
        name="bold",
        shape=spec.shape,
        chunks=spec.chunks,
        shards=spec.shards,
        dtype=spec.dtype,
        fill_value=spec.fill_value,
        dimension_names=spec.dims,
        compressors=compressors(4),
    )
    wide = args.voxels + height * width * 3 + SOUND
    rows = np.memmap(folder / "rows.f32", np.float32, "w+", shape=(args.subjects * args.trs, wide))
    block = spec.shards[1] if spec.shards else args.trs
    for subject in range(args.subjects):
        for start in range(0, args.trs, block):
            size = min(block, args.trs - start)
            values = 100 + 10 * rng.standard_normal((size, args.voxels), dtype=np.float32)
            bold[subject, start : start + size] = values
            first = subject * args.trs + start
            rows[first : first + size, : args.voxels] = (values - 100) / 10
            rows[first : first + size, args.voxels :] = 0.5
    rows.flush()
    for name in ("voxels", "stimulus"):
        zarr.consolidate_metadata(data / f"{name}.zarr")


Epoch = Iterator[NDArray[np.int64] | None]


def from_map(args: argparse.Namespace) -> Callable[[], Epoch]:
    samples = args.subjects * args.trs
    rows = np.memmap(args.folder / "rows.f32", np.float32, "r").reshape(samples, -1)
    rng = np.random.default_rng(0)
    for start in range(0, samples, 64):  # into the page cache
        rows[start : start + 64].sum()

    def epoch() -> Epoch:
        order = rng.permutation(samples)
        for start in range(0, samples, args.batch):
            rows[order[start : start + args.batch]]
            yield order[start : start + args.batch]

    return epoch


def ours(args: argparse.Namespace) -> Callable[[], Epoch]:
    import torch

    from sherlock_models import parallel
    from sherlock_models.feeding.feed import Feed, order
    from sherlock_models.feeding.loading import load_data
    from sherlock_models.resolve import resolve

    options = {"placement": args.run, "buffer_gb": args.buffer_gb, "split": "random"}
    settled = resolve(ENTRY, args.folder / "feeding", options=options)
    with parallel.world("cpu") as world:
        data = load_data(settled, world)
    world = parallel.World(0, 1, torch.device("cpu"))
    # every TR trains, as in the other methods: statistics stay those of the split
    subject = np.repeat(np.arange(args.subjects), args.trs)
    everyone = data.samples("train").__class__(subject, np.tile(np.arange(args.trs), args.subjects))
    batches = order(data, everyone, args.batch, seed=0)
    feed = Feed(data, everyone, batches, world)
    done = 0

    def epoch() -> Epoch:
        nonlocal done
        for step in range(done, done + batches.steps_per_epoch):
            feed.at(step)
            yield batches.at(step)
        done += batches.steps_per_epoch

    return epoch


def items(args: argparse.Namespace) -> Callable[[], Epoch]:
    from torch.utils.data import DataLoader, Dataset

    bold = zarr.open_array(args.folder / "feeding/voxels.zarr/bold", mode="r")
    video = zarr.open_array(args.folder / "feeding/stimulus.zarr/video", mode="r")
    sound = zarr.open_array(args.folder / "feeding/stimulus.zarr/audio_bands", mode="r")

    class Items(Dataset[Any]):
        def __len__(self) -> int:
            return args.subjects * args.trs

        def __getitem__(self, index: int) -> Any:
            subject, tr = divmod(index, args.trs)
            seen = video[tr].astype(np.float32) / 255
            return (bold[subject, tr] - 100) / 10, seen, sound[tr]

    # no workers: forked around zarr they hang
    loader = DataLoader(Items(), batch_size=args.batch, shuffle=True)

    def epoch() -> Epoch:
        for _ in loader:
            yield None

    return epoch


def xbatched(args: argparse.Namespace) -> Callable[[], Epoch]:
    import xbatcher

    brain = xr.open_zarr(args.folder / "feeding/voxels.zarr", chunks=None)
    movie = xr.open_zarr(args.folder / "feeding/stimulus.zarr", chunks=None)

    def batches(array: xr.DataArray) -> Any:
        # dims that are not named would be stacked into samples
        whole = {str(dim): size for dim, size in array.sizes.items()}
        return xbatcher.BatchGenerator(array, input_dims={**whole, "time": args.batch})

    def epoch() -> Epoch:
        for subject in range(args.subjects):
            arrays = brain.bold.isel(subject=subject), movie.video, movie.audio_bands
            for bold, video, _ in zip(*map(batches, arrays), strict=True):
                (bold.values - 100) / 10, video.values.astype(np.float32) / 255
                yield None

    return epoch


SETUP = {"map": from_map, "items": items, "xbatcher": xbatched}


def drop_cache(folder: Path) -> None:
    """Put a store out of the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def serve(args: argparse.Namespace) -> None:
    """Set up, then feed for `--seconds` whenever a line comes in; a line of JSON goes out."""
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    epoch = SETUP.get(args.run, ours)(args)
    setup, process = time.perf_counter() - began, psutil.Process()
    stream = endless(epoch)
    for _ in range(3):  # compile, and fill the first buffers, outside the clock
        next(stream)
    for line in sys.stdin:
        if line.startswith("mix"):
            print(json.dumps(mixing(args, [b for b in epoch() if b is not None])), flush=True)
            continue
        if args.run == "stream" and not args.warm:
            drop_cache(args.folder / "feeding/voxels.zarr")
        batches, start, cpu = 0, time.perf_counter(), process.cpu_times()
        while time.perf_counter() - start < args.seconds:
            next(stream)
            batches += 1
        seconds, now = time.perf_counter() - start, process.cpu_times()
        used = now.user + now.system - cpu.user - cpu.system
        rate = {"rate": batches * args.batch / seconds, "cpu_rate": batches * args.batch / used}
        anonymous = process.memory_full_info().uss
        print(json.dumps({**rate, "memory": anonymous, "setup": setup}), flush=True)


def endless(epoch: Callable[[], Epoch]) -> Epoch:
    while True:
        yield from epoch()


def mixing(args: argparse.Namespace, batches: list[NDArray[np.int64]]) -> dict[str, float]:
    """How random an epoch's order is."""
    from scipy.stats import spearmanr

    order = np.concatenate(batches)
    subject, tr = np.divmod(np.arange(args.subjects * args.trs), args.trs)
    slow = np.sin(2 * np.pi * tr / args.trs) + subject / args.subjects
    whole = [batch for batch in batches if len(batch) == args.batch]
    mean = np.array([slow[batch].mean() for batch in whole])
    rank = spearmanr(order, np.arange(len(order))).statistic
    expected = slow.var() / args.batch * (1 - args.batch / len(order))
    follows = np.corrcoef(mean[1:], mean[:-1])[0, 1]
    return {"rank": float(rank), "spread": float(mean.var() / expected), "follows": float(follows)}


def start(args: argparse.Namespace, method: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--run", method, "--folder", str(folder)]
    for key in ("subjects", "trs", "voxels", "batch", "seconds", "buffer_gb"):
        command += [f"--{key.replace('_', '-')}", str(getattr(args, key))]
    command += ["--warm"] if args.warm else []
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: subprocess.Popen[str], what: str) -> dict[str, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(what + "\n")
    process.stdin.flush()
    return dict(json.loads(process.stdout.readline()))


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Let the methods take turns; medians over the rounds."""
    methods = args.method or list(METHODS)
    workers = {method: start(args, method, folder) for method in methods}
    found: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    try:
        for _ in range(args.rounds):
            for method, worker in workers.items():
                found[method].append(ask(worker, "feed"))
        mixed = {m: ask(workers[m], "mix") for m in methods if m not in ("items", "xbatcher")}
    finally:
        for worker in workers.values():
            worker.terminate()
            worker.wait()
    rows = []
    for method in methods:
        told = {key: [one[key] for one in found[method]] for key in found[method][0]}
        row: dict[str, Any] = {
            "method": method,
            **{k: float(np.median(v)) for k, v in told.items()},
        }
        if "map" in found:
            ratios = [
                a["rate"] / b["rate"] for a, b in zip(found[method], found["map"], strict=True)
            ]
            row["of_limit"] = float(np.median(ratios))
        rows.append(row | mixed.get(method, {}))
    return rows


def show(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    held = args.subjects * args.trs * args.voxels * 4 / 1e9
    table = Table(
        title=f"batches of {args.batch}: {args.voxels:,} voxels + "
        f"{np.prod(VIDEO) + SOUND:,} features; {held:.2f} GB of BOLD, "
        f"buffer_gb {args.buffer_gb:g}, from disk {'warm' if args.warm else 'cold'}"
    )
    columns = ("", "samples/s", "of the limit", "per CPU s", "own memory GB", "set up s")
    for column in (*columns, "rank r", "spread", "follows"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        mixed = [f"{row[k]:+.3f}" if k in row else "" for k in ("rank", "spread", "follows")]
        table.add_row(
            NAMES[row["method"]],
            f"{row['rate']:,.0f}",
            f"{row['of_limit']:.2f}" if "of_limit" in row else "",
            f"{row['cpu_rate']:,.0f}",
            f"{row['memory'] / 1e9:.2f}",
            f"{row['setup']:.1f}",
            *mixed,
        )
    console = Console(width=130)
    console.print(table)
    console.print(
        "rank r: of the order with the store's (0 is random); spread: variance of the batches' "
        "means of a slow signal over that of random batches (1 is random); follows: correlation "
        "of a batch's mean with the next one's (0 is random). Own memory: not shared, without the "
        "page cache; the shared tables and the map are not in it."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--trs", type=int, default=1280)
    parser.add_argument("--voxels", type=int, default=VOXELS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--buffer-gb", type=float, default=0.8, help="of ours, from disk")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm", action="store_true", help="leave the store in the page cache")
    parser.add_argument("--method", choices=METHODS, action="append", help="default: all")
    parser.add_argument("--keep", type=Path, help="keep the stores there and use them again")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows there too")
    parser.add_argument("--run", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        serve(args)
        return
    if "xbatcher" in (args.method or METHODS) and not importlib.util.find_spec("xbatcher"):
        raise SystemExit("xbatcher is not installed: pip install '.[bench]', or name a --method")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        if not (folder / "rows.f32").exists():
            warnings.simplefilter("ignore")
            write_stores(folder, args)
        rows = measure(args, folder)
    show(args, rows)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
