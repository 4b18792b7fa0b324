"""Principal components of a matrix that is read in blocks of rows and never held whole.

Legend: N = rows (samples), V = columns (voxels), M = the smaller and W the wider of the two,
K = components, L = columns of a random subspace (K and some more), B = rows of a block.

Two solvers, the cheaper one at the shape and within the memory given:

- ``gram``: the M x M matrix of inner products, of rows or of columns, summed in float64 from
  float32 blocks; its leading eigenvectors by LAPACK, or by subspace iteration where K is small.
- ``subspace``: block subspace iteration from a random start on the data themselves (Halko,
  Martinsson & Tropp 2011; Musco & Musco 2015), a pass over the rows for each step, until the
  captured variance grows no more.

Centring needs no pass of its own: the products of the centred rows follow from those of the rows
and their mean. That is exact but loses digits where a mean is thousands of times its column's
standard deviation; rows are standardised before they come here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from sherlock_data.decomposition_method import EXPECTED_STEPS, PIECE, Method, choose, clip
from sherlock_data.errors import UnavailableError

__all__ = ["Components", "Method", "Rows", "back", "choose", "decompose", "project"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: subspace iteration ends when a step adds less than this share of the total variance
TOLERANCE = 3e-4
LONGEST_ITERATION = 40
#: eigenvalues below this share of the first are rounding, not rank
RANK_TOLERANCE = 1e-7

Report = Callable[[float], None]


class Rows(Protocol):
    """A matrix by its rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, V)."""
        ...

    def read(self, start: int, stop: int) -> Float32:
        """Return rows ``start`` to ``stop``, (stop - start, V) float32, the same at each call."""
        ...


@dataclass(frozen=True)
class Components:
    """Principal components.

    Attributes
    ----------
    loadings : ndarray of float32, shape (K, V)
        Orthonormal rows, by falling variance; the entry of largest magnitude is positive.
    mean : ndarray of float64, shape (V,)
    variance : ndarray of float64, shape (K,)
        Mean square over the rows (ddof 0) of the centred data along each component.
    total : float
        Variance of all columns together.
    method : Method
    """

    loadings: Float32
    mean: Float64
    variance: Float64
    total: float
    method: Method


def decompose(
    rows: Rows,
    components: int,
    method: Method,
    seed: int = 0,
    report: Report | None = None,
    tolerance: float = TOLERANCE,
) -> Components:
    """Principal components of centred rows.

    Parameters
    ----------
    rows : Rows
    components : int
        K.
    method : Method
        From :func:`choose`.
    seed : int
        Of the random start; the same seed gives the same components.
    report : callable, optional
        Told the fraction done.
    tolerance : float
        Subspace iteration ends when a step adds less than this share of the total variance.

    Raises
    ------
    UnavailableError
        If the matrix has fewer components than asked for; the line names its rank.
    """
    report = report or (lambda fraction: None)
    if method.solver == "subspace":
        found = _by_subspace(rows, components, method, seed, report, tolerance)
    elif method.of_rows:
        found = _by_rows(rows, components, method, seed, report, tolerance)
    else:
        found = _by_columns(rows, components, method, seed, report, tolerance)
    loadings, mean, values, total = found
    for row in loadings:
        if row[np.abs(row).argmax()] < 0:
            np.negative(row, out=row)
    n = rows.shape[0]
    return Components(loadings, mean, values / n, total / n, method)


def project(values: Float32, loadings: Float32, mean: Float64 | Float32) -> Float32:
    """Scores of rows: (n, V) to (n, K)."""
    offset = (loadings @ mean.astype(np.float32)).astype(np.float32)
    return np.asarray(values @ loadings.T - offset, dtype=np.float32)


def back(scores: Float32, loadings: Float32, mean: Float64 | Float32) -> Float32:
    """Rows again from their scores: (n, K) to (n, V); exact within the components' span."""
    return np.asarray(scores @ loadings + mean.astype(np.float32), dtype=np.float32)


