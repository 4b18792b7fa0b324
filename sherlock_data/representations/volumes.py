"""``volumes``: every volume on its grid, out of one pass over each subject's files.

``bold (subject, time, x, y, z)`` keeps NIfTI's order on disk (x fastest) through a transpose codec,
so that a block of the stream reaches the compressor as it is. Where there is signal, which volumes
are valid, and the hash of the input come out of the same pass.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from sherlock_data import mask, nifti, store
from sherlock_data.catalog import Catalog
from sherlock_data.provenance import describe_file
from sherlock_data.quality import VolumeCheck
from sherlock_data.recipes import VolumesRecipe
from sherlock_data.representations import derived
from sherlock_data.representations.series import chunk_trs
from sherlock_data.scan import Scan
from sherlock_data.store import ArraySpec, Results, StorePlan

FloatArray = NDArray[np.float32]

#: a chunk of a small grid takes more TRs, until it is about this large
CHUNK_BYTES = 1024 * 1024
#: threads that compress and write while the next block is inflated
WRITERS = 2


@dataclass(frozen=True)
class Piece:
    """A stretch of a subject's TRs: one file, or a run that has none.

    Attributes
    ----------
    start, volumes : int
        First TR and how many.
    path : str or None
    name : str
        The file's name among the store's inputs, or the run's.
    """

    start: int
    volumes: int
    path: str | None
    name: str


@dataclass(frozen=True)
class VolumesPart:
    """One subject's volumes.

    Attributes
    ----------
    name : str
        Subject.
    weight : float
        Bytes to inflate.
    row : int
    shape : tuple of int
        Grid, (x, y, z).
    pieces : tuple of Piece
        In order, covering every TR.
    """

    name: str
    weight: float
    row: int
    shape: tuple[int, int, int]
    pieces: tuple[Piece, ...]

    def run(self, path: str, report: Callable[[float], None]) -> Results:
        """Write the subject's volumes; return ``signal_fraction``, ``valid``, hashes, problems."""
        bold = store.stored_view(path, "bold", "r+")
        chunk = bold.chunks[1]
        reading = _Reading(self)
        signal = SignalCount(self.shape[::-1])
        pending: deque[Future[None]] = deque()
        with ThreadPoolExecutor(WRITERS, thread_name_prefix="zarr") as pool:
            try:
                for first, block in aligned(reading.blocks(chunk), chunk):
                    pending.append(pool.submit(self._write, bold, first, block))
                    signal.add(block)
                    if len(pending) > WRITERS:
                        pending.popleft().result()
                    report((first + len(block)) / reading.volumes)
                for future in pending:
                    future.result()
            finally:
                pool.shutdown(cancel_futures=True)
        valid = reading.valid()
        for tr in np.flatnonzero(~valid).tolist():
            signal.add(np.asarray(bold[self.row, tr : tr + 1]), sign=-1)
        return {
            "signal_fraction": signal.fraction(int(valid.sum())),
            "valid": valid,
            "problems": np.array(json.dumps(reading.problems())),
            **{f"sha256/{name}": np.array(digest) for name, digest in reading.hashes.items()},
        }

    def _write(self, bold: zarr.Array[Any], first: int, block: FloatArray) -> None:
        bold[self.row : self.row + 1, first : first + len(block)] = block[None]


class _Reading:
    """The stream of a subject's volumes over all its pieces, with what is learnt on the way."""

    def __init__(self, part: VolumesPart) -> None:
        self.part = part
        self.volumes = sum(piece.volumes for piece in part.pieces)
        self.checks: list[VolumeCheck | None] = []
        self.hashes: dict[str, str] = {}

    def blocks(self, size: int) -> Iterator[FloatArray]:
        """Yield blocks (n, z, y, x) of at most ``size`` volumes, every TR once."""
        grid = self.part.shape[::-1]
        for piece in self.part.pieces:
            if piece.path is None:
                self.checks.append(None)
                for start in range(0, piece.volumes, size):
                    count = min(size, piece.volumes - start)
                    yield np.full((count, *grid), np.nan, dtype=np.float32)
                continue
            check = VolumeCheck()
            self.checks.append(check)
            with nifti.stream(piece.path, size) as volumes:
                for _, block in volumes:
                    check.update(block)
                    yield block
            self.hashes[piece.name] = volumes.sha256

    def valid(self) -> NDArray[np.bool_]:
        """Whether each TR was scanned and holds signal, shape (time,)."""
        return np.concatenate(
            [
                np.zeros(piece.volumes, dtype=bool) if check is None else check.valid()
                for piece, check in zip(self.part.pieces, self.checks, strict=True)
            ]
        )

    def problems(self) -> list[dict[str, str]]:
        """Return what a reader must know, as the contract's objects."""
        return [
            problem.to_dict()
            for piece, check in zip(self.part.pieces, self.checks, strict=True)
            if check is not None
            for problem in check.problems(self.part.name, piece.start)
        ]


