"""One subject to ``volumes`` + ``voxels``: ours, nilearn's NiftiMasker, and what cannot be beaten.

Prints one table of one run: seconds on the wall and of the processors (a busy machine stretches the
first alone), ratio to the peer, peak resident memory of the process.

    python benchmarks/build.py                  61 x 73 x 61 x 1976, float32, gzipped
    python benchmarks/build.py --volumes 200    a shorter series
    python benchmarks/build.py --keep DIR       keep (and next time reuse) the input there

Ours also hashes the input, finds invalid volumes and signal, writes checksummed chunks to disk and
computes mean and standard deviation; the peer only masks into memory. Every measurement runs in a
process of its own, in turn, ``--repeats`` times; the median is shown.
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
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from reference import TR_S
from rich.console import Console
from rich.table import Table

SHAPE = (61, 73, 61)
AFFINE = np.array([[3.0, 0, 0, -90], [0, 3, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]])
NAME = "sherlock_movie_s1.nii.gz"


def brain_mask() -> NDArray[np.bool_]:
    """Nilearn's MNI152 brain on the grid, (z, y, x), as large as the published masks."""
    from nilearn.datasets import load_mni152_brain_mask
    from scipy.ndimage import binary_dilation

    from sherlock_data.grid import Grid, on_grid

    brain = on_grid(load_mni152_brain_mask(resolution=1), Grid(SHAPE, AFFINE, "MNI152"), "nearest")
    return np.asarray(binary_dilation(brain > 0).T)


def header_bytes(volumes: int) -> bytes:
    """NIfTI-1 header of float32 on the grid, padded to where the data begin."""
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((*SHAPE, volumes))
    header.set_sform(AFFINE, 4)
    header.set_zooms((3, 3, 3, TR_S))
    header.set_xyzt_units("mm", "sec")
    header["vox_offset"], header["magic"] = 352, header.single_magic
    return bytes(header.binaryblock) + b"\0" * 4


def make_input(path: Path, volumes: int, seed: int = 0) -> None:
    """Write smooth noise inside nilearn's MNI152 brain, two runs in one file, like the data."""
    from isal import igzip
    from scipy.ndimage import gaussian_filter

    brain = brain_mask()
    rng = np.random.default_rng(seed)
    part = path.with_suffix(".part")
    with igzip.open(part, "wb", compresslevel=2) as file:
        file.write(header_bytes(volumes))
        previous = np.zeros(brain.shape, dtype=np.float32)
        for _ in range(volumes):
            fresh = gaussian_filter(rng.standard_normal(brain.shape, dtype=np.float32), 0.85)
            previous = np.float32(0.5) * previous + fresh
            file.write(np.where(brain, previous, np.float32(0)).tobytes())
    part.replace(path)


def ours(raw: Path, out: Path) -> dict[str, float]:
    """Build both stores and say how large they are."""
    # imports are no part of the work, here as for the peer
    import sherlock_data.representations.voxels
    import sherlock_data.stimulus.annotations
    import sherlock_data.stimulus.stimulus_store  # noqa: F401
    from sherlock_data.build import Options, build
    from sherlock_data.catalog import load_catalog
    from sherlock_data.scan import resolve

    catalog = load_catalog(raw / "catalog.yaml")
    shutil.rmtree(out, ignore_errors=True)
    start, used = time.perf_counter(), time.process_time()
    scan = resolve("bench", catalog.dataset("bench"), raw)
    begun = time.perf_counter()
    build(scan, catalog, out, ["volumes"], Options(workers=1))
    middle = time.perf_counter()
    build(scan, catalog, out, ["voxels"], Options(workers=1))
    end = time.perf_counter()
    stored = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    return {
        "seconds": end - start,
        "cpu": time.process_time() - used,
        "resolve": begun - start,
        "volumes": middle - begun,
        "voxels": end - middle,
        "stored_bytes": stored,
    }


