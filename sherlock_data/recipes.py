"""What a store is made of: one validated recipe per kind of store.

A recipe is written into the store's attributes; two stores are the same when their recipes and the
hashes of their inputs are.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    #: built without being named
    by_default: ClassVar[bool] = True


class MaskRule(_Recipe):
    """Which voxels belong to the brain.

    Attributes
    ----------
    signal_fraction : float
        A subject has signal in a voxel that is finite and nonzero in more than this share of its
        valid volumes.
    subject_fraction : float
        A voxel is in the mask when at least this share of the subjects has signal there.
    grey_matter : float or None
        Also ask nilearn's MNI152 grey-matter map for at least this value.
    file : str or None
        Or take the mask from an image, relative to the raw folder.
    """

    signal_fraction: float = Field(default=0.95, ge=0, lt=1)
    subject_fraction: float = Field(default=0.5, gt=0, le=1)
    grey_matter: float | None = Field(default=None, gt=0, le=1)
    file: str | None = None


class VolumesRecipe(_Recipe):
    """Every volume on its grid."""

    kind: Literal["volumes"] = "volumes"
    mask: MaskRule = MaskRule()


class VoxelsRecipe(_Recipe):
    """The voxels of a mask, or means of blocks of ``coarsen`` voxels along every axis."""

    kind: Literal["voxels"] = "voxels"
    mask: MaskRule = MaskRule()
    coarsen: int = Field(default=1, ge=1)


class ParcelsRecipe(_Recipe):
    """Mean of every parcel of an atlas; ``atlas`` None: the dataset's own."""

    kind: Literal["parcels"] = "parcels"
    atlas: str | None = None
    mask: MaskRule = MaskRule()


class StimulusRecipe(_Recipe):
    """Mean picture of every TR (pixels) and its sound (counts of bands and coefficients)."""

    kind: Literal["stimulus"] = "stimulus"
    width: int = Field(default=160, ge=2)
    height: int = Field(default=90, ge=2)
    bands: int = Field(default=20, ge=1)
    mfcc: int = Field(default=40, ge=1)
    mel: int = Field(default=64, ge=1)


class AnnotationsRecipe(_Recipe):
    """The hand-made labels of the movie, averaged over each TR."""

    kind: Literal["annotations"] = "annotations"


Recipe = VolumesRecipe | VoxelsRecipe | ParcelsRecipe | StimulusRecipe | AnnotationsRecipe

RECIPES: dict[str, type[Recipe]] = {
    "volumes": VolumesRecipe,
    "voxels": VoxelsRecipe,
    "parcels": ParcelsRecipe,
    "stimulus": StimulusRecipe,
    "annotations": AnnotationsRecipe,
}
