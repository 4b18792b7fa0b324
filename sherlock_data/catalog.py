"""The catalogue: datasets, atlases, store recipes and zoo entries, validated before anything runs.

The packaged ``catalog.yaml`` is read first; a user's file is laid over it. Unknown keys are refused
with the nearest known one, so that a typing error never becomes a default.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from sherlock_data.errors import CatalogError, did_you_mean, or_beside
from sherlock_data.extractors import ExtractorEntry
from sherlock_data.plain_yaml import read_yaml
from sherlock_data.recipes import RECIPES, FeaturesRecipe, Recipe
from sherlock_data.timing import read_delays

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

SECTIONS = ("datasets", "atlases", "extractors", "stores", "models")
#: what may name a dataset, run, subject, store or zoo entry: files and folders are called by it
NAME = re.compile(r"\w[\w.+ -]*")
#: keys of an entry that are paths, relative to the catalogue file
PATHS = {"atlases": ("image", "labels"), "extractors": ("weights", "file")}


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunEntry(_Entry):
    """One run as the catalogue declares it; ``volumes`` None: taken from the headers."""

    name: str
    volumes: int | None = Field(default=None, gt=0)
    movie: str | None = None
    movie_start_s: float = Field(default=0.0, allow_inf_nan=False)


class Repeat(_Entry):
    """A stretch of ``volumes`` TRs shown more than once, at TR ``at[run]`` of each run."""

    volumes: int = Field(gt=0)
    at: dict[str, int]


class DatasetEntry(_Entry):
    """A dataset: where its files are, and what no header can be trusted to say."""

    title: str = ""
    repetition_time_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    lag_s: float = Field(default=0.0, allow_inf_nan=False)
    space: str = "MNI152"
    repeats: tuple[Repeat, ...] = ()
    bold: str
    subjects: int | tuple[str, ...] | None = None
    runs: tuple[RunEntry, ...] = ()
    annotations: str | None = None
    atlas: str | None = None
    stores: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("subjects", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        # labels of digits alone are numbers to YAML
        known = isinstance(value, list | tuple) and all(
            isinstance(item, str | int) for item in value
        )
        if not known and not (value is None or (type(value) is int and value > 0)):
            raise ValueError("how many to expect, or a list of labels")
        return tuple(str(item) for item in value) if known else value

    @model_validator(mode="after")
    def _repeats_are_in_runs(self) -> DatasetEntry:
        names = [run.name for run in self.runs]
        if len(set(names)) != len(names):
            raise ValueError(f"two runs share a name: {', '.join(names)}")
        for repeat in self.repeats:
            for run, start in repeat.at.items():
                volumes = {r.name: r.volumes for r in self.runs}.get(run, 0)
                if run not in names:
                    raise ValueError(f"repeats: no run '{run}'; {did_you_mean(run, names)}")
                if volumes is not None and not 0 <= start <= volumes - repeat.volumes:
                    raise ValueError(
                        f"repeats: {repeat.volumes} volumes at {start} leave {run} ({volumes})"
                    )
        return self


class AtlasEntry(_Entry):
    """A parcellation: nilearn's Schaefer atlas, or an image with a table ``index``, ``name``."""

    source: str | None = None
    parcels: int | None = None
    networks: int = 7
    space: str = "MNI152"
    image: Path | None = None
    labels: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> AtlasEntry:
        if (self.source is None) == (self.image is None):
            raise ValueError("give either `source: nilearn` with `parcels`, or `image`")
        if self.source is not None and (self.source != "nilearn" or self.parcels is None):
            raise ValueError("`source` is nilearn, and needs `parcels`")
        return self


class ModelEntry(_Entry):
    """A zoo entry: an architecture with its brain layer, stimulus and widths.

    ``sizes`` of the brain and of each stimulus are those that entries are listed and compared at;
    a model that is trained takes its own from the stores. ``delays`` are the TRs of the past that a
    training of it sees unless it is told otherwise.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    architecture: str
    brain: str
    stimulus: tuple[str, ...] = ("video", "audio")
    delays: tuple[int, ...] = (0,)
    claimed: str | None = None
    sizes: dict[str, tuple[int, ...]] = Field(default_factory=dict)

    @field_validator("delays", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        return read_delays(value)

    @field_validator("sizes", mode="before")
    @classmethod
    def _one_number(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: (n,) if isinstance(n, int) else n for name, n in value.items()}

    @property
    def options(self) -> dict[str, Any]:
        """The architecture's own keys, checked by the architecture itself."""
        return dict(self.model_extra or {})


