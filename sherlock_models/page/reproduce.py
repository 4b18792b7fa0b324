"""The commands that make a run and its page again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sherlock_data.catalog import load_catalog
from sherlock_data.errors import CatalogError
from sherlock_models.config import RunConfig

if TYPE_CHECKING:
    from sherlock_models.run import Run

#: stands for a catalogue that the run was not told of
UNKNOWN_CATALOG = "CATALOG.yaml"
#: keys of a configuration that a `--set` carries; the others have an option of their own
_SETTABLE = (
    "delays",
    "context_trs",
    "split_stimulus",
    "subject",
    "folds",
    "learning_rate",
    "warmup",
    "weight_decay",
    "clip",
    "brain_noise",
    "brain_forcing",
    "weights",
    "width",
    "validate_every",
    "patience",
)


def commands(
    run: Run, truth: Path | None = None, lesions: Mapping[str, Any] | None = None
) -> list[str]:
    """From raw files to the page, one command a line, ready for a shell in any folder.

    Where the stores were built with a catalogue that the run was not told of,
    ``UNKNOWN_CATALOG`` stands for it.

    Parameters
    ----------
    run : Run
    truth : Path, optional
        The planted truth that the page compares with.
    lesions : mapping, optional
        Attributes of the lesions that the page shows.
    """
    config, folder = run.config, str(run.path.resolve())
    out, _, dataset = config.data.rstrip("/").rpartition("/")
    catalog = _catalog(config, dataset)
    options = {
        "--data": config.data,
        "--out": folder,
        "--steps": config.steps,
        "--batch-size": config.batch_size,
        "--split": config.split,
        "--fold": config.fold,
        "--seed": config.seed,
        "--precision": config.precision,
    }
    given = [str(word) for option in options.items() for word in option]
    lines: list[list[str]] = [
        ["sherlock-data", "build", dataset, *sorted(config.stores), *catalog, "--out", out],
        ["sherlock-train", config.entry, *given, *catalog, *_settings(run)],
        ["sherlock-models", "evaluate", folder],
        *([] if lesions is None else [_lesion(folder, lesions)]),
        ["sherlock-models", "report", folder]
        + (["--truth", str(truth.resolve())] if truth is not None else []),
    ]
    return [shlex.join(line) for line in lines]


def _catalog(config: RunConfig, dataset: str) -> list[str]:
    """Name the catalogue that a build and a training need."""
    if config.catalog is not None:
        return ["--catalog", str(Path(config.catalog).resolve())]
    return [] if dataset in load_catalog().datasets else ["--catalog", UNKNOWN_CATALOG]


def _lesion(folder: str, attrs: Mapping[str, Any]) -> list[str]:
    """Write the options of a lesion that differ from their defaults."""
    words = ["sherlock-models", "lesion", folder]
    defaults = {"units": "parcels", "replace": "zero", "brain": "predicted", "seed": 0}
    for key, default in defaults.items():
        if attrs.get(key, default) != default:
            words += [f"--{key}", str(attrs[key])]
    return words


def _settings(run: Run) -> list[str]:
    """Every `--set` that differs from its default, and those that name what the entry reads."""
    config = run.config
    values: dict[str, Any] = {"brain": config.brain, "stimulus": config.stimulus}
    if config.compressor is not None:
        values["compressor"] = config.compressor.run
    for key in _SETTABLE:
        default = RunConfig.model_fields[key].get_default(call_default_factory=True)
        if getattr(config, key) != default:
            values[key] = getattr(config, key)
    values |= _options(config)
    return [word for key, value in values.items() for word in _set(key, value)]


def _options(config: RunConfig) -> dict[str, Any]:
    """Options of the architecture that are not the entry's own."""
    try:
        own = load_catalog(config.catalog).model(config.entry).options
    except CatalogError:  # the catalogue is gone, or has another entry: name every option
        own = {}
    return {key: value for key, value in config.options.items() if own.get(key) != value}


def _set(key: str, value: Any) -> list[str]:
    """Write one setting; a mapping becomes one for each member."""
    if isinstance(value, dict):
        members = [_set(f"{key}.{inner}", one) for inner, one in value.items()]
        return [word for member in members for word in member]
    text = json.dumps(value) if isinstance(value, tuple | list) else str(value)
    return ["--set", f"{key}={text}"]
