"""A dataset folder by the contract, made with plain xarray: small enough to train on in a second.

Planted: four tracks drive both the movie and the parcels, so that movie -> brain -> movie can be
learned. The last TRs of run-2 have no movie, one subject ends in an invalid tail, one parcel is
empty, and one subject lacks signal in one parcel.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from sherlock_models.config import RunConfig
from sherlock_models.resolve import resolve

TR_S = 1.5
RUNS = {"run-1": 80, "run-2": 80}
SUBJECTS = ("sub-01", "sub-02", "sub-03")
PARCELS, VOXELS, TRACKS = 12, 30, 4
HEIGHT, WIDTH, BANDS = 18, 32, 4
CATALOG = """
models:
  toy: {architecture: dense, brain: parcels, stimulus: [video, audio], hidden: [16]}
"""
WITHOUT_MOVIE = slice(155, 160)  # the movie is shorter than run-2
INVALID_TAIL = slice(140, 160)  # of sub-03
EMPTY_PARCEL = 11
NO_SIGNAL = (1, 3)  # sub-02 has no signal in parcel 3


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny models: threads cost more than they bring."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_stores() -> Callable[..., Path]:
    """Write `FOLDER/stores/toy`; `lag_s` as the stores shall declare it, BOLD shifted to fit."""
    return write_stores


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset folder `.../stores/toy`, to be read only."""
    return write_stores(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue with the zoo entry `toy`: as `conv-parcels`, small."""
    path = tmp_path_factory.mktemp("catalog") / "catalog.yaml"
    path.write_text(CATALOG, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def configure(stores: Path, catalog: Path) -> Callable[..., RunConfig]:
    """Resolve `toy` on the stores with the options given."""

    def make(data: Path = stores, entry: str = "toy", **options: Any) -> RunConfig:
        return resolve(entry, data, catalog=catalog, options=options)

    return make


@pytest.fixture(scope="session")
def of_each() -> dict[str, tuple[str, dict[str, Any]]]:
    """An entry of each architecture, with what makes it small enough to train on a CPU."""
    return {
        "compressor": ("brain-compressor", {"code": 6, "width": 0.01}),
        "conv": ("conv-parcels", {"width": 0.1}),
        "dense": ("dense-voxels", {"brain": "grid", "width": 0.01}),
        "spatial": ("spatial-seeded", {"width": 0.1, "subject": "embedding"}),
        "temporal": ("temporal-features", {"stimulus": "audio", "delays": "0..3", "width": 0.1}),
    }


def write_stores(folder: Path, lag_s: float = 0.0, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    out = folder / "stores" / "toy"
    tracks = ar1(rng, TRACKS, sum(RUNS.values()), 0.7)
    write(out / "parcels.zarr", parcels(rng, tracks, lag_s))
    write(out / "voxels.zarr", voxels(rng, tracks, lag_s))
    write(out / "stimulus.zarr", stimulus(rng, tracks, lag_s))
    write(out / "annotations.zarr", annotations(tracks, lag_s))
    return out


def ar1(rng: np.random.Generator, n: int, time: int, a: float) -> np.ndarray:
    x = rng.standard_normal((time, n))
    for t in range(1, time):
        x[t] = a * x[t - 1] + np.sqrt(1 - a * a) * x[t]
    return x


def time_coords() -> dict[str, Any]:
    volumes = sum(RUNS.values())
    run = np.repeat(list(RUNS), list(RUNS.values()))
    run_time = np.concatenate([np.arange(n) for n in RUNS.values()]) * TR_S
    return {
        "time": ("time", np.arange(volumes) * TR_S, {"units": "s"}),
        "run": ("time", run.astype(np.dtypes.StringDType())),
        "run_time": ("time", run_time, {"units": "s"}),
        "tr": ("time", np.arange(volumes)),
    }


def attrs(store: str, lag_s: float) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "dataset": "toy",
        "store": store,
        "recipe": {"kind": store},
        "created_by": "tests",
        "inputs": [],
        "space": "MNI152",
        "repetition_time_s": TR_S,
        "lag_s": lag_s,
        "Conventions": "CF-1.11",
    }


def brains(rng: np.random.Generator, tracks: np.ndarray, units: int, lag_s: float) -> np.ndarray:
    """BOLD (subject, time, unit) in raw units: shared signal, own noise, a baseline per run."""
    weight = np.zeros((TRACKS, units))
    for unit in range(units * 3 // 4):  # the last quarter answers to nothing
        weight[unit % TRACKS, unit] = 1.0
    signal = tracks @ weight
    lag = round(lag_s / TR_S)
    for start in (0, RUNS["run-1"]):
        signal[start + lag : start + 80] = signal[start : start + 80 - lag].copy()
    noise = np.stack([ar1(rng, units, len(tracks), 0.4) for _ in SUBJECTS])
    bold = 0.8 * signal + 0.6 * noise
    bold[:, RUNS["run-1"] :] = 2.0 * bold[:, RUNS["run-1"] :] + 5.0  # another scale in run-2
    bold[2, INVALID_TAIL] = bold[2, INVALID_TAIL.start]
    return (bold * 10 + 100).astype(np.float32)


def brain_dataset(bold: np.ndarray, unit: str, has_signal: np.ndarray) -> xr.Dataset:
    valid = np.ones(bold.shape[:2], dtype=bool)
    valid[2, INVALID_TAIL] = False
    return xr.Dataset(
        {
            "bold": (("subject", "time", unit), bold),
            "valid": (("subject", "time"), valid),
            "has_signal": (("subject", unit), has_signal),
        },
        coords={"subject": np.array(SUBJECTS, dtype=np.dtypes.StringDType()), **time_coords()},
    )


def parcels(rng: np.random.Generator, tracks: np.ndarray, lag_s: float) -> xr.Dataset:
    bold = brains(rng, tracks, PARCELS, lag_s)
    has_signal = np.ones((len(SUBJECTS), PARCELS), dtype=bool)
    bold[:, :, EMPTY_PARCEL] = np.nan
    has_signal[:, EMPTY_PARCEL] = False
    bold[NO_SIGNAL[0], :, NO_SIGNAL[1]] = 0
    has_signal[NO_SIGNAL] = False
    string = np.dtypes.StringDType()
    half = PARCELS // 2
    names = [f"Toy_{'LH' if p < half else 'RH'}_Net{p % 3}_{p}" for p in range(PARCELS)]
    data = brain_dataset(bold, "parcel", has_signal).assign_coords(
        parcel=np.array(names, dtype=string),
        network=("parcel", np.array([f"Net{p % 3}" for p in range(PARCELS)], dtype=string)),
        hemisphere=("parcel", np.array(["LH"] * half + ["RH"] * half, dtype=string)),
        n_voxels=("parcel", np.where(np.arange(PARCELS) == EMPTY_PARCEL, 0, 8)),
    )
    return data.assign_attrs(attrs("parcels", lag_s))


def voxels(rng: np.random.Generator, tracks: np.ndarray, lag_s: float) -> xr.Dataset:
    bold = brains(rng, tracks, VOXELS, lag_s)
    ijk = np.stack(np.unravel_index(np.arange(VOXELS), (5, 3, 2)), axis=1) + np.array([8, 10, 6])
    affine = np.array([[8.0, 0, 0, -90], [0, 8, 0, -126], [0, 0, 8, -72], [0, 0, 0, 1]])
    xyz = ijk @ affine[:3, :3].T + affine[:3, 3]
    coords = {name: ("voxel", ijk[:, axis]) for axis, name in enumerate("ijk")}
    mm = {name: ("voxel", xyz[:, axis], {"units": "mm"}) for axis, name in enumerate("xyz")}
    data = brain_dataset(bold, "voxel", np.ones((len(SUBJECTS), VOXELS), dtype=bool))
    return data.assign_coords(voxel=np.arange(VOXELS), **coords, **mm).assign_attrs(
        attrs("voxels", lag_s) | {"affine": affine.tolist(), "grid_shape": [20, 24, 20]}
    )


def stimulus(rng: np.random.Generator, tracks: np.ndarray, lag_s: float) -> xr.Dataset:
    """Pictures and sound of the tracks; absent where the movie is."""
    pattern = rng.standard_normal((TRACKS, HEIGHT, WIDTH, 3))
    level = np.tensordot(tracks, pattern, axes=1)
    video = np.clip(120 + 25 * level, 0, 255).astype(np.uint8)
    bands = -30 + 5 * np.tensordot(tracks, rng.standard_normal((TRACKS, 2, BANDS)), axes=1)
    mfcc = np.tensordot(tracks, rng.standard_normal((TRACKS, 2, 3)), axes=1)
    has_stimulus = np.ones(len(tracks), dtype=bool)
    has_stimulus[WITHOUT_MOVIE] = False
    video[WITHOUT_MOVIE], bands[WITHOUT_MOVIE], mfcc[WITHOUT_MOVIE] = 0, np.nan, np.nan
    return xr.Dataset(
        {
            "video": (("time", "height", "width", "rgb"), video),
            "audio_bands": (("time", "channel", "band"), bands.astype(np.float32)),
            "audio_mfcc": (("time", "channel", "coefficient"), mfcc.astype(np.float32)),
            "has_stimulus": ("time", has_stimulus),
        },
        coords={
            **time_coords(),
            "channel": np.array(["left", "right"], dtype=np.dtypes.StringDType()),
            "rgb": np.array(["red", "green", "blue"], dtype=np.dtypes.StringDType()),
        },
        attrs=attrs("stimulus", lag_s),
    )


def annotations(tracks: np.ndarray, lag_s: float) -> xr.Dataset:
    arousal = tracks[:, 0].copy()
    arousal[10:12] = np.nan  # a row nobody filled in
    string = np.dtypes.StringDType()
    place = np.where(tracks[:, 1] > 0, "street", "flat").astype(string)
    return xr.Dataset(
        {
            "arousal": ("time", arousal.astype(np.float32), {"encoding": "numeric"}),
            "valence": ("time", tracks[:, 2].astype(np.float32), {"encoding": "numeric"}),
            "speaking": ("time", (tracks[:, 3] > 0).astype(np.float32), {"encoding": "one-hot"}),
            "place": ("time", place, {"encoding": "text"}),
            "has_stimulus": ("time", np.ones(len(tracks), dtype=bool)),
        },
        coords=time_coords(),
        attrs=attrs("annotations", lag_s),
    )


def write(path: Path, data: xr.Dataset) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        data.to_zarr(path, mode="w", zarr_format=3, consolidated=True)


@pytest.fixture(scope="session")
def judged(tiny_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small run on the tiny synthetic dataset, trained and evaluated; read only."""
    from sherlock_models.scoring.evaluate import evaluate
    from sherlock_models.training.train import fit

    options = {"steps": 40, "batch_size": 16, "width": 0.05, "validate_every": 20}
    config = resolve("conv-parcels", tiny_stores, options=options)
    run = fit(config, tmp_path_factory.mktemp("runs") / "run", device="cpu")
    evaluate(run, draws=100, null_draws=200)
    return run.path


@pytest.fixture(scope="session")
def compressor(tiny_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a stage-1 run on the tiny synthetic dataset; read only."""
    from tests.models.two_stages import stage_one

    return stage_one(tiny_stores, tmp_path_factory.mktemp("one") / "run").path
