"""Arrays of a store back to NIfTI: one map in memory, or a whole series block by block.

A labelled array knows where it lies by its coordinates (``i j k`` of a voxel, the scalar ``grid``),
which outlive arithmetic and reductions; attributes do not.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import nibabel
import numpy as np
import xarray as xr
from isal import igzip
from numpy.typing import NDArray

from sherlock_data import store
from sherlock_data.errors import ConfigError, NoSpaceError, StoreError, did_you_mean
from sherlock_data.grid import Grid

#: dims that together are space, in the order of a NIfTI's axes
SPATIAL = (("x", "y", "z"), ("i", "j", "k"), ("voxel",), ("parcel",))
#: volumes inflated, turned and written at a time
BLOCK_VOLUMES = 8
NIFTI1_LARGEST_DIM = 32767
MNI152_CODE, SCANNER_CODE = 4, 1

#: from rows of units to rows of voxels as stored: (n, unit) -> (n, x * y * z)
Painter = Callable[[NDArray[Any]], NDArray[Any]]


def to_nifti(array: xr.DataArray, like: xr.Dataset | xr.DataTree | None = None) -> Any:
    """Turn a labelled array into an image.

    Parameters
    ----------
    array : xarray.DataArray
        Over ``x, y, z``, ``voxel`` or ``parcel``, and at most one more dim, which becomes the
        fourth axis (with ``time``, the image's TR is set).
    like : xarray.Dataset or DataTree node, optional
        The store the array came from, if its coordinates were dropped; parcels need it, since
        only the store knows which voxels are a parcel's.

    Returns
    -------
    nibabel.Nifti1Image
        (x, y, z) or (x, y, z, n), in the array's dtype (bool as uint8, float16 as float32);
        0 outside the mask.

    Raises
    ------
    ConfigError
        If the array has no spatial dim or too many others.
    StoreError
        If nothing says where it lies.

    Examples
    --------
    >>> to_nifti(tree["voxels"].bold.sel(subject="sub-01").mean("time"))  # doctest: +SKIP
    """
    space, other = _dims(array)
    array = array.transpose(*other, *space)
    grid, paint = _painter(array, space, like)
    values = np.asarray(array.values)
    values = values.astype(_image_dtype(values.dtype), copy=False)
    rows = values.reshape(-1, int(np.prod([array.sizes[d] for d in space])))
    volumes = paint(rows).reshape(-1, *grid.shape[::-1]).transpose(3, 2, 1, 0)
    if not other:
        volumes = volumes[..., 0]
    tr = _tr(array) if other == ["time"] else None
    header = _header(grid, volumes.shape, volumes.dtype, tr)
    image = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    return image(volumes, header.get_best_affine(), header)


def export(
    path: str | Path,
    out: Path,
    subject: str | None = None,
    run: str | None = None,
    time: tuple[float | None, float | None] | None = None,
    report: Callable[[float], None] = lambda done: None,
) -> Path:
    """Write the series of one subject of a store as NIfTI, a few volumes at a time.

    Parameters
    ----------
    path : path or URL
        A complete store of kind volumes, voxels or parcels.
    out : Path
        ``.nii`` or ``.nii.gz``; appears only when it is whole.
    subject : str, optional
        May be left out where the store has one subject.
    run : str, optional
    time : tuple of float or None, optional
        First and last second on the scan clock, ``[first, last)``; None is open.
    report : callable
        Told the fraction done.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ConfigError
        If the subject or run is unknown, the time selects no volume, or the name is no NIfTI's or
        a folder's.
    StoreError
        If the store holds no BOLD on a grid.
    NoSpaceError
        If the disk is full.
    """
    if not out.name.endswith((".nii", ".nii.gz")):
        raise ConfigError("not a NIfTI name", where=out, remedy="end it in .nii.gz or .nii")
    if out.is_dir():
        raise ConfigError("is a folder", where=out, remedy="name a file")
    tr_s = float(store.described(path)["repetition_time_s"])
    dataset = store.open_store(path)
    if "bold" not in dataset:
        raise StoreError("holds no BOLD", where=path, remedy="export volumes, voxels or parcels")
    row = _subject_row(dataset, subject)
    first, last = _time_range(dataset, run, time)
    space, _ = _dims(dataset.bold[row])
    grid, paint = _painter(dataset.bold[row], space, dataset)
    shape = (*grid.shape, last - first)
    header = _header(grid, shape, np.dtype(np.float32), tr_s)
    store.check_present(path)
    bold = store.stored_view(path, "bold")
    on_disk = space == ("x", "y", "z") and bold.shape[2:] == grid.shape[::-1]
    with store.reading(path), _whole_file(out) as file:
        file.write(header.binaryblock.ljust(int(header["vox_offset"]), b"\0"))
        for start in range(first, last, BLOCK_VOLUMES):
            stop = min(start + BLOCK_VOLUMES, last)
            block = np.asarray(bold[row, start:stop]).reshape(stop - start, -1)
            file.write(np.ascontiguousarray(block if on_disk else paint(block)).data)
            report((stop - first) / (last - first))
    return out


def _dims(array: xr.DataArray) -> tuple[tuple[str, ...], list[str]]:
    """Spatial dims and the other ones."""
    for space in SPATIAL:
        if set(space) <= set(array.dims):
            other = [str(d) for d in array.dims if d not in space]
            if len(other) > 1:
                raise ConfigError(
                    f"an image has room for one more dim than space, not {', '.join(other)}",
                    where=f"array {array.name or ''} {tuple(array.dims)}".strip(),
                    remedy=f"choose one, e.g. .sel({other[0]}=...)",
                )
            return space, other
    raise ConfigError(
        f"has no spatial dims, only {tuple(array.dims)}",
        where=f"array {array.name or ''}".strip(),
        remedy="an image needs x, y, z, or voxel, or parcel",
    )


def _painter(
    array: xr.DataArray, space: tuple[str, ...], like: xr.Dataset | xr.DataTree | None
) -> tuple[Grid, Painter]:
    """How units become voxels, for each kind of store."""
    grid = Grid.decode(_coordinate(array, like, "grid"))
    if space == ("parcel",):
        if like is None or "label" not in like:
            raise StoreError(
                "parcels alone do not say which voxels are theirs",
                remedy="give the parcels store: to_nifti(array, like=store)",
            )
        labels = np.asarray(like["label"].values).ravel(order="F")
        return grid, _by_label(labels, _coordinate(array, like, "atlas_index").values)
    if space == ("voxel",):
        ijk = np.stack([_coordinate(array, like, axis).values for axis in "ijk"], axis=1)
        return grid, _by_index(grid.stored_index(ijk), grid.size)
    shape = tuple(array.sizes[dim] for dim in space)
    if shape != grid.shape:
        raise StoreError(
            f"is a part of the grid, {shape} of {grid.shape}", remedy="keep x, y and z whole"
        )
    return grid, lambda rows: rows.reshape(-1, *shape).transpose(0, 3, 2, 1).reshape(len(rows), -1)


def _by_index(index: NDArray[np.int64], size: int) -> Painter:
    def paint(rows: NDArray[Any]) -> NDArray[Any]:
        volumes = np.zeros((len(rows), size), dtype=rows.dtype)
        volumes[:, index] = rows
        return volumes

    return paint


def _by_label(labels: NDArray[Any], atlas_index: NDArray[Any]) -> Painter:
    order = np.argsort(atlas_index)
    position = np.searchsorted(atlas_index[order], labels).clip(0, len(order) - 1)
    source = order[position]
    inside = np.flatnonzero(atlas_index[source] == labels)
    source = source[inside]

    def paint(rows: NDArray[Any]) -> NDArray[Any]:
        volumes = np.zeros((len(rows), len(labels)), dtype=rows.dtype)
        volumes[:, inside] = rows[:, source]
        return volumes

    return paint


def _coordinate(
    array: xr.DataArray, like: xr.Dataset | xr.DataTree | None, name: str
) -> xr.DataArray:
    if name in array.coords:
        return cast("xr.DataArray", array.coords[name])
    if like is not None and name in like:
        return cast("xr.DataArray", like[name])
    raise StoreError(
        f"the array has lost its coordinate '{name}', so nothing says where it lies",
        remedy="give the store it came from: to_nifti(array, like=store)",
    )


def _image_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f":
        return np.dtype(np.float32) if dtype.itemsize < 4 else dtype
    if dtype.kind in "iu":
        return np.dtype(np.int32) if dtype.itemsize > 4 else dtype
    raise ConfigError(f"values of type {dtype} cannot be an image", remedy="give numbers")


def _tr(array: xr.DataArray) -> float | None:
    """Step of the time coordinate in s; None where it is missing or uneven."""
    if "time" not in array.coords:
        return None
    steps = np.diff(array["time"].values.astype(np.float64))
    if not len(steps):
        known = array.attrs.get("repetition_time_s")
        return None if known is None else float(known)
    return float(steps[0]) if np.allclose(steps, steps[0]) else None


def _header(grid: Grid, shape: tuple[int, ...], dtype: np.dtype[Any], tr_s: float | None) -> Any:
    large = max(shape) > NIFTI1_LARGEST_DIM
    header = nibabel.Nifti2Header() if large else nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    code = MNI152_CODE if grid.is_mni else SCANNER_CODE
    header.set_qform(grid.affine, code)
    header.set_sform(grid.affine, code)
    header.set_zooms((*grid.zooms, tr_s or 0.0)[: len(shape)])
    header.set_xyzt_units("mm", "sec")
    header["vox_offset"] = header.single_vox_offset
    header["magic"] = header.single_magic
    return header


def _subject_row(dataset: xr.Dataset, subject: str | None) -> int:
    known = [str(s) for s in dataset["subject"].values]
    if subject is None and len(known) == 1:
        return 0
    if subject is None:
        raise ConfigError(
            f"the store has {len(known)} subjects", remedy=f"choose one, e.g. --subject {known[0]}"
        )
    if subject not in known:
        raise ConfigError(f"no subject '{subject}'", remedy=did_you_mean(subject, known))
    return known.index(subject)


def _time_range(
    dataset: xr.Dataset, run: str | None, time: tuple[float | None, float | None] | None
) -> tuple[int, int]:
    """First and one past the last TR of a run and a stretch of time."""
    keep = np.ones(dataset.sizes["time"], dtype=bool)
    if run is not None:
        names = [str(name) for name in dataset["run"].values]
        keep &= np.array([name == run for name in names])
        if not keep.any():
            raise ConfigError(f"no run '{run}'", remedy=did_you_mean(run, dict.fromkeys(names)))
    seconds = dataset["time"].values
    first, last = time or (None, None)
    keep &= (seconds >= (-np.inf if first is None else first)) & (
        seconds < (np.inf if last is None else last)
    )
    chosen = np.flatnonzero(keep)
    if not len(chosen):
        raise ConfigError(
            f"no volume lies in {first} to {last} s" + (f" of {run}" if run else ""),
            remedy=f"the scan clock goes from {seconds[0]:g} to {seconds[-1]:g} s",
        )
    return int(chosen[0]), int(chosen[-1]) + 1


@contextlib.contextmanager
def _whole_file(out: Path) -> Iterator[IO[bytes]]:
    """Write beside ``out`` and rename, so that no half of an image is ever found under its name."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as raw:
            if out.name.endswith(".gz"):
                # no name and no time in the gzip header: the same data give the same file
                packed = igzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
                with packed as file:
                    yield cast(IO[bytes], file)
            else:
                yield raw
        part.replace(out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError("no space left", where=out, remedy="free some space") from error
        raise OSError(error.errno, error.strerror, str(out)) from error
    finally:
        with contextlib.suppress(OSError):  # the folder is none
            part.unlink(missing_ok=True)
