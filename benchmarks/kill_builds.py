"""Kill builds at random instants, resume them, and count what went wrong.

Every trial builds a tiny dataset (volumes, voxels, parcels, pca, annotations: two subjects, 64
volumes) in a process of its own that is killed by SIGKILL after a random delay, once or twice (one
that was done before is begun anew). What is there is opened as a user would, and the build is then
run to its end. Counted are wrong values, stores that opened half-built, and objects left over, all
against an undisturbed build, byte by byte.

    python benchmarks/kill_builds.py --count 200 --seed 0
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import yaml
from reference import TR_S
from rich.console import Console
from rich.progress import track

import sherlock_data as sd
from sherlock_data.errors import StoreError

NAMES = ("volumes", "voxels", "parcels", "pca", "annotations")
#: a second kill of one build in this share of the trials
TWICE = 0.4
#: imported once, before the processes that are killed part from the server
PRELOAD = [
    "sherlock_data.build",
    "sherlock_data.catalog",
    "sherlock_data.representations.parcels",
    "sherlock_data.representations.pca",
    "sherlock_data.representations.volumes",
    "sherlock_data.representations.voxels",
    "sherlock_data.scan",
    "sherlock_data.stimulus.annotations",
    "sherlock_data.stimulus.features",
    "sherlock_data.stimulus.frames",
    "sherlock_data.stimulus.stimulus_store",
    "dask.array",
    "dask.threaded",
    "distributed",
]
#: a side file that a killed build may lack; it only saves reading the inputs again
MAY_MISS = "input-times.json"


def make_raw(raw: Path) -> None:
    """Two subjects of 64 volumes on a grid of 5 x 4 x 3, an atlas and a sheet."""
    raw.mkdir(parents=True)
    rng, affine = np.random.default_rng(0), np.diag([3.0, 3, 3, 1])
    for number in (1, 2):
        values = rng.normal(1000, 30, size=(5, 4, 3, 64)).astype(np.float32)
        image = nibabel.Nifti1Image(values, affine)
        image.header.set_zooms((3, 3, 3, TR_S))
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, raw / f"s{number}.nii.gz")
    labels = np.zeros((5, 4, 3), dtype=np.int16)
    labels[0], labels[1] = 1, 2
    nibabel.save(nibabel.Nifti1Image(labels, affine), raw / "atlas.nii.gz")
    (raw / "atlas.tsv").write_text("index\tname\n1\tleft\n2\tright\n")
    (raw / "sheet.csv").write_text("start,end,music,place\n0,4,yes,here\n4,9,no,there\n")
    entry = {
        "bold": "s{subject}.nii.gz",
        "repetition_time_s": TR_S,
        "space": "native",
        "atlas": "mine",
        "annotations": "sheet.csv",
    }
    atlas = {"image": "atlas.nii.gz", "labels": "atlas.tsv", "space": "native"}
    document = {
        "datasets": {"tiny": entry},
        "atlases": {"mine": atlas},
        "stores": {"pca": {"kind": "pca", "components": 3}},
    }
    (raw / "catalog.yaml").write_text(yaml.safe_dump(document))


def build_all(raw: Path, out: Path, started: Any = None) -> None:
    """Build every store of the tiny dataset; ``started`` is sent True when it begins."""
    from sherlock_data.build import Options, build
    from sherlock_data.catalog import load_catalog
    from sherlock_data.scan import resolve

    if started is not None:
        started.send(True)
    catalog = load_catalog(raw / "catalog.yaml")
    scan = resolve("tiny", catalog.dataset("tiny"), raw)
    build(scan, catalog, out, NAMES, Options(workers=2))


def run(context: Any, raw: Path, out: Path, kill_after_s: float | None) -> tuple[float, int]:
    """Build in a process; return the seconds it ran and its exit code (-9: killed)."""
    started, theirs = context.Pipe(duplex=False)
    process = context.Process(target=build_all, args=(raw, out, theirs))
    process.start()
    started.recv()
    begin = time.perf_counter()
    process.join(kill_after_s)
    if process.is_alive():
        process.kill()
    process.join()
    started.close()
    theirs.close()
    return time.perf_counter() - begin, int(process.exitcode)


def objects(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != MAY_MISS
    }


def half_built(out: Path, reference: dict[str, bytes]) -> int:
    """Count the stores that open, through this package or plain xarray, and are not right."""
    import xarray as xr

    count = 0
    for name in NAMES:
        path = out / "tiny" / f"{name}.zarr"
        opened = 0
        for opener in (sd.open, xr.open_zarr):
            try:
                opener(str(path))
            except (StoreError, FileNotFoundError):
                continue
            opened += 1
        prefix = f"tiny/{name}.zarr/"
        wanted = {key: data for key, data in reference.items() if key.startswith(prefix)}
        found = objects(out)
        if opened and any(found.get(key) != data for key, data in wanted.items()):
            count += 1
    return count


def wrong_values(out: Path, right: Path) -> int:
    """Count the variables whose values are not those of an undisturbed build."""
    count = 0
    for name in NAMES:
        found, wanted = (sd.open(root / "tiny" / f"{name}.zarr").load() for root in (out, right))
        count += sum(
            variable not in found or not found[variable].identical(wanted[variable])
            for variable in wanted.variables
        )
    return count


def measure(count: int, seed: int, seconds: float | None = None) -> dict[str, Any]:
    """Run the trials; ``seconds``: begin none after that many."""
    rng = np.random.default_rng(seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    found = dict.fromkeys(
        ("trials", "kills", "too_late", "failed", "half_built", "wrong_values", "leftovers"), 0
    )
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        raw, right = Path(folder) / "raw", Path(folder) / "right"
        make_raw(raw)
        run(context, raw, Path(folder) / "warm", None)
        whole_s, _ = run(context, raw, right, None)
        reference = objects(right)
        notes = Console(stderr=True)
        for trial in track(range(count), "killing", console=notes):
            if seconds is not None and time.perf_counter() - begin > seconds:
                break
            out = Path(folder) / f"trial-{trial}"
            killed = 0
            while not killed:
                for _ in range(1 + (rng.random() < TWICE)):
                    _, code = run(context, raw, out, float(rng.uniform(0, whole_s)))
                    killed += code == -9
                    found["half_built"] += half_built(out, reference)
                if not killed:  # the build was done before its hour came
                    found["too_late"] += 1
                    shutil.rmtree(out)
            found["kills"] += killed
            _, code = run(context, raw, out, None)
            found["trials"] += 1
            if code:
                found["failed"] += 1
                continue
            now = objects(out)
            found["leftovers"] += len(now.keys() - reference.keys())
            if now != reference:
                found["wrong_values"] += wrong_values(out, right)
            shutil.rmtree(out)
    return {**found, "seed": seed, "build_s": round(whole_s, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="begin no trial after that many")
    arguments = parser.parse_args()
    found = measure(arguments.count, arguments.seed, arguments.seconds)
    print(json.dumps(found, indent=2))
    bad = ("failed", "half_built", "wrong_values", "leftovers")
    raise SystemExit(1 if any(found[key] for key in bad) else 0)


if __name__ == "__main__":
    main()
