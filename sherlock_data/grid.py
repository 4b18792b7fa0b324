"""The grid a scan lies on: voxel indices, millimetres, and images brought onto it.

Axes are those of the NIfTI array: ``i, j, k`` count voxels from 0, ``x, y, z`` are millimetres in
the affine's world (RAS+). On disk a NIfTI runs x fastest, so a volume "as stored" is ``(z, y, x)``.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nilearn.image import resample_to_img
from nilearn.image.resampling import BoundingBoxError
from numpy.typing import NDArray

from sherlock_data.errors import InputError, StoreError, UnavailableError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: template spaces a NIfTI's form code can name (NIfTI-1 standard, xform codes 3 and 4)
TEMPLATE_OF_CODE = {3: "Talairach", 4: "MNI152"}


def _is_mni(space: str) -> bool:
    return space.upper().startswith("MNI")


@dataclass(frozen=True)
class Grid:
    """Shape and place of a volume.

    Attributes
    ----------
    shape : tuple of int
        Voxels along i, j, k.
    affine : ndarray of float64, shape (4, 4)
        From (i, j, k, 1) to millimetres, RAS+.
    space : str
        ``"MNI152"`` or ``"native"``.
    """

    shape: tuple[int, int, int]
    affine: FloatArray
    space: str = "native"

    @property
    def is_mni(self) -> bool:
        """Whether the grid lies in a version of the MNI152 template's space."""
        return _is_mni(self.space)

    def lies_in(self, space: str) -> bool:
        """Whether ``space`` is this grid's; versions of MNI152 count as one."""
        return _is_mni(space) if self.is_mni else space == self.space

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Voxel size along i, j, k in mm."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    def millimetres(self, ijk: NDArray[Any]) -> FloatArray:
        """World coordinates of voxel centres.

        Parameters
        ----------
        ijk : ndarray, shape (n, 3)

        Returns
        -------
        ndarray of float64, shape (n, 3)
            x, y, z in mm.
        """
        return np.asarray(ijk @ self.affine[:3, :3].T + self.affine[:3, 3], dtype=np.float64)

    def axis_coordinates(self) -> dict[str, tuple[str, FloatArray, dict[str, str]]]:
        """Coordinates of the dims x, y and z as xarray takes them.

        Millimetres where every array axis follows a world axis. On an oblique grid no axis has
        millimetres of its own: there they count from the first voxel along the axis, and say so.
        """
        aligned = not np.any(self.affine[:3, :3][~np.eye(3, dtype=bool)])
        out = {}
        for axis, name in enumerate("xyz"):
            steps = np.arange(self.shape[axis], dtype=np.float64)
            if aligned:
                values = self.affine[axis, 3] + self.affine[axis, axis] * steps
                attrs = {"units": "mm", "long_name": f"{name} (RAS+)"}
            else:
                values = steps * self.zooms[axis]
                attrs = {"units": "mm", "long_name": "along the grid's axis, oblique: see affine"}
            out[name] = (name, values, attrs)
        return out

    def stored_index(self, ijk: NDArray[Any]) -> IntArray:
        """Position of voxels in a volume flattened as a NIfTI stores it, shape (n,), int64."""
        flat = np.ravel_multi_index(tuple(np.asarray(ijk).T), self.shape, order="F")
        return np.asarray(flat, dtype=np.int64)

    def encode(self) -> str:
        """Return the grid as text, for the scalar coordinate ``grid``.

        A coordinate's value outlives arithmetic and reductions, where xarray drops attributes.
        """
        return json.dumps(
            {"shape": list(self.shape), "affine": self.affine.tolist(), "space": self.space}
        )

    @classmethod
    def decode(cls, coordinate: Any) -> Grid:
        """Read what :meth:`encode` wrote: the text, or the coordinate that holds it.

        Raises
        ------
        StoreError
            If it describes no grid.
        """
        try:
            found = json.loads(str(np.asarray(coordinate).item()))
            i, j, k = (int(n) for n in found["shape"])
            affine = np.array(found["affine"], dtype=np.float64).reshape(4, 4)
            return cls((i, j, k), affine, str(found["space"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"the coordinate 'grid' does not describe a grid ({error})",
                remedy="use arrays opened from a store of this project",
            ) from None

    def same_as(self, shape: tuple[int, ...], affine: FloatArray) -> bool:
        """Whether shape and affine are this grid's (to a thousandth of a mm)."""
        return tuple(shape) == self.shape and bool(np.allclose(affine, self.affine, atol=1e-3))


def on_grid(image: Any, grid: Grid, interpolation: str) -> NDArray[Any]:
    """Values of a 3-D nibabel image at the voxels of ``grid``, zero outside the image.

    Parameters
    ----------
    image : nibabel image, 3-D
    grid : Grid
    interpolation : str
        ``"nearest"`` for labels and masks, ``"linear"`` for maps.

    Returns
    -------
    ndarray, shape (x, y, z)
        The image's dtype for ``"nearest"``.
    """
    if grid.same_as(image.shape, image.affine):
        return np.asanyarray(image.dataobj)
    target = nibabel.Nifti1Image(np.zeros(grid.shape, dtype=np.uint8), grid.affine)
    try:
        moved = resample_to_img(image, target, interpolation=interpolation)
    except BoundingBoxError:  # the image lies wholly beside the grid
        return np.zeros(grid.shape, dtype=np.asanyarray(image.dataobj).dtype)
    return np.asanyarray(moved.dataobj)


def read_volume(path: Any) -> Any:
    """Load a 3-D image (mask or atlas); a trailing dimension of length 1 is dropped.

    Raises
    ------
    InputError
        If it cannot be read, or holds more than one volume.
    """
    try:
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError) as error:
        raise InputError(
            f"not a readable image ({' '.join(str(error).split())})",
            where=path,
            remedy="give a 3-D NIfTI file (.nii or .nii.gz)",
        ) from None
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise InputError(
            f"has {values.ndim} dimensions {values.shape}, an image of one volume has 3",
            where=path,
            remedy="give one 3-D volume",
        )
    return nibabel.Nifti1Image(values, image.affine, image.header, dtype=values.dtype)


def check_template(image: Any, grid: Grid, where: object) -> None:
    """Refuse an image whose header names another template space than the grid's.

    Raises
    ------
    UnavailableError
        For example an MNI152 atlas over a dataset in native space.
    """
    code = int(image.header["sform_code"]) or int(image.header["qform_code"])
    template = TEMPLATE_OF_CODE.get(code)
    if template is None or (template == "MNI152" and grid.is_mni):
        return
    raise UnavailableError(
        f"lies in {template} space (its form code is {code}), the dataset in {grid.space}",
        where=where,
        remedy=f"bring it into {grid.space} space first, or mend the dataset's `space:`",
    )
