"""Stimuli by name: any variable of the features store is one, under its extractor's name."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sherlock_data as sd
from sherlock_data.build import build
from sherlock_data.catalog import load_catalog
from sherlock_data.errors import ConfigError, StoreError
from sherlock_data.scan import resolve as resolve_scan
from sherlock_data.timing import Clock, Run
from sherlock_models.feeding import frame_stimuli
from sherlock_models.feeding.loading import load_data
from sherlock_models.feeding.stimuli import (
    feature_groups,
    feature_names,
    load_stimulus,
    size_of,
    store_of,
)
from sherlock_models.resolve import resolve
from sherlock_models.scoring.evaluate import evaluate
from sherlock_models.training.train import fit


@pytest.fixture(scope="module")
def folder(tiny_raw: Path, tiny_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset's parcels and its planted features."""
    out = tmp_path_factory.mktemp("features")
    catalog = load_catalog(tiny_raw / "catalog.yaml")
    scan = resolve_scan("synth", catalog.dataset("synth"), tiny_raw)
    build(scan, catalog, out, ["features"])
    shutil.copytree(tiny_stores / "parcels.zarr", out / "synth" / "parcels.zarr")
    return out / "synth"


def test_an_extractor_is_a_stimulus(folder: Path, tiny_raw: Path):
    assert store_of(str(folder), "planted") == "features"
    assert size_of(str(folder), "planted") == (12,)
    table = load_stimulus(str(folder), "planted")
    np.testing.assert_array_equal(table.values.numpy(), np.load(tiny_raw / "features.npy"))
    assert table.present.all()
    assert feature_names(str(folder), "planted")[0] == "planted[brightness_left]"


def test_what_says_where_features_are_is_no_stimulus(folder: Path):
    with pytest.raises(ConfigError, match="did you mean 'planted'"):
        store_of(str(folder), "plante")
    with pytest.raises(ConfigError, match="no stimulus 'vggish'") as failure:
        store_of(str(folder), "vggish")
    assert "has_planted" not in str(failure.value)


def test_a_training_takes_planted_features(folder: Path):
    config = resolve(
        "dense-features", folder, options={"stimulus": ["planted"], "brain": "parcels"}
    )
    data = load_data(config)
    assert data.sizes.stimulus == {"planted": (12,)}
    assert len(data.samples("train").tr)


@pytest.mark.parametrize(
    ("name", "features", "groups"),
    [
        pytest.param("audio", 8, [f"band {n}" for n in range(4)] * 2, id="bands of two channels"),
        pytest.param("waveform", 3, ["waveform"] * 3, id="samples of a sound"),
    ],
)
def test_features_are_grouped_by_band(stores: Path, name: str, features: int, groups: list[str]):
    assert feature_groups(str(stores), name, features) == groups


# --- the movie at full resolution -----------------------------------------------------------------

TR_S, RATE, VOLUMES = 0.5, 8000, {"run-1": 6, "run-2": 4, "run-3": 3}
#: frames a second of the two movies; run-3 has none
FRAMES_PER_S = {"run-1": 24, "run-2": 5}


