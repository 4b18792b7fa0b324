"""``synth`` makes files as from a scanner room, and what it says it planted is in them."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import nibabel
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import zscore
from threadpoolctl import threadpool_limits

from sherlock_data.catalog import load_catalog
from sherlock_data.errors import ConfigError, InputError, NoSpaceError
from sherlock_data.synthetic import brain as brains
from sherlock_data.synthetic import synth
from sherlock_data.synthetic.geometry import make_geometry
from sherlock_data.synthetic.sizes import clock_of, size_named
from sherlock_data.synthetic.tracks import TRACKS, VIDEO_TRACKS, draw_tracks
from sherlock_data.synthetic.truth import LAG_TRS, expected_ceiling, make_plan, pairwise_for

SEED = 0


@pytest.fixture(scope="module")
def tiny(tiny_raw: Path) -> Path:
    """Folder of raw files of size ``tiny``, made with ``SEED``."""
    return tiny_raw


@pytest.fixture(scope="module")
def truth(tiny: Path) -> xr.Dataset:
    return xr.open_zarr(tiny / "truth.zarr").load()


def make_brain(size: str, seed: int = SEED) -> brains.Brain:
    measures = size_named(size)
    clock = clock_of(measures)
    geometry = make_geometry(measures.voxel_mm, measures.parcels)
    plan = make_plan(geometry, clock, measures.subjects, seed)
    return brains.make_brain(geometry, clock, plan, draw_tracks(clock, seed))


def parcel_means(brain: brains.Brain, subject: int) -> np.ndarray:
    """BOLD of one subject, z-scored within run, shape (time, parcel)."""
    parcels = len(brain.plan.modality)
    member = np.eye(parcels + 1)[brain.parcel][:, :parcels]
    member /= member.sum(0)
    with threadpool_limits(1):
        means = np.concatenate(
            [v[:, brain.mask] @ member for v in brains.bold_blocks(brain, subject, SEED)]
        )
    slices = [brain.clock.run_slice(run.name) for run in brain.clock.runs]
    return np.concatenate([zscore(means[where]) for where in slices])


@pytest.fixture(scope="module")
def demo() -> tuple[brains.Brain, np.ndarray]:
    """Parcel means of the demo's subjects, shape (subject, time, parcel), without its files."""
    brain = make_brain("demo")
    return brain, np.stack([parcel_means(brain, s) for s in range(1, brain.plan.subjects + 1)])


def leave_one_out_r(bold: np.ndarray) -> np.ndarray:
    """Mean over subjects of r with the mean of the others, shape (parcel,)."""
    found = [
        (zscore(bold[s]) * zscore(np.delete(bold, s, axis=0).mean(axis=0))).mean(axis=0)
        for s in range(len(bold))
    ]
    return np.mean(found, axis=0)


# --- the files


def test_what_is_written(tiny: Path) -> None:
    assert sorted(str(p.relative_to(tiny)) for p in tiny.rglob("*") if ".zarr/" not in str(p)) == [
        "bold",
        "bold/sub-01_movie.nii.gz",
        "bold/sub-02_movie.nii.gz",
        "bold/sub-03_movie.nii.gz",
        "catalog.yaml",
        "features.json",
        "features.npy",
        "labels.nii.gz",
        "labels.tsv",
        "run-1.mp4",
        "run-2.mp4",
        "truth.zarr",
    ]
    assert [p.name for p in tiny.parent.iterdir()] == [tiny.name]  # no partial folder stays


def test_the_catalogue_reads_and_says_the_planted_lag(tiny: Path, truth: xr.Dataset) -> None:
    catalog = load_catalog(tiny / "catalog.yaml")
    entry = catalog.dataset("synth")
    assert entry.repetition_time_s == 1.5
    assert entry.lag_s == float(truth.lag_s) == 4.5
    assert [(run.name, run.volumes, run.movie) for run in entry.runs] == [
        ("run-1", 60, "run-1.mp4"),
        ("run-2", 60, "run-2.mp4"),
    ]
    assert entry.subjects == 3
    atlas = catalog.atlas(str(entry.atlas))
    assert (atlas.image, atlas.labels) == (tiny / "labels.nii.gz", tiny / "labels.tsv")


