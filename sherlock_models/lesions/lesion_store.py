"""Effects of lesions as labelled arrays, in a run's `lesions.zarr` or `isolations.zarr`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sherlock_data import contract
from sherlock_data.errors import ConfigError
from sherlock_models.lesions.block_tests import smallest_p, strongest_dissociation
from sherlock_models.lesions.maps import Maps
from sherlock_models.lesions.null import NullUnits
from sherlock_models.run import CHECKPOINTS
from sherlock_models.scoring.evaluation_store import write
from sherlock_models.scoring.scores import FloatArray
from sherlock_models.training import checkpoint

if TYPE_CHECKING:
    from sherlock_models.lesions.study import Effects, Study
    from sherlock_models.run import Run

LESIONS, ISOLATIONS = "lesions.zarr", "isolations.zarr"
_FLIPS = "one-sided, by sign flips of the blocks"
_UNITS = "share of the target's variance over the training TRs"


def path_of(run: Run, mode: str) -> Path:
    """Return where the effects of a mode are kept."""
    return run.path / (ISOLATIONS if mode == "isolate" else LESIONS)


def gather(
    study: Study, effects: Effects, null: NullUnits, chance: FloatArray | None, maps: Maps
) -> xr.Dataset:
    """Label everything a lesion found.

    Returns
    -------
    xarray.Dataset
        ``effect``, ``null_mean``, ``null_std``, ``z``, ``p``, ``q (unit, target)``; ``p_lesion``
        and ``p_measured``, of which ``p`` is the larger; ``increase (block, unit, target)``, which
        adds up to the effect; ``judged_increase`` and ``measured_gain (block, unit, target)``, what
        ``p_lesion`` and ``p_measured`` test, over TRs that keep the blocks apart;
        ``<picture>_map (unit, y, x)``, NaN for units that are not mapped. On ``unit`` also
        ``network`` and ``n_elements``; on ``block`` ``first_tr`` and ``block_run``.
    """
    shape = (len(study.units), len(study.targets))
    mean, std = null.moments(chance) if chance is not None else np.full((2, *shape), np.nan)
    known = std > 0
    z = np.divide(effects.effect - mean, std, out=np.full(shape, np.nan), where=known)
    table = {
        "effect": (effects.effect, {"units": _UNITS, "long_name": _meaning(study.mode)}),
        "null_mean": (mean, {"units": _UNITS, "long_name": "mean over random units of its size"}),
        "null_std": (std, {"units": _UNITS, "long_name": "standard deviation over random units"}),
        "z": (z, {"units": "1", "long_name": "effect against random units of its size"}),
        "p": (effects.p, {"units": "1", "long_name": "the larger of p_lesion and p_measured"}),
        "p_lesion": (effects.p_lesion, {"units": "1", "long_name": f"{_FLIPS} of judged_increase"}),
        "p_measured": (
            effects.p_measured,
            {"units": "1", "long_name": f"{_FLIPS} of measured_gain"},
        ),
        "q": (effects.q, {"units": "1", "long_name": "p with the FDR over units (Benjamini 1995)"}),
    }
    blocks = ("block", "unit", "target")
    variables: dict[str, Any] = {
        name: (("unit", "target"), values, attrs) for name, (values, attrs) in table.items()
    }
    variables["increase"] = (blocks, effects.increase, {"units": _UNITS})
    variables["judged_increase"] = (blocks, effects.judged, {"units": _UNITS})
    variables["measured_gain"] = (blocks, effects.measured_gain, {"units": _UNITS})
    for name, values in maps.maps.items():
        everywhere = np.full((len(study.units), *values.shape[1:]), np.nan, dtype=np.float32)
        everywhere[maps.rows] = values
        dims = ("unit", f"{name}_height", f"{name}_width")
        variables[f"{name}_map"] = (dims, everywhere, {"units": _UNITS})
    first = [
        int(study.blocks.trs[study.blocks.block == k][0]) for k in range(len(study.blocks.run))
    ]
    runs = [study.run.data.clock.runs[int(r)].name for r in study.blocks.run]
    coords = {
        "unit": contract.strings("unit", [unit.name for unit in study.units]),
        "target": contract.strings("target", list(study.targets)),
        "network": contract.strings("unit", [unit.network for unit in study.units]),
        "n_elements": ("unit", np.array([len(unit.index) for unit in study.units])),
        "first_tr": ("block", first),
        "block_run": contract.strings("block", runs),
    }
    return xr.Dataset(variables, coords, attrs=_attrs(study, null))


def _meaning(mode: str) -> str:
    if mode == "isolate":
        return "squared error that the unit alone takes away from a brain replaced all over"
    return "increase of the held-out squared error without the unit"


def _attrs(study: Study, null: NullUnits) -> dict[str, Any]:
    blocks, replacing = len(study.blocks.run), study.replacing
    length = int(np.bincount(study.blocks.block).max())
    return {
        "run": str(study.run.path),
        "step": checkpoint.read_index(study.run.path / CHECKPOINTS).best or 0,
        "created_by": contract.created_by(),
        "brain_store": study.run.config.brain,
        "fingerprints": {n: s.fingerprint for n, s in study.run.config.stores.items()},
        "split": study.run.config.split,
        "fold": study.run.config.fold,
        "units": study.asked,
        "mode": study.mode,
        "replace": replacing.replace,
        "brain": replacing.brain,
        "seed": replacing.seed,
        "test_trs": len(study.blocks.trs),
        "blocks": blocks,
        "longest_block_trs": length,
        "autocorrelation_trs": study.autocorrelation,
        "smallest_p": smallest_p(blocks),
        "null_units": len(null.index),
        "fast": study.decoding.fast,
    }


def save(run: Run, lesions: xr.Dataset) -> Path:
    """Write the effects into the run's folder, over those of the same mode."""
    path = path_of(run, str(lesions.attrs["mode"]))
    write(path, lesions)
    return path