def frames_store(sound: bool = True) -> xr.Dataset:
    """Frame n is grey of level n; sample s of a run sounds 2s on the left and -s on the right."""
    parts, first_tr = [], 0
    for run, rate in FRAMES_PER_S.items():
        seconds = VOLUMES[run] * TR_S
        appears = np.arange(round(seconds * rate)) / rate
        trs = np.floor(appears / TR_S + 1e-9).astype(int) + first_tr
        own = np.diff(np.ceil(np.append(appears, seconds) * RATE - 1e-6)).astype(int)
        parts.append((run, appears + first_tr * TR_S, trs, own))
        first_tr += VOLUMES[run]
    count, longest = sum(len(p[1]) for p in parts), max(int(p[3].max()) for p in parts)
    audio = np.full((count, 2, longest), np.nan, np.float32)
    n = 0
    for _, _, _, own in parts:
        begins = np.cumsum(own) - own
        for begin, samples in zip(begins, own, strict=True):
            heard = np.arange(begin, begin + samples)
            audio[n, :, :samples] = 2 * heard, -heard
            n += 1
    video = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 6, 3))
    names = np.concatenate([[run] * len(times) for run, times, _, _ in parts])
    data = xr.Dataset(
        {
            "video": (("frame", "height", "width", "rgb"), video),
            "has_stimulus": ("frame", np.ones(count, bool)),
        },
        coords={
            "frame_time": ("frame", np.concatenate([p[1] for p in parts])),
            "tr": ("frame", np.concatenate([p[2] for p in parts])),
            "run": ("frame", names.astype(np.dtypes.StringDType())),
        },
        attrs={"schema_version": 1, "repetition_time_s": TR_S},
    )
    if sound:
        data["audio"] = (("frame", "channel", "sample"), audio, {"sampling_rate_hz": RATE})
        data["n_samples"] = ("frame", np.concatenate([p[3] for p in parts]))
    return data


@pytest.fixture
def clock() -> Clock:
    return Clock(TR_S, tuple(Run(name, volumes) for name, volumes in VOLUMES.items()))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        # 12 frames a TR in run-1; 5 in 2 TRs of run-2, where the 5 Hz frames begin at 72
        pytest.param("frame", [6, 18, 30, 42, 54, 66, 73, 75, 78, 80], id="middle"),
        pytest.param("frame-25", [3, 15, 27, 39, 51, 63, 72, 75, 77, 80], id="after a quarter"),
        pytest.param("frame-0", [0, 12, 24, 36, 48, 60, 72, 74, 77, 79], id="at its start"),
    ],
)
def test_the_frame_on_the_screen(clock: Clock, name: str, shown: list[int]):
    values, present = frame_stimuli.load(frames_store(), name, clock)
    assert values.dtype == torch.uint8
    assert values.shape == (13, 3, 4, 6)
    assert present.tolist() == [True] * 10 + [False] * 3
    assert values[:10, 0, 0, 0].tolist() == shown
    assert (values == values[:, :1, :1, :1]).all()
    assert not values[10:].any()


@pytest.mark.parametrize("block", [1, 16])
def test_the_waveform_is_the_whole_sound(clock: Clock, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(frame_stimuli, "_BLOCK_TRS", block)
    values, present = frame_stimuli.load(frames_store(), "waveform", clock)
    assert values.shape == (13, 2 * 4000)
    assert present.tolist() == [True] * 10 + [False] * 3
    left, right = values.reshape(13, 4000, 2).movedim(-1, 0)
    for trs in (slice(0, 6), slice(6, 10)):
        heard = torch.arange(left[trs].numel(), dtype=torch.float32)
        torch.testing.assert_close(left[trs].flatten(), 2 * heard)
        torch.testing.assert_close(right[trs].flatten(), -heard)


def test_a_movie_that_ends_early_has_no_waveform_there(clock: Clock):
    """Up to a frame may lack at the border of the movie, and is silent; more makes no TR."""
    whole = frames_store()
    short = whole.isel(frame=slice(0, 72 - 1))
    values, present = frame_stimuli.load(short, "waveform", clock)
    assert present.tolist() == [True] * 6 + [False] * 7
    assert (values[5, -2 * 300 :] == 0).all()
    _, present = frame_stimuli.load(whole.isel(frame=slice(0, 72 - 6)), "waveform", clock)
    assert present.tolist() == [True] * 5 + [False] * 8


def test_names_of_frames():
    names = ("frame", "frame-5", "frame-75", "waveform", "frames", "frame-100", "video", "frame75")
    assert [frame_stimuli.is_from_frames(name) for name in names] == [True] * 4 + [False] * 4


def test_a_silent_movie_has_no_waveform(clock: Clock):
    with pytest.raises(ConfigError, match="no stimulus 'waveform': the movie has no sound"):
        frame_stimuli.size_of(frames_store(sound=False), "waveform")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Clock(1.0, (Run("run-1", 6), Run("run-2", 4))), id="TR"),
        pytest.param(Clock(TR_S, (Run("run-1", 4), Run("run-2", 6))), id="runs"),
        pytest.param(Clock(TR_S, (Run("run-1", 6),)), id="shorter"),
    ],
)
def test_frames_on_another_clock_are_refused(clock: Clock, other: Clock):
    assert frame_stimuli.check_clock(frames_store(), clock)
    assert not frame_stimuli.check_clock(frames_store(), other)


