"""Whether lesions find what was planted, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sherlock_data.errors import InputError
from sherlock_models.lesions.block_tests import two_sided
from sherlock_models.scoring.significance import FDR

#: planted ceiling from which a parcel must be found
STRONG = 0.3
VIDEO, AUDIO, NONE = "video", "audio", "none"


@dataclass(frozen=True)
class Recovery:
    """What the lesions of planted parcels say.

    Attributes
    ----------
    auc : float
        How well effect on video less effect on audio tells video from audio parcels.
    false_positives, other_target : dict of (int, int)
        By target, parcels with q at most `FDR`, and all there are: of `none`, and of the other
        modality.
    found : dict of (int, int)
        By target, parcels of that modality with a ceiling of at least ``STRONG`` found on it, and
        all there are.
    dissociation, dissociation_p : float
        Video parcels against audio parcels, video against audio, the mean over parcels; two-sided.
    """

    auc: float
    false_positives: dict[str, tuple[int, int]]
    other_target: dict[str, tuple[int, int]]
    found: dict[str, tuple[int, int]]
    dissociation: float
    dissociation_p: float


def recovery(lesions: xr.Dataset, truth: xr.Dataset) -> Recovery:
    """Compare lesions of parcels with what was planted.

    Parameters
    ----------
    lesions : xarray.Dataset
        As `lesions.lesion.lesion` gives it, of parcels, with the targets video and audio.
    truth : xarray.Dataset
        `modality`, `ceiling (parcel)` of a synthetic dataset.

    Raises
    ------
    InputError
        If units, targets or modalities are lacking.
    """
    place = {str(name): row for row, name in enumerate(truth["parcel"].values)}
    names = [str(name) for name in lesions["unit"].values]
    targets = [str(name) for name in lesions["target"].values]
    missing = [t for t in (VIDEO, AUDIO) if t not in targets]
    known = [row for row, name in enumerate(names) if name in place]
    if missing or not known:
        raise InputError(
            f"no lesions of {' and '.join(missing) or 'planted parcels'}",
            where="lesions",
            remedy="lesion the parcels of a run on video and audio",
        )
    rows = [place[names[row]] for row in known]
    modality = np.array([str(m) for m in truth["modality"].values])[rows]
    ceiling = truth["ceiling"].values[rows]
    columns = [targets.index(VIDEO), targets.index(AUDIO)]
    effect = lesions["effect"].values[known][:, columns]
    q = lesions["q"].values[known][:, columns]
    is_video, is_audio = modality == VIDEO, modality == AUDIO
    if not is_video.any() or not is_audio.any():
        raise InputError("no video or no audio parcels", where="truth", remedy="synthesise anew")
    named = is_video | is_audio
    increase = lesions["increase"].values[:, known][:, :, columns]
    selective = increase[..., 0] - increase[..., 1]
    blocks = selective[:, is_video].mean(axis=1) - selective[:, is_audio].mean(axis=1)
    significant = q <= FDR
    groups = (
        (VIDEO, is_video & (ceiling >= STRONG), is_audio),
        (AUDIO, is_audio & (ceiling >= STRONG), is_video),
    )
    found, other, wrong = {}, {}, {}
    for column, (name, strong, others) in enumerate(groups):
        found[name] = _counted(significant[strong, column])
        other[name] = _counted(significant[others, column])
        wrong[name] = _counted(significant[modality == NONE, column])
    return Recovery(
        auc=float(roc_auc_score(is_video[named], (effect[:, 0] - effect[:, 1])[named])),
        false_positives=wrong,
        other_target=other,
        found=found,
        dissociation=float(blocks.sum()),
        dissociation_p=float(two_sided(blocks)),
    )


def _counted(flags: NDArray[np.bool_]) -> tuple[int, int]:
    return int(flags.sum()), len(flags)
