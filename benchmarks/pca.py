"""Principal components of rows on disk: ours, scikit-learn's IncrementalPCA, randomized in memory.

Prints one table of one run: seconds on the wall, peak resident memory, and the share of variance
that the components hold of the rows they were fitted on and of rows held out.

    python benchmarks/pca.py                                       3,000 x 20,000 to 500
    python benchmarks/pca.py --rows 16000 --columns 83000 --components 5000 --memory-gb 4
                                        the full size: half an hour or more on two cores, 12 GB of
                                        disk and, for the in-memory peer, of memory
    python benchmarks/pca.py --work ours                           one of them alone

All read the same Zarr array, in chunks of 8 rows as the stores have them. Every measurement runs in
a process of its own, in turn; the variance is measured outside the clock, the same way for all.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from sherlock_data.contract import CHUNK_TRS, SHARD_TRS, compressors
from sherlock_data.decomposition import choose, decompose

Float32 = NDArray[np.float32]

#: share of the variance that no component can hold
WHITE = 0.1


def make_rows(path: Path, rows: int, columns: int, seed: int = 0) -> None:
    """Write ``fit`` and ``held_out`` (a quarter as many): a falling spectrum, and noise.

    Factors fall as 1 / sqrt(rank), over as many as there are rows, on columns that resemble their
    neighbours as smoothed voxels do; one part in ten of the variance is white.
    """
    rng = np.random.default_rng(seed)
    factors = min(rows, columns, 4000)
    weights = rng.standard_normal((factors, columns), dtype=np.float32)
    for shift in (1, 2):
        weights += np.roll(weights, shift, axis=1)
    weights /= np.sqrt(np.arange(1, factors + 1, dtype=np.float32))[:, None]
    weights *= np.sqrt((1 - WHITE) / np.square(weights).sum(axis=0).mean())
    for name, n in {"fit": rows, "held_out": max(1, rows // 4)}.items():
        array = zarr.create_array(
            path / f"{name}.zarr",
            shape=(n, columns),
            chunks=(CHUNK_TRS, columns),
            shards=(SHARD_TRS, columns),
            dtype="float32",
            compressors=compressors(4),
        )
        for start in range(0, n, SHARD_TRS):
            size = min(SHARD_TRS, n - start)
            signal = rng.standard_normal((size, factors), dtype=np.float32) @ weights
            noise = rng.standard_normal((size, columns), dtype=np.float32) * np.sqrt(
                np.float32(0.1)
            )
            array[start : start + size] = signal + noise


class ZarrRows:
    """Rows of an array on disk."""

    def __init__(self, path: Path) -> None:
        self.array = zarr.open_array(path, mode="r")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.array.shape[0]), int(self.array.shape[1])

    def read(self, start: int, stop: int) -> Float32:
        """Inflate some rows."""
        return np.asarray(self.array[start:stop], dtype=np.float32)


Fitted = tuple[Float32, NDArray[Any], str]


def ours(path: Path, args: argparse.Namespace) -> Fitted:
    rows = ZarrRows(path)
    method = choose(rows.shape, args.components, args.memory_gb * 1e9, args.solver)
    found = decompose(rows, args.components, method)
    how = method.solver if method.lapack or method.solver == "subspace" else "gram, iterated"
    return found.loadings, found.mean, f"{how}, blocks of {method.block} rows"


def incremental(path: Path, args: argparse.Namespace) -> Fitted:
    from sklearn.decomposition import IncrementalPCA

    rows = ZarrRows(path)
    model = IncrementalPCA(args.components)
    edges = list(range(0, rows.shape[0], args.components))
    # the last batch takes the rest: one smaller than the components is refused
    edges = edges[: rows.shape[0] // args.components]
    for start, stop in zip(edges, [*edges[1:], rows.shape[0]], strict=True):
        model.partial_fit(rows.read(start, stop))
    return model.components_, model.mean_, f"batches of {args.components} rows"


def in_memory(path: Path, args: argparse.Namespace) -> Fitted:
    from sklearn.decomposition import PCA

    rows = ZarrRows(path)
    model = PCA(args.components, svd_solver="randomized", random_state=0)
    model.fit(rows.read(0, rows.shape[0]))
    return model.components_, model.mean_, "scikit-learn's own iterations"


WORK: dict[str, tuple[str, Callable[[Path, argparse.Namespace], Fitted]]] = {
    "ours": ("sherlock_data.decomposition", ours),
    "incremental": ("IncrementalPCA", incremental),
    "in-memory": ("randomized, in memory", in_memory),
}


def share_held(path: Path, loadings: Float32, mean: NDArray[Any]) -> float:
    """Share of the rows' squared distance to the mean that lies along the components."""
    rows, held, total = ZarrRows(path), 0.0, 0.0
    centre = np.asarray(mean, dtype=np.float32)
    for start in range(0, rows.shape[0], SHARD_TRS):
        block = rows.read(start, min(start + SHARD_TRS, rows.shape[0])) - centre
        held += float(np.square(block @ loadings.T, dtype=np.float64).sum())
        total += float(np.square(block, dtype=np.float64).sum())
    return held / total


def measure(args: argparse.Namespace, work: str, folder: Path) -> dict[str, Any]:
    """Run one piece of work in a process of its own."""
    command = [sys.executable, __file__, "--run", work, "--folder", str(folder)]
    for key in ("components", "memory_gb", "solver"):
        command += [f"--{key.replace('_', '-')}", str(getattr(args, key))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def run(args: argparse.Namespace) -> None:
    """Fit, then measure; one JSON object to stdout."""
    start = time.perf_counter()
    loadings, mean, how = WORK[args.run][1](args.folder / "fit.zarr", args)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    loadings = np.ascontiguousarray(loadings, dtype=np.float32)
    shares = {
        name: share_held(args.folder / f"{name}.zarr", loadings, mean)
        for name in ("fit", "held_out")
    }
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "how": how, **shares}))


def show(args: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> None:
    title = f"{args.rows:,} x {args.columns:,} to {args.components:,}, memory_gb {args.memory_gb:g}"
    table = Table(title=title)
    for column in ("", "s", "ours / it", "peak GB", "fitted on", "held out", "how"):
        table.add_column(column, justify="left" if column in ("", "how") else "right")
    for work, row in rows.items():
        ratio = rows["ours"]["seconds"] / row["seconds"] if "ours" in rows else float("nan")
        table.add_row(
            WORK[work][0],
            f"{row['seconds']:.1f}",
            f"{ratio:.2f}",
            f"{row['peak_bytes'] / 1e9:.2f}",
            f"{100 * row['fit']:.2f} %",
            f"{100 * row['held_out']:.2f} %",
            row["how"],
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--columns", type=int, default=20_000)
    parser.add_argument("--components", type=int, default=500)
    parser.add_argument("--memory-gb", type=float, default=1.0, help="of our arrays")
    parser.add_argument("--solver", choices=("auto", "gram", "subspace"), default="auto")
    parser.add_argument("--work", choices=WORK, action="append", help="default: all")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures there as well")
    parser.add_argument("--keep", type=Path, help="keep the rows there and use them again")
    parser.add_argument("--run", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(args)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        if not (folder / "fit.zarr").exists():
            make_rows(folder, args.rows, args.columns)
        works = args.work or list(WORK)
        rows = {work: measure(args, work, folder) for work in works}
        show(args, rows)
        if args.json:
            keys = ("rows", "columns", "components", "memory_gb", "solver")
            found = {**{key: getattr(args, key) for key in keys}, "works": rows}
            args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
