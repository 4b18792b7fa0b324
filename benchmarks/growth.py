"""Twice the volumes per subject: how far peak memory stays flat, and time linear.

Builds all BOLD stores of two subjects of 61 x 73 x 61 with 512, 1,024 and 2,048 volumes (or
``--volumes`` and ``--doublings``) and prints peak resident memory and time beside what they were
before the doubling. ``pca`` has a process of its own: it may take what ``memory_gb`` allows.

    python benchmarks/growth.py
    python benchmarks/growth.py --volumes 494     up to the real 1,976

The bound: memory of all stores but pca, above that of the imports, grows by no more than 15 % a
doubling (a few bytes per voxel and shard of 128 TRs are its only reason to), processor seconds of
all by no more than 2.3 times. pca takes no more than ``memory_gb`` and what one store takes.
Processor seconds are compared, since a busy machine stretches those on the wall.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from build import SHAPE, brain_mask, header_bytes
from reference import TR_S
from rich.console import Console
from rich.table import Table

STORES = ("volumes", "voxels", "grey", "coarse", "parcels")
COMPONENTS, MEMORY_GB = 20, 0.25
SUBJECTS = 2
#: edge of a parcel in voxels
PARCEL = 8
#: share that memory may grow by, and factor of the time, when the volumes double
MEMORY_BOUND, TIME_BOUND = 0.15, 2.3
MASTERS = 24


def make_raw(folder: Path, volumes: int) -> None:
    """Write subjects of smooth noise, an atlas of blocks, and a catalogue."""
    import nibabel
    from build import AFFINE
    from isal import igzip
    from scipy.ndimage import gaussian_filter

    brain = brain_mask()
    for subject in range(1, SUBJECTS + 1):
        rng = np.random.default_rng(subject)
        noise = rng.standard_normal((MASTERS, *brain.shape), dtype=np.float32)
        # a few volumes, mixed anew for each: drawing every voxel of every volume takes minutes
        masters = np.where(brain, gaussian_filter(noise, (0, 1, 1, 1)), np.float32(0))
        with igzip.open(folder / f"s{subject}.nii.gz", "wb", compresslevel=1) as file:
            file.write(header_bytes(volumes))
            for _ in range(volumes):
                pick = rng.choice(MASTERS, 3, replace=False)
                mix = rng.standard_normal(3).astype(np.float32)
                file.write(np.tensordot(mix, masters[pick], axes=1).tobytes())
    i, j, k = (axis // PARCEL for axis in np.indices(SHAPE))
    blocks = (1 + i + 8 * j + 80 * k) * brain.T
    labels = nibabel.Nifti1Image(blocks.astype(np.int32), AFFINE)
    labels.header.set_sform(AFFINE, 4)
    nibabel.save(labels, folder / "blocks.nii.gz")
    (folder / "catalog.yaml").write_text(
        f"datasets:\n  bench:\n    repetition_time_s: {TR_S}\n    bold: s{{subject}}.nii.gz\n"
        "    atlas: blocks\n    stores:\n"
        f"      pca: {{components: {COMPONENTS}, memory_gb: {MEMORY_GB}}}\n"
        "atlases:\n  blocks: {image: blocks.nii.gz}\n"
    )


def build_some(raw: Path, out: Path, names: Sequence[str]) -> dict[str, Any]:
    """Build stores; time and peak of this process, which does nothing else."""
    # imports are no part of the work
    import sherlock_data.representations.parcels
    import sherlock_data.representations.pca
    import sherlock_data.representations.voxels
    import sherlock_data.stimulus.annotations
    import sherlock_data.stimulus.stimulus_store  # noqa: F401
    from sherlock_data.build import Options, build
    from sherlock_data.catalog import load_catalog
    from sherlock_data.scan import resolve

    catalog = load_catalog(raw / "catalog.yaml")
    imported, start, used = peak_bytes(), time.perf_counter(), time.process_time()
    scan = resolve("bench", catalog.dataset("bench"), raw)
    build(scan, catalog, out, names, Options(workers=SUBJECTS))
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - used,
        "peak_bytes": peak_bytes(),
        "own_bytes": peak_bytes() - imported,
        "bytes": sum(p.stat().st_size for p in out.rglob("*") if p.is_file()),
    }


def peak_bytes() -> int:
    """Most resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(volumes: int, folder: Path) -> dict[str, Any]:
    """Make the files, and build: all stores but pca in one process, pca in another."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        raw = Path(scratch) / "raw"
        raw.mkdir()
        make_raw(raw, volumes)
        command = [sys.executable, __file__, "--raw", str(raw), "--out", f"{scratch}/stores"]
        found = [_run([*command, "--build", *names]) for names in (STORES, ("pca",))]
    stores, pca = found
    both = {key: stores[key] + pca[key] for key in ("seconds", "cpu")}
    return {"volumes": volumes, **both, "bytes": pca["bytes"], "stores": stores, "pca": pca}


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(rows: list[dict[str, Any]]) -> None:
    """Add to each row how it grew from the one before, and whether it keeps the bounds."""
    for row in rows:
        allowed = MEMORY_GB * 1e9 + row["stores"]["own_bytes"]
        row["within"] = row["pca"]["own_bytes"] <= allowed
    for before, row in pairwise(rows):
        row["memory_growth"] = row["stores"]["own_bytes"] / before["stores"]["own_bytes"] - 1
        row["time_factor"] = row["cpu"] / before["cpu"]
        row["within"] &= row["memory_growth"] <= MEMORY_BOUND and row["time_factor"] <= TIME_BOUND


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"{SUBJECTS} subjects of {' x '.join(map(str, SHAPE))}: all BOLD stores")
    pca = f"GiB of pca ({MEMORY_GB:g} GB)"
    for column in ("volumes", "s", "cpu s", "x before", "GiB of stores", "grown", pca, "GB"):
        table.add_column(column, justify="right")
    for row in rows:
        grown = "" if "memory_growth" not in row else f"{100 * row['memory_growth']:+.1f} %"
        factor = "" if "time_factor" not in row else f"{row['time_factor']:.2f}"
        table.add_row(
            f"{row['volumes']:,}",
            f"{row['seconds']:.1f}",
            f"{row['cpu']:.1f}",
            factor,
            f"{row['stores']['own_bytes'] / 2**30:.2f}",
            grown,
            f"{row['pca']['own_bytes'] / 2**30:.2f}",
            f"{row['bytes'] / 1e9:.2f}",
        )
    console = Console(width=100)
    console.print(table)
    console.print("memory above that of the imports, each process's own peak", highlight=False)
    said = "within" if all(row["within"] for row in rows) else "BEYOND"
    console.print(
        f"{said} the bounds: stores +{100 * MEMORY_BOUND:.0f} %, time x {TIME_BOUND:g} a doubling; "
        "pca its setting beside what the stores take",
        highlight=False,
        soft_wrap=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", type=int, default=512, help="of the shortest series")
    parser.add_argument("--doublings", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work  [default: a temporary one]")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures there as well")
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--build", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.raw:
        print(json.dumps(build_some(args.raw, args.out, args.build)))
        return
    rows = []
    for step in range(args.doublings + 1):
        rows.append(measure(args.volumes * 2**step, args.folder))
        print(json.dumps(rows[-1]), file=sys.stderr)
    compare(rows)
    show(rows)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
