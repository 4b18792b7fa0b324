"""Every BOLD store of full-size subjects: time, memory of all processes together, size on disk.

Makes subjects of 61 x 73 x 61 x 1976 with ``synth``, builds ``volumes voxels grey coarse parcels``
and one pca store for each number of components in one process, and masks one of the same subjects
with nilearn's NiftiMasker, several times between the stores, so that both see the same machine.

    python benchmarks/full_size.py                              3 subjects, 1,000 components
    python benchmarks/full_size.py --subjects 17 --components 1000 5000
    python benchmarks/full_size.py --raw DIR                    subjects that `synth` made before
    python benchmarks/full_size.py --dry-run                    say what it costs, and stop

It says first what disk and time it takes, refuses what the disk cannot hold, and removes what it
made unless ``--keep``. The peer's time is the median of its repeats, times the subjects; it masks
into memory and writes nothing. Processor seconds stand beside those on the wall, which a busy
machine stretches. Memory is resident memory, sampled four times a second and added up over all
processes (a page that two of them share counts twice).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from rich.console import Console
from rich.table import Table

SHAPE = (61, 73, 61)
VOLUMES = 1976
STORES = ("volumes", "voxels", "grey", "coarse", "parcels")
#: goals of the design: GiB of all processes, share of the peer's time
GOAL_GIB, GOAL_SHARE = 6.0, 0.5
#: bytes of a subject: raw files, and stores before compression (they may compress to two thirds)
RAW_BYTES = 0.25e9
STORE_BYTES = 4.0 * VOLUMES * (np.prod(SHAPE) + 70_000 + 45_000 + 10_000 + 400)
#: seconds of a subject on two idle cores: synth, stores, the peer's one subject
SYNTH_S, BUILD_S, PEER_S = 40.0, 12.0, 30.0
#: voxels of the brain, and the share of all TRs that training takes, for the estimate
VOXELS, TRAINING = 70_000, 0.64
SAMPLE_S = 0.25

notes = Console(stderr=True)


def estimate(args: argparse.Namespace) -> dict[str, float]:
    """Disk in bytes and time in seconds; products are counted and this machine's speed measured."""
    from sherlock_data.decomposition import choose

    n = args.subjects
    speed = products_per_second()
    rows = int(TRAINING * VOLUMES * n)
    pca = {
        k: choose((rows, VOXELS), k, args.memory_gb * 1e9).operations / speed
        for k in args.components
    }
    disk = n * STORE_BYTES + sum(4.0 * k * (VOXELS + n * VOLUMES) for k in args.components)
    seconds = n * BUILD_S + args.repeats * PEER_S + sum(pca.values())
    if args.raw is None:
        disk, seconds = disk + n * RAW_BYTES, seconds + n * SYNTH_S
    return {"disk": disk, "seconds": seconds, "speed": speed, "pca": sum(pca.values())}


def products_per_second(size: int = 3000) -> float:
    """Multiplications and additions per second of a float32 matrix product, the best of three."""
    values = np.random.default_rng(0).random((size, size), dtype=np.float32)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        values @ values
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(seconds)


