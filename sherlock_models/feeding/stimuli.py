"""Stimuli by the names a user types, read from the stimulus-like stores of a dataset.

Legend: T = TRs, F = features, H, W = height and width of the video.

`video` is the mean picture of each TR; `audio` is `audio_bands` flattened; `annotations` every
numeric and one-hot variable of that store; `frame` and `waveform` are full-resolution pictures and
raw sound (`feeding.frame_stimuli`); any other name is a variable of one of the stores with
the dim `time`, such as an extractor of `features`, flattened to a vector.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data import store
from sherlock_data.catalog import load_catalog
from sherlock_data.errors import ConfigError, StoreError, did_you_mean, or_beside
from sherlock_data.stimulus.annotations import feature_names as label_names
from sherlock_data.timing import Clock, Run
from sherlock_models.feeding import frame_stimuli
from sherlock_models.sizes import WAVEFORM

#: stores that hold stimuli, in the order they are searched
STORES = ("stimulus", "annotations", "features")
ALIASES = {"audio": "audio_bands"}


@dataclass(frozen=True)
class StimulusTable:
    """One stimulus on the scan clock, held once for all subjects.

    Attributes
    ----------
    name : str
    values : Tensor, (T, 3, H, W) uint8 or (T, F) float32
        Raw units; 0 where there is no stimulus.
    present : ndarray of bool, (T,)
        False where the movie is absent or a feature is missing.
    """

    name: str
    values: Tensor
    present: NDArray[np.bool_]

    @property
    def is_video(self) -> bool:
        """Pictures keep their shape; everything else is a vector."""
        return self.values.ndim == 4

    @property
    def one_scale(self) -> bool:
        """Pixels, and samples of a sound, share their unit and keep their proportions."""
        return self.is_video or self.name == WAVEFORM

    @property
    def size(self) -> tuple[int, ...]:
        """(H, W, 3) of a video, (F,) of a vector."""
        shape = tuple(self.values.shape[1:])
        return (*shape[1:], shape[0]) if self.is_video else shape


def store_of(folder: str, name: str) -> str:
    """Return which store of a dataset folder holds a stimulus.

    Raises
    ------
    StoreError
        If the store it belongs to is not built.
    ConfigError
        If no built store has such a variable.
    """
    built = store.list_stores(folder)
    alone = frame_stimuli.STORE if frame_stimuli.is_from_frames(name) else name
    if alone in ("annotations", frame_stimuli.STORE):
        if alone not in built:
            raise _not_built(folder, alone)
        return alone
    wanted = ALIASES.get(name, name)
    known: list[str] = []
    for candidate in STORES:
        if candidate not in built:
            continue
        variables = store.open_store(built[candidate]).data_vars
        if wanted in variables:
            return candidate
        known += [str(v) for v in variables if not str(v).startswith("has_")]
    if "stimulus" not in built and (wanted == "video" or wanted.startswith("audio")):
        raise _not_built(folder, "stimulus")
    if "features" not in built and wanted in load_catalog().extractors:
        raise _not_built(folder, "features")
    lacking = "the movie has no sound" if wanted.startswith("audio") else "no built store has it"
    raise ConfigError(
        f"no stimulus '{name}': {lacking}",
        where=folder,
        remedy=did_you_mean(name, [*known, "audio", "annotations"]),
    )


def _not_built(folder: str, name: str) -> StoreError:
    return StoreError(
        "not built",
        where=f"{folder}/{name}.zarr",
        remedy=or_beside(folder, f"run sherlock-data build ... {name}"),
    )


def size_of(folder: str, name: str) -> tuple[int, ...]:
    """Size of a stimulus from metadata alone: (height, width, 3) or (features,)."""
    data = store.open_store(f"{folder}/{store_of(folder, name)}.zarr")
    if frame_stimuli.is_from_frames(name):
        return frame_stimuli.size_of(data, name)
    if name == "annotations":
        return (sum(_columns(data[v]) for v in label_names(data)),)
    variable = data[ALIASES.get(name, name)]
    if name == "video":
        return (variable.sizes["height"], variable.sizes["width"], variable.sizes["rgb"])
    return (_columns(variable),)


def load_stimulus(folder: str, name: str) -> StimulusTable:
    """Read one stimulus into memory.

    Parameters
    ----------
    folder : str
        Dataset folder.
    name : str
        `video`, `audio`, `annotations`, `frame`, `waveform`, or a variable's name.
    """
    data = store.open_store(f"{folder}/{store_of(folder, name)}.zarr")
    if frame_stimuli.is_from_frames(name):
        return StimulusTable(name, *frame_stimuli.load(data, name, clock_of(folder, name)))
    shown = _shown(data)
    if name == "video":
        video = data["video"].transpose("time", "rgb", "height", "width").values
        values = torch.from_numpy(np.ascontiguousarray(video))
        return StimulusTable(name, values, shown)
    names = label_names(data) if name == "annotations" else [ALIASES.get(name, name)]
    columns = [_matrix(data[variable]) for variable in names]
    vectors = np.concatenate(columns, axis=1)
    shown &= np.isfinite(vectors).all(axis=1)
    vectors[~shown] = 0
    return StimulusTable(name, torch.from_numpy(vectors), shown)


def present_at(folder: str, name: str) -> NDArray[np.bool_]:
    """TRs that have a stimulus, (T,), as `load_stimulus` finds them; no picture is read."""
    if name == "video":
        return _shown(store.open_store(f"{folder}/{store_of(folder, name)}.zarr"))
    return load_stimulus(folder, name).present


def names_there(folder: str, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that a built store has."""
    found = []
    for name in names:
        with contextlib.suppress(ConfigError, StoreError):
            store_of(folder, name)
            found.append(name)
    return tuple(found)


