"""What is planted: which parcel follows which tracks, how strongly, and what that must come to.

Legend: P = parcels, F = features (tracks), N = subjects. All strengths are those of a parcel's mean
over its voxels.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sherlock_data.contract import strings
from sherlock_data.synthetic.geometry import Geometry
from sherlock_data.synthetic.tracks import AUDIO_TRACKS, TRACKS, VIDEO_TRACKS, RunTracks
from sherlock_data.timing import Clock

FloatArray = NDArray[np.float64]

#: TRs from a picture to the brain's answer: 4.5 s at the catalogue's TR
LAG_TRS = 3
#: leave-one-out inter-subject r from the earliest to the last parcel of a modality
CEILINGS = (0.66, 0.05)
#: modality -> share of the parcels, and the place (|x|, y, z in mm, MNI) they gather around:
#: auditory cortex, the occipital pole, and where temporal, parietal and occipital cortex meet
REGIONS = {
    "audio": (0.175, (52.0, -20.0, 6.0)),
    "video": (0.35, (14.0, -92.0, 2.0)),
    "both": (0.1, (48.0, -58.0, 14.0)),
}
#: tracks of each modality that a parcel follows
TRACKS_PER_PARCEL = 2
#: every so many parcels of a modality one repeats the weights of the one before
REDUNDANT_EVERY = 5


@dataclass(frozen=True)
class Plan:
    """The planted answer.

    Attributes
    ----------
    modality : tuple of str, P long
        ``video``, ``audio``, ``both`` or ``none``.
    direction : ndarray of float64, shape (P, F)
        Weights of unit norm, so that the signal of uncorrelated tracks has variance 1; 0 in
        ``none``.
    pairwise : ndarray of float64, shape (P,)
        Expected correlation between two subjects' parcel means: the share of the parcel's
        variance that the shared signal takes.
    ceiling : ndarray of float64, shape (P,)
        Expected leave-one-out inter-subject correlation at ``subjects``.
    lag_s : float
    subjects : int
    """

    modality: tuple[str, ...]
    direction: FloatArray
    pairwise: FloatArray
    ceiling: FloatArray
    lag_s: float
    subjects: int

    def dataset(self, geometry: Geometry) -> xr.Dataset:
        """Return ``truth.zarr``: ``weight`` is in SDs of the parcel's mean per SD of a track."""
        weight = self.direction * np.sqrt(self.pairwise)[:, None]
        shown = {"long_name": "SD of the parcel's mean per SD of the track", "units": "1"}
        expected = "expected leave-one-out inter-subject correlation"
        return xr.Dataset(
            {
                "weight": (("parcel", "feature"), weight, shown),
                "modality": strings("parcel", self.modality),
                "lag_s": ((), self.lag_s, {"units": "s"}),
                "ceiling": ("parcel", self.ceiling, {"long_name": expected}),
                "pairwise_r": ("parcel", self.pairwise, {"long_name": "expected, two subjects"}),
            },
            {
                "parcel": strings("parcel", geometry.parcels["name"]),
                "feature": strings("feature", TRACKS),
            },
            {"subjects": self.subjects, "synthetic": "true"},
        )


def expected_ceiling(pairwise: FloatArray, subjects: int) -> FloatArray:
    """Leave-one-out inter-subject correlation of ``subjects`` for a pairwise correlation.

    One subject against the mean of the others, whose noise is averaged over ``subjects - 1``.
    """
    spread = np.sqrt(pairwise + (1 - pairwise) / (subjects - 1))
    return np.asarray(pairwise / spread)


def pairwise_for(ceiling: FloatArray, subjects: int) -> FloatArray:
    """Invert :func:`expected_ceiling` (the positive root of its square)."""
    b = ceiling**2 * (1 - 1 / (subjects - 1))
    return np.asarray((b + np.sqrt(b**2 + 4 * ceiling**2 / (subjects - 1))) / 2)


def make_plan(geometry: Geometry, clock: Clock, subjects: int, seed: int) -> Plan:
    """Decide what every parcel follows.

    Modalities gather around the places where real brains see and hear; ceilings fall with the
    distance from there, and parcels far from all of them follow nothing.
    """
    rng = np.random.default_rng([seed, 1])
    members = _members(geometry.centre_mm)
    modality = np.full(len(geometry.centre_mm), "none", dtype=object)
    direction = np.zeros((len(modality), len(TRACKS)))
    ceiling = np.zeros(len(modality))
    for name, parcels in members.items():
        modality[parcels] = name
        ceiling[parcels] = np.linspace(*CEILINGS, len(parcels))
        direction[parcels] = _directions(name, len(parcels), rng)
    pairwise = np.where(modality == "none", 0.0, pairwise_for(ceiling, subjects))
    lag_s = LAG_TRS * clock.repetition_time_s
    return Plan(tuple(modality), direction, pairwise, ceiling, lag_s, subjects)


def _members(centre_mm: FloatArray) -> dict[str, NDArray[np.int64]]:
    """Parcels of every modality, nearest to its place first."""
    folded = centre_mm * (np.sign(centre_mm[:, :1]) * (1, 0, 0) + (0, 1, 1))
    free = np.ones(len(folded), dtype=bool)
    members = {}
    for name, (share, place) in REGIONS.items():
        distance = np.where(free, np.linalg.norm(folded - place, axis=1), np.inf)
        members[name] = np.argsort(distance, kind="stable")[: max(2, round(share * len(folded)))]
        free[members[name]] = False
    return members


def _directions(modality: str, parcels: int, rng: np.random.Generator) -> FloatArray:
    direction = np.zeros((parcels, len(TRACKS)))
    for name, tracks in (("video", VIDEO_TRACKS), ("audio", AUDIO_TRACKS)):
        if modality not in (name, "both"):
            continue
        first = rng.permutation(len(tracks))
        for parcel in range(parcels):
            # every track is followed before any is followed again
            own = first[parcel % len(tracks)]
            others = rng.permutation(np.delete(np.arange(len(tracks)), own))
            chosen = [own, *others[: TRACKS_PER_PARCEL - 1]]
            size = rng.uniform(0.5, 1.5, len(chosen)) * rng.choice([-1, 1], len(chosen))
            direction[parcel, [TRACKS.index(tracks[i]) for i in chosen]] = size
    direction[REDUNDANT_EVERY - 1 :: REDUNDANT_EVERY] = direction[
        REDUNDANT_EVERY - 2 : parcels - 1 : REDUNDANT_EVERY
    ]
    return np.asarray(direction / np.linalg.norm(direction, axis=1, keepdims=True))


def write_truth(path: Path, truth: xr.Dataset) -> None:
    """Write ``truth.zarr`` (Zarr v3, consolidated)."""
    with warnings.catch_warnings():
        # v3 has no word on consolidated metadata yet; plain open_zarr is silent only with it
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        truth.to_zarr(path, mode="w", zarr_format=3, consolidated=True)


def write_features(array: Path, description: Path, tracks: list[RunTracks], clock: Clock) -> None:
    """Write the tracks, TR-aligned and not lagged, as ``features.npy`` and their names as JSON."""
    values = np.concatenate([run.per_tr for run in tracks]).astype(np.float32)
    np.save(array, values, allow_pickle=False)
    document = {
        "dims": ["time", "feature"],
        "feature": list(TRACKS),
        "modality": ["video" if name in VIDEO_TRACKS else "audio" for name in TRACKS],
        "units": "standard deviations",
        "repetition_time_s": clock.repetition_time_s,
        "runs": [{"run": run.name, "volumes": run.volumes} for run in clock.runs],
        "time": "the TR in which the movie showed it; no lag applied",
    }
    description.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
