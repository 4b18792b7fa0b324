"""Extractors of pretrained features by name: the rows of the catalogue's ``extractors`` section.

A row says which network reads which part of the movie, where its weights are, which layer is read
and how its values become one vector per picture, stretch of sound or text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sherlock_data.errors import did_you_mean

Source = Literal["transformers", "vggish", "efficientnet-lite", "array"]
Modality = Literal["image", "audio", "text"]

_NETWORK = {"source", "modality", "model", "weights", "features"}
#: keys that mean something to each source
_KEYS: dict[str, set[str]] = {
    "transformers": {*_NETWORK, "revision", "layer", "pooling", "normalise"},
    "vggish": _NETWORK,
    "efficientnet-lite": _NETWORK,
    "array": {"source", "file"},
}
#: keys that mean something to each modality
_SAMPLING = {"image": {"frames_per_s"}, "audio": {"window_s"}, "text": {"label"}}
#: what the networks of one modality only read
_FIXED: dict[str, Modality] = {"vggish": "audio", "efficientnet-lite": "image"}


class ExtractorEntry(BaseModel):
    """A pretrained network, or an array that the user brings.

    Attributes
    ----------
    source : {"transformers", "vggish", "efficientnet-lite", "array"}
        Who knows the network; ``array``: a TR-aligned ``.npy`` with its clock beside it.
    modality : {"image", "audio", "text"}
        What it reads: frames of the movie, its sound, or the annotations' text.
    model : str
        Hub id (``transformers``) or name of the network (``efficientnet-lite0``).
    revision : str or None
        Branch, tag or commit on the hub.
    weights : Path or None
        Local folder (``transformers``) or file of weights; None: ``weights/<extractor>`` in the
        raw folder, then the hub.
    layer : int or None
        Index into the network's hidden states (0: the embedding); None: the last.
    pooling : {"mean", "first", "pooler", "projection"}
        Over positions or tokens: their mean, the first (class) token, the network's own pooler, or
        the projection of a two-tower model such as CLIP.
    normalise : bool
        Scale each vector to length 1 before it is averaged, as sentence embeddings are used.
    features : int
        Length of the vector, checked against what the network gives.
    frames_per_s : float
        Frames looked at per second of movie; at or above the movie's own rate: every frame.
    window_s : float
        Seconds of sound that make one vector (VGGish has its own, 0.96).
    label : str
        Text label of the annotations.
    file : Path or None
        The array; None: named by the store's ``files``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Source
    modality: Modality | None = None
    model: str | None = None
    revision: str | None = None
    weights: Path | None = None
    layer: int | None = Field(default=None, ge=0)
    pooling: Literal["mean", "first", "pooler", "projection"] = "mean"
    normalise: bool = False
    features: int | None = Field(default=None, gt=0)
    frames_per_s: float = Field(default=2.0, gt=0)
    window_s: float = Field(default=0.96, gt=0)
    label: str = "description"
    file: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _modality_of_source(cls, value: Any) -> Any:
        fixed = _FIXED.get(value.get("source", "")) if isinstance(value, dict) else None
        return {"modality": fixed, **value} if fixed else value

    @model_validator(mode="after")
    def _keys_fit(self) -> ExtractorEntry:
        if self.source != "array":
            for key in ("modality", "model", "features"):
                if getattr(self, key) is None:
                    raise ValueError(f"source {self.source} needs `{key}`")
        fixed = _FIXED.get(self.source)
        if fixed and self.modality != fixed:
            raise ValueError(f"{self.source} reads {fixed}, not {self.modality}")
        allowed = _KEYS[self.source] | _SAMPLING.get(self.modality or "", set())
        if self.source == "vggish":
            allowed -= {"window_s"}
        for key in sorted(self.model_fields_set - allowed):
            what = f"{self.source} of {self.modality}" if self.modality else self.source
            hint = did_you_mean(key, allowed)
            raise ValueError(f"`{key}` says nothing about source {what}; {hint}")
        if self.layer is not None and self.pooling in ("pooler", "projection"):
            raise ValueError(f"pooling {self.pooling} reads the network's own output, not a layer")
        return self

    def settings(self) -> dict[str, Any]:
        """Return what vectors depend on beside the weights; part of a store's recipe.

        Paths are left out: the hash of what they lead to is recorded instead.
        """
        keys = (_KEYS[self.source] | _SAMPLING.get(self.modality or "", set())) - {
            "weights",
            "file",
        }
        if self.source == "vggish":
            keys -= {"window_s"}
        return self.model_dump(mode="json", include=keys, exclude_none=True)
