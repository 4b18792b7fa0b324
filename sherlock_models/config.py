"""What a run is, completely: `config.yaml` alone is enough to do it again.

A zoo entry is copied into the configuration when it is resolved, so that a catalogue that changes
later changes nothing about a run; the stores it read are named by their fingerprints.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sherlock_data.catalog import ModelEntry, Repeat
from sherlock_data.errors import ConfigError, did_you_mean
from sherlock_data.plain_yaml import read_yaml
from sherlock_data.timing import read_delays
from sherlock_models.sizes import BRAIN, Sizes
from sherlock_models.spread import Spread

#: default weight of the brain term: at 1 the encoder shouts (the predicted brain grows until its
#: error exceeds the mean's) to be heard through the noisy channel; see docs/adr/0004
BRAIN_WEIGHT = 5.0
#: remedy for a `config.yaml` that is not what was written
AGAIN = "restore it, or train again"
#: of `config.yaml`; a run without it was written by version 1
SCHEMA_VERSION = 1
#: what `brain=` may say beside the name of a store
BRAIN_ALIASES = {"grid": "volumes"}

#: keys of a configuration that no `--set` may touch
RESOLVED = (
    "schema_version",
    "entry",
    "architecture",
    "options",
    "data",
    "catalog",
    "repeats",
    "without",
    "fitted_on",
    "stores",
    "sizes",
    "versions",
)


class StoreIdentity(BaseModel):
    """Which store was read: `sherlock_data.store.fingerprint`, and its recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str
    recipe: dict[str, Any] = Field(default_factory=dict)


class SizesRecord(BaseModel):
    """:class:`sherlock_models.sizes.Sizes` as YAML can hold it; the delays are the run's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stimulus: dict[str, tuple[int, ...]]
    brain: tuple[int, ...]
    subjects: int


class CompressorIdentity(BaseModel):
    """Stage 1 of a run whose brain layer is another run's code.

    Attributes
    ----------
    run : str
        Folder of the stage-1 run.
    weights : str
        sha256 over its best checkpoint's weights (`sherlock_models.code.weights_hash`).
    code : int or None
        Units of its code; filled in with `weights` when a configuration is resolved.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    weights: str = ""
    code: int | None = Field(default=None, gt=0)


