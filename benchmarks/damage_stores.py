"""Damage every object of every kind of store in turn; see whether it is found, named and mended.

A tiny dataset has a store of each kind. Each of its objects (chunks, metadata, records, manifest)
is flipped in one random bit, deleted, and cut short at a random byte. After each damage `verify`
must name that object and no other, `build --repair` must mend it, and afterwards every object must
have the bytes and every variable the values that it had.

    python benchmarks/damage_stores.py
    python benchmarks/damage_stores.py --kind voxels --kind pca --every 5
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import nibabel
import numpy as np
import yaml
from reference import TR_S
from rich.console import Console
from rich.progress import track
from rich.table import Table

import sherlock_data as sd
from sherlock_data.build import Options, build
from sherlock_data.catalog import load_catalog
from sherlock_data.scan import resolve
from sherlock_data.verify import verify

KINDS = (
    "volumes",
    "voxels",
    "grey",
    "coarse",
    "parcels",
    "pca",
    "stimulus",
    "annotations",
    "features",
    "frames",
)
SHAPE, VOLUMES = (4, 3, 2), 20
#: 3 mm voxels in the grey matter of nilearn's MNI152 map
AFFINE = np.array([[3.0, 0, 0, -48], [0, 3, 0, -24], [0, 0, 3, 42], [0, 0, 0, 1]])
#: a side file that may be missing; it only saves reading the inputs again
MAY_MISS = "input-times.json"
COUNTS = ("objects", "not_found", "misnamed", "not_mended", "other_bytes", "other_values")


def make_raw(raw: Path, volumes: int = VOLUMES) -> dict[str, Any]:
    """Write two subjects, an atlas, a movie, a sheet and an array; return the catalogue."""
    seconds = round(volumes * TR_S)
    raw.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in (1, 2):
        values = rng.normal(1000, 30, size=(*SHAPE, volumes)).astype(np.float32)
        image = nibabel.Nifti1Image(values, AFFINE)
        image.header.set_zooms((3, 3, 3, TR_S))
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, raw / f"s{number}.nii.gz")
    labels = np.ones(SHAPE, dtype=np.int16)
    labels[0] = 2
    nibabel.save(nibabel.Nifti1Image(labels, AFFINE), raw / "atlas.nii.gz")
    (raw / "atlas.tsv").write_text("index\tname\n1\tleft\n2\tright\n")
    (raw / "sheet.csv").write_text("start,end,music,place\n0,9,yes,here\n9,30,no,there\n")
    source = ["-f", "lavfi", "-i", f"testsrc=s=16x12:r=4:d={seconds}", "-f", "lavfi", "-i"]
    source += [f"sine=frequency=440:sample_rate=8000:duration={seconds}"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *source]
    command += ["-c:v", "ffv1", "-c:a", "pcm_f32le", str(raw / "movie.mkv")]
    subprocess.run(command, check=True, capture_output=True)
    np.save(raw / "planted.npy", rng.normal(size=(volumes, 3)).astype(np.float32))
    clock = {"repetition_time_s": TR_S, "runs": [{"run": "run-1", "volumes": volumes}]}
    (raw / "planted.json").write_text(json.dumps(clock))
    document = {
        "datasets": {
            "tiny": {
                "bold": "s{subject}.nii.gz",
                "repetition_time_s": TR_S,
                "space": "MNI152",
                "atlas": "mine",
                "annotations": "sheet.csv",
                "runs": [{"name": "run-1", "volumes": volumes, "movie": "movie.mkv"}],
            }
        },
        "atlases": {
            "mine": {"image": "atlas.nii.gz", "labels": "atlas.tsv", "space": "MNI152"},
        },
        "stores": {
            "grey": {"kind": "voxels", "mask": {"grey_matter": 0.25}},
            "coarse": {"kind": "voxels", "coarsen": 2},
            "pca": {"kind": "pca", "components": 3, "fit": "random"},
            "stimulus": {
                "kind": "stimulus", "width": 8, "height": 6, "bands": 3, "mfcc": 3, "mel": 4
            },
            "features": {"kind": "features", "files": {"planted": "planted.npy"}},
        },
    }  # fmt: skip
    (raw / "catalog.yaml").write_text(yaml.safe_dump(document))
    return document


def run(raw: Path, out: Path, *names: str, repair: bool = False) -> None:
    """Build or mend stores."""
    catalog = load_catalog(raw / "catalog.yaml")
    scan = resolve("tiny", catalog.dataset("tiny"), raw)
    build(scan, catalog, out, names, Options(workers=1, repair=repair))


def objects(path: Path) -> dict[str, bytes]:
    """Every object of a store but the side file that may be missing."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != MAY_MISS
    }


def flip(file: Path, rng: np.random.Generator) -> None:
    """Turn one random bit."""
    data = bytearray(file.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    file.write_bytes(data)


def delete(file: Path, rng: np.random.Generator) -> None:
    """Take the object away."""
    file.unlink()


def truncate(file: Path, rng: np.random.Generator) -> None:
    """Cut the object at a random byte."""
    data = file.read_bytes()
    file.write_bytes(data[: rng.integers(len(data))])


DAMAGES: tuple[Callable[[Path, np.random.Generator], None], ...] = (flip, delete, truncate)


def damage_all(raw: Path, out: Path, kind: str, every: int, seed: int) -> dict[str, Any]:
    """Damage a store's objects in turn, in each way, and count what went wrong."""
    path, begin = out / "tiny" / f"{kind}.zarr", time.perf_counter()
    rng = np.random.default_rng(seed)
    whole, values = objects(path), sd.open(path).load()
    found = dict.fromkeys(COUNTS, 0)
    found["damages"] = 0
    keys = list(whole)[::every]
    for key in track(keys, kind, console=Console(stderr=True)):
        found["objects"] += 1
        for damage in DAMAGES:
            damage(path / key, rng)
            found["damages"] += 1
            named = [row["key"] for row in verify(path)]
            found["not_found"] += key not in named
            found["misnamed"] += named != [key]
            run(raw, out, kind, repair=True)
            found["not_mended"] += bool(verify(path))
            if objects(path) != whole:
                found["other_bytes"] += 1
            found["other_values"] += not sd.open(path).load().identical(values)
    return {"kind": kind, **found, "seconds": round(time.perf_counter() - begin, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", action="append", choices=KINDS, help="all by default")
    parser.add_argument("--every", type=int, default=1, help="only every n-th object")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    kinds = arguments.kind or KINDS
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder) / "raw", Path(folder) / "stores"
        make_raw(raw)
        run(raw, out, *kinds)
        rows = [damage_all(raw, out, kind, arguments.every, arguments.seed) for kind in kinds]
    table = Table(*rows[0].keys(), title="Damage to every object in turn")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=130).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=2))
    bad = [row for row in rows if any(row[key] for key in COUNTS[1:])]
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