def peer(raw: Path, out: Path) -> dict[str, float]:
    """Mask into memory with nilearn, the mask being given."""
    from nilearn.maskers import NiftiMasker

    from sherlock_data import store
    from sherlock_data.images import to_nifti

    volumes = store.open_store(out / "bench" / "volumes.zarr")
    masker = NiftiMasker(to_nifti(volumes["mask"]), standardize=None, dtype="float32")
    start, used = time.perf_counter(), time.process_time()
    values = masker.fit_transform(str(raw / NAME))
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    found = store.open_store(out / "bench" / "voxels.zarr")["bold"][0]
    apart = max(
        float(np.abs(found[t : t + 128].values - values[t : t + 128]).max())
        for t in range(0, len(values), 128)
    )
    return {"seconds": seconds, "cpu": cpu, "voxels": values.shape[1], "apart": apart}


def _inflate(raw: Path, module: str) -> dict[str, float]:
    opener = __import__(module, fromlist=["open"]).open
    buffer = memoryview(bytearray(8 * 2**20))
    start = time.perf_counter()
    with opener(raw / NAME, "rb") as file:
        while file.readinto(buffer):
            pass
    return {"seconds": time.perf_counter() - start}


def isal_limit(raw: Path, out: Path) -> dict[str, float]:
    """Inflate once with ISA-L."""
    return _inflate(raw, "isal.igzip")


def zlib_limit(raw: Path, out: Path) -> dict[str, float]:
    """Inflate once with zlib."""
    return _inflate(raw, "gzip")


WORK: dict[str, tuple[str, Callable[[Path, Path], dict[str, float]]]] = {
    "ours": ("ours: volumes + voxels on disk, statistics, hash, checksums", ours),
    "peer": ("peer: nilearn NiftiMasker, masked voxels in memory", peer),
    "isal": ("limit: inflate once, ISA-L", isal_limit),
    "zlib": ("limit: inflate once, zlib", zlib_limit),
}


def measure(work: str, raw: Path, out: Path) -> dict[str, float]:
    """Run one piece of work in a process of its own."""
    command = [sys.executable, __file__, "--work", work, "--raw", str(raw), "--out", str(out)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return result


def show(rows: dict[str, list[dict[str, float]]], title: str) -> None:
    """Print medians side by side."""
    table = Table(title=title)
    for column in ("", "seconds", "x peer", "cpu s", "peak GiB"):
        table.add_column(column, justify="left" if not column else "right")
    median = {work: statistics.median(r["seconds"] for r in runs) for work, runs in rows.items()}
    for work, runs in rows.items():
        peak = max(r["peak_bytes"] for r in runs) / 2**30
        ratio = median[work] / median["peer"]
        cpu = statistics.median(r["cpu"] for r in runs)
        table.add_row(
            WORK[work][0], f"{median[work]:.2f}", f"{ratio:.2f}", f"{cpu:.2f}", f"{peak:.2f}"
        )
    console = Console()
    console.print(table)
    last = rows["ours"][-1]
    console.print(
        f"ours in parts: resolve {last['resolve']:.2f} s, volumes {last['volumes']:.2f} s, "
        f"voxels {last['voxels']:.2f} s; {last['stored_bytes'] / 1e9:.2f} GB stored; "
        f"{rows['peer'][-1]['voxels']:,.0f} voxels, largest difference to the peer's values "
        f"{max(r['apart'] for r in rows['peer']):g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--volumes", type=int, default=1976)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder of the input, made when it is not there")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures there as well")
    parser.add_argument("--work", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        used = time.process_time()
        result = WORK[args.work][1](args.raw, args.out)
        result.setdefault("cpu", time.process_time() - used)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({**result, "peak_bytes": peak}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        raw = args.keep or Path(scratch) / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        if not (raw / NAME).exists():
            make_input(raw / NAME, args.volumes)
        (raw / "catalog.yaml").write_text(
            "datasets:\n  bench:\n"
            f"    repetition_time_s: {TR_S}\n    bold: sherlock_movie_s{{subject}}.nii.gz\n"
        )
        rows: dict[str, list[dict[str, float]]] = {work: [] for work in WORK}
        for _ in range(args.repeats):
            for work in WORK:
                rows[work].append(measure(work, raw, Path(scratch) / "stores"))
        size = (raw / NAME).stat().st_size / 1e6
        show(
            rows, f"one subject, {' x '.join(map(str, SHAPE))} x {args.volumes}, {size:.0f} MB gzip"
        )
        if args.json:
            found = {"volumes": args.volumes, "shape": list(SHAPE), "raw_mb": size, "rows": rows}
            args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