@dataclass
class Watch:
    """Resident memory of a process and all its children, sampled while it runs.

    Attributes
    ----------
    pid : int
    samples : list of (float, int, int)
        Time (s since the epoch), bytes, processes.
    """

    pid: int
    samples: list[tuple[float, int, int]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Sample until told to stop."""
        while not self.stop.wait(SAMPLE_S):
            try:
                parent = psutil.Process(self.pid)
                alive = [parent, *parent.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            found = [size for size in map(_resident, alive) if size]
            self.samples.append((time.time(), sum(found), len(found)))

    def peak(self, start: float = 0.0, end: float = float("inf")) -> int:
        """Most bytes between two times."""
        return max((size for at, size, _ in self.samples if start <= at <= end), default=0)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def watched(command: list[str]) -> tuple[list[dict[str, Any]], Watch]:
    """Run a command; return the JSON objects it prints, one a line, and its memory over time."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watch = Watch(process.pid)
    thread = threading.Thread(target=watch.run)
    thread.start()
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(json.loads(line))
            notes.print(f"  {_said(lines[-1])}", highlight=False)
        if process.wait():
            raise SystemExit(f"failed: {' '.join(command)}")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        watch.stop.set()
        thread.join()
    return lines, watch


def _said(line: dict[str, Any]) -> str:
    return f"{line['what']}: {line['end'] - line['start']:.1f} s {line.get('detail', '')}"


def build_stores(args: argparse.Namespace) -> None:
    """Build the stores named, one after the other, in this process; a JSON line for each."""
    from sherlock_data.build import Options, build
    from sherlock_data.catalog import load_catalog
    from sherlock_data.scan import resolve

    start, used = time.time(), time.process_time()
    catalog = load_catalog(args.raw / "full_size.yaml")
    scan = resolve("synth", catalog.dataset("synth"), args.raw)
    for name in args.build:
        outcomes = build(scan, catalog, args.stores, [name], Options())
        detail = next(outcome.detail for outcome in outcomes if outcome.store == name)
        end, cpu = time.time(), time.process_time()
        times = {"start": start, "end": end, "cpu": cpu - used}
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        line = {"what": name, **times, "detail": detail, "peak_bytes": peak}
        print(json.dumps(line), flush=True)
        start, used = end, cpu


def peer(args: argparse.Namespace) -> None:
    """Mask the first subject into memory with nilearn, the mask being given."""
    from nilearn.maskers import NiftiMasker

    from sherlock_data import store
    from sherlock_data.images import to_nifti

    volumes = store.open_store(args.stores / "synth" / "volumes.zarr")
    masker = NiftiMasker(to_nifti(volumes["mask"]), standardize=None, dtype="float32")
    path = min((args.raw / "bold").iterdir())
    start, used = time.time(), time.process_time()
    values = masker.fit_transform(str(path))
    times = {"start": start, "end": time.time(), "cpu": time.process_time() - used}
    print(json.dumps({"what": "NiftiMasker", **times, "detail": f"{values.shape[1]:,} voxels"}))


def make_raw(folder: Path, subjects: int, seed: int) -> float:
    """Make the raw files; return seconds."""
    from sherlock_data.synthetic import synth

    start = time.perf_counter()
    synth(folder, size="full", subjects=subjects, seed=seed)
    return time.perf_counter() - start


def write_catalog(args: argparse.Namespace) -> list[str]:
    """Lay a pca store per number of components over synth's own catalogue; return their names."""
    document = yaml.safe_load((args.raw / "catalog.yaml").read_text())
    entry = document["datasets"]["synth"]
    names = [f"pca-{k}" for k in args.components]
    recipe = {"kind": "pca", "of": "voxels", "memory_gb": args.memory_gb}
    for name, components in zip(names, args.components, strict=True):
        entry["stores"][name] = {**recipe, "components": components}
    entry["subjects"] = [f"sub-{subject:02d}" for subject in range(1, args.subjects + 1)]
    (args.raw / "full_size.yaml").write_text(yaml.safe_dump(document))
    return names


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Build, mask and measure; times of the peer are taken before, between and after."""
    me = [sys.executable, __file__, "--raw", str(args.raw), "--stores", str(args.stores)]
    pca = write_catalog(args)
    rows: list[dict[str, Any]] = []
    masked, peaks = [], []
    groups = [["volumes"], list(STORES[1:]), *([name] for name in pca)]
    for group in groups:
        lines, watch = watched([*me, "--build", *group])
        for line in lines:
            path = args.stores / "synth" / f"{line['what']}.zarr"
            rows.append(
                {
                    "store": line["what"],
                    "seconds": line["end"] - line["start"],
                    "cpu": line["cpu"],
                    "peak_bytes": watch.peak(line["start"], line["end"]),
                    "processes": max((n for *_, n in watch.samples), default=0),
                    "bytes": sum(p.stat().st_size for p in path.rglob("*") if p.is_file()),
                    "detail": line["detail"],
                }
            )
        # the system's own count of one process misses no moment between two samples
        peaks += [watch.peak(), *(line["peak_bytes"] for line in lines)]
        if len(masked) < args.repeats:
            masked.append(_peer(me))
    while len(masked) < args.repeats:
        masked.append(_peer(me))
    return {"rows": rows, "peer": masked, "peak_bytes": max(peaks)}


def _peer(me: list[str]) -> dict[str, float]:
    lines, watch = watched([*me, "--peer"])
    seconds = lines[0]["end"] - lines[0]["start"]
    return {"seconds": seconds, "cpu": lines[0]["cpu"], "peak_bytes": watch.peak()}


def summarise(args: argparse.Namespace, found: dict[str, Any]) -> dict[str, Any]:
    """Totals and ratios beside the goals."""
    rows = found["rows"]
    plain = [row for row in rows if row["store"] in STORES]
    summary: dict[str, Any] = {
        "subjects": args.subjects,
        "volumes": VOLUMES,
        "shape": list(SHAPE),
        "memory_gb": args.memory_gb,
        **found,
        "peer_peak_bytes": max(row["peak_bytes"] for row in found["peer"]),
        "bytes": sum(row["bytes"] for row in rows),
        "raw_bytes": sum(p.stat().st_size for p in _bold(args)),
    }
    for key in ("seconds", "cpu"):
        peer = statistics.median(row[key] for row in found["peer"]) * args.subjects
        without, every = (sum(row[key] for row in some) for some in (plain, rows))
        summary |= {
            f"peer_{key}": peer,
            f"{key}_without_pca": without,
            key: every,
            f"{key}_ratio_without_pca": without / peer,
            f"{key}_ratio": every / peer,
        }
    return summary


def _bold(args: argparse.Namespace) -> list[Path]:
    return sorted((args.raw / "bold").iterdir())[: args.subjects]


def show(found: dict[str, Any]) -> None:
    """Print one table, and each goal beside what was measured."""
    n, whole = found["subjects"], found["peer_seconds"]
    table = Table(title=f"{n} subjects of {' x '.join(map(str, SHAPE))} x {VOLUMES:,}")
    for column in ("", "s", f"x {n} peers", "cpu s", "x peers", "peak GiB", "GB on disk", ""):
        table.add_column(column, justify="left" if not column else "right")
    peak, peer_peak = found["peak_bytes"] / 2**30, found["peer_peak_bytes"] / 2**30
    lines: list[tuple[str, float, float, float | None, float | None, str]] = [
        (
            row["store"],
            row["seconds"],
            row["cpu"],
            row["peak_bytes"] / 2**30,
            row["bytes"] / 1e9,
            row["detail"],
        )
        for row in found["rows"]
    ]
    goals = f"goal {GOAL_SHARE:g} x", f"goal {GOAL_GIB:g} GiB"
    lines += [
        (
            "all but pca",
            found["seconds_without_pca"],
            found["cpu_without_pca"],
            None,
            None,
            goals[0],
        ),
        ("all", found["seconds"], found["cpu"], peak, found["bytes"] / 1e9, goals[1]),
        (f"{n} x NiftiMasker", whole, found["peer_cpu"], peer_peak, None, "into memory"),
    ]
    for name, seconds, cpu, gib, gigabytes, detail in lines:
        table.add_row(
            name,
            f"{seconds:.1f}",
            f"{seconds / whole:.2f}",
            f"{cpu:.1f}",
            f"{cpu / found['peer_cpu']:.2f}",
            "" if gib is None else f"{gib:.2f}",
            "" if gigabytes is None else f"{gigabytes:.2f}",
            detail,
            end_section=name == found["rows"][-1]["store"],
        )
    console = Console(width=max(110, Console().width))
    console.print(table)
    console.print(f"raw files: {found['raw_bytes'] / 1e9:.2f} GB", highlight=False)


def announce(args: argparse.Namespace, scratch: Path) -> None:
    """Say what it costs; refuse what the disk cannot hold."""
    cost = estimate(args)
    free = shutil.disk_usage(scratch).free
    notes.print(
        f"{args.subjects} subjects: up to {cost['disk'] / 1e9:.0f} GB of disk "
        f"({free / 1e9:.0f} GB free in {scratch}), about {cost['seconds'] / 60:.0f} minutes, of "
        f"them {cost['pca'] / 60:.0f} for pca at {cost['speed'] / 1e9:.0f} GFLOP/s",
        highlight=False,
        soft_wrap=True,
    )
    if cost["disk"] > free:
        raise SystemExit("the disk is too small: fewer --subjects, or another --folder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=3)
    parser.add_argument("--components", type=int, nargs="*", default=[1000], help="a store each")
    parser.add_argument("--memory-gb", type=float, default=4.0, help="of a pca's arrays")
    parser.add_argument("--repeats", type=int, default=3, help="of the peer's one subject")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work  [default: a temporary one]")
    parser.add_argument("--raw", type=Path, help="files of `synth --size full`, used and kept")
    parser.add_argument("--keep", action="store_true", help="leave files and stores in --folder")
    parser.add_argument("--dry-run", action="store_true", help="only say what it costs")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures there as well")
    parser.add_argument("--stores", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--build", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build or args.peer:
        build_stores(args) if args.build else peer(args)
        return
    if args.keep and args.folder is None:
        parser.error("--keep needs a --folder to keep things in")
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="full-size-", dir=args.folder))
    try:
        announce(args, scratch)
        if args.dry_run:
            return
        if args.raw is None:
            args.raw = scratch / "raw"
            seconds = make_raw(args.raw, args.subjects, args.seed)
            notes.print(f"  synth: {seconds:.1f} s", highlight=False)
        args.stores = scratch / "stores"
        found = summarise(args, measure(args))
        show(found)
        if args.json:
            args.json.write_text(json.dumps(found, indent=1) + "\n")
    finally:
        if not args.keep:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