class Catalog(BaseModel):
    """Everything known by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    datasets: dict[str, DatasetEntry] = Field(default_factory=dict)
    atlases: dict[str, AtlasEntry] = Field(default_factory=dict)
    extractors: dict[str, ExtractorEntry] = Field(default_factory=dict)
    stores: dict[str, dict[str, Any]] = Field(default_factory=dict)
    models: dict[str, ModelEntry] = Field(default_factory=dict)
    _source: str = PrivateAttr(default="catalog.yaml")

    def __repr__(self) -> str:
        sections = {key: ", ".join(getattr(self, key)) or "none" for key in SECTIONS}
        return f"Catalog({'; '.join(f'{key}: {names}' for key, names in sections.items())})"

    def dataset(self, name: str) -> DatasetEntry:
        """Return the dataset called ``name``, or say which is nearest."""
        return _look_up(self.datasets, name, "dataset")

    def atlas(self, name: str) -> AtlasEntry:
        """Return the atlas called ``name``, or say which is nearest."""
        return _look_up(self.atlases, name, "atlas")

    def extractor(self, name: str) -> ExtractorEntry:
        """Return the feature extractor called ``name``, or say which is nearest."""
        return _look_up(self.extractors, name, "extractor")

    def model(self, name: str) -> ModelEntry:
        """Return the zoo entry called ``name``, or say which is nearest."""
        return _look_up(self.models, name, "zoo entry")

    def recipes(self, dataset: str) -> dict[str, Recipe]:
        """Every store recipe of a dataset, its own overrides laid over the common ones."""
        own = self.dataset(dataset).stores
        names = [*self.stores, *(name for name in own if name not in self.stores)]
        return {name: self.recipe(dataset, name) for name in names}

    def recipe(self, dataset: str, store: str) -> Recipe:
        """Return the recipe of one store of a dataset.

        Raises
        ------
        CatalogError
            If there is no such store, or its keys do not fit its kind.
        """
        own = self.dataset(dataset).stores
        _look_up({**self.stores, **own}, store, "store")
        keys = {**self.stores.get(store, {}), **own.get(store, {})}
        recipe = _parse_recipe(keys, self._source, f"stores.{store}")
        if isinstance(recipe, FeaturesRecipe):
            for name in recipe.extractors:
                self.extractor(name)
        return recipe

    def check_names(self) -> None:
        """Refuse names that lead elsewhere, as `../a`: files and folders are called by them."""
        self._check_names("datasets", self.datasets)
        self._check_names("stores", self.stores)
        self._check_names("models", self.models)
        for name, entry in self.datasets.items():
            self._check_names(f"datasets.{name}.stores", entry.stores)
            self._check_names(f"datasets.{name}.runs", [run.name for run in entry.runs])
            if isinstance(entry.subjects, tuple):
                self._check_names(f"datasets.{name}.subjects", entry.subjects)

    def _check_names(self, section: str, names: Iterable[str]) -> None:
        for name in names:
            if not NAME.fullmatch(name):
                raise CatalogError(
                    f"'{name}' cannot be a name",
                    where=f"{self._source}: {section}",
                    remedy="use letters, digits, - and _",
                )

    def check_recipes(self) -> None:
        """Read every recipe of every dataset, so that a mistake is found before any work."""
        for name in self.stores:
            _parse_recipe(self.stores[name], self._source, f"stores.{name}")
        for name in self.datasets:
            self.recipes(name)


def _look_up(table: Mapping[str, T], name: str, what: str) -> T:
    if name not in table:
        raise CatalogError(f"no {what} '{name}' in the catalogue", remedy=did_you_mean(name, table))
    return table[name]


def _parse_recipe(keys: Mapping[str, Any], source: str, where: str) -> Recipe:
    kind = keys.get("kind")
    if not isinstance(kind, str) or kind not in RECIPES:
        raise CatalogError(
            f"kind is {kind!r}",
            where=f"{source}: {where}",
            remedy=did_you_mean(str(kind), RECIPES),
        )
    try:
        recipe: Recipe = RECIPES[kind].model_validate(dict(keys))
    except ValidationError as error:
        raise _refusal(error, source, RECIPES[kind], where) from None
    return recipe


def load_catalog(overlay: str | Path | None = None) -> Catalog:
    """Read the packaged catalogue and lay ``overlay`` over it.

    Parameters
    ----------
    overlay : path, optional
        A YAML file of the same form. Entries it names replace those of the same name whole; the
        paths of its atlases and extractors are relative to it.

    Raises
    ------
    CatalogError
        If the file is missing, is not YAML, or has an unknown key or a wrong value.
    """
    packaged = resources.files("sherlock_data") / "catalog.yaml"
    document = _read(packaged.read_text(encoding="utf-8"), "catalog.yaml", None)
    if overlay is not None:
        path = Path(overlay)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CatalogError(
                f"cannot be read ({error.__class__.__name__})",
                where=path,
                remedy=or_beside(path, "give a catalogue file (YAML) to --catalog"),
            ) from error
        upper = _read(text, str(path), path.parent)
        document = {key: {**document[key], **upper[key]} for key in SECTIONS}
    try:
        catalog = Catalog.model_validate(document)
    except ValidationError as error:
        raise _refusal(error, str(overlay or "catalog.yaml"), Catalog) from None
    catalog._source = str(overlay or "catalog.yaml")
    catalog.check_names()
    catalog.check_recipes()
    _LOG.debug("catalogue: the packaged one%s", f", {overlay} over it" if overlay else "")
    return catalog


def _read(text: str, name: str, folder: Path | None) -> dict[str, dict[str, Any]]:
    try:
        document = read_yaml(text) or {}
    except ValueError as error:
        raise CatalogError(
            f"not valid YAML ({error})", where=name, remedy="mend the line"
        ) from None
    if not isinstance(document, dict) or not all(
        isinstance(document.get(k, {}) or {}, dict) for k in SECTIONS
    ):
        raise CatalogError(
            "a catalogue is a mapping", where=name, remedy=f"sections: {', '.join(SECTIONS)}"
        )
    for key in document:
        if key not in SECTIONS:
            raise CatalogError(
                f"unknown key '{key}'", where=name, remedy=did_you_mean(str(key), SECTIONS)
            )
    sections = {key: dict(document.get(key) or {}) for key in SECTIONS}
    for section, keys in PATHS.items():
        for item, entry in sections[section].items():
            if folder is not None and isinstance(entry, dict):
                paths = {k: str(folder / v) for k in keys if isinstance(v := entry.get(k), str)}
                sections[section][item] = {**entry, **paths}
    return sections


def _refusal(
    error: ValidationError, name: str, model: type[BaseModel], prefix: str = ""
) -> CatalogError:
    """Turn pydantic's complaints into our one line: an unknown key first, it explains others."""
    errors = error.errors(include_url=False)
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    keys = [str(part) for part in first["loc"]]
    where = ".".join([*([prefix] if prefix else []), *keys]) or "the document"
    if first["type"] == "extra_forbidden":
        remedy = did_you_mean(keys[-1], _fields_at(model, list(first["loc"])[:-1]))
        return CatalogError(f"unknown key '{where}'", where=name, remedy=remedy)
    found = first.get("input")
    shown = "" if isinstance(found, dict | list) else f" (found {found!r})"
    message = first["msg"].removeprefix("Value error, ")
    advised = "did you mean" in message
    return CatalogError(
        f"{where}: {message}{shown}", where=name, remedy=None if advised else "correct this key"
    )


def _fields_at(model: type[BaseModel], loc: list[Any]) -> list[str]:
    """Known keys of the model that ``loc`` leads to."""
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is not None:
            inner = _models_in(field.annotation)
            model = inner[0] if inner else model
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found = []
    for argument in getattr(annotation, "__args__", ()):
        found += _models_in(argument)
    return found
