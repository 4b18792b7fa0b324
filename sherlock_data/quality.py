"""Which volumes of a scan carry no signal: not finite, of one value, or a volume repeated.

Legend: T = volumes of a file, blocks are ``(n, z, y, x)`` float32 as :mod:`sherlock_data.nifti`
yields them. One pass, one block in memory, so it rides on any other reading of the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Ranges = list[tuple[int, int]]

#: this many equal volumes in a row are a stuck scanner or padding, not a brain at rest
REPEATS = 3
#: a volume lacking more than this share of the voxels that its file's best volume has is lost
LOST_FRACTION = 0.05


@dataclass(frozen=True)
class Problem:
    """Something a reader must know that stops nobody.

    Attributes
    ----------
    code : str
        Stable word for scripts, e.g. ``"constant-volumes"``.
    where : str
        The subject, run or file it is about.
    message : str
        One line, with the values found and wanted.
    """

    code: str
    where: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """Return the contract's JSON object."""
        return {"code": self.code, "where": self.where, "message": self.message}


class VolumeCheck:
    """Finds the invalid volumes of one file in one pass.

    A volume is invalid if it

    - is constant in time: one of at least ``REPEATS`` volumes in a row that are equal bit for
      bit. The whole stretch counts, its first volume included;
    - is constant in space: every voxel has the same value (a grid of one voxel cannot be judged);
    - is lost: it has no finite voxel, or more than ``LOST_FRACTION`` fewer finite voxels than the
      file's best volume. Voxels that are never finite (a background of NaN) thus cost no volume;
      single ones that are not finite in a good volume are for the voxel's own ``has_signal``.

    Attributes
    ----------
    minimum, maximum : float
        Of the finite values; NaN where there is none.
    """

    def __init__(self) -> None:
        self.minimum = float("nan")
        self.maximum = float("nan")
        self._equal: list[BoolArray] = []
        self._uniform: list[bool] = []
        self._finite: list[int] = []
        self._last: FloatArray | None = None
        self._voxels = 0

    def update(self, block: FloatArray) -> None:
        """Add the next volumes.

        Parameters
        ----------
        block : ndarray of float32, shape (n, z, y, x)
            C-contiguous. Its last volume is kept until the next call.
        """
        if not len(block):
            return
        self._voxels = int(np.prod(block.shape[1:]))
        self._equal.append(self._equal_to_previous(block))
        for volume in block:
            self._look_at(volume)
        self._last = block[-1]

    @property
    def volumes(self) -> int:
        """Volumes seen so far."""
        return len(self._uniform)

    def valid(self) -> BoolArray:
        """Whether each volume can be used, shape (T,), bool."""
        valid = np.ones(self.volumes, dtype=bool)
        for first, last in [*self.constant_ranges(), *self.lost_ranges()]:
            valid[first : last + 1] = False
        return valid

    def constant_ranges(self) -> Ranges:
        """Return stretches constant in time or in space, 0-based and inclusive, in order."""
        repeated = self._repeated()
        inside = np.zeros(self.volumes, dtype=bool)
        for first, last in repeated:
            inside[first : last + 1] = True
        uniform = np.array(self._uniform, dtype=bool) & ~inside
        return sorted([*repeated, *ranges_of(uniform)])

    def lost_ranges(self) -> Ranges:
        """Return stretches of volumes without enough finite voxels, 0-based and inclusive."""
        return ranges_of(self._lost())

    def stray_voxels(self) -> int:
        """Most voxels that are not finite in any one volume that is not lost."""
        finite = np.array(self._finite, dtype=np.int64)[~self._lost()]
        return int(self._voxels - finite.min()) if len(finite) else 0

    def problems(self, where: str, first: int = 0) -> list[Problem]:
        """Say what was found.

        Parameters
        ----------
        where : str
            Subject or file.
        first : int
            TR of the file's first volume, added to every range.

        Returns
        -------
        list of Problem
            Codes ``constant-volumes``, ``nan-volumes`` and ``nan-voxels``.
        """
        found = []
        if ranges := self.constant_ranges():
            message = f"constant volumes: {_spell(ranges, first)}; marked invalid, never trained on"
            found.append(Problem("constant-volumes", where, message))
        if ranges := self.lost_ranges():
            message = (
                f"volumes not finite: {_spell(ranges, first)}; marked invalid, never trained on"
            )
            found.append(Problem("nan-volumes", where, message))
        if stray := self.stray_voxels():
            message = f"up to {stray:,} of {self._voxels:,} voxels of a volume are not finite"
            found.append(Problem("nan-voxels", where, message))
        return found

    def _equal_to_previous(self, block: FloatArray) -> BoolArray:
        """Whether each volume equals the one before it bit for bit, shape (n,)."""
        bits = block.view(np.uint32)
        equal = np.zeros(len(block), dtype=bool)
        if self._last is not None and self._last.shape == block.shape[1:]:
            equal[0] = np.array_equal(self._last.view(np.uint32), bits[0])
        middle = block.shape[1] // 2  # a plane tells different volumes apart at once
        same_plane = (bits[1:, middle] == bits[:-1, middle]).all(axis=(1, 2))
        for i in np.flatnonzero(same_plane):
            equal[i + 1] = np.array_equal(bits[i], bits[i + 1])
        return equal

    def _look_at(self, volume: FloatArray) -> None:
        """Range of one volume, and how many of its voxels are finite."""
        low, high = float(volume.min()), float(volume.max())
        finite = volume.size
        if not (np.isfinite(low) and np.isfinite(high)):
            values = volume[np.isfinite(volume)]
            finite = values.size
            low, high = (values.min(), values.max()) if finite else (np.nan, np.nan)
        self.minimum = float(np.fmin(self.minimum, low))
        self.maximum = float(np.fmax(self.maximum, high))
        self._uniform.append(bool(low == high) and finite == volume.size > 1)
        self._finite.append(finite)

    def _repeated(self) -> Ranges:
        """Return stretches of at least ``REPEATS`` equal volumes, their first one included."""
        if not self._equal:
            return []
        stretches = [(first - 1, last) for first, last in ranges_of(np.concatenate(self._equal))]
        return [(first, last) for first, last in stretches if last - first + 1 >= REPEATS]

    def _lost(self) -> BoolArray:
        """Whether each volume has too few finite voxels, shape (T,)."""
        finite = np.array(self._finite, dtype=np.int64)
        if not len(finite):
            return np.zeros(0, dtype=bool)
        return np.asarray((finite == 0) | (finite < (1 - LOST_FRACTION) * finite.max()))


def ranges_of(mask: BoolArray) -> Ranges:
    """Return stretches of True as (first, last), 0-based and inclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _spell(ranges: Ranges, first: int) -> str:
    """Return how many volumes, and which (at most five stretches)."""
    count = sum(last - start + 1 for start, last in ranges)
    spelled = [str(a + first) if a == b else f"{a + first} to {b + first}" for a, b in ranges[:5]]
    more = f" and {len(ranges) - 5} more stretches" if len(ranges) > 5 else ""
    return f"{count} ({', '.join(spelled)}{more})"
