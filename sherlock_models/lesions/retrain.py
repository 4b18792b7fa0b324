"""The control of a lesion: what a model that never had the unit makes of the movie.

A lesioned model lacks what it learned to rely on; one trained without the unit may get the same
from elsewhere. A target that is decoded as well without the unit from the start did not need it,
however large the lesion's effect.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from sherlock_data.errors import ConfigError
from sherlock_models.lesions.study import Study
from sherlock_models.lesions.units import of_the_layer
from sherlock_models.run import Run
from sherlock_models.scoring.scores import FloatArray
from sherlock_models.training.train import Progress, fit

if TYPE_CHECKING:
    from sherlock_models.lesions.brain import Reading

RESULT = "retrained.json"


def retrain(
    run: Run,
    unit: str,
    *,
    seed: int = 0,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a run again with a unit closed, and set the two side by side on the held-out TRs.

    Parameters
    ----------
    run : Run
    unit : str
        A parcel, network, image or name, of the brain layer's own units.
    seed : int
        Of the lesion; the training keeps the run's own.
    device : {"auto", "cpu", "cuda"}
    say : callable
        Told in a few words what is being done.
    progress : Progress, optional
        Of the training.

    Returns
    -------
    dict
        ``unit``, ``run`` (the new run's folder, inside the old one's) and, by target, R² of the
        ``whole`` model, of the ``lesioned`` one and of the one ``retrained`` without the unit;
        also in `retrained.json` of the new folder.

    Raises
    ------
    ConfigError
        If the unit is unknown, is made of voxels behind a code, or is the whole brain.
    """
    study = Study.of(run, [unit], seed=seed)
    if study.replacing.components and not of_the_layer(study.units):
        raise ConfigError(
            f"'{unit}' is made of voxels, the brain layer of a code of them",
            where="--retrain",
            remedy="build the code without those voxels, or retrain a run of voxels or parcels",
        )
    index = sorted({int(i) for one in study.units for i in one.index})
    if len(index) == int(study.elements.signal.sum()):
        raise ConfigError("is the whole brain", where=unit, remedy="name a part of it")
    folder = run.path / f"without-{_safe(unit)}"
    config = run.config.model_copy(update={"without": tuple(index)})
    if folder.exists():
        old = Run(folder)
        if old.config.without != config.without or old.state == "running":
            raise ConfigError("is another run, or still running", where=folder, remedy="remove it")
        if old.state != "finished":  # begun and stopped: nothing is known of why
            shutil.rmtree(folder)
    if not folder.exists():
        say(f"training without {unit}: {config.steps} steps")
        fit(config, folder, device=device, progress=progress)
    say("decoding the held-out movie")
    whole, lesioned = _explained(study, True)
    other = Study.of(Run(folder), _anything(Run(folder)), seed=seed)
    (retrained,) = _explained(other, False)
    targets = study.stimuli
    result = {
        "unit": unit,
        "run": str(folder),
        "whole": dict(zip(targets, whole, strict=True)),
        "lesioned": dict(zip(targets, lesioned, strict=True)),
        "retrained": dict(zip(targets, retrained, strict=True)),
    }
    (folder / RESULT).write_text(json.dumps(result, indent=2), encoding="utf-8")
    return result


def _safe(unit: str) -> str:
    """Make a name a folder can have."""
    stem = unit.rsplit("/", 1)[-1].removesuffix(".gz").removesuffix(".nii")
    return re.sub(r"[^\w.-]+", "-", stem)


def _anything(run: Run) -> list[str]:
    """Any unit with signal: only the brain as it is will be read."""
    there = run.data.signal.any(axis=0)
    return [str(run.data.unit_names[there][0])]


def _explained(study: Study, lesion: bool) -> list[list[float]]:
    """R² of every stimulus from the predicted brain and, if wanted, from the lesioned one."""
    names = study.decoding.names
    columns = [names.index(name) for name in study.stimuli]
    error = torch.zeros(2, len(columns), dtype=torch.float64)
    weight = 0.0
    for reading in study.readings:
        brains = [reading.read]
        if lesion:
            brains.append(_without(study, reading))
        for row, brain in enumerate(brains):
            error[row] += torch.from_numpy(_squares(study, reading, brain)[columns])
        weight += float(reading.weight.sum())
    variance = torch.from_numpy(study.variance[columns])
    share: list[list[float]] = (1 - error / weight / variance).tolist()
    return share[: 1 + lesion]


def _without(study: Study, reading: Reading) -> torch.Tensor:
    brain = reading.read.clone()
    for unit in study.units:
        columns, change = reading.change(unit.index, slice(None), False)
        brain[:, columns] += change
    return brain


def _squares(study: Study, reading: Reading, brain: torch.Tensor) -> FloatArray:
    """Sum over TRs and subjects of the squared error of every part, (parts,)."""
    with torch.inference_mode():
        decoded = study.decoding.cut(brain)
        truth = study.decoding.truth(reading.trs)
        sums = torch.cat(study.decoding.error_sums(decoded, truth, list(truth)), dim=-1)[0]
        weight = torch.from_numpy(reading.weight)[:, None]
        total: FloatArray = (sums.double() * weight).sum(0).numpy()
    return total