class SignalCount:
    """How often each voxel is finite and nonzero, in stored order (z, y, x)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = np.zeros(shape, dtype=np.int32)

    def add(self, block: FloatArray, sign: int = 1) -> None:
        """Count a block (n, z, y, x); with ``sign=-1`` take it back."""
        few = np.zeros(self.count.shape, dtype=np.uint8)
        for start in range(0, len(block), 255):
            few[:] = 0
            for volume in block[start : start + 255]:
                size = np.abs(volume)
                # false for NaN and infinity alike
                few += (size > 0) & (size < np.inf)
            self.count += sign * few.astype(np.int32)

    def fraction(self, volumes: int) -> FloatArray:
        """Share of ``volumes``, shape (x, y, z); NaN when there are none."""
        if not volumes:
            return np.full(self.count.shape[::-1], np.nan, dtype=np.float32)
        return np.ascontiguousarray((self.count / volumes).astype(np.float32).T)


def aligned(blocks: Iterator[FloatArray], chunk: int) -> Iterator[tuple[int, FloatArray]]:
    """Cut blocks anew at multiples of ``chunk``, so that no chunk is written twice.

    A block that fits is passed on untouched; one across a chunk's edge (a second file seldom starts
    on one) is copied.

    Yields
    ------
    first : int
        Position of the first volume.
    block : ndarray of float32, shape (n, z, y, x)
        ``chunk`` volumes; the last may be fewer.
    """
    first, held = 0, 0
    buffer: FloatArray | None = None
    for block in blocks:
        if held == 0 and len(block) == chunk:
            yield first, block
            first += chunk
            continue
        while len(block):
            if buffer is None:
                buffer = np.empty((chunk, *block.shape[1:]), dtype=np.float32)
            taken = block[: chunk - held]
            buffer[held : held + len(taken)] = taken
            held, block = held + len(taken), block[len(taken) :]
            if held == chunk:
                yield first, buffer
                first, held, buffer = first + chunk, 0, None
    if buffer is not None and held:
        yield first, buffer[:held]


def plan(scan: Scan, recipe: VolumesRecipe, out: Path, catalog: Catalog) -> StorePlan:
    """Plan a volumes store: one part per subject.

    Parameters
    ----------
    scan : Scan
        A run of which a subject has no file becomes NaN, with ``valid`` False.
    recipe : VolumesRecipe
    out : Path
    catalog : Catalog
    """
    shape = scan.header.grid.shape
    grid_size = scan.header.grid.size
    chunk = chunk_trs(grid_size, CHUNK_BYTES)
    parts = [_part(scan, subject, row) for row, subject in enumerate(scan.subjects)]
    inputs = [
        describe_file(Path(piece.path), piece.name)
        for part in parts
        for piece in part.pieces
        if piece.path is not None
    ]
    inputs += derived.mask_inputs(scan, recipe.mask)
    bold = ArraySpec(
        dims=("subject", "time", "x", "y", "z"),
        shape=(len(parts), scan.clock.volumes, *shape),
        dtype="float32",
        chunks=(1, chunk, *shape),
        fill_value=float("nan"),
        stored_order=(0, 1, 4, 3, 2),
        attrs={"long_name": "BOLD, as recorded", "units": "1"},
    )
    problems = [problem.to_dict() for problem in scan.problems]

    def finish(results: dict[str, Results]) -> xr.Dataset:
        ordered = [results[subject] for subject in scan.subjects]
        for result in ordered:
            problems.extend(json.loads(str(result["problems"])))
        return _finish(scan, recipe, ordered)

    return StorePlan(
        path=out,
        attrs=derived.attrs_of(scan, recipe, out),
        inputs=inputs,
        coords=xr.Dataset(
            coords={
                **derived.base_coords(scan, scan.header.grid),
                **scan.header.grid.axis_coordinates(),
            }
        ),
        arrays={"bold": bold},
        parts=list(parts),
        finish=finish,
        memory_bytes=12 * chunk * grid_size * 4,
        problems=problems,
    )


def _part(scan: Scan, subject: str, row: int) -> VolumesPart:
    """Pieces of one subject, from one file of all runs or from one per run."""
    files = scan.files[subject]
    whole = files.get(None)
    if whole is not None:
        pieces = [Piece(0, scan.clock.volumes, str(whole), scan.name_of(whole))]
    else:
        pieces = []
        for run in scan.clock.runs:
            file = files.get(run.name)
            start = scan.clock.run_offsets[run.name]
            pieces.append(
                Piece(start, run.volumes, None, run.name)
                if file is None
                else Piece(start, run.volumes, str(file), scan.name_of(file))
            )
    return VolumesPart(
        name=subject,
        weight=float(scan.clock.volumes) * scan.header.grid.size * 4,
        row=row,
        shape=scan.header.grid.shape,
        pieces=tuple(pieces),
    )


def _finish(scan: Scan, recipe: VolumesRecipe, results: list[Results]) -> xr.Dataset:
    """Make the mask out of every subject's share of volumes with signal."""
    fraction = np.stack([result["signal_fraction"] for result in results])
    made, has_signal = mask.make(fraction, scan.header.grid, recipe.mask, scan.raw)
    space = ("x", "y", "z")
    small = xr.Dataset(
        {
            "valid": (
                ("subject", "time"),
                np.stack([result["valid"] for result in results]),
                {"long_name": "neither missing nor constant"},
            ),
            "mask": (space, made, {"long_name": "voxels of the brain, by the recipe's rule"}),
            "has_signal": (("subject", *space), has_signal, {"long_name": "subject has signal"}),
            "signal_fraction": (
                ("subject", *space),
                fraction,
                {"long_name": "share of valid volumes that are finite and nonzero"},
            ),
        }
    )
    small.attrs["mask_voxels"] = int(made.sum())
    return small