@pytest.fixture(scope="module")
def with_frames(
    tiny_raw: Path, tiny_stores: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny dataset's voxels, and its movie frame by frame."""
    out = tmp_path_factory.mktemp("frames")
    catalog = load_catalog(tiny_raw / "catalog.yaml")
    build(resolve_scan("synth", catalog.dataset("synth"), tiny_raw), catalog, out, ["frames"])
    shutil.copytree(tiny_stores / "voxels.zarr", out / "synth" / "voxels.zarr")
    return out / "synth"


@pytest.mark.slow
def test_conv_frames_trains_on_what_the_movie_has(
    with_frames: Path, tiny_stores: Path, tmp_path: Path
):
    config = resolve("conv-frames", with_frames, options={"width": 0.1})
    data = load_data(config)
    store = sd.open(with_frames / "frames.zarr")
    size = (store.sizes["height"], store.sizes["width"], 3)
    samples = int(store.attrs["repetition_time_s"] * store["audio"].attrs["sampling_rate_hz"])
    assert data.sizes.stimulus == {
        "frame": size,
        "waveform": (samples * store.sizes["channel"],),
    }
    assert data.tables["frame"].values.dtype == torch.uint8
    assert data.normaliser.scales["waveform"].scale.ndim == 0
    stimulus = sd.open(tiny_stores / "stimulus.zarr")
    same = data.tables["frame"].present == stimulus["has_stimulus"].values
    assert same.mean() > 0.95
    run = fit(config.model_copy(update={"steps": 4, "batch_size": 8}), tmp_path / "run")
    losses = [line["loss"] for line in run.metrics() if line["split"] == "train"]
    assert np.isfinite(losses).all()
    assert len(feature_names(str(with_frames), "waveform")) == data.sizes.stimulus["waveform"][0]


def test_frames_alone_tell_no_clock(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        frames_store().to_zarr(tmp_path / "frames.zarr", zarr_format=3, consolidated=True)
    with pytest.raises(StoreError, match="no store beside it tells the scan's TRs"):
        load_stimulus(str(tmp_path), "frame")


def test_frames_that_are_not_built_are_named(tiny_stores: Path):
    with pytest.raises(StoreError, match=r"frames.zarr: not built; run sherlock-data build"):
        store_of(str(tiny_stores), "waveform")


@pytest.mark.slow
def test_a_run_on_frames_and_samples_is_judged(tiny_raw: Path, tiny_stores: Path, tmp_path: Path):
    """From movies at full resolution to scores of what is decoded of them."""
    catalog = load_catalog(tiny_raw / "catalog.yaml")
    scan = resolve_scan("synth", catalog.dataset("synth"), tiny_raw)
    build(scan, catalog, tmp_path / "stores", ["frames"])
    shutil.copytree(tiny_stores / "parcels.zarr", tmp_path / "stores/synth/parcels.zarr")
    options = {"brain": "parcels", "steps": 2, "width": 0.02, "batch_size": 8}
    settled = resolve("conv-frames", tmp_path / "stores/synth", options=options)
    found = evaluate(fit(settled, tmp_path / "run"))
    judged = {row["target"] for row in found["rows"] if row["predictor"] == "model"}
    assert {"brain", *settled.stimulus} <= judged
