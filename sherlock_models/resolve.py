"""From a zoo entry, a dataset folder and options to a complete configuration."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sherlock_data.catalog import Catalog, ModelEntry, load_catalog
from sherlock_data.contract import created_by
from sherlock_data.errors import ConfigError, did_you_mean
from sherlock_models.config import RESOLVED, RunConfig, validated
from sherlock_models.sizes import BRAIN

_LOG = logging.getLogger(__name__)

#: the stimuli of the entries that read a compressor's code
_MOVIE = ("video", "audio")

#: a free code has no measured brain to be held to: one term, and no channel
_FREE_CODE: dict[str, Any] = {"weights": {BRAIN: 1.0}, "brain_noise": "0", "brain_forcing": 0.0}


def settable(entry: ModelEntry) -> list[str]:
    """Keys that `--set` knows for an entry: the run's own, then the architecture's options."""
    from sherlock_models.zoo import ARCHITECTURES

    own = [name for name in RunConfig.model_fields if name not in RESOLVED]
    known = ARCHITECTURES.get(entry.architecture)
    theirs = known.options.model_fields if known else entry.options
    return [*own, *(name for name in theirs if name not in (*own, "subject_embedding"))]


def _absolute(data: str | Path) -> str:
    """Return a path that means the same from every folder; a URL does already."""
    return str(data) if "://" in str(data) else str(Path(data).resolve())


def resolve(
    entry: str,
    data: str | Path,
    *,
    catalog: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Turn a zoo entry, a dataset folder and options into a complete configuration.

    Parameters
    ----------
    entry : str
        Name of a zoo entry.
    data : path
        Dataset folder, local or a URL.
    catalog : path, optional
        Catalogue laid over the packaged one.
    options : mapping, optional
        Any key of :class:`RunConfig` that is not resolved here, or of the architecture.

    Raises
    ------
    CatalogError
        If the entry is unknown.
    ConfigError
        If a key is unknown (the nearest is named), a value is wrong, or something is missing.
    StoreError
        If a store the entry needs is not built.
    """
    from sherlock_models import code, sources

    known = load_catalog(catalog)
    config = described(known, entry, data=_absolute(data), catalog=catalog, options=options)
    if config.compressor is not None:
        config = code.with_stage_one(config, "brain" in (options or {}))
    found = sources.identities(config)
    name = sources.dataset_name(config)
    repeats = known.datasets[name].repeats if name in known.datasets else ()
    config = config.model_copy(update={"stores": found, "repeats": repeats})
    _LOG.debug("%s reads %s of %s", entry, ", ".join(found), config.data)
    return config.with_sizes(sources.sizes_for(config))


def described(
    known: Catalog,
    entry: str,
    *,
    data: str = "",
    catalog: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Turn a zoo entry and options into a configuration that has met no store yet.

    Parameters
    ----------
    known : Catalog
    entry : str
    data : str
        Dataset folder; none where only sizes are asked about.
    catalog, options
        As `resolve` takes them.

    Raises
    ------
    CatalogError, ConfigError
        As `resolve` does.
    """
    from sherlock_models.feeding import stimuli

    model = known.model(entry)
    settings: dict[str, Any] = {
        "brain": model.brain,
        "stimulus": model.stimulus,
        "delays": model.delays,
        "options": model.options,
    }
    for key, value in (options or {}).items():
        if key not in settable(model):
            raise ConfigError(
                f"unknown key '{key}'", where="--set", remedy=did_you_mean(key, settable(model))
            )
        if key in RunConfig.model_fields:
            settings[key] = value
        else:
            settings["options"] = {**settings["options"], key: value}
    if settings["stimulus"] in (BRAIN, [BRAIN], (BRAIN,)):
        shown = stimuli.names_there(data, _MOVIE) if data else ()
        settings = {**_FREE_CODE, "split_stimulus": shown, **settings}
    return validated(
        {
            "entry": entry,
            "architecture": model.architecture,
            "data": data,
            "catalog": None if catalog is None else str(Path(catalog).resolve()),
            "versions": versions(),
            **settings,
        },
        where="--set",
    )


def versions() -> dict[str, str]:
    """Say what a run is made with."""
    import numpy
    import torch

    return {
        "sherlock-zoo": created_by().split()[-1],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }
