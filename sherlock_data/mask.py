"""Which voxels belong to the brain: the mask rule, as pure functions of where there is signal.

The mask never sees a value, only the share of a subject's valid volumes in which a voxel is finite
and nonzero; so it may be made on all volumes without telling a model anything.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nilearn.datasets import load_mni152_gm_template
from numpy.typing import NDArray

from sherlock_data.errors import InputError, UnavailableError
from sherlock_data.grid import Grid, check_template, on_grid, read_volume
from sherlock_data.recipes import MaskRule

BoolArray = NDArray[np.bool_]


def signal(fraction: NDArray[np.floating], rule: MaskRule) -> BoolArray:
    """Where each subject has signal.

    Parameters
    ----------
    fraction : ndarray of float, shape (subject, x, y, z)
        Share of the subject's valid volumes in which the voxel is finite and nonzero; NaN where a
        subject has no valid volume.
    rule : MaskRule

    Returns
    -------
    ndarray of bool, shape (subject, x, y, z)
        True where the share is above ``rule.signal_fraction``.
    """
    return np.asarray(fraction > float(rule.signal_fraction))


def common(has_signal: BoolArray, scanned: BoolArray, rule: MaskRule) -> BoolArray:
    """Voxels in which at least ``rule.subject_fraction`` of the scanned subjects have signal.

    Parameters
    ----------
    has_signal : ndarray of bool, shape (subject, x, y, z)
    scanned : ndarray of bool, shape (subject,)
        Subjects with at least one valid volume; the others do not count.
    rule : MaskRule

    Returns
    -------
    ndarray of bool, shape (x, y, z)
    """
    subjects = has_signal[scanned].sum(axis=0)
    return np.asarray((subjects > 0) & (subjects >= rule.subject_fraction * scanned.sum()))


def check_space(grid: Grid, rule: MaskRule) -> None:
    """Refuse a grey-matter rule outside MNI152 space, before any scan is read.

    Raises
    ------
    UnavailableError
    """
    if rule.grey_matter is not None and not grid.is_mni:
        raise UnavailableError(
            f"a grey-matter mask needs MNI152 space, this dataset is in {grid.space}",
            where="mask: grey_matter",
            remedy="give a mask file (`mask: {file: ...}`) in the dataset's own space",
        )


def grey_matter(grid: Grid, threshold: float) -> BoolArray:
    """Where nilearn's MNI152 grey-matter map reaches ``threshold`` on this grid.

    The map is the 1 mm grey-matter template of MNI ICBM152 2009a (Fonov et al. 2011) that nilearn
    ships, scaled to 0..1 and interpolated linearly.
    """
    return np.asarray(on_grid(load_mni152_gm_template(resolution=1), grid, "linear") >= threshold)


def from_file(path: Path, grid: Grid) -> BoolArray:
    """Nonzero voxels of a mask image, brought onto the grid by nearest neighbour.

    Raises
    ------
    InputError
        If the image cannot be read, is not 3-D, or has no voxel on the grid.
    UnavailableError
        If its header names another template space than the grid's.
    """
    if not path.is_file():
        raise InputError(
            "no such file", where=path, remedy="`mask: {file: ...}` is relative to the raw folder"
        )
    image = read_volume(path)
    check_template(image, grid, path)
    inside = np.asarray(on_grid(image, grid, "nearest") > 0)
    if not inside.any():
        raise InputError(
            "has no voxel on the scan's grid", where=path, remedy="check its affine and its space"
        )
    return inside


def make(
    fraction: NDArray[np.floating], grid: Grid, rule: MaskRule, raw: Path | None = None
) -> tuple[BoolArray, BoolArray]:
    """Apply a mask rule.

    Parameters
    ----------
    fraction : ndarray of float, shape (subject, x, y, z)
        See :func:`signal`.
    grid : Grid
    rule : MaskRule
        With ``file`` the mask is that image; ``subject_fraction`` then plays no part.
    raw : Path, optional
        Folder that ``rule.file`` is relative to.

    Returns
    -------
    mask : ndarray of bool, shape (x, y, z)
    has_signal : ndarray of bool, shape (subject, x, y, z)

    Raises
    ------
    InputError
        If the mask is empty, or its file is unusable.
    UnavailableError
        If the rule asks for a space this grid does not lie in, or for grey matter where there is
        none.
    """
    has_signal = signal(fraction, rule)
    scanned = np.asarray(np.isfinite(fraction).any(axis=(1, 2, 3)))
    if rule.file is not None:
        mask = from_file((raw or Path()) / rule.file, grid)
    else:
        mask = common(has_signal, scanned, rule)
    if rule.grey_matter is not None:
        check_space(grid, rule)
        grey = mask & grey_matter(grid, rule.grey_matter)
        if mask.any() and not grey.any():
            raise UnavailableError(
                f"no voxel of the mask reaches {rule.grey_matter} on the grey-matter map",
                where="mask: grey_matter",
                remedy="check that the scans lie in MNI152 space",
            )
        mask = grey
    if not mask.any():
        raise InputError(
            f"the mask is empty: no voxel of {grid.size} meets {rule.model_dump(exclude_none=True)}"
            f" in {int(scanned.sum())} scanned subjects",
            where="mask",
            remedy="lower signal_fraction or subject_fraction, or check that the scans hold signal",
        )
    return mask, has_signal
