"""What the movie loses without a part of the brain, or keeps with that part alone.

The effect of a lesion is the increase of the held-out squared error of each target over that
target's variance in training: 0.1 is a tenth of what the training mean leaves unexplained. Above 0
the target is decoded worse. `isolate` replaces everything but the unit; its effect is what the unit
alone explains, on the same scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import xarray as xr

from sherlock_data.errors import ConfigError
from sherlock_models.lesions import lesion_store, maps
from sherlock_models.lesions.null import NULL_DRAWS
from sherlock_models.lesions.study import Cost, Study

if TYPE_CHECKING:
    from sherlock_models.run import Run

MODES = ("lesion", "isolate")
#: units of which a map of the picture is kept, those with the largest effects
MAPPED = 20


class Watcher(Protocol):
    """Who watches a lesion."""

    def started(self, cost: Cost) -> None:
        """Before the first unit."""

    def advanced(self, samples: int) -> None:
        """After every batch: samples decoded since the last call."""


class Silent:
    """Watches and says nothing."""

    def started(self, cost: Cost) -> None:
        """Before the first unit."""

    def advanced(self, samples: int) -> None:
        """After every batch."""


def lesion(
    run: Run,
    units: str | Sequence[str] = "parcels",
    *,
    mode: str = "lesion",
    replace: str = "zero",
    brain: str = "predicted",
    null_draws: int = NULL_DRAWS,
    mapped: int = MAPPED,
    fast: bool = True,
    seed: int = 0,
    watcher: Watcher | None = None,
) -> xr.Dataset:
    """Replace every unit of a run's brain in turn, and see what is decoded worse.

    Parameters
    ----------
    run : Run
        Its best checkpoint, on the test side of its split.
    units : str or sequence of str
        As :func:`sherlock_models.lesions.units.find_units` takes them.
    mode : {"lesion", "isolate"}
    replace : {"zero", "mean", "shuffle"}
        As :class:`sherlock_models.lesions.brain.Replacing` has them.
    brain : {"predicted", "measured"}
        What the decoder reads.
    null_draws : int
        Random units of every size; 0 for none.
    mapped : int
        Units of which a map of the picture is made.
    fast : bool
        Whether to start from the first layer's output; the plain way gives the same.
    seed : int
    watcher : Watcher, optional

    Returns
    -------
    xarray.Dataset
        As :func:`sherlock_models.lesions.lesion_store.gather` has it; not yet written.

    Raises
    ------
    ConfigError, InputError, UnavailableError
        If a unit, an option or an image cannot be used.
    """
    if mode not in MODES:
        raise ConfigError(f"no mode '{mode}'", where="--mode", remedy=f"say {', '.join(MODES)}")
    study = Study.of(run, units, mode, replace, brain, fast, seed)
    null = study.null(null_draws)
    watcher = watcher or Silent()
    watcher.started(study.cost(null, maps.samples(study, mapped)))
    with torch.inference_mode():
        effects = study.effects([u.index for u in study.units], watcher.advanced, tested=True)
        chance = study.effects(null.index, watcher.advanced).effect if null.index else None
        seen = maps.maps_of(study, effects.effect, mapped, watcher.advanced)
    return lesion_store.gather(study, effects, null, chance, seen)


def lesioned(
    run: Run, unit: str, trs: Sequence[int], *, mode: str = "lesion", replace: str = "zero"
) -> dict[str, dict[str, Any]]:
    """Decode stills with and without a unit, from the first reading of the predicted brain.

    Parameters
    ----------
    run : Run
    unit : str
        Name of a parcel or network, or an image.
    trs : sequence of int
        Held-out stimulus TRs.
    mode, replace : str

    Returns
    -------
    dict
        By stimulus: ``original``, ``decoded`` and ``lesioned``, float32 (n, ...) in normalised
        units (`MovieBrainData.normaliser` and `scoring.heldout.frames` turn them back).

    Raises
    ------
    ConfigError
        If a TR is not held out, or the unit is unknown.
    """
    study = Study.of(run, [unit], mode, replace)
    reading = study.readings[0]
    rows = np.searchsorted(reading.trs, trs)
    known = np.isin(trs, reading.trs)
    if not known.all():
        missing = [int(tr) for tr, there in zip(trs, known, strict=True) if not there]
        raise ConfigError(f"TR {missing[0]} is not held out", where="trs", remedy="name test TRs")
    start = reading.start(study.isolate)
    brain = start.clone()
    for one in study.units:
        columns, change = reading.change(one.index, slice(None), study.isolate)
        brain[:, columns] += change
    with torch.inference_mode():
        whole, less = study.decoding.cut(reading.read[rows]), study.decoding.cut(brain[rows])
    truth = study.decoding.truth(np.asarray(trs))
    return {
        name: {
            "original": truth[name].numpy(),
            "decoded": whole[name].numpy(),
            "lesioned": less[name].numpy(),
        }
        for name in study.stimuli
    }