def test_bold_lies_on_the_mni_grid(tiny: Path) -> None:
    image = nibabel.load(tiny / "bold" / "sub-01_movie.nii.gz")
    assert image.shape == (23, 28, 23, 120)
    assert np.array_equal(image.affine[:3, 3], (-90, -126, -72))
    assert np.array_equal(image.affine[:3, :3], np.diag((8, 8, 8)))
    assert image.header.get_zooms()[3] == 1.5
    assert image.header.get_xyzt_units() == ("mm", "sec")
    values = image.get_fdata()
    inside = make_geometry(8, 20).brain
    assert not values[~inside].any()
    assert values[inside].min() > 200  # raw intensities, not z-scores


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        pytest.param("demo", (31, 37, 31), id="demo-6mm"),
        pytest.param("full", (61, 73, 61), id="full-3mm", marks=pytest.mark.slow),
    ],
)
def test_grid_and_parcels_of_the_other_sizes(size: str, shape: tuple[int, ...]) -> None:
    measures = size_named(size)
    geometry = make_geometry(measures.voxel_mm, measures.parcels)
    assert geometry.labels.shape == shape
    assert geometry.affine[0, 0] == measures.voxel_mm
    check_parcels(geometry.labels, geometry.brain, measures.parcels)


def test_full_has_the_runs_of_the_catalogue() -> None:
    assert [run.volumes for run in clock_of(size_named("full")).runs] == [946, 1030]


def check_parcels(labels: np.ndarray, brain: np.ndarray, parcels: int) -> None:
    assert np.array_equal(np.unique(labels), np.arange(parcels + 1))
    assert not (labels > 0)[~brain].any()
    for parcel in range(1, parcels + 1):
        assert ndimage.label(labels == parcel)[1] == 1, f"parcel {parcel} is in pieces"


def test_the_atlas_is_contiguous_one_sided_and_says_that_it_is_synthetic(tiny: Path) -> None:
    image = nibabel.load(tiny / "labels.nii.gz")
    labels = np.asarray(image.dataobj)
    check_parcels(labels, make_geometry(8, 20).brain, 20)
    table = pd.read_csv(tiny / "labels.tsv", sep="\t")
    assert list(table.columns) == ["index", "name", "hemisphere", "network"]
    assert table["name"].is_unique
    assert table["name"].str.match(r"Synthetic_[LR]H_Syn[A-G]_\d+$").all()
    for row in table.itertuples():
        x_mm = np.argwhere(labels == row.index)[:, 0] * 8 - 90
        assert (np.sign(x_mm) == (-1 if row.hemisphere == "LH" else 1)).all()


def test_one_subject_has_a_constant_tail(tiny: Path) -> None:
    for name, constant in (("sub-02", 0), ("sub-03", 5)):
        values = np.asarray(nibabel.load(tiny / "bold" / f"{name}_movie.nii.gz").dataobj)
        same = [np.array_equal(values[..., t], values[..., -1]) for t in range(120)]
        assert sum(same[:-1]) + bool(constant) == constant
        assert all(same[120 - constant :])


def test_the_same_seed_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    with threadpool_limits(1):
        brains.write_bold(tmp_path / "again.nii.gz", make_brain("tiny"), 1, SEED)
        brains.write_bold(tmp_path / "other.nii.gz", make_brain("tiny"), 1, SEED + 1)
    made = (tiny / "bold" / "sub-01_movie.nii.gz").read_bytes()
    assert (tmp_path / "again.nii.gz").read_bytes() == made
    assert (tmp_path / "other.nii.gz").read_bytes() != made


