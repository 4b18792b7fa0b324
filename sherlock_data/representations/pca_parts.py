"""The parts of a pca store: one that fits, and one per subject that writes its scores.

Legend: S = subjects, T = TRs, R = runs, V = voxels, K = components. Rows of the fit are the valid
training TRs of all training subjects, one below the other, standardised as models see them; they
are read in blocks and never held whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sherlock_data import decomposition, store
from sherlock_data.standardisation import READ_TRS, Standard, StandardisedRows, fit_subject
from sherlock_data.store import Results

BoolArray = NDArray[np.bool_]

FIT = "fit"


@dataclass(frozen=True)
class Source:
    """What parts know of the store they read.

    Attributes
    ----------
    path : str
    starts : tuple of int
        First TR of every run.
    valid : ndarray of bool, shape (S, T)
    has_signal : ndarray of bool, shape (S, V)
    training : ndarray of bool, shape (S, T)
        Rows of the fit.
    sides : ndarray of bool, shape (3, S, T)
        Valid brain TRs of train, validation and test, of the subjects that each side uses.
    fit_trs : ndarray of int64
        Brain TRs whose mean and standard deviation standardise every subject.
    """

    path: str
    starts: tuple[int, ...]
    valid: BoolArray
    has_signal: BoolArray
    training: BoolArray
    sides: BoolArray
    fit_trs: NDArray[np.int64]

    def standard(self, row: int) -> Standard:
        """Standardisation of one subject."""
        training = np.zeros(self.valid.shape[1], dtype=bool)
        training[self.fit_trs] = True
        return fit_subject(
            store.open_array(self.path, "bold", "r"),
            row,
            self.starts,
            self.valid[row],
            training,
            np.asarray(self.sides.any(axis=(0, 1))),
            self.has_signal[row],
        )


@dataclass(frozen=True)
class FitPart:
    """The fit: standardisation of every subject, then the components of the training rows."""

    source: Source
    components: int
    method: decomposition.Method
    seed: int
    weight: float
    name: str = FIT

    def run(self, path: str, report: Callable[[float], None]) -> Results:
        """Write ``mean``, ``std``, ``voxel_mean`` and ``loadings``; return the variances."""
        subjects = len(self.source.valid)
        standards: dict[int, Standard] = {}
        for row in range(subjects):
            standards[row] = self.source.standard(row)
            store.open_array(path, "mean")[row] = standards[row].mean
            store.open_array(path, "std")[row] = standards[row].std
            report(0.1 * (row + 1) / subjects)
        subject, tr = np.nonzero(self.source.training)
        rows = StandardisedRows(self.source.path, self.source.starts, subject, tr, standards)
        found = decomposition.decompose(
            rows,
            self.components,
            self.method,
            self.seed,
            lambda fraction: report(0.1 + 0.85 * fraction),
        )
        loadings = store.open_array(path, "loadings")
        for start in range(0, self.components, loadings.chunks[0]):
            piece = slice(start, start + loadings.chunks[0])
            loadings[piece] = found.loadings[piece]
        store.open_array(path, "voxel_mean")[:] = found.mean.astype(np.float32)
        return {"variance": found.variance, "total": np.asarray(found.total)}


@dataclass(frozen=True)
class ScorePart:
    """One subject's scores, after the fit.

    Attributes
    ----------
    name : str
        Subject.
    row : int
    source : Source
    memory_bytes : int
        For standardised rows, loadings and scores together.
    weight : float
    """

    name: str
    row: int
    source: Source
    memory_bytes: int
    weight: float

    def run(self, path: str, report: Callable[[float], None]) -> Results:
        """Write the subject's rows; return each side's variance, in all and by component."""
        bold = store.open_array(path, "bold")
        loadings = store.open_array(path, "loadings", "r")
        offset = np.asarray(store.open_array(path, "voxel_mean", "r")[:])
        standard = Standard(
            np.asarray(store.open_array(path, "mean", "r")[self.row]),
            np.asarray(store.open_array(path, "std", "r")[self.row]),
        )
        valid = np.flatnonzero(self.source.valid[self.row])
        rows = StandardisedRows(
            self.source.path,
            self.source.starts,
            np.full(len(valid), self.row),
            valid,
            {self.row: standard},
        )
        times, (components, size) = self.source.valid.shape[1], loadings.shape
        scores = np.zeros((times, components), dtype=np.float32)
        squares = np.zeros(times)
        few, many = self._blocks(components, size, loadings.chunks[0], len(valid))
        for first in range(0, len(valid), few):
            here = valid[first : first + few]
            block = rows.read(first, first + len(here))
            block -= offset
            squares[here] = np.einsum("ij,ij->i", block, block)
            for start in range(0, components, many):
                piece = slice(start, min(start + many, components))
                scores[here, piece] = block @ np.asarray(loadings[piece]).T
            del block
            report((first + len(here)) / max(1, len(valid)))
        bold[self.row] = scores
        mine = self.source.sides[:, self.row]
        captured = [np.square(scores[side], dtype=np.float64).sum(axis=0) for side in mine]
        total = [squares[side].sum() for side in mine]
        return {"captured": np.stack(captured), "total": np.array(total)}

    def _blocks(self, components: int, size: int, chunk: int, times: int) -> tuple[int, int]:
        """Rows read at once, and components applied at once: most memory to the rows."""
        many = max(1, int(0.2 * self.memory_bytes / (4 * size)) // chunk) * chunk
        free = self.memory_bytes - 4 * size * (min(many, components) + 2 * READ_TRS)
        return max(READ_TRS, min(times, int(free / (4 * size + 8 * components)))), many


def reconstruct(data: xr.Dataset, scores: xr.DataArray, raw: bool = False) -> xr.DataArray:
    """Voxels again from component scores of one subject.

    Parameters
    ----------
    data : xarray.Dataset
        A pca store.
    scores : xarray.DataArray, dims (time, component)
        Of one subject, with the coordinates ``subject`` and ``run``, e.g.
        ``data.bold.sel(subject="sub-01")``.
    raw : bool
        In the units of the voxels store, run by run, instead of standardised.

    Returns
    -------
    xarray.DataArray, dims (time, voxel), float32
        NaN, if ``raw``, where the subject has no signal.
    """
    weights = np.asarray(data["loadings"].values)
    values = decomposition.back(scores.values, weights, data["voxel_mean"].values)
    if raw:
        # read in the order of scanning, as `mean` and `std` have them
        names = list(dict.fromkeys(str(name) for name in data.coords["run"].values))
        run = [names.index(str(name)) for name in scores.coords["run"].values]
        subject = str(scores.coords["subject"].item())
        row = [str(name) for name in data["subject"].values].index(subject)
        values = values * data["std"].values[row][run] + data["mean"].values[row][run]
    coords = {
        name: coord
        for name, coord in {**scores.coords, **data["loadings"].coords}.items()
        if set(coord.dims) <= {"time", "voxel"}
    }
    return xr.DataArray(values, dims=("time", "voxel"), coords=coords, name="bold")
