"""``pca``: principal components of a voxels store, fitted on the training TRs of a split.

Legend: S = subjects, T = TRs. One part fits and writes ``loadings``; then one part per subject
writes its scores of all TRs, training or not. Explained variance is measured on these scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sherlock_data import decomposition, store
from sherlock_data.catalog import Catalog
from sherlock_data.contract import SUFFIX, strings
from sherlock_data.errors import CatalogError, StoreError, UnavailableError
from sherlock_data.fitting import SIDES, FittedOn, fit_on
from sherlock_data.grid import Grid
from sherlock_data.recipes import PcaRecipe
from sherlock_data.representations import derived
from sherlock_data.representations.pca_parts import FIT, FitPart, ScorePart, Source, reconstruct
from sherlock_data.representations.series import array_spec
from sherlock_data.scan import Scan
from sherlock_data.standardisation import READ_TRS
from sherlock_data.store import ArraySpec, Results, StorePlan

BoolArray = NDArray[np.bool_]

__all__ = ["plan", "reconstruct"]

#: bytes of one chunk of the loadings: whole components
LOADINGS_BYTES = 4 * 1024 * 1024
#: share of the memory setting that one subject's scores may take, since several run at once
SCORES_SHARE = 0.25

STANDARDISED = (
    "per subject, run and voxel, with mean and standard deviation of the run's valid training TRs "
    "(a run without one: of all its valid TRs), as models see BOLD; invalid TRs and voxels without "
    "signal are 0"
)


def plan(scan: Scan, recipe: PcaRecipe, out: Path, catalog: Catalog) -> StorePlan:
    """Plan a pca store beside the complete voxels store it is fitted on.

    Parameters
    ----------
    scan : Scan
    recipe : PcaRecipe
    out : Path
        The store; while the one it derives from is not complete, the plan knows sizes only.
    catalog : Catalog

    Raises
    ------
    CatalogError
        If ``of`` names no store of kind voxels.
    UnavailableError
        If the split leaves no training TRs, or they cannot span so many components.
    ConfigError
        If the memory setting is too small.
    """
    kind = catalog.recipe(scan.dataset, recipe.of).kind
    if kind != "voxels":
        raise CatalogError(
            f"pca of '{recipe.of}', a store of kind {kind}",
            where=f"stores.{out.name.removesuffix(SUFFIX)}.of",
            remedy="name a store of kind voxels",
        )
    path = out.parent / f"{recipe.of}{SUFFIX}"
    attrs = derived.attrs_of(scan, recipe, out)
    if not derived.is_of(scan, path):
        everything = np.ones((len(scan.subjects), scan.clock.volumes), dtype=bool)
        fitted = fit_on(scan, recipe, catalog, everything)
        _check_rank(recipe, _training(scan, fitted, everything), scan, None)
        return _estimate(scan, recipe, out, attrs)
    voxels = store.open_store(path)
    valid, has_signal = voxels["valid"].values, voxels["has_signal"].values
    fitted = fit_on(scan, recipe, catalog, valid)
    training = _training(scan, fitted, valid)
    _check_rank(recipe, training, scan, int(has_signal.any(axis=0).sum()))
    rows, size = int(training.sum()), voxels.sizes["voxel"]
    budget = _budget(recipe, scan, size)
    method = decomposition.choose((rows, size), recipe.components, budget, recipe.solver)
    attrs |= {"fitted_on": fitted.describe(), "standardised": STANDARDISED, "solver": method.solver}
    source = Source(
        path=str(path),
        starts=tuple(scan.clock.run_offsets.values()),
        valid=valid,
        has_signal=has_signal,
        training=training,
        sides=np.stack([_side(scan, fitted, side, valid) for side in SIDES]),
        fit_trs=fitted.brain_trs("train"),
    )
    fit = FitPart(source, recipe.components, method, recipe.seed, weight=float(rows))
    scores = [
        ScorePart(name, row, source, int(recipe.memory_gb * 1e9 * SCORES_SHARE), weight)
        for row, (name, weight) in enumerate(
            (name, 0.5 * scan.clock.volumes) for name in scan.subjects
        )
    ]
    return StorePlan(
        path=out,
        attrs=attrs,
        inputs=[
            {
                "name": path.name,
                "path": str(path),
                "bytes": store.bytes_on_disk(path),
                "sha256": store.fingerprint(path),
            }
        ],
        coords=_coords(scan, voxels, recipe.components),
        arrays=_arrays(scan, recipe.components, size),
        parts=[fit, *scores],
        finish=lambda results: _finish(results, scan, recipe),
        after={part.name: (FIT,) for part in scores},
        memory_bytes=int(recipe.memory_gb * 1e9),
        problems=list(store.attributes(path).get("problems", [])),
    )


def _side(scan: Scan, fitted: FittedOn, side: str, valid: BoolArray) -> BoolArray:
    """Return the valid brain TRs of a side, (S, T)."""
    mine = np.isin(scan.subjects, fitted.split.subjects(side))
    there = np.zeros(valid.shape[1], dtype=bool)
    there[fitted.brain_trs(side)] = True
    return np.asarray(valid & mine[:, None] & there)


def _training(scan: Scan, fitted: FittedOn, valid: BoolArray) -> BoolArray:
    """Rows of the fit, (S, T)."""
    return _side(scan, fitted, "train", valid)


def _check_rank(recipe: PcaRecipe, training: BoolArray, scan: Scan, voxels: int | None) -> None:
    """Refuse more components than the standardised training rows can span.

    Standardising takes one dimension for every subject and run.
    """
    runs = [scan.clock.run_slice(run.name) for run in scan.clock.runs]
    counts = np.stack([training[:, run].sum(axis=1) for run in runs])
    spanned = int(np.maximum(counts - 1, 0).sum())
    rank = spanned if voxels is None else min(spanned, voxels)
    if recipe.components > rank:
        said = "" if voxels is None else f", {voxels} voxels"
        raise UnavailableError(
            f"{recipe.components} components asked for, the data have rank {rank} "
            f"({int(counts.sum())} training rows less one per subject and run{said})",
            where="pca",
            remedy=f"set `components:` to {rank} or fewer" if rank else "fit on another split",
        )


def _budget(recipe: PcaRecipe, scan: Scan, size: int) -> float:
    """Bytes left for the decomposition: not those of standardisation and of reading."""
    held = 2 * 4 * len(scan.subjects) * len(scan.clock.runs) * size
    return recipe.memory_gb * 1e9 - held - 3 * 4 * READ_TRS * size


def _arrays(scan: Scan, components: int, size: int) -> dict[str, ArraySpec]:
    subjects, runs = len(scan.subjects), len(scan.clock.runs)
    least = max(1, min(components, LOADINGS_BYTES // (4 * size)))
    statistics = {
        name: ArraySpec(
            dims=("subject", "run", "voxel"),
            shape=(subjects, runs, size),
            dtype="float32",
            chunks=(1, runs, size),
            fill_value=float("nan"),
            attrs={"long_name": title},
        )
        for name, title in {
            "mean": "mean that standardises the run, of its training TRs",
            "std": "standard deviation that does; NaN where the voxel counts as 0",
        }.items()
    }
    return {
        "bold": array_spec(
            subjects,
            scan.clock.volumes,
            components,
            "component",
            {"long_name": "scores of standardised BOLD; 0 at invalid TRs", "units": "1"},
        ),
        "loadings": ArraySpec(
            dims=("component", "voxel"),
            shape=(components, size),
            dtype="float32",
            chunks=(least, size),
            fill_value=float("nan"),
            attrs={"long_name": "orthonormal; the largest entry is positive", "units": "1"},
        ),
        "voxel_mean": ArraySpec(
            dims=("voxel",),
            shape=(size,),
            dtype="float32",
            chunks=(size,),
            fill_value=float("nan"),
            attrs={"long_name": "mean of the standardised training rows", "units": "1"},
        ),
        **statistics,
    }


def _coords(scan: Scan, voxels: xr.Dataset, components: int) -> xr.Dataset:
    """Coordinates and small variables known before the fit."""
    valid, signal = voxels["valid"], voxels["has_signal"].values
    scanned = np.asarray(signal.any(axis=1) & valid.values.any(axis=1))
    there = np.repeat(scanned[:, None], components, axis=1)
    return xr.Dataset(
        {
            "valid": (("subject", "time"), valid.values, dict(valid.attrs)),
            "has_signal": (("subject", "component"), there, {"long_name": "subject has signal"}),
        },
        coords={
            **derived.base_coords(scan, Grid.decode(voxels["grid"])),
            **{
                str(name): (("voxel",), coord.values, dict(coord.attrs))
                for name, coord in voxels.coords.items()
                if coord.dims == ("voxel",)
            },
            "component": ("component", np.arange(components), {"long_name": "by falling variance"}),
        },
    )


def _estimate(scan: Scan, recipe: PcaRecipe, out: Path, attrs: dict[str, Any]) -> StorePlan:
    """Sizes alone, while the source is not there yet."""
    found = derived.estimated_plan(scan, out, attrs, "component", recipe.components)
    size = derived.expected_voxels(scan.header.grid)
    found.arrays = _arrays(scan, recipe.components, size)
    found.memory_bytes = int(recipe.memory_gb * 1e9)
    return found


def _finish(results: dict[str, Results], scan: Scan, recipe: PcaRecipe) -> xr.Dataset:
    """Add up what the parts measured."""
    missing = [name for name in (FIT, *scan.subjects) if name not in results]
    if missing:
        raise StoreError(f"parts are missing: {', '.join(missing)}", remedy="build again")
    captured = sum(results[name]["captured"] for name in scan.subjects)
    total = np.asarray(sum(results[name]["total"] for name in scan.subjects))
    with np.errstate(invalid="ignore"):  # a side without a valid TR has no variance: NaN
        ratio = np.asarray(captured / total[:, None])
    summary = _summary(recipe, ratio.sum(axis=1))
    return xr.Dataset(
        {
            "explained_variance_ratio": (
                "component",
                ratio[0],
                {"long_name": "share of the training TRs' variance, measured"},
            ),
            "explained_variance_ratio_held_out": (
                ("side", "component"),
                ratio[1:],
                {"long_name": "share of the held-out TRs' squared distance to voxel_mean"},
            ),
        },
        coords={"side": strings("side", SIDES[1:])},
        attrs={"summary": summary},
    )


def _summary(recipe: PcaRecipe, shares: NDArray[np.float64]) -> str:
    """Measured and claimed, in a line."""
    train, validation, test = (f"{100 * share:.1f} %" for share in shares)
    claimed = f"; claimed: {recipe.claimed}" if recipe.claimed else ""
    return (
        f"{recipe.components:,} components hold {train} of the training TRs' variance, "
        f"{validation} of the validation's, {test} of the test's{claimed}"
    )
