"""The registry: zoo entries of the catalogue, made into models.

A new entry is a row of the catalogue when an architecture fits. When none does, it is one file in
`architectures/` (options, trunk, decoder, `build`) and a row; see docs/how-to/new-entry.md.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from sherlock_data.catalog import Catalog, ModelEntry, load_catalog
from sherlock_data.errors import ConfigError, StoreError, did_you_mean
from sherlock_models import architectures
from sherlock_models.architectures.autoencoder import Architecture, BrainAutoencoder, Options
from sherlock_models.notebook import Entries
from sherlock_models.sizes import Sizes


def find_architectures() -> dict[str, Architecture]:
    """Return every architecture of the folder `architectures`, by the name of its file."""
    found = {}
    for module in pkgutil.iter_modules(architectures.__path__):
        known = importlib.import_module(f"{architectures.__name__}.{module.name}")
        if hasattr(known, "ARCHITECTURE"):
            found[module.name] = known.ARCHITECTURE
    return found


ARCHITECTURES: dict[str, Architecture] = find_architectures()


def build_model(
    entry: ModelEntry, sizes: Sizes, options: Mapping[str, Any] | None = None
) -> BrainAutoencoder:
    """Build an entry's model; weights are drawn from torch's generator on torch's device.

    Parameters
    ----------
    entry : ModelEntry
    sizes : Sizes
    options : mapping, optional
        `width`, `subject_embedding` and the architecture's own; they win over the entry's.

    Raises
    ------
    ConfigError
        If the architecture or an option is unknown, a value is wrong, or the stimuli do not fit.
    """
    architecture = _architecture(entry.architecture)
    return architecture.build(sizes, _options(entry, options or {}))


def list_models(catalog: Catalog | None = None) -> Entries:
    """Say what every entry of the catalogue is, without allocating any.

    Parameters
    ----------
    catalog : Catalog, optional
        The packaged one by default.

    Returns
    -------
    list of dict, shown as a table
        `entry`, `input`, `brain`, `parameters` (exact, at the entry's reference sizes; None where
        only a store can tell) and `claimed` (by the first analysis, None where it says nothing).
    """
    models = (catalog or load_catalog()).models
    return Entries(
        {
            "entry": name,
            "input": " + ".join(entry.stimulus),
            "brain": entry.brain,
            "parameters": count_parameters(entry),
            "claimed": entry.claimed,
        }
        for name, entry in models.items()
    )


def count_parameters(
    entry: ModelEntry, sizes: Sizes | None = None, options: Mapping[str, Any] | None = None
) -> int | None:
    """Count an entry's parameters on the meta device.

    Parameters
    ----------
    entry : ModelEntry
    sizes : Sizes, optional
        The entry's reference sizes by default; None is returned where it has none.
    options : mapping, optional
        As `build_model` takes them.
    """
    sizes = sizes or reference_sizes(entry)
    if sizes is None:
        _architecture(entry.architecture)
        return None
    with torch.device("meta"):
        return build_model(entry, sizes, options).count_parameters()


def reference_sizes(entry: ModelEntry) -> Sizes | None:
    """Sizes the catalogue compares an entry at; None unless brain and every stimulus are there."""
    if any(name not in entry.sizes for name in ("brain", *entry.stimulus)):
        return None
    return Sizes(
        stimulus={name: entry.sizes[name] for name in entry.stimulus},
        brain=entry.sizes["brain"],
        delays=entry.delays,
    )


def create(
    name: str, data: str | Path, *, catalog: str | Path | None = None, **options: Any
) -> BrainAutoencoder:
    """Make an untrained model whose sizes come from a dataset's stores.

    Parameters
    ----------
    name : str
        Zoo entry.
    data : path
        Dataset folder, `STORES/<dataset>`; metadata only are read.
    catalog : path, optional
        Catalogue laid over the packaged one.
    **options
        What `sherlock-train --set` takes: `stimulus`, `brain`, `delays`, `subject`, `width`, ...

    Raises
    ------
    CatalogError
        If the entry is unknown.
    ConfigError
        If a store it wants is not there, or an option does not fit.
    """
    from sherlock_models.resolve import resolve

    entry = load_catalog(catalog).model(name)
    try:
        config = resolve(name, data, catalog=catalog, options=options)
    except StoreError as error:
        wanted = options.get("brain", entry.brain)
        stimulus = options.get("stimulus", entry.stimulus)
        stimuli = stimulus if isinstance(stimulus, str) else ", ".join(stimulus)
        raise ConfigError(
            f"wants the brain store '{wanted}' and the stimuli {stimuli} in a dataset folder; "
            f"found: {error.where}: {error.what}",
            where=name,
            remedy=error.remedy,
        ) from error
    return build_model(config.model_entry, config.model_sizes, config.model_options)


def _architecture(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"no architecture '{name}'",
            where="catalogue: models",
            remedy=did_you_mean(name, ARCHITECTURES),
        )
    return ARCHITECTURES[name]


def _options(entry: ModelEntry, options: Mapping[str, Any]) -> Options:
    """Check an entry's options and the caller's into the architecture's own; one line if wrong."""
    kind = _architecture(entry.architecture).options
    try:
        return kind.model_validate({**entry.options, **options})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message, remedy = f"{key}: {first['msg']} (found {first['input']!r})", None
        if first["type"] == "extra_forbidden":
            message, remedy = f"unknown option '{key}'", did_you_mean(key, kind.model_fields)
        raise ConfigError(
            message, where=f"architecture {entry.architecture}", remedy=remedy
        ) from None
