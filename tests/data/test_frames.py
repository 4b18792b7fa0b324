"""Every frame and its own sound: TR by TR, nothing lost, nothing twice."""

from __future__ import annotations

import numpy as np
import pytest

from sherlock_data.build import Options, build
from sherlock_data.errors import InputError, UnavailableError
from sherlock_data.stimulus import frames
from sherlock_data.stimulus.movie import probe, sound

STEREO = "aevalsrc='0.5*sin(2000*t)|0.1*sin(9000*t)':s=8000"


@pytest.fixture
def movies(dataset, series, make_movie):
    """Runs of 6 and 4 TRs of 0.5 s; run-2 begins a second into its movie."""
    dataset.write("s1.nii.gz", series[0][..., :10])
    dataset.entry["repetition_time_s"] = 0.5
    dataset.entry["runs"] = [
        {"name": "run-1", "volumes": 6, "movie": "one.mkv"},
        {"name": "run-2", "volumes": 4, "movie": "two.mkv", "movie_start_s": 1.0},
    ]

    def make(name: str, **options: object) -> None:
        # Matroska rounds times to milliseconds, NUT keeps them
        source = make_movie("movie.nut", **{"seconds": 4, "sound": STEREO, **options})
        source.rename(dataset.raw / name)

    dataset.make = make
    return dataset


def test_every_frame_of_two_runs(movies):
    movies.make("one.mkv")
    movies.make("two.mkv")
    store = movies.build("frames")
    # 25 frames a second: 3 s of run-1 and 2 s of run-2
    assert dict(store.sizes) == {
        "frame": 125, "height": 18, "width": 32, "rgb": 3, "channel": 2, "sample": 320,
    }  # fmt: skip
    shown = np.r_[0:75, 25:75]  # frame n is grey of level n
    np.testing.assert_array_equal(store.video.values, np.broadcast_to(
        shown[:, None, None, None].astype(np.uint8), store.video.shape))  # fmt: skip
    np.testing.assert_allclose(store.frame_time, np.r_[shown[:75] / 25, 3 + (shown[75:] / 25 - 1)])
    np.testing.assert_array_equal(store.time, np.floor(store.frame_time / 0.5 + 1e-6) * 0.5)
    assert store.run.values[[0, 74, 75]].tolist() == ["run-1", "run-1", "run-2"]
    assert store.has_stimulus.all()


def test_the_pieces_of_sound_are_the_whole(movies, make_movie):
    """8,000 Hz at 24 frames a second: 333 or 334 samples."""
    movies.make("one.mkv", rate="24")
    movies.make("two.mkv", rate="24")
    store = movies.build("frames").isel(frame=slice(0, 72))
    assert store.sizes["sample"] == 334
    assert set(store.n_samples.values.tolist()) == {333, 334}
    pieces = [row[:, :n] for row, n in zip(store.audio.values, store.n_samples.values, strict=True)]
    heard = np.concatenate(list(sound(probe(movies.raw / "one.mkv"), 2)), axis=1)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), heard[:, : 3 * 8000])
    short = store.n_samples.values == 333
    assert np.isnan(store.audio.values[short, :, 333]).all()


def test_frames_of_a_variable_rate_keep_their_times(movies):
    """From second 1 on, every second frame is dropped."""
    movies.make("one.mkv", after="select='lt(t,1)+mod(n,2)'")
    movies.make("two.mkv")
    store = movies.build("frames")
    times = store.frame_time.values[store.run.values == "run-1"]
    assert len(times) == 25 + 25
    np.testing.assert_allclose(np.diff(times)[30:], 0.08, atol=1e-3)
    assert store.n_samples.values[40] == 640


def test_small_shards_change_nothing(movies, monkeypatch):
    movies.make("one.mkv")
    movies.make("two.mkv")
    whole = movies.build("frames").load()
    monkeypatch.setattr(frames, "CHUNK_BYTES", 4 * 18 * 32 * 3)
    monkeypatch.setattr(frames, "SHARD_CHUNKS", 2)
    pieces = movies.build("frames", overwrite=True)
    assert pieces.video.encoding["shards"][0] == 8
    assert pieces.load().identical(whole)


def test_a_dry_run_says_how_large_it_would_be(movies):
    movies.make("one.mkv")
    movies.make("two.mkv")
    options = Options(dry_run=True)
    (outcome,) = build(movies.scan(), movies.catalog(), movies.out, ["frames"], options)
    assert outcome.nbytes > 125 * (18 * 32 * 3 + 2 * 320 * 4)
    assert not movies.out.exists()


def test_it_is_not_built_unless_named(movies):
    movies.make("one.mkv")
    movies.make("two.mkv")
    outcomes = build(movies.scan(), movies.catalog(), movies.out, (), Options(dry_run=True))
    assert {"frames", "features"}.isdisjoint(outcome.store for outcome in outcomes)


def test_without_sound_there_is_no_audio(movies):
    movies.make("one.mkv", sound=None)
    movies.make("two.mkv", sound=None)
    store = movies.build("frames")
    assert set(store.data_vars) == {"video", "has_stimulus"}
    assert {p["code"] for p in store.attrs["problems"]} == {"movie-silent"}


def test_movies_of_two_sizes_are_refused(movies):
    movies.make("one.mkv")
    movies.make("two.mkv", size="16x18")
    with pytest.raises(InputError, match=r"differ in width: one\.mkv has 32, two\.mkv has 16"):
        movies.build("frames")


def test_no_movie_is_unavailable(movies):
    movies.entry["runs"] = [{"name": "run-1", "volumes": 10}]
    with pytest.raises(UnavailableError, match="no run has a movie"):
        movies.build("frames")


@pytest.mark.realdata
def test_three_seconds_of_big_buck_bunny(dataset, series, real):
    dataset.write("s1.nii.gz", series[0][..., :2])
    dataset.entry["runs"] = [
        {"name": "run-1", "volumes": 2, "movie": "bunny.mp4", "movie_start_s": 30.0}
    ]
    source = real / "movie" / "big_buck_bunny_60s.mp4"
    (dataset.raw / "bunny.mp4").write_bytes(source.read_bytes())
    store = dataset.build("frames")
    assert store.video.shape == (72, 360, 640, 3)
    assert store.audio.shape == (72, 2, 1838)
    assert int(store.n_samples.sum()) == 3 * 44100
    assert store.video.values.std() > 10
