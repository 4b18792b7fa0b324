"""The stimulus store: what each TR of each run with a movie showed, and nothing for the others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sherlock_data.errors import InputError, UnavailableError
from sherlock_data.stimulus import stimulus_store

STEREO = "aevalsrc='0.5*sin(2000*t)|0.1*sin(9000*t)':s=8000"
RECIPE = {"kind": "stimulus", "width": 8, "height": 6, "bands": 5, "mfcc": 7, "mel": 9}


@pytest.fixture
def movies(dataset, series, make_movie):
    """Two runs of 20 TRs of 0.5 s and one of 10; the second has no movie."""
    volumes = np.concatenate([series, series, series[..., :10]], axis=-1)
    dataset.write("s1.nii.gz", volumes[0])
    dataset.entry["repetition_time_s"] = 0.5
    dataset.entry["runs"] = [
        {"name": "run-1", "volumes": 20, "movie": "one.mkv"},
        {"name": "run-2", "volumes": 20},
        {"name": "run-3", "volumes": 10, "movie": "three.mkv", "movie_start_s": 2.0},
    ]
    dataset.stores["stimulus"] = RECIPE

    def make(name: str, **options: object) -> None:
        options = {"seconds": 10, "sound": STEREO, **options}
        make_movie(name, **options).rename(dataset.raw / name)

    dataset.make = make
    return dataset


def test_a_store_of_two_movies(movies):
    movies.make("one.mkv")
    movies.make("three.mkv")
    store = movies.build("stimulus")
    assert dict(store.sizes) == {
        "time": 50, "height": 6, "width": 8, "rgb": 3, "channel": 2,
        "band": 5, "coefficient": 7, "mel": 9,
    }  # fmt: skip
    assert list(store.run.values[[0, 19, 20, 40]]) == ["run-1", "run-1", "run-2", "run-3"]
    assert store.has_stimulus.values.tolist() == [True] * 20 + [False] * 20 + [True] * 10
    assert store.video.dtype == np.uint8
    assert store.time.attrs["units"] == "s"
    assert list(store.channel.values) == ["left", "right"]
    assert store.band.attrs["units"] == "Hz"
    # frame n is grey of level n; run-3 begins 2 s into its movie
    levels = store.video.values.mean(axis=(1, 2, 3))
    expected = 12.5 * np.arange(20) + 5.75
    np.testing.assert_allclose(levels[:20], expected, atol=0.51)
    np.testing.assert_allclose(levels[40:], expected[4:14], atol=0.51)


def test_a_run_without_a_movie_has_nothing_made_up(movies):
    movies.make("one.mkv")
    movies.make("three.mkv")
    store = movies.build("stimulus").sel(time=slice(10, 19.5))
    assert not store.has_stimulus.any()
    assert np.all(store.video == 0)
    for name in ("audio_bands", "audio_mfcc", "audio_mel"):
        assert np.all(np.isnan(store[name]))


def test_sound_of_every_covered_tr_is_finite(movies):
    movies.make("one.mkv")
    movies.make("three.mkv", sound="sine=frequency=440:sample_rate=16000")
    store = movies.build("stimulus")
    assert list(store.channel.values) == ["mono"]  # the fewest channels of all movies
    assert store.band.values[-1] < 4000  # and the lowest Nyquist frequency
    assert np.all(np.isfinite(store.audio_bands.sel(time=store.has_stimulus)))


def test_the_probe_and_the_inputs_are_recorded(movies):
    movies.make("one.mkv")
    movies.make("three.mkv")
    attrs = movies.build("stimulus").attrs
    assert attrs["recipe"] == RECIPE
    assert attrs["movies"]["run-1"]["frame_rate"] == "25"
    json.dumps(attrs["movies"])
    assert {i["name"]: len(i["sha256"]) for i in attrs["inputs"]} == {
        "one.mkv": 64,
        "three.mkv": 64,
    }


def test_a_movie_shorter_than_its_run(movies):
    movies.make("one.mkv", seconds=8.2)
    movies.make("three.mkv")
    store = movies.build("stimulus")
    assert store.has_stimulus.values[:20].tolist() == [True] * 16 + [False] * 4
    assert np.all(store.video.values[16:20] == 0)
    assert np.all(np.isnan(store.audio_bands.values[16:20]))
    (problem,) = store.attrs["problems"]
    assert (problem["code"], problem["where"]) == ("movie-shorter", "one.mkv")
    assert "its last 4 TRs get no stimulus" in problem["message"]


def test_a_silent_movie_gives_no_audio_variables(movies):
    movies.make("one.mkv", sound=None)
    movies.make("three.mkv", sound=None)
    store = movies.build("stimulus")
    assert set(store.data_vars) == {"video", "has_stimulus"}
    assert [p["code"] for p in store.attrs["problems"]] == ["movie-silent", "movie-silent"]


def test_no_movie_at_all_is_unavailable(movies):
    scan = movies.scan()
    recipe = movies.catalog().recipe("tiny", "stimulus")
    with pytest.raises(UnavailableError, match="no run has a movie"):
        stimulus_store.plan(scan, recipe, movies.path("stimulus"), movies.catalog())


def test_a_bad_movie_stops_before_anything_is_written(movies):
    movies.make("one.mkv", picture=None)
    movies.make("three.mkv")
    with pytest.raises(InputError, match=r"one\.mkv: no video stream"):
        movies.build("stimulus")
    assert not movies.out.exists()


def test_shards_that_two_runs_share_keep_both(movies, monkeypatch):
    """Run borders (20, 40) fall inside shards of 16."""
    monkeypatch.setattr(stimulus_store, "SHARD_TRS", 16)
    monkeypatch.setattr(stimulus_store, "CHUNK_TRS", 8)
    movies.make("one.mkv")
    movies.make("three.mkv")
    levels = movies.build("stimulus").video.values.mean(axis=(1, 2, 3))
    assert np.all(levels[:20] > 5)
    assert np.all(levels[20:40] == 0)
    assert np.all(levels[40:] > 50)


@pytest.mark.realdata
def test_big_buck_bunny_as_a_run_of_40_trs(dataset, series, real):
    volumes = np.concatenate([series, series], axis=-1)
    dataset.write("s1.nii.gz", volumes[0])
    dataset.entry["runs"] = [{"name": "run-1", "volumes": 40, "movie": "bunny.mp4"}]
    source = real / "movie" / "big_buck_bunny_60s.mp4"
    (dataset.raw / "bunny.mp4").write_bytes(source.read_bytes())
    store = dataset.build("stimulus")
    assert store.has_stimulus.all()
    assert store.video.shape == (40, 90, 160, 3)
    assert store.audio_bands.shape == (40, 2, 20)
    assert np.all(np.isfinite(store.audio_bands))
    assert store.attrs["problems"] == []
