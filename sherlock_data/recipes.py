"""What a store is made of: one validated recipe per kind of store.

A recipe is written into the store's attributes; two stores are the same when their recipes and the
hashes of their inputs are.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: names that every store has
RESERVED = ("time", "run", "run_time", "tr")


class _Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    #: built without being named
    by_default: ClassVar[bool] = True

    @property
    def sources(self) -> tuple[str, ...]:
        """Stores of the same dataset that this one is derived from."""
        return ()


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

    @property
    def sources(self) -> tuple[str, ...]:
        """The volumes."""
        return ("volumes",)


class ParcelsRecipe(_Recipe):
    """Mean of every parcel of an atlas; ``atlas`` None: the dataset's own."""

    kind: Literal["parcels"] = "parcels"
    atlas: str | None = None
    mask: MaskRule = MaskRule()

    @property
    def sources(self) -> tuple[str, ...]:
        """The volumes."""
        return ("volumes",)


class PcaRecipe(_Recipe):
    """Principal components of standardised voxels, fitted on the training TRs of a split.

    Attributes
    ----------
    of : str
        A store of kind ``voxels``.
    components : int
    fit : str
        Kind of the split whose training TRs the components are fitted on.
    fold, folds : int
        Its fold, of how many (None: the split's own default).
    context_trs : int
        Temporal context of the models to come: how far their stimulus reaches into the past.
    trs : str
        ``"stimulus"``: the split shares out the TRs that a movie covers, as models of it do, and
        the others are never fitted on; ``"scan"``: every TR. A dataset without a movie always
        shares out every TR.
    solver : str
        ``"gram"``, ``"subspace"``, or ``"auto"``: the cheaper one at the shape found.
    memory_gb : float
        Most memory of the fit, 10^9 bytes.
    seed : int
        Of the random start of the subspace and of a random split.
    claimed : str or None
        What was said of these components before; recorded beside what is measured.
    """

    kind: Literal["pca"] = "pca"
    of: str = "voxels"
    components: int = Field(ge=1)
    fit: Literal["block", "run", "subject", "random"] = "block"
    fold: int = Field(default=0, ge=0)
    folds: int | None = Field(default=None, ge=2)
    context_trs: int = Field(default=0, ge=0)
    trs: Literal["stimulus", "scan"] = "stimulus"
    solver: Literal["auto", "gram", "subspace"] = "auto"
    memory_gb: float = Field(default=4.0, gt=0)
    seed: int = 0
    claimed: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The voxels it is fitted on."""
        return (self.of,)


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


class FeaturesRecipe(_Recipe):
    """Features of the movie by pretrained networks, or arrays that the user brings.

    Attributes
    ----------
    extractors : tuple of str
        Rows of the catalogue's ``extractors``; each gives one variable of its name.
    files : dict
        Name to a TR-aligned ``.npy`` relative to the raw folder, its clock in a ``.json`` of the
        same name; a name that ``extractors`` does not list is added.
    """

    by_default: ClassVar[bool] = False

    kind: Literal["features"] = "features"
    extractors: tuple[str, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_variables(self) -> FeaturesRecipe:
        for name in self.names:
            if not re.fullmatch(r"[A-Za-z][\w-]*", name) or name in RESERVED or "has_" in name[:4]:
                raise ValueError(f"'{name}' cannot name a variable of the store")
        if len(set(self.extractors)) < len(self.extractors):
            raise ValueError("an extractor is named twice")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Variables of the store, in order."""
        return (*self.extractors, *(name for name in self.files if name not in self.extractors))


class FramesRecipe(_Recipe):
    """Every frame at full resolution with its own stretch of sound."""

    by_default: ClassVar[bool] = False

    kind: Literal["frames"] = "frames"


Recipe = (
    VolumesRecipe
    | VoxelsRecipe
    | ParcelsRecipe
    | PcaRecipe
    | StimulusRecipe
    | AnnotationsRecipe
    | FeaturesRecipe
    | FramesRecipe
)

RECIPES: dict[str, type[Recipe]] = {
    "volumes": VolumesRecipe,
    "voxels": VoxelsRecipe,
    "parcels": ParcelsRecipe,
    "pca": PcaRecipe,
    "stimulus": StimulusRecipe,
    "annotations": AnnotationsRecipe,
    "features": FeaturesRecipe,
    "frames": FramesRecipe,
}