def test_header_tr_and_missing_movies_on_request(tmp_path: Path) -> None:
    shares: list[float] = []
    catalogue = synth(
        tmp_path, subjects=2, header_tr_s=1.0, movies=[], progress=lambda s, what: shares.append(s)
    )
    header = nibabel.load(tmp_path / "bold" / "sub-02_movie.nii.gz").header
    assert header.get_zooms()[3] == 1.0
    entry = load_catalog(catalogue).dataset("synth")
    assert entry.repetition_time_s == 1.5
    assert [run.movie for run in entry.runs] == [None, None]
    assert not list(tmp_path.glob("*.mp4"))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_tracks_are_independent_and_short_of_memory(tiny: Path) -> None:
    features = np.load(tiny / "features.npy")
    named = json.loads((tiny / "features.json").read_text())
    assert named["feature"] == list(TRACKS)
    assert features.shape == (120, len(TRACKS))
    assert features.dtype == np.float32
    for run in np.split(features, 2):
        assert np.allclose(np.cov(run.T, bias=True), np.eye(len(TRACKS)), atol=1e-5)
    long = np.concatenate([run.per_tr for run in draw_tracks(clock_of(size_named("demo")), SEED)])
    memory = [np.mean(long[k:] * long[:-k]) for k in (1, 10)]
    assert memory[0] > 0.5
    assert abs(memory[1]) < 0.1


# --- the brain follows them


def test_inter_subject_correlation_is_the_planted_ceiling(demo) -> None:
    brain, bold = demo
    found, planted = leave_one_out_r(bold), brain.plan.ceiling
    assert planted.max() == pytest.approx(0.66)
    assert planted[planted > 0].min() == pytest.approx(0.05)
    assert np.mean(found - planted) == pytest.approx(0, abs=0.02)
    assert np.abs(found - planted).mean() < 0.04
    assert np.abs(found - planted).max() < 0.15  # chance over 600 autocorrelated TRs
    assert np.corrcoef(found, planted)[0, 1] > 0.97


def test_the_parcels_mean_has_the_planted_shares(demo) -> None:
    """Regressing on the tracks, lagged, gives the weights that the truth names."""
    brain, bold = demo
    tracks = np.concatenate(
        [np.pad(run.per_tr, ((LAG_TRS, 0), (0, 0)))[:300] for run in brain.tracks]
    )
    found = np.linalg.lstsq(tracks, bold.mean(axis=0), rcond=None)[0].T
    planted = brain.plan.dataset(brain.geometry)["weight"].to_numpy()
    assert np.corrcoef(found.ravel(), planted.ravel())[0, 1] > 0.94
    assert np.polyfit(planted.ravel(), found.ravel(), 1)[0] == pytest.approx(1, abs=0.05)


def test_the_brain_answers_at_the_planted_lag(demo) -> None:
    brain, bold = demo
    expected = np.concatenate([run.per_tr for run in brain.tracks]) @ brain.plan.direction.T
    driven = brain.plan.pairwise > 0
    by_lag = [
        (bold.mean(axis=0)[lag:300] * expected[: 300 - lag])[:, driven].mean() for lag in range(8)
    ]
    assert np.argmax(by_lag) == LAG_TRS


def test_parcels_that_follow_nothing_are_untouched_by_the_movie() -> None:
    """With another movie their voxels, and those outside all parcels, stay as they are."""
    brain = make_brain("tiny")
    silent = replace(
        brain, tracks=[replace(run, per_tr=np.zeros_like(run.per_tr)) for run in brain.tracks]
    )
    first, second = (next(brains.bold_blocks(b, 1, SEED))[:, b.mask] for b in (brain, silent))
    null = np.append(np.array(brain.plan.modality) == "none", True)[brain.parcel]
    assert 0 < null.sum() < null.size
    assert np.array_equal(first[:, null], second[:, null])
    assert (first[:, ~null] != second[:, ~null]).any(axis=0).all()


