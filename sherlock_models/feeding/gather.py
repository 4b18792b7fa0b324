"""Rows picked out of a table and brought into a model's units in one pass over memory.

Read, centred, scaled and written once: a row costs little more than copying it does. On a GPU the
same is said in torch's own operations.

Legend: N = rows of a table, U = numbers of a row, K = sets of statistics, B = rows picked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sherlock_models.compiled import compiled

#: numbers of a batch from which a second thread is worth its start
_SHARED_WORK = 1 << 20


def standardised(rows: Tensor, mean: Tensor, factor: Tensor, row: Tensor, which: Tensor) -> Tensor:
    """Pick rows, subtract a mean and multiply: `(rows[row] - mean[which]) * factor[which]`.

    Parameters
    ----------
    rows : Tensor of float32, (N, U)
        What is not finite counts as 0.
    mean, factor : Tensor of float32, (K, U)
    row, which : Tensor of int64, (B,)
        On the CPU: row of the table, and of the statistics.

    Returns
    -------
    Tensor of float32, (B, U)
        On the table's device.
    """
    if rows.device.type != "cpu":
        row, which = row.to(rows.device), which.to(rows.device)
        out = rows.index_select(0, row).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        return out.sub_(mean.index_select(0, which)).mul_(factor.index_select(0, which))
    out = torch.empty(len(row), rows.shape[1])
    picked = np.ascontiguousarray(row.numpy()), np.ascontiguousarray(which.numpy())
    _run(_standardise, len(row), out, rows.numpy(), mean.numpy(), factor.numpy(), *picked)
    return out


def picked(table: Tensor, row: Tensor) -> Tensor:
    """Pick rows as they are, (N, ...) to (B, ...), on the table's device.

    On the CPU each row is copied whole; torch's `index_select` takes numbers of a byte one by one.
    """
    if table.device.type != "cpu":
        return table.index_select(0, row.to(table.device))
    return torch.from_numpy(np.take(table.numpy(), row.numpy(), axis=0))


def normalised(pictures: Tensor, mean: Tensor, scale: Tensor, row: Tensor) -> Tensor:
    """Pick pictures and normalise them: `(pictures[row] - mean) / scale`.

    Parameters
    ----------
    pictures : Tensor of uint8, (N, ...)
    mean : Tensor of float32, (...)
    scale : Tensor of float32, ()
    row : Tensor of int64, (B,)
        On the CPU.

    Returns
    -------
    Tensor of float32, (B, ...)
        On the pictures' device.
    """
    if pictures.device.type != "cpu":
        chosen = pictures.index_select(0, row.to(pictures.device)).float()
        return chosen.sub_(mean).div_(scale)
    flat = math.prod(pictures.shape[1:])
    out = torch.empty(len(row), flat)
    picked = np.ascontiguousarray(row.numpy())
    table, centre = pictures.view(len(pictures), flat).numpy(), mean.reshape(flat).numpy()
    _run(_normalise, len(row), out, table, centre, np.float32(scale), picked)
    return out.view(len(row), *pictures.shape[1:])


def _run(kernel: Callable[..., None], rows: int, out: Tensor, *arguments: Any) -> None:
    """Run a kernel over the rows, shared among as many threads as torch may use."""
    threads = min(torch.get_num_threads(), rows) if out.numel() >= _SHARED_WORK else 1
    if threads <= 1:
        kernel(0, rows, out.numpy(), *arguments)
        return
    edges = [rows * part // threads for part in range(threads + 1)]
    others = [
        _pool(threads).submit(kernel, edges[part], edges[part + 1], out.numpy(), *arguments)
        for part in range(1, threads)
    ]
    kernel(edges[0], edges[1], out.numpy(), *arguments)
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # plain threads: numba's own would set how many threads torch's operations have
    return ThreadPoolExecutor(threads, thread_name_prefix="gather")


@compiled
def _standardise(
    first: int, stop: int, out: Any, rows: Any, mean: Any, factor: Any, row: Any, which: Any
) -> None:
    zero = np.float32(0)
    for place in range(first, stop):
        source, target = rows[row[place]], out[place]
        centre, times = mean[which[place]], factor[which[place]]
        for unit in range(out.shape[1]):
            value = source[unit]
            known = value if value - value == zero else zero  # not so for NaN and infinity
            target[unit] = (known - centre[unit]) * times[unit]


@compiled
def _normalise(
    first: int, stop: int, out: Any, pictures: Any, mean: Any, scale: Any, row: Any
) -> None:
    for place in range(first, stop):
        source, target = pictures[row[place]], out[place]
        for pixel in range(out.shape[1]):
            target[pixel] = (np.float32(source[pixel]) - mean[pixel]) / scale
