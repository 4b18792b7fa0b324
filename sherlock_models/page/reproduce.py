"""The commands that make a run and its page again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sherlock_models.run import Run

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
    """From raw files to the page, one command a line, ready for a shell.

    Parameters
    ----------
    run : Run
    truth : Path, optional
        The planted truth that the page compares with.
    lesions : mapping, optional
        Attributes of the lesions that the page shows.
    """
    config, data = run.config, Path(run.config.data)
    catalog = ["--catalog", config.catalog] if config.catalog else []
    options = {
        "--data": config.data,
        "--out": run.path,
        "--steps": config.steps,
        "--batch-size": config.batch_size,
        "--split": config.split,
        "--fold": config.fold,
        "--seed": config.seed,
        "--precision": config.precision,
    }
    given = [str(word) for option in options.items() for word in option]
    lines: list[list[str]] = [
        ["sherlock-data", "build", data.name, *sorted(config.stores), *catalog, "--out"],
        ["sherlock-train", config.entry, *given, *catalog, *_settings(run)],
        ["sherlock-models", "evaluate", str(run.path)],
        *([] if lesions is None else [_lesion(run, lesions)]),
        ["sherlock-models", "report", str(run.path)]
        + (["--truth", str(truth)] if truth is not None else []),
    ]
    lines[0].append(str(data.parent))
    return [shlex.join(line) for line in lines]


def _lesion(run: Run, attrs: Mapping[str, Any]) -> list[str]:
    """Write the options of a lesion that differ from their defaults."""
    words = ["sherlock-models", "lesion", str(run.path)]
    for key, default in (("replace", "zero"), ("brain", "predicted"), ("seed", 0)):
        if attrs.get(key, default) != default:
            words += [f"--{key}", str(attrs[key])]
    return words


def _settings(run: Run) -> list[str]:
    """Every `--set` that differs from its default, and those that name what the entry reads."""
    from sherlock_models.config import RunConfig

    config = run.config
    values: dict[str, Any] = {"brain": config.brain, "stimulus": config.stimulus}
    if config.compressor is not None:
        values["compressor"] = config.compressor.run
    for key in _SETTABLE:
        default = RunConfig.model_fields[key].get_default(call_default_factory=True)
        if getattr(config, key) != default:
            values[key] = getattr(config, key)
    return [word for key, value in values.items() for word in _set(key, value)]


def _set(key: str, value: Any) -> list[str]:
    """Write one setting; a mapping becomes one for each member."""
    if isinstance(value, dict):
        members = [_set(f"{key}.{inner}", one) for inner, one in value.items()]
        return [word for member in members for word in member]
    text = json.dumps(value) if isinstance(value, tuple | list) else str(value)
    return ["--set", f"{key}={text}"]
