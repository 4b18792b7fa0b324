"""The movie at full resolution and its raw sound, TR by TR, from the store `frames`.

Legend: T = TRs of the scan, f = frames of the store, H, W = height and width of a frame, C =
channels of the sound, R = samples of a TR.

`frame` is the picture on the screen in the middle of each TR, `frame-25` after a quarter of it, and
so on; `waveform` is all of a TR's samples, those of all channels at one moment side by side, as in
a wave file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data.errors import ConfigError, StoreError
from sherlock_data.timing import Clock
from sherlock_models.sizes import WAVEFORM

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

STORE = "frames"
#: name of the picture, and how far into its TR it is looked for, in percent
_FRAME = re.compile(r"frame(?:-(\d{1,2}))?")
_MIDDLE = 50
#: two ways of counting seconds may differ by so much
_TOLERANCE_S = 1e-6
#: TRs whose sound is read at a time
_BLOCK_TRS = 16


def is_frame(name: str) -> bool:
    """Whether a stimulus is a full-resolution picture of the TR."""
    return _FRAME.fullmatch(name) is not None


def is_from_frames(name: str) -> bool:
    """Whether a stimulus comes from the store `frames`."""
    return name == WAVEFORM or is_frame(name)


def size_of(data: xr.Dataset, name: str) -> tuple[int, ...]:
    """(H, W, 3) of a frame, (R x C,) of the waveform, from metadata alone.

    Raises
    ------
    ConfigError
        If the movie has no sound.
    """
    if is_frame(name):
        video = data["video"]
        return (video.sizes["height"], video.sizes["width"], video.sizes["rgb"])
    return (_samples_per_tr(data) * _sound(data).sizes["channel"],)


def check_clock(data: xr.Dataset, clock: Clock) -> bool:
    """Whether every frame lies in a TR that the scan clock has in the same run."""
    same = float(data.attrs["repetition_time_s"]) == clock.repetition_time_s
    trs, runs = data["tr"].values, data["run"].values
    within = same and len(trs) > 0 and int(trs.max()) < clock.volumes
    return within and clock.run_of_tr()[trs].tolist() == runs.tolist()


def load(data: xr.Dataset, name: str, clock: Clock) -> tuple[Tensor, BoolArray]:
    """Read a frame of each TR, or the sound of each TR.

    Parameters
    ----------
    data : xarray.Dataset
        The store `frames`.
    name : str
        `frame`, `frame-25`, ... or `waveform`.
    clock : Clock
        Of the scan; the store has no TRs without a movie.

    Returns
    -------
    values : Tensor
        (T, 3, H, W) uint8 or (T, R x C) float32; what is absent is never written, and so takes no
        memory.
    present : ndarray of bool, (T,)
    """
    if is_frame(name):
        return _pictures(data, name, clock)
    return _waveform(data, clock)


def _pictures(data: xr.Dataset, name: str, clock: Clock) -> tuple[Tensor, BoolArray]:
    video = data["video"].transpose("frame", "rgb", "height", "width")
    values = np.zeros((clock.volumes, *video.shape[1:]), dtype=np.uint8)
    chosen = _chosen(data, name, clock)
    for tr in np.flatnonzero(chosen >= 0):
        values[tr] = video[int(chosen[tr])].values
    return torch.from_numpy(values), chosen >= 0


def _chosen(data: xr.Dataset, name: str, clock: Clock) -> IntArray:
    """Frame on the screen at the wanted moment of each TR, -1 where the TR has none, (T,)."""
    match = _FRAME.fullmatch(name)
    percent = int((match and match[1]) or _MIDDLE)
    wanted = clock.time() + percent / 100 * clock.repetition_time_s + _TOLERANCE_S
    chosen = np.full(clock.volumes, -1, dtype=np.int64)
    for frames in _runs(data):
        shown = np.unique(data["tr"].values[frames])
        last = np.searchsorted(data["frame_time"].values[frames], wanted[shown], side="right") - 1
        chosen[shown] = frames[np.maximum(last, 0)]
    return chosen


def _waveform(data: xr.Dataset, clock: Clock) -> tuple[Tensor, BoolArray]:
    audio, length = _sound(data), _samples_per_tr(data)
    values = np.zeros((clock.volumes, length, audio.sizes["channel"]), dtype=np.float32)
    present = np.zeros(clock.volumes, dtype=np.bool_)
    for frames in _runs(data):
        own = data["n_samples"].values[frames]
        # sample of the run's sound at which each frame begins
        begins = np.concatenate([[0], np.cumsum(own)])
        start_s = float(data["frame_time"].values[frames[0]])
        shown = np.unique(data["tr"].values[frames])
        first = np.rint((clock.time()[shown] - start_s) * _rate(data)).astype(np.int64)
        # the movie may begin or end within a frame of the TR's own border, not further
        lacks = np.maximum(-first, 0) + np.maximum(first + length - begins[-1], 0)
        whole = np.flatnonzero(lacks <= own.max())
        present[shown[whole]] = True
        for block in _blocks(whole):
            sound, offset = _read(audio, frames, begins, first[block[0]], first[block[-1]] + length)
            for tr, start in zip(shown[block], first[block] - offset, strict=True):
                piece = sound[max(start, 0) : start + length]
                before = max(-start, 0)
                values[tr, before : before + len(piece)] = piece
    return torch.from_numpy(values.reshape(len(values), -1)), present


def _read(
    audio: xr.DataArray, frames: IntArray, begins: IntArray, first: int, stop: int
) -> tuple[NDArray[np.float32], int]:
    """Read a run's sound around samples `first` to `stop`: (samples, C), and where it begins."""
    low = max(int(np.searchsorted(begins, first, side="right")) - 1, 0)
    high = min(int(np.searchsorted(begins, stop, side="left")), len(frames))
    rows = audio[int(frames[low]) : int(frames[high - 1]) + 1].values
    own = np.diff(begins)[low:high]
    pieces = [row[:, :samples].T for row, samples in zip(rows, own, strict=True)]
    return np.concatenate(pieces), int(begins[low])


def _runs(data: xr.Dataset) -> Iterator[IntArray]:
    """Frames of each run in order; they follow one another in the store."""
    runs = data["run"].values
    for name in dict.fromkeys(runs.tolist()):
        yield np.flatnonzero(runs == name)


def _blocks(trs: IntArray) -> Iterator[IntArray]:
    for start in range(0, len(trs), _BLOCK_TRS):
        yield trs[start : start + _BLOCK_TRS]


def _sound(data: xr.Dataset) -> xr.DataArray:
    if "audio" not in data:
        raise ConfigError(
            f"no stimulus '{WAVEFORM}': the movie has no sound", where=STORE, remedy="leave it out"
        )
    return data["audio"].transpose("frame", "channel", "sample")


def _rate(data: xr.Dataset) -> float:
    return float(_sound(data).attrs["sampling_rate_hz"])


def _samples_per_tr(data: xr.Dataset) -> int:
    samples = int(float(data.attrs["repetition_time_s"]) * _rate(data) + _TOLERANCE_S)
    if samples < 1:
        raise StoreError("no sample of sound in a TR", where=STORE, remedy="check the movie")
    return samples