def load_lesions(run: Run, mode: str = "lesion") -> xr.Dataset:
    """Open the effects of a run.

    Raises
    ------
    ConfigError
        If nothing was lesioned, or isolated.
    """
    path = path_of(run, mode)
    if not path.is_dir():
        raise ConfigError(
            "not there", where=path, remedy=f"run sherlock-models lesion {run.path} --mode {mode}"
        )
    opened: xr.Dataset = xr.open_zarr(path)
    return opened


def is_current(run: Run, mode: str = "lesion") -> bool:
    """Whether the effects are there and of the run's present best checkpoint."""
    if not path_of(run, mode).is_dir():
        return False
    best = checkpoint.read_index(run.path / CHECKPOINTS).best
    return bool(load_lesions(run, mode).attrs.get("step") == best)


def stimuli_of(lesions: xr.Dataset) -> list[str]:
    """Targets that are whole stimuli; they stand before the loss."""
    targets = [str(target) for target in lesions["target"].values]
    return targets[: targets.index("loss")] if "loss" in targets else targets


def parts_of(lesions: xr.Dataset, stimulus: str) -> list[str]:
    """Targets that are parts of a stimulus: quadrants and octaves, or bands."""
    targets = [str(target) for target in lesions["target"].values]
    return [target for target in targets if target.startswith(f"{stimulus}/")]


def dissociations(lesions: xr.Dataset) -> list[dict[str, Any]]:
    """Find the strongest double dissociation of every two stimuli.

    Returns
    -------
    list of dict
        ``targets`` and ``units``, two each; ``interaction``; ``p`` over all pairs of units.
    """
    whole, units = stimuli_of(lesions), lesions["unit"].values
    if len(units) < 2:
        return []
    judged, seed = lesions["judged_increase"].values, int(lesions.attrs["seed"])
    gain = lesions["measured_gain"].values if lesions.attrs["brain"] == "predicted" else None
    rows = []
    for x, first in enumerate(whole):
        for y in range(x + 1, len(whole)):
            pair = strongest_dissociation(judged, x, y, seed, gain)
            rows.append(
                {
                    "targets": [first, whole[y]],
                    "units": [str(units[pair.a]), str(units[pair.b])],
                    "interaction": pair.value,
                    "p": pair.p,
                }
            )
    return rows