def _shown(data: xr.Dataset) -> NDArray[np.bool_]:
    shown = np.ones(data.sizes["time"], dtype=np.bool_)
    return shown & data["has_stimulus"].values if "has_stimulus" in data else shown


def read_clock(repetition_time_s: float, run_of_tr: NDArray[np.object_]) -> Clock:
    """Rebuild the scan clock from a store: its TR and the run of every TR."""
    names = [str(name) for name in run_of_tr]
    runs = tuple(Run(name, names.count(name)) for name in dict.fromkeys(names))
    return Clock(float(repetition_time_s), runs)


def clock_of(folder: str, name: str) -> Clock:
    """Return the scan clock of the store that holds a stimulus.

    The store `frames` counts frames; its TRs are those of the stores beside it.

    Raises
    ------
    StoreError
        If frames do not lie on the clock of the other stores, or there is no other.
    """
    path = f"{folder}/{store_of(folder, name)}.zarr"
    data = store.open_store(path)
    if "time" in data.dims:
        return read_clock(data.attrs["repetition_time_s"], data["run"].values)
    for other in store.list_stores(folder).values():
        beside = store.open_store(other)
        if "time" not in beside.dims:
            continue
        clock = read_clock(beside.attrs["repetition_time_s"], beside["run"].values)
        if not frame_stimuli.check_clock(data, clock):
            raise StoreError(
                f"its frames are not on the clock of {other}",
                where=path,
                remedy="build both from the same catalogue entry",
            )
        return clock
    raise StoreError(
        "no store beside it tells the scan's TRs", where=path, remedy="build a brain store first"
    )


def feature_names(folder: str, name: str) -> list[str]:
    """Name of every feature of a vector stimulus, e.g. `speaking` or `audio_bands[0,3]`."""
    data = store.open_store(f"{folder}/{store_of(folder, name)}.zarr")
    if name == WAVEFORM:
        (samples,) = frame_stimuli.size_of(data, name)
        return [f"{name}[{sample}]" for sample in range(samples)]
    names = label_names(data) if name == "annotations" else [ALIASES.get(name, name)]
    labels: list[str] = []
    for variable in names:
        shape = tuple(size for dim, size in data[variable].sizes.items() if dim != "time")
        named = [data.coords[dim].values for dim in data[variable].dims[1:] if dim in data.coords]
        if len(shape) == len(named) == 1:
            labels += [f"{variable}[{label}]" for label in named[0]]
            continue
        for index in np.ndindex(shape):
            labels.append(f"{variable}[{','.join(map(str, index))}]" if index else variable)
    return labels


def feature_groups(folder: str, name: str, features: int) -> list[str]:
    """Group of every feature: a sound's band over its channels, else the feature's own name."""
    if name == "annotations":
        return feature_names(folder, name)
    if name == WAVEFORM:  # raw samples: no bands
        return [WAVEFORM] * features
    data = store.open_store(f"{folder.rstrip('/')}/{store_of(folder, name)}.zarr")
    variable = data[ALIASES.get(name, name)].transpose("time", ...)
    shape, last = variable.shape[1:], str(variable.dims[-1])
    if len(shape) < 2:
        return feature_names(folder, name)
    labels = data[last].values if last in data.coords else range(shape[-1])
    groups = [f"{last} {label}" for label in labels]
    return (groups * int(np.prod(shape[:-1])))[:features]


def _columns(variable: xr.DataArray) -> int:
    return int(np.prod([n for dim, n in variable.sizes.items() if dim != "time"], dtype=int))


def _matrix(variable: xr.DataArray) -> NDArray[np.float32]:
    values = variable.transpose("time", ...).values
    return np.asarray(values.reshape(len(values), -1), dtype=np.float32)
