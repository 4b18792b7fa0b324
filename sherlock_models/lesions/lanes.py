"""Transposed convolutions of sixteen samples at a time, compiled to vectors.

Samples lie side by side, so that every number of a picture is a vector of sixteen, one sample in
each lane. A cell of the grid gives four pixels of the picture: one that takes a single tap of the
kernel, two that take two and one that takes four. Their sums over the channels stay in the
processor's registers, and nothing is written but the picture. LLVM would keep no vector over a loop
inside another, so loads, products and stores of vectors are numba intrinsics here; in the
file of the loops that use them, the only one whose change makes numba compile these anew.

Legend: N = `LANES`, K = channels of what goes in, C = of what comes out, (h, w) = cells of a grid,
(y, x) = the picture made of it, 2h or 2h - 1 high. A grid lies as (h + 1, W, K, N), with W odd and
above w, zero in all further rows and columns; a picture as (y, x, C, N), or as the next grid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import errors, types
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array

from sherlock_models.compiled import compiled

#: samples side by side: a vector of AVX-512, two of AVX2, four of others
LANES = 16
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
# a product and a sum may be rounded once, as processors that can do both in one step round them
_FUSED = ("contract",)
_intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic


class _Vector(types.Type):
    """Sixteen numbers of float32."""

    def __init__(self) -> None:
        super().__init__(name="lanes")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    """How a vector lies in registers and memory."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


_vector = _Vector()


