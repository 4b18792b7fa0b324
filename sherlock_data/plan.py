"""A store before its first byte is written: its arrays, the parts of its build, and the finish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Results = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ArraySpec:
    """A large array, created before its parts are written.

    Attributes
    ----------
    dims : tuple of str
    shape, chunks, shards : tuple of int
        In the order of ``dims``; ``shards`` None: one object per chunk.
    dtype : str
    fill_value : float or int
    stored_order : tuple of int or None
        Axis order on disk (a ``transpose`` codec), e.g. NIfTI's with x fastest.
    attrs : dict
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    fill_value: float | int = 0
    stored_order: tuple[int, ...] | None = None
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes before compression."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Part(Protocol):
    """A piece of a build that can be done alone, on any worker, and need not be done twice.

    Attributes
    ----------
    name : str
        Unique in its plan, e.g. ``"sub-01"``.
    weight : float
        Its share of the work, in any unit common to the plan (bytes to read, say).
    """

    @property
    def name(self) -> str:
        """Unique in its plan."""
        ...

    @property
    def weight(self) -> float:
        """Share of the plan's work."""
        ...

    def run(self, path: str, report: Callable[[float], None]) -> Results:
        """Write this part's regions of the store's arrays and return its small results.

        Parameters
        ----------
        path : str
            The store; open its arrays with :func:`open_array`.
        report : callable
            Told the fraction done, 0 to 1, now and then.

        Returns
        -------
        dict of ndarray
            Kept, so that a resumed build need not repeat the part. ``sha256/<input name>`` holds
            the hash of an input that was read on the way.
        """
        ...


@dataclass
class StorePlan:
    """Everything about a store before the first byte is written.

    Attributes
    ----------
    path : Path
    attrs : dict
        As :func:`sherlock_data.contract.store_attrs` gives them.
    inputs : list of dict
        ``name``, ``path``, ``bytes`` and, where already known, ``sha256``.
    coords : xarray.Dataset
        Coordinates and small variables known beforehand.
    arrays : dict of ArraySpec
    parts : list of Part
    after : dict
        From a part's name to those of the parts that must be finished before it begins; it finds
        what they wrote in the store, and their results with :func:`sherlock_data.store.load_part`.
    finish : callable
        From every part's results to the remaining small variables, coordinates and attributes.
    memory_bytes : int
        Most memory one part holds at a time.
    problems : list of dict
        ``code``, ``where``, ``message``: recorded in the store and said in a line.
    """

    path: Path
    attrs: dict[str, Any]
    inputs: list[dict[str, Any]]
    coords: xr.Dataset
    arrays: dict[str, ArraySpec]
    parts: list[Part]
    finish: Callable[[dict[str, Results]], xr.Dataset]
    after: dict[str, tuple[str, ...]] = field(default_factory=dict)
    memory_bytes: int = 0
    problems: list[dict[str, str]] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of the store's arrays before compression."""
        return sum(spec.nbytes for spec in self.arrays.values()) + int(self.coords.nbytes)
