"""What the stores derived from volumes have in common: their source, coordinates and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from nilearn.datasets import load_mni152_brain_mask
from numpy.typing import NDArray

from sherlock_data import contract, mask, store
from sherlock_data.errors import StoreError
from sherlock_data.grid import Grid, on_grid
from sherlock_data.provenance import describe_file, scan_attrs
from sherlock_data.recipes import MaskRule
from sherlock_data.representations.series import SeriesPart, Units, array_spec, shard_trs
from sherlock_data.scan import Scan
from sherlock_data.store import Results, StorePlan


@dataclass(frozen=True)
class Source:
    """A complete volumes store with a mask rule applied.

    Attributes
    ----------
    path : Path
    grid : Grid
    valid : ndarray of bool, shape (subject, time)
    mask : ndarray of bool, shape (x, y, z)
    has_signal : ndarray of bool, shape (subject, x, y, z)
    """

    path: Path
    grid: Grid
    valid: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    has_signal: NDArray[np.bool_]

    @classmethod
    def open(cls, path: Path, rule: MaskRule, raw: Path) -> Source:
        """Read the small variables of a complete volumes store and make the mask."""
        volumes = store.open_store(path)
        grid = Grid.decode(volumes["grid"])
        made, has_signal = mask.make(volumes["signal_fraction"].values, grid, rule, raw)
        return cls(path, grid, volumes["valid"].values, made, has_signal)

    def inputs(self) -> list[dict[str, Any]]:
        """Return the volumes store as an input; its hash covers those of the raw files."""
        return [
            {
                "name": self.path.name,
                "path": str(self.path),
                "bytes": store.bytes_on_disk(self.path),
                "sha256": store.fingerprint(self.path),
            }
        ]


def volumes_path(out: Path) -> Path:
    """Path of the volumes store beside a store."""
    return out.parent / f"volumes{contract.SUFFIX}"


def has_volumes(scan: Scan, out: Path) -> bool:
    """Whether a complete volumes store of this very scan lies beside a store."""
    return is_of(scan, volumes_path(out))


def is_of(scan: Scan, path: Path) -> bool:
    """Whether a BOLD store is complete and of this very scan."""
    if store.state(path) != "complete":
        return False
    found = store.open_store(path)
    return (
        list(found.subject.values) == list(scan.subjects)
        and found.sizes["time"] == scan.clock.volumes
    )


def attrs_of(scan: Scan, recipe: Any, out: Path) -> dict[str, Any]:
    """Attributes of a BOLD store of this scan."""
    affine = np.asarray(scan.header.affine, dtype=np.float64).tolist()
    return {**scan_attrs(scan, recipe, out), "affine": affine}


def mask_inputs(scan: Scan, rule: MaskRule) -> list[dict[str, Any]]:
    """Return the rule's mask file as an input, if it has one."""
    return [] if rule.file is None else [describe_file(scan.raw / rule.file, rule.file)]


def base_coords(scan: Scan, grid: Grid) -> dict[str, xr.Variable]:
    """Coordinates of every BOLD store: subject, time and its companions, grid."""
    return {
        "subject": contract.strings("subject", list(scan.subjects), long_name="subject"),
        **contract.time_coords(scan.clock),
        "grid": contract.strings(
            (), grid.encode(), long_name="shape and affine of the scan's grid"
        ),
    }


def series_plan(
    scan: Scan,
    out: Path,
    attrs: dict[str, Any],
    source: Source,
    dim: str,
    coords: xr.Dataset,
    units: list[Units],
    finish: Callable[[dict[str, Results]], xr.Dataset],
    inputs: list[dict[str, Any]],
    values: dict[str, str],
) -> StorePlan:
    """Plan one part per subject over ``bold (subject, time, dim)``.

    Parameters
    ----------
    units : list of Units
        One per subject.
    values : dict
        Attributes of ``bold``.
    """
    size = units[0].size
    ends = {run.name: scan.clock.run_slice(run.name) for run in scan.clock.runs}
    runs = tuple((piece.start, piece.stop) for piece in ends.values())
    parts = [
        SeriesPart(
            name=subject,
            weight=float(scan.clock.volumes),
            row=row,
            volumes=str(source.path),
            units=units[row],
            valid=source.valid[row],
            runs=runs,
        )
        for row, subject in enumerate(scan.subjects)
    ]
    return StorePlan(
        path=out,
        attrs=attrs,
        inputs=[*source.inputs(), *inputs],
        coords=coords,
        arrays={"bold": array_spec(len(parts), scan.clock.volumes, size, dim, values)},
        parts=list(parts),
        finish=finish,
        memory_bytes=_memory(size, len(units[0].voxel), source.grid.size, scan.clock.volumes),
        problems=list(store.attributes(source.path).get("problems", [])),
    )


def estimated_plan(scan: Scan, out: Path, attrs: dict[str, Any], dim: str, size: int) -> StorePlan:
    """Plan sizes alone, for a dry run while the volumes store is not there yet."""

    def finish(results: dict[str, Results]) -> xr.Dataset:
        raise StoreError(
            "is not complete, and this store derives from it",
            where=volumes_path(out),
            remedy="build volumes first",
        )

    volumes = scan.clock.volumes
    return StorePlan(
        path=out,
        attrs=attrs,
        inputs=[],
        coords=xr.Dataset(),
        arrays={"bold": array_spec(len(scan.subjects), volumes, size, dim, {})},
        parts=[],
        finish=finish,
        memory_bytes=_memory(size, size, int(np.prod(scan.header.shape)), volumes),
    )


def expected_voxels(grid: Grid) -> int:
    """Guess of a mask's size before any scan is read: nilearn's MNI152 brain, or every voxel."""
    if not grid.is_mni:
        return grid.size
    brain = int((on_grid(load_mni152_brain_mask(resolution=2), grid, "nearest") > 0).sum())
    return brain or grid.size


def _memory(units: int, voxels: int, grid_size: int, times: int) -> int:
    """Bytes of a part at its worst: two shards, encoded too, blocks of volumes, moments."""
    rows = min(shard_trs(units, times), times)
    shard = rows * units * 4
    block = contract.CHUNK_TRS * (3 * grid_size * 4 + voxels * 12)
    moments = 24 * units * (2 + times // max(rows, 1))
    return 2 * (3 * shard + block) + moments