def test_modalities_follow_their_own_tracks_and_some_are_redundant(truth: xr.Dataset) -> None:
    video = np.isin(truth.feature, VIDEO_TRACKS)
    sees_hears = {"video": (1, 0), "audio": (0, 1), "both": (1, 1), "none": (0, 0)}
    weight = truth.weight.to_numpy() != 0
    assert set(truth.modality.to_numpy()) == set(sees_hears)
    for kind, (sees, hears) in sees_hears.items():
        own = weight[truth.modality == kind]
        assert (own[:, video].any(axis=1) == sees).all()
        assert (own[:, ~video].any(axis=1) == hears).all()
    assert weight.any(axis=0).all()  # every track is followed by some parcel
    direction = truth.weight.to_numpy()[weight.any(axis=1)]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    assert len(np.unique(direction.round(6), axis=0)) < len(direction)
    assert (truth.ceiling.to_numpy()[truth.modality == "none"] == 0).all()


def test_time_alone_predicts_neighbours_but_nothing_across_a_gap(demo) -> None:
    """What the time-index canary of the splits lives on."""
    _, bold = demo
    run = bold[:, :300]
    neighbours = (run[:, :-2] + run[:, 2:]) / 2
    assert np.mean(zscore(neighbours, axis=1) * zscore(run[:, 1:-1], axis=1)) > 0.5
    assert abs(np.mean(run[:, 10:] * run[:, :-10])) < 0.05


def test_noise_is_smooth_by_6_mm_and_even() -> None:
    smooth = brains.make_smoother((20, 20, 20), 3.0, brains.NOISE_FWHM_MM)
    noise = smooth(np.random.default_rng(0).standard_normal((500, 20, 20, 20), dtype=np.float32))
    assert np.allclose(noise.var(axis=0).mean(), 1, atol=0.02)
    assert np.allclose(noise[:, 0, 0, 0].var(), 1, atol=0.2)  # the corner too
    sigma = brains.NOISE_FWHM_MM / np.sqrt(8 * np.log(2))
    neighbours = np.mean(noise[:, :, :, 1:] * noise[:, :, :, :-1])
    assert neighbours == pytest.approx(np.exp(-(3.0**2) / (4 * sigma**2)), abs=0.02)


def test_variance_of_a_parcels_mean_is_exact() -> None:
    smooth = brains.make_smoother((6, 7, 8), 3.0, brains.NOISE_FWHM_MM)
    weights = np.random.default_rng(1).random((1, 6, 7, 8), dtype=np.float32)
    unit = np.eye(6 * 7 * 8, dtype=np.float32).reshape(-1, 6, 7, 8)
    kernels = smooth(unit).reshape(len(unit), -1)  # what one white value adds to each voxel
    expected = np.square(kernels @ weights.ravel()).sum()
    assert smooth.mean_variance(weights)[0] == pytest.approx(expected, rel=1e-4)


@given(st.floats(0.0, 0.95), st.integers(2, 40))
def test_ceiling_and_pairwise_are_inverse(pairwise: float, subjects: int) -> None:
    ceiling = expected_ceiling(np.array(pairwise), subjects)
    assert pairwise_for(ceiling, subjects) == pytest.approx(pairwise, abs=1e-9)


def test_two_subjects_ceiling_is_their_correlation() -> None:
    assert expected_ceiling(np.array(0.4), 2) == pytest.approx(0.4)


# --- what cannot be made


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"size": "tinny"}, "did you mean 'tiny'", id="unknown-size"),
        pytest.param({"subjects": 1}, "at least 2", id="one-subject"),
        pytest.param({"seed": -1}, "seed of -1", id="negative-seed"),
        pytest.param({"movies": ["run-3"]}, "did you mean 'run-", id="unknown-run"),
    ],
)
def test_refused(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        synth(tmp_path / "new", **options)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        synth(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_no_space_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 0, 10**6))
    with pytest.raises(NoSpaceError, match="tiny needs up to"):
        synth(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_failing_ffmpeg_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(broken))
    with pytest.raises(InputError, match=r"^run-\d.mp4: ffmpeg could not write it \(no such codec"):
        synth(tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["ffmpeg"]
