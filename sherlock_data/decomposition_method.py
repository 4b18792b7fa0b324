"""Which way to the principal components is cheapest at a shape, and what memory it takes.

Legend: N = rows, V = columns, M = the smaller of the two, K = components, L = columns of a random
subspace (K and some more), B = rows of a block. Costs are counted in multiplications and additions
of a float32 matrix product; the constants were measured on two cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sherlock_data.errors import ConfigError, UnavailableError

SOLVERS = ("gram", "subspace")
#: columns of the random subspace beyond the components asked for, as a share of them and at least
OVERSAMPLING, OVERSAMPLING_LEAST = 0.05, 10
#: steps of subspace iteration that the cost model expects
EXPECTED_STEPS = 9
#: LAPACK's eigenvectors of an M x M matrix cost this many M^3 operations of a float32 product
EIGH_COST = 20.0
#: up to this M LAPACK takes seconds, and is exact
LAPACK_ALWAYS = 2000
#: columns and rows of one float32 product before it is added up in float64
PIECE = 4096
#: rows or columns of a tile of the Gram matrix
TILE = 1024
#: a block is worth reading with this many rows
BLOCK_LEAST = 64


@dataclass(frozen=True)
class Method:
    """How a matrix will be decomposed.

    Attributes
    ----------
    solver : str
        ``"gram"`` or ``"subspace"``.
    of_rows : bool
        The Gram matrix is of rows (N x N), not of columns (V x V).
    lapack : bool
        Its eigenvectors are LAPACK's, in float64.
    subspace : int
        L.
    block : int
        B.
    tile : int
        Rows or columns of a tile of the Gram matrix.
    operations : float
        Expected multiplications and additions.
    memory_bytes : int
        Most memory of all arrays together.
    """

    solver: str
    of_rows: bool
    lapack: bool
    subspace: int
    block: int
    tile: int
    operations: float
    memory_bytes: int


def choose(
    shape: tuple[int, int], components: int, memory_bytes: float, solver: str = "auto"
) -> Method:
    """Choose the cheapest method that fits the memory.

    Parameters
    ----------
    shape : (N, V)
    components : int
    memory_bytes : float
        For all arrays together.
    solver : {"auto", "gram", "subspace"}

    Raises
    ------
    UnavailableError
        If there are more components than the smaller side of the matrix.
    ConfigError
        If no method fits the memory.
    """
    if not 1 <= components <= min(shape):
        raise UnavailableError(
            f"{components} components of a matrix of {shape[0]} x {shape[1]}, whose rank is at "
            f"most {min(shape)}",
            remedy=f"ask for {min(shape)} or fewer",
        )
    wanted = SOLVERS if solver == "auto" else (solver,)
    every = [m for m in _methods(shape, components, memory_bytes) if m.solver in wanted]
    fitting = [m for m in every if m.memory_bytes <= memory_bytes]
    if not fitting:
        least = min(m.memory_bytes for m in every)
        raise ConfigError(
            f"{components} components of {shape[0]} x {shape[1]} need at least "
            f"{least / 1e9:.2f} GB ({solver}), {memory_bytes / 1e9:.2f} GB are allowed",
            where="memory_gb",
            remedy="allow more memory or ask for fewer components",
        )
    return min(fitting, key=lambda m: m.operations)


def _methods(shape: tuple[int, int], k: int, memory: float) -> Iterator[Method]:
    """Every method at this shape, with the largest blocks that the memory allows."""
    n, v = shape
    m = min(n, v)
    of_rows = n <= v
    wide = min(m, k + max(OVERSAMPLING_LEAST, round(OVERSAMPLING * k)))
    out = 4 * k * v
    products = float(m) ** 2 * max(n, v) + (2.0 * k * n * v if of_rows else 0.0)
    for lapack in (True, False) if m > LAPACK_ALWAYS else (True,):
        matrix = (8 if lapack else 4) * m * m
        vectors = 8 * m * k if lapack else 2 * 4 * m * wide + 16 * wide**2
        block, tile = _gram_block(n, v, memory - matrix, of_rows)
        pieces = 4 * v * (block + tile) + 12 * tile * (block if of_rows else v)
        last = 4 * m * k + 4 * v * BLOCK_LEAST + 4 * k * PIECE + out if of_rows else 2 * out
        peak = max(matrix + pieces, matrix + vectors, last)
        if lapack:
            eigen = EIGH_COST * m**3
        else:
            eigen = EXPECTED_STEPS * (2.0 * m * m * wide + 8.0 * m * wide**2)
            eigen += EIGH_COST * wide**3
        yield Method("gram", of_rows, lapack, wide, block, tile, products + eigen, peak)
    fixed = 2 * 4 * v * wide + 24 * wide**2 + 4 * wide * PIECE
    block = clip((memory - fixed) / (4 * v + 4 * wide), n)
    steps = EXPECTED_STEPS * (4.0 * n * v * wide + 2.0 * n * wide**2 + 8.0 * v * wide**2)
    peak = fixed + block * (4 * v + 4 * wide)
    operations = steps + EIGH_COST * wide**3
    yield Method("subspace", False, True, wide, block, TILE, operations, peak)


def _gram_block(n: int, v: int, free: float, of_rows: bool) -> tuple[int, int]:
    """Rows of a block and of a tile: most memory to the block, which saves passes."""
    if not of_rows:
        tile = max(1, min(TILE, v, int(max(free, 0) / (3 * 12 * v))))
        return min(PIECE, clip((free - 16 * tile * v) / (4 * v), n)), tile
    tile = max(1, min(TILE, n, int(max(free, 0) / (10 * 4 * v)) or 1))
    return clip((free - 4 * v * tile) / (4 * v + 12 * tile), n), tile


def clip(rows: float, n: int) -> int:
    """Return a number of rows worth reading, at most ``n``."""
    return int(max(min(BLOCK_LEAST, n), min(rows, n)))