class RunConfig(Spread, allow_inf_nan=False):
    """Everything that decides the outcome of a run, and how it is spread over ranks.

    Attributes
    ----------
    schema_version : int
        Of this form of a configuration; a newer one is refused.
    entry, architecture, brain, stimulus, options
        The zoo entry's name and its definition: architecture, the store of the brain layer, the
        stimuli in order, and the architecture's own options.
    data : str
        Dataset folder with one store each (`STORES/<dataset>`).
    delays : tuple of int
        TRs of the past the encoder sees, 0 the current one.
    context_trs : int
        TRs of the past that the split leaves room for, where the delays reach less far; so that
        a stage-1 run can hold out what a stage 2 with more delays holds out.
    split_stimulus : tuple of str
        Of a compressor, which sees no stimulus: the split is over the TRs that have these, so that
        a stage 2 that sees them holds out the same TRs. Video and audio where they are built;
        none: every TR.
    compressor : CompressorIdentity or None
        Stage-1 run whose code of the measured brain is the target of the brain layer.
    subject : {"none", "mean", "embedding"}
        The model is not told whose brain; or learns the subjects' average; or embeds the subject.
    placement : {"auto", "device", "shared", "stream"}
        Where the data lie (`feeding.placement`); `stream` has an order of its own and is
        recorded when `auto` takes it.
    buffer_gb : float
        Memory of streamed rows, over all ranks; a larger one shuffles better.
    split, fold, folds, repeats
        How time and subjects are divided (`sherlock_data.splits`).
    steps, epochs : int or None, float or None
        Length of the training; `steps` wins and is filled in before a run starts.
    batch_size : int
        Global batch, over all ranks.
    learning_rate, warmup, weight_decay, clip
        AdamW; `warmup` is the share of the steps that warm up, then a cosine to zero; `clip` the
        largest norm of the gradient.
    brain_noise, brain_forcing
        The noisy brain channel of training (`sherlock_models.training.channel`).
    weights : dict
        Weight of each loss term (`brain`, `video`, ...); where it is not named, ``BRAIN_WEIGHT``
        for the brain and 1 for a stimulus.
    width : float
        Factor on every hidden layer.
    validate_every : int or None
        Steps between two validations, each with a checkpoint; None: a tenth of the run.
    patience : int or None
        Stop after so many validations without a better one; None: never.
    keep : int
        Checkpoints kept beside `best` and `last`.
    without : tuple of int
        Units of the brain layer that are closed, as if nobody had signal there: the
        retrained-without control of a lesion (`sherlock_models.lesions.retrain`).
    fitted_on : dict or None
        On which subjects and brain TRs the model and everything else is fitted
        (`sherlock_data.fitting`); filled in before a run starts.
    stores : dict
        Identity of every store read.
    sizes : SizesRecord or None
        Sizes of the model's layers, as the stores gave them.
    """

    schema_version: int = SCHEMA_VERSION
    entry: str
    architecture: str
    brain: str
    stimulus: tuple[str, ...]
    options: dict[str, Any] = Field(default_factory=dict)
    data: str
    catalog: str | None = None

    delays: tuple[int, ...] = (0,)
    context_trs: int = Field(default=0, ge=0)
    split_stimulus: tuple[str, ...] = ()
    compressor: CompressorIdentity | None = None
    subject: Literal["none", "mean", "embedding"] = "none"
    placement: Literal["auto", "device", "shared", "stream"] = "auto"
    buffer_gb: float = Field(default=4.0, gt=0)
    split: Literal["block", "run", "subject", "random"] = "block"
    fold: int = Field(default=0, ge=0)
    folds: int | None = Field(default=None, ge=2)
    repeats: tuple[Repeat, ...] = ()

    steps: int | None = Field(default=None, gt=0)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=64, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=1e-2, ge=0)
    clip: float = Field(default=1.0, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = Field(default=0, ge=0)

    brain_noise: Literal["residual", "independent", "0"] = "residual"
    brain_forcing: float = Field(default=0.5, ge=0, le=1)
    weights: dict[str, float] = Field(default_factory=dict, validate_default=True)
    width: float = Field(default=1.0, gt=0)

    validate_every: int | None = Field(default=None, gt=0)
    patience: int | None = Field(default=None, gt=0)
    keep: int = Field(default=1, ge=0)

    without: tuple[int, ...] = ()
    fitted_on: dict[str, Any] | None = None
    stores: dict[str, StoreIdentity] = Field(default_factory=dict)
    sizes: SizesRecord | None = None
    versions: dict[str, str] = Field(default_factory=dict)

    @field_validator("brain_noise", mode="before")
    @classmethod
    def _number_zero(cls, value: Any) -> Any:
        return "0" if value in (0, False, "none") else value

    @field_validator("stimulus", "split_stimulus", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int) else value

    @field_validator("delays", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        return read_delays(value)

    @field_validator("compressor", mode="before")
    @classmethod
    def _folder(cls, value: Any) -> Any:
        return {"run": str(Path(value).resolve())} if isinstance(value, str | Path) else value

    @field_validator("brain")
    @classmethod
    def _alias(cls, value: str) -> str:
        return BRAIN_ALIASES.get(value, value)

    @field_validator("delays")
    @classmethod
    def _past(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 0 or len(set(value)) < len(value):
            raise ValueError("delays are TRs of the past, each once: 0,1,2 or 0..44")
        return value

    @field_validator("stimulus")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("name at least one stimulus, each once")
        return value

    @field_validator("weights")
    @classmethod
    def _weights(cls, value: dict[str, float]) -> dict[str, float]:
        if any(weight < 0 for weight in value.values()):
            raise ValueError("a weight below 0 would reward errors")
        return {"brain": BRAIN_WEIGHT, **value}

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        for name in self.weights:
            if name not in self.terms:
                raise ValueError(f"no loss term '{name}'; {did_you_mean(name, self.terms)}")
        if self.subject == "mean" and self.split == "subject":
            raise ValueError("the mean brain has no subject to hold out; use split block")
        if self.is_compressor:
            self._check_compressor()
        elif self.split_stimulus:
            raise ValueError("split_stimulus is for a compressor, which sees no stimulus")
        return self

    def _check_compressor(self) -> None:
        if self.stimulus != (BRAIN,):
            raise ValueError("the stimulus 'brain' stands alone: it is seen and given back")
        if self.compressor is not None:
            raise ValueError("a compressor reads the measured brain, not another's code of it")
        if self.brain_noise != "0" or self.brain_forcing:
            raise ValueError(
                "a free code has no measured one: no brain_noise to add, no brain_forcing"
            )

    @property
    def is_compressor(self) -> bool:
        """Whether it is a stage 1: the brain through a free code, and no movie."""
        return BRAIN in self.stimulus

    @property
    def context(self) -> int:
        """TRs of the past that the split leaves room for."""
        return max(*self.delays, self.context_trs)

    @property
    def voxel_store(self) -> str | None:
        """Store of the voxels behind a brain layer of codes; None where it has its own units."""
        if self.compressor is not None:
            return self.brain
        recipe = self.stores[self.brain].recipe if self.brain in self.stores else {}
        return str(recipe["of"]) if recipe.get("kind") == "pca" else None

    @property
    def model_entry(self) -> ModelEntry:
        """The zoo entry as it was resolved."""
        return ModelEntry(
            architecture=self.architecture,
            brain=self.brain,
            stimulus=self.stimulus,
            **self.options,
        )

    @property
    def model_options(self) -> dict[str, Any]:
        """What `build_model` is told beside the entry."""
        return {"width": self.width, "subject_embedding": self.subject == "embedding"}

    @property
    def model_sizes(self) -> Sizes:
        """Sizes that `build_model` takes.

        Raises
        ------
        ConfigError
            If the configuration was never resolved against stores.
        """
        if self.sizes is None:
            raise ConfigError("sizes are not resolved", where="config.yaml")
        return Sizes(**self.sizes.model_dump(), delays=self.delays)

    def with_sizes(self, sizes: Sizes) -> RunConfig:
        """Return a copy that records the sizes of the model's layers."""
        record = SizesRecord(stimulus=sizes.stimulus, brain=sizes.brain, subjects=sizes.subjects)
        return self.model_copy(update={"sizes": record})

    @property
    def terms(self) -> tuple[str, ...]:
        """Loss terms: the brain, then every stimulus; of a compressor the brain that came back."""
        return (BRAIN, *(name for name in self.stimulus if name != BRAIN))

    def save(self, path: Path) -> None:
        """Write the configuration as YAML."""
        document = self.model_dump(mode="json")
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        temporary.replace(path)


def validated(values: Mapping[str, Any], where: object) -> RunConfig:
    """Check values into a configuration; the first complaint becomes one line."""
    try:
        return RunConfig.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "configuration"
        message = first["msg"].removeprefix("Value error, ")
        remedy = None if "did you mean" in message else "correct this key"
        if first["type"] == "extra_forbidden":
            message, remedy = "unknown key", did_you_mean(key, RunConfig.model_fields)
        found = first.get("input")
        shown = "" if isinstance(found, dict) else f" (found {found!r})"
        raise ConfigError(f"{key}: {message}{shown}", where=where, remedy=remedy) from None


def load_config(path: Path) -> RunConfig:
    """Read a `config.yaml`.

    Raises
    ------
    ConfigError
        If it is not there, is not YAML, was cut, is of a newer version, or has an unknown key or a
        wrong value.
    """
    try:
        document = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "no configuration", where=path, remedy="name a folder that sherlock-train made"
        ) from None
    except ValueError as error:  # of bytes that are no UTF-8 too
        raise ConfigError(f"not valid YAML ({error})", where=path, remedy=AGAIN) from None
    if not isinstance(document, dict):
        raise ConfigError("not a mapping", where=path, remedy=AGAIN)
    version = document.get("schema_version", 1)
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise ConfigError(
            f"schema version {version!r}, this package reads up to {SCHEMA_VERSION}",
            where=path,
            remedy="upgrade sherlock-zoo, or train again",
        )
    lacking = [key for key in ("stores", "sizes", "versions") if not document.get(key)]
    if lacking:  # the last keys that are written: a file that was cut ends before them
        raise ConfigError(
            f"is not complete: lacks {', '.join(lacking)}",
            where=path,
            remedy=AGAIN,
        )
    return validated(document, where=path)