def _blocks(rows: Rows, size: int) -> Iterator[tuple[slice, Float32]]:
    for start in range(0, rows.shape[0], size):
        piece = slice(start, min(start + size, rows.shape[0]))
        yield piece, rows.read(piece.start, piece.stop)


def _pieces(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def _product(a: Float32, b: Float32) -> Float64:
    """Return a b', float32 over PIECE columns at a time, added up in float64."""
    total = np.zeros((len(a), len(b)))
    for columns in _pieces(a.shape[1], PIECE):
        total += a[:, columns] @ b[:, columns].T
    return total


Found = tuple[Float32, Float64, Float64, float]


def _by_rows(
    rows: Rows, k: int, method: Method, seed: int, report: Report, tolerance: float
) -> Found:
    """From the N x N products of rows; loadings are combinations of rows."""
    n, v = rows.shape
    gram = np.empty((n, n), dtype=np.float64 if method.lapack else np.float32)
    for here, block in _blocks(rows, method.block):
        for part in _pieces(len(block), method.tile):
            tile = _product(block[part.start :], block[part])
            below = slice(here.start + part.start, here.stop)
            own = slice(here.start + part.start, here.start + part.stop)
            gram[below, own], gram[own, below] = tile, tile.T
        for start in range(here.stop, n, method.tile):
            there = slice(start, min(start + method.tile, n))
            tile = _product(block, rows.read(there.start, there.stop))
            gram[here, there], gram[there, here] = tile, tile.T
        del block
        report(0.5 * (1 - (1 - here.stop / n) ** 2))
    mean_product = gram.mean(axis=0, dtype=np.float64)
    gram -= mean_product[:, None].astype(gram.dtype)
    gram -= (mean_product - mean_product.mean()).astype(gram.dtype)
    total = float(np.trace(gram, dtype=np.float64))
    values, vectors = _leading(gram, k, method, seed, total, tolerance)
    del gram
    report(0.7)
    _check_rank(values, k)
    weights = vectors.astype(np.float32)
    del vectors
    loadings = np.zeros((k, v), dtype=np.float32)
    sums = np.zeros(v)
    room = max(0.0, method.memory_bytes - loadings.nbytes - weights.nbytes - 4 * k * PIECE)
    for here, block in _blocks(rows, clip(room / (4 * v), n)):
        for columns in _pieces(v, PIECE):
            loadings[:, columns] += weights[here].T @ block[:, columns]
        sums += block.sum(axis=0, dtype=np.float64)
        del block
        report(0.7 + 0.3 * here.stop / n)
    for row in loadings:
        row /= np.sqrt(np.square(row, dtype=np.float64).sum())
    return loadings, sums / n, values, total


def _by_columns(
    rows: Rows, k: int, method: Method, seed: int, report: Report, tolerance: float
) -> Found:
    """From the V x V products of columns: one pass, and the eigenvectors are the loadings."""
    n, v = rows.shape
    gram = np.zeros((v, v), dtype=np.float64 if method.lapack else np.float32)
    sums = np.zeros(v)
    for here, block in _blocks(rows, method.block):
        for part in _pieces(v, method.tile):
            gram[part.start :, part] += block[:, part.start :].T @ block[:, part]
        sums += block.sum(axis=0, dtype=np.float64)
        del block
        report(0.6 * here.stop / n)
    mean = sums / n
    for part in _pieces(v, method.tile):
        gram[part.start :, part] -= np.outer(sums[part.start :], mean[part]).astype(gram.dtype)
        gram[part, part.stop :] = gram[part.stop :, part].T
    total = float(np.trace(gram, dtype=np.float64))
    values, vectors = _leading(gram, k, method, seed, total, tolerance)
    _check_rank(values, k)
    return np.ascontiguousarray(vectors.T, dtype=np.float32), mean, values, total


def _by_subspace(
    rows: Rows, k: int, method: Method, seed: int, report: Report, tolerance: float
) -> Found:
    """Iterate V x L subspaces; the matrix of products is never formed."""
    n, v = rows.shape
    # basis (L, V): rows in C order are LAPACK's columns, so that QR works in place
    basis = _random(method.subspace, v, seed)
    mean, total, captured = np.zeros(v), 0.0, -np.inf
    for step in range(LONGEST_ITERATION + 1):
        image = np.zeros_like(basis)
        inner = np.zeros((len(basis), len(basis)))
        sums = np.zeros(v)
        squares = 0.0
        for here, block in _blocks(rows, method.block):
            scores = block @ basis.T
            inner += scores.T @ scores
            for columns in _pieces(v, PIECE):
                image[:, columns] += scores.T @ block[:, columns]
            if step == 0:
                sums += block.sum(axis=0, dtype=np.float64)
                squares += float(np.einsum("ij,ij->i", block, block).sum(dtype=np.float64))
            del block, scores
            report(min(1.0, (step + here.stop / n) / (EXPECTED_STEPS + 1)))
        if step == 0:
            mean = sums / n
            total = squares - n * float(mean @ mean)
        offset = basis @ mean
        inner -= n * np.outer(offset, offset)
        for row, shift in zip(image, offset, strict=True):
            row -= (n * shift * mean).astype(np.float32)
        last, captured = captured, float(np.trace(inner)) if step else -np.inf
        if (step > 1 and captured - last < tolerance * total) or step == LONGEST_ITERATION:
            break  # before the basis moves on: `inner` belongs to this one
        basis = _orthonormal(image)
        del image
    values, turn = linalg.eigh(inner, overwrite_a=True)
    values, turn = values[::-1][:k], turn[:, ::-1][:, :k]
    _check_rank(values, k)
    return turn.T.astype(np.float32) @ basis, mean, values, total


def _leading(
    gram: NDArray[Any], k: int, method: Method, seed: int, total: float, tolerance: float
) -> tuple[Float64, NDArray[Any]]:
    """Leading eigenvalues (K,), falling, and eigenvectors (M, K) of a symmetric matrix.

    The matrix is overwritten.
    """
    m = len(gram)
    if method.lapack:
        # transposed: a symmetric matrix in the order LAPACK works in, which saves a copy
        values, vectors = linalg.eigh(
            gram.T, subset_by_index=[m - k, m - 1], overwrite_a=True, check_finite=False
        )
        return values[::-1], vectors[:, ::-1]
    basis = _orthonormal(_random(method.subspace, m, seed))
    captured = -np.inf
    for step in range(LONGEST_ITERATION + 1):
        image = basis @ gram
        last = captured
        captured = float(np.einsum("ij,ij->i", basis, image).sum(dtype=np.float64))
        if captured - last < tolerance * total or step == LONGEST_ITERATION:
            break  # before the basis moves on: `image` belongs to this one
        basis = _orthonormal(image)
    inner = (basis @ image.T).astype(np.float64)
    del image
    values, turn = linalg.eigh(inner.T, overwrite_a=True)
    return values[::-1][:k], (turn[:, ::-1][:, :k].T.astype(np.float32) @ basis).T


def _random(rows: int, columns: int, seed: int) -> Float32:
    return np.random.default_rng(seed).standard_normal((rows, columns), dtype=np.float32)


def _orthonormal(basis: Float32) -> Float32:
    """Orthonormal rows that span the rows of ``basis`` (L, M), which is overwritten."""
    q, _ = linalg.qr(basis.T, mode="economic", overwrite_a=True, check_finite=False)
    return np.asarray(q.T)


def _check_rank(values: Float64, k: int) -> None:
    rank = int((values > RANK_TOLERANCE * max(values[0], 0.0)).sum())
    if rank < k:
        raise UnavailableError(
            f"{k} components asked for, the data have {rank} (their rank)",
            where="components",
            remedy=f"ask for {rank} or fewer",
        )