def _place(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    """Point at a number of an array: its place among all, in the order of memory."""
    if kind.layout != "C" or kind.dtype != types.float32:
        raise errors.TypingError(f"wanted a contiguous array of float32, not {kind}")
    return builder.gep(make_array(kind)(context, builder, array).data, [place])


def _repeat(builder: Any, number: Any) -> Any:
    """Lay one number in every lane."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, nothing, lanes)


@_intrinsic
def _load(typing: Any, array: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _place(context, builder, signature.args[0], *args)
        return builder.load(builder.bitcast(at, _VECTOR.as_pointer()), align=4)

    return _vector(array, types.intp), generate


@_intrinsic
def _store(typing: Any, array: Any, place: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _place(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], builder.bitcast(at, _VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, _vector), generate


@_intrinsic
def _filled(typing: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _repeat(builder, args[0])

    return _vector(types.float32), generate


@_intrinsic
def _and_product(typing: Any, total: Any, vector: Any, array: Any, place: Any) -> Any:
    """Add to a total a vector times one number of an array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total, vector, array, place = args
        number = builder.load(_place(context, builder, signature.args[2], array, place))
        product = builder.fmul(vector, _repeat(builder, number), flags=_FUSED)
        return builder.fadd(total, product, flags=_FUSED)

    return _vector(_vector, _vector, array, types.intp), generate


@_intrinsic
def _at_least(typing: Any, vector: Any, floor: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        floor = _repeat(builder, args[1])
        return builder.select(builder.fcmp_ordered("<", args[0], floor), floor, args[0])

    return _vector(_vector, types.float32), generate


@compiled
def lay(samples: Any, grid: Any) -> None:
    """Lay samples (B, K, h, w) in the lanes of a grid, and zeros in the lanes of no sample."""
    for i in range(samples.shape[2]):
        for j in range(samples.shape[3]):
            for k in range(samples.shape[1]):
                for n in range(samples.shape[0]):
                    grid[i, j, k, n] = samples[n, k, i, j]
                for n in range(samples.shape[0], grid.shape[3]):
                    grid[i, j, k, n] = 0


@compiled
def enlarge(taps: Any, bias: Any, floor: Any, grid: Any, y: int, x: int, picture: Any) -> None:
    """Make a picture of (y, x) pixels, none below `floor`, of a grid; taps lie as (C, K, 9)."""
    for i in range(grid.shape[0] - 1):
        _enlarge_row(taps, bias, floor, grid, i, y, x, picture)


@compiled
def enlarge_and_compare(
    taps: Any, bias: Any, floor: Any, grid: Any, truth: Any, upper: int, error: Any, power: Any
) -> None:
    """Make a picture of a grid less the truth, and sum its squares over the rows of either half.

    All arrays but `power`, (2, x C N), are as for `enlarge`; `upper` is the height of the upper
    half. A row is compared while the processor's cache still holds it.
    """
    y, x = error.shape[:2]
    power[:] = 0
    flat, true = error.reshape((y, power.shape[1])), truth.reshape((y, power.shape[1]))
    for i in range(grid.shape[0] - 1):
        _enlarge_row(taps, bias, floor, grid, i, y, x, error)
        for row in range(2 * i, min(2 * i + 2, y)):
            _compare_row(flat[row], true[row], power[0 if row < upper else 1])


@compiled
def _compare_row(row: Any, truth: Any, power: Any) -> None:
    for n in range(row.shape[0]):
        error = row[n] - truth[n]
        row[n] = error
        power[n] += error * error


@compiled
def _enlarge_row(
    taps: Any, bias: Any, floor: Any, grid: Any, i: int, y: int, x: int, picture: Any
) -> None:
    # two cells and two channels at a time: as many sums as registers hold, and each number loaded
    # serves several; an odd last channel is its own second
    channels, inputs = taps.shape[:2]
    to_right, to_below = inputs * LANES, grid.shape[1] * inputs * LANES
    steps = channels * LANES, picture.shape[1] * channels * LANES
    for j in range(0, grid.shape[1] - 1, 2):
        cell, pixel = i * to_below + j * to_right, 2 * (i * steps[1] + j * steps[0])
        inside, inside_next = (2 * j + 1 < x, 2 * i + 1 < y), (2 * j + 3 < x, 2 * i + 1 < y)
        for c in range(0, channels, 2):
            d = min(c + 1, channels - 1)
            one, other = _filled(bias[c]), _filled(bias[d])
            one_here = one_next = (one, one, one, one)
            other_here = other_next = (other, other, other, other)
            for k in range(inputs):
                at, below = cell + k * LANES, cell + k * LANES + to_below
                tap, other_tap = 9 * (c * inputs + k), 9 * (d * inputs + k)
                upper = _load(grid, at), _load(grid, at + to_right)
                lower = _load(grid, below), _load(grid, below + to_right)
                upper_next = upper[1], _load(grid, at + 2 * to_right)
                lower_next = lower[1], _load(grid, below + 2 * to_right)
                one_here = _with_input(one_here, upper, lower, taps, tap)
                one_next = _with_input(one_next, upper_next, lower_next, taps, tap)
                other_here = _with_input(other_here, upper, lower, taps, other_tap)
                other_next = _with_input(other_next, upper_next, lower_next, taps, other_tap)
            _store_cell(picture, pixel + c * LANES, steps, inside, one_here, floor)
            _store_cell(picture, pixel + d * LANES, steps, inside, other_here, floor)
            if 2 * j + 2 < x:
                following = pixel + 2 * steps[0]
                _store_cell(picture, following + c * LANES, steps, inside_next, one_next, floor)
                _store_cell(picture, following + d * LANES, steps, inside_next, other_next, floor)


@compiled
def _with_input(sums: Any, upper: Any, lower: Any, taps: Any, tap: int) -> Any:
    """Add what one channel of a cell, and of those beside and below, gives the cell's four pixels.

    Tap 3 a + b of a cell (i, j) lands at row 2 i + a - 1 and column 2 j + b - 1: pixels in the odd
    row take from the cells below too, those in the odd column from the right.
    """
    own, across, down, both = sums
    own = _and_product(own, upper[0], taps, tap + 4)
    across = _and_product(across, upper[0], taps, tap + 5)
    down = _and_product(down, upper[0], taps, tap + 7)
    both = _and_product(both, upper[0], taps, tap + 8)
    across = _and_product(across, upper[1], taps, tap + 3)
    both = _and_product(both, upper[1], taps, tap + 6)
    down = _and_product(down, lower[0], taps, tap + 1)
    both = _and_product(both, lower[0], taps, tap + 2)
    both = _and_product(both, lower[1], taps, tap)
    return own, across, down, both


@compiled
def _store_cell(picture: Any, pixel: int, steps: Any, inside: Any, sums: Any, floor: Any) -> None:
    right, down = steps
    _store(picture, pixel, _at_least(sums[0], floor))
    if inside[0]:
        _store(picture, pixel + right, _at_least(sums[1], floor))
    if inside[1]:
        _store(picture, pixel + down, _at_least(sums[2], floor))
    if inside[0] and inside[1]:
        _store(picture, pixel + down + right, _at_least(sums[3], floor))
