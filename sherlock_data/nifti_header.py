"""What a NIfTI header says: NIfTI-1.1 and NIfTI-2, parsed by nibabel, checked by us."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from sherlock_data.errors import InputError

#: seconds in the time units of ``xyzt_units``; a file that names none is taken to mean seconds
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}
_SIZES = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_SPACES = {
    0: "unknown",
    1: "scanner",
    2: "aligned",
    3: "Talairach",
    4: "MNI152",
    5: "template",
}
_NOT_NIFTI = "give a NIfTI file (.nii or .nii.gz)"
#: remedy for a file that is not what was written
DAMAGED = "fetch or write the file again"


@dataclass(frozen=True)
class NiftiHeader:
    """What a header says of its data.

    Attributes
    ----------
    shape : tuple of int
        (x, y, z, time); an image of three dimensions has one volume.
    dimensions : int
        3 or 4, as the file has it.
    affine : ndarray of float64, shape (4, 4)
        Voxel indices to millimetres; the best of sform and qform.
    zooms : tuple of float
        Voxel size in mm along x, y, z.
    tr_s : float or None
        Seconds between volumes; None where the header holds no positive number.
    dtype : numpy.dtype
        As on disk, byte order included.
    slope, inter : float
        Stored values times ``slope`` plus ``inter`` are the values (1 and 0: nothing to do).
    offset : int
        First byte of the data in the (inflated) file.
    space : str
        What the header's form code names: ``"MNI152"``, ``"scanner"``, ``"unknown"``, ...
    """

    shape: tuple[int, int, int, int]
    dimensions: int
    affine: NDArray[np.float64]
    zooms: tuple[float, float, float]
    tr_s: float | None
    dtype: np.dtype[Any]
    slope: float
    inter: float
    offset: int
    space: str

    @property
    def volumes(self) -> int:
        """Number of volumes."""
        return self.shape[3]

    @property
    def big_endian(self) -> bool:
        """Whether values on disk have their most significant byte first."""
        return self.dtype.str.startswith(">")

    @property
    def volume_bytes(self) -> int:
        """Bytes of one volume on disk, inflated."""
        return int(np.prod(self.shape[:3])) * self.dtype.itemsize

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file, inflated."""
        return self.offset + self.volume_bytes * self.volumes

    @property
    def is_plain(self) -> bool:
        """Whether bytes on disk are already the native float32 values."""
        return self.dtype == np.dtype("=f4") and not self.is_scaled

    @property
    def is_scaled(self) -> bool:
        """Whether slope and intercept change the values."""
        return (self.slope, self.inter) != (1.0, 0.0)


def parse(path: Path, file: Any) -> NiftiHeader:
    """Parse the header at the start of an inflated file.

    Parameters
    ----------
    path : Path
        For complaints.
    file : binary file
        At its first byte; left after the header.

    Raises
    ------
    InputError
        If it is no single-file NIfTI, or holds other than real numbers in 3 or 4 dimensions.
    """
    size_field = file.read(4)
    sizes = [int.from_bytes(size_field, order) for order in ("little", "big")]
    size = next((size for size in sizes if size in _SIZES), None)
    if size is None:
        raise InputError("is not a NIfTI file", where=path, remedy=_NOT_NIFTI)
    binary = size_field + file.read(size - 4)
    if len(binary) < size:
        raise InputError("ends within its header", where=path, remedy=DAMAGED)
    magic = binary[344:348] if size == 348 else binary[4:8]
    if magic[:2] == b"ni" or path.suffix in {".hdr", ".img"}:
        raise InputError(
            "is half of a .hdr/.img pair", where=path, remedy="convert it to one .nii or .nii.gz"
        )
    if magic[:2] != b"n+":
        raise InputError("is not a NIfTI file (Analyze 7.5?)", where=path, remedy=_NOT_NIFTI)
    try:
        return _understood(path, _SIZES[size](binary, check=False))
    except KeyError as error:
        problem = f"has a broken header (no data type {error})"
        raise InputError(problem, where=path, remedy=DAMAGED) from error
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise InputError(f"has a broken header ({error})", where=path, remedy=DAMAGED) from error


def _understood(path: Path, header: Any) -> NiftiHeader:
    """Check a nibabel header and keep what we use of it."""
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError(
            f"holds {header.get_value_label('datatype')} values",
            where=path,
            remedy="give real numbers",
        )
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise InputError(
            f"has the shape {shape}", where=path, remedy="give a 4-D file (x, y, z, time)"
        )
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(
            "has an affine that places no voxel", where=path, remedy="mend its sform or qform"
        )
    slope, inter = header.get_slope_inter()
    code = int(header["sform_code"]) or int(header["qform_code"])
    zooms = [float(str(zoom)) for zoom in header.get_zooms()[:3]]
    least, offset = int(header["sizeof_hdr"]) + 4, int(header.get_data_offset())
    if offset < 0:
        raise HeaderDataError(f"data at byte {offset}")
    return NiftiHeader(
        shape=(shape[0], shape[1], shape[2], shape[3] if len(shape) == 4 else 1),
        dimensions=len(shape),
        affine=affine,
        zooms=(zooms[0], zooms[1], zooms[2]),
        tr_s=_repetition_time(header) if len(shape) == 4 else None,
        dtype=dtype,
        slope=1.0 if slope is None else float(slope),
        inter=0.0 if inter is None else float(inter),
        offset=max(offset, least),
        space=_SPACES.get(code, "unknown"),
    )


def _repetition_time(header: Any) -> float | None:
    """Seconds between volumes, or None.

    The shortest decimal that rounds to the stored float32 is meant, so 0.72 stays 0.72.
    """
    unit = header.get_xyzt_units()[1]
    value = float(str(header["pixdim"][4]))
    if unit not in _SECONDS or not np.isfinite(value) or value <= 0:
        return None
    return float(f"{value * _SECONDS[unit]:.9g}")
