"""Where the synthetic brains are: an MNI grid, nilearn's brain mask, parcels in its grey.

Legend: x, y, z = grid axes (RAS), P = parcels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template
from nilearn.image import resample_img
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.cluster import AgglomerativeClustering
from sklearn.feature_extraction.image import grid_to_graph

FloatArray = NDArray[np.float64]

#: mm; first voxel and field of view of the published files (61 x 73 x 61 voxels of 3 mm)
ORIGIN_MM = (-90.0, -126.0, -72.0)
FIELD_OF_VIEW_MM = (183.0, 219.0, 183.0)
#: mm; nilearn's template is read at this resolution
TEMPLATE_MM = 2
#: parcels cover voxels whose grey-matter probability is above this
GREY_MATTER = 0.5
NETWORKS = 7


@dataclass(frozen=True)
class Geometry:
    """A grid with its brain and its parcels.

    Attributes
    ----------
    affine : ndarray of float64, shape (4, 4)
    brain : ndarray of bool, shape (x, y, z)
    labels : ndarray of int16, shape (x, y, z)
        0 outside the parcels, else 1 to P.
    parcels : DataFrame, P rows
        ``index`` (1 to P), ``name``, ``hemisphere`` (LH, RH), ``network``.
    centre_mm : ndarray of float64, shape (P, 3)
    """

    affine: FloatArray
    brain: NDArray[np.bool_]
    labels: NDArray[np.int16]
    parcels: pd.DataFrame
    centre_mm: FloatArray

    def write_atlas(self, image: Path, table: Path) -> None:
        """Write the label image and its table (TSV)."""
        picture = nibabel.Nifti1Image(self.labels, self.affine)
        picture.header.set_xyzt_units("mm")
        picture.set_sform(self.affine, code="mni")
        picture.set_qform(self.affine, code="mni")
        nibabel.save(picture, image)
        self.parcels.to_csv(table, sep="\t", index=False, lineterminator="\n")


def make_geometry(voxel_mm: float, parcels: int) -> Geometry:
    """Lay a grid over nilearn's MNI152 template and parcel its grey matter.

    Parameters
    ----------
    voxel_mm : float
    parcels : int
        Half of them in each hemisphere.

    Returns
    -------
    Geometry
        Every parcel is one face-connected piece of grey matter on one side of the midline, found
        by Ward clustering of the voxels' places (as in scikit-learn, with the grid as the graph).
    """
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = ORIGIN_MM
    shape = tuple(int(np.ceil(extent / voxel_mm)) for extent in FIELD_OF_VIEW_MM)
    brain = _resampled(load_mni152_brain_mask(TEMPLATE_MM), affine, shape, "nearest") > 0.5
    grey = _resampled(load_mni152_gm_template(TEMPLATE_MM), affine, shape, "continuous")
    grey_voxels = brain & (grey > GREY_MATTER)
    x_mm = affine[0, 0] * np.arange(shape[0]) + affine[0, 3]
    labels = np.zeros(shape, dtype=np.int16)
    sides: list[str] = []
    for name, side, count in (
        ("LH", x_mm < 0, parcels // 2),
        ("RH", x_mm > 0, parcels - parcels // 2),
    ):
        region = _largest_piece(grey_voxels & side[:, None, None])
        labels[region] = _clusters(region, count) + 1 + len(sides)
        sides += [name] * count
    centre = _centres(labels, affine, parcels)
    return Geometry(affine, brain, labels, _table(sides, centre), centre)


def _resampled(
    image: nibabel.Nifti1Image, affine: FloatArray, shape: tuple[int, ...], interpolation: str
) -> FloatArray:
    resampled = resample_img(
        image,
        target_affine=affine,
        target_shape=shape,
        interpolation=interpolation,
        force_resample=True,
        copy_header=True,
    )
    return np.asarray(resampled.get_fdata())


def _largest_piece(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, _ = ndimage.label(region)
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)


def _clusters(region: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Cluster of every voxel of ``region``, numbered from the back of the head to the front."""
    places = np.argwhere(region).astype(np.float64)
    graph = grid_to_graph(*region.shape, mask=region)
    found = AgglomerativeClustering(count, connectivity=graph, linkage="ward").fit_predict(places)
    depth = np.bincount(found, places[:, 1]) / np.bincount(found)
    return np.asarray(np.argsort(np.argsort(depth))[found])


def _centres(labels: NDArray[np.int16], affine: FloatArray, parcels: int) -> FloatArray:
    middle = ndimage.center_of_mass(labels > 0, labels, np.arange(1, parcels + 1))
    return np.asarray(middle) @ affine[:3, :3].T + affine[:3, 3]


def _table(sides: list[str], centre_mm: FloatArray) -> pd.DataFrame:
    """Name the parcels as the Schaefer atlas does: atlas, hemisphere, network, number."""
    folded = np.abs(centre_mm) * (1, 0, 0) + centre_mm * (0, 1, 1)
    networks = min(NETWORKS, max(1, len(sides) // 5))
    found = AgglomerativeClustering(networks, linkage="ward").fit_predict(folded)
    table = pd.DataFrame({"index": np.arange(1, len(sides) + 1), "hemisphere": sides})
    table["network"] = [f"Syn{chr(ord('A') + cluster)}" for cluster in found]
    number = table.groupby(["hemisphere", "network"]).cumcount() + 1
    table["name"] = "Synthetic_" + table.hemisphere + "_" + table.network + "_" + number.astype(str)
    return table[["index", "name", "hemisphere", "network"]]
