"""Every TR's picture is the time-weighted mean of the frames on the screen in it."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import imageio_ffmpeg
import numpy as np
import pytest

from sherlock_data.stimulus.movie import probe
from sherlock_data.stimulus.video import is_covered, tr_pictures

VARIABLE = "select='if(lt(t,2),1,not(mod(n,5)))'"


def expected_levels(starts, ends, levels, edges):
    """Write out the mean level of every TR: seconds shared times level, over seconds shared."""
    found = []
    for first, last in pairwise(edges):
        shared = np.clip(np.minimum(ends, last) - np.maximum(starts, first), 0, None)
        found.append((shared * levels).sum() / shared.sum())
    return np.array(found)


@pytest.mark.parametrize(
    ("rate", "after", "starts", "levels"),
    [
        pytest.param("25", "null", np.arange(150) / 25, np.arange(150), id="25fps-37.5-per-TR"),
        pytest.param("24", "null", np.arange(144) / 24, np.arange(144), id="24fps-36-per-TR"),
        pytest.param(
            "24000/1001", "null", np.arange(144) * 1001 / 24000, np.arange(144), id="23.976fps"
        ),
        pytest.param(
            "30000/1001", "null", np.arange(180) * 1001 / 30000, np.arange(180), id="29.97fps"
        ),
        pytest.param(
            "25",
            VARIABLE,
            np.r_[np.arange(50), np.arange(50, 150, 5)] / 25,
            np.r_[np.arange(50), np.arange(50, 150, 5)],
            id="variable-rate",
        ),
    ],
)
@pytest.mark.parametrize("start_s", [0.0, 0.7, 1.2])
def test_frames_count_for_the_seconds_they_are_shown(
    make_movie, rate, after, starts, levels, start_s
):
    edges = start_s + np.arange(4) * 1.5
    movie = probe(make_movie(rate=rate, after=after, sound=None))
    shown = list(tr_pictures(movie, edges, 8, 6))
    ends = np.append(starts[1:], 6.0)
    assert [tr.tr for tr in shown] == [0, 1, 2]
    for tr, level in zip(shown, expected_levels(starts, ends, levels, edges), strict=True):
        assert tr.picture.dtype == np.uint8
        assert tr.picture.shape == (6, 8, 3)
        assert tr.covered_s == pytest.approx(1.5, abs=1e-5)
        assert np.all(np.abs(tr.picture - level) <= 0.52)


def test_a_picture_does_not_depend_on_how_many_frames_are_in_memory(make_movie, monkeypatch):
    movie, edges = probe(make_movie(sound=None)), np.arange(5) * 1.5
    whole = np.stack([tr.picture for tr in tr_pictures(movie, edges, 8, 6)])
    monkeypatch.setattr("sherlock_data.stimulus.video.BLOCK_VALUES", 3 * 8 * 6 * 7)
    in_sevens = np.stack([tr.picture for tr in tr_pictures(movie, edges, 8, 6)])
    np.testing.assert_array_equal(whole, in_sevens)


def test_a_movie_that_starts_late_covers_less(make_movie):
    """The run's first volume is 2 s before the movie's first frame."""
    shown = {
        tr.tr: tr for tr in tr_pictures(probe(make_movie(sound=None)), [-2, -0.5, 1, 2.5], 4, 2)
    }
    assert 0 not in shown or shown[0].covered_s == 0
    assert shown[1].covered_s == pytest.approx(1.0, abs=1e-5)
    assert np.all(np.abs(shown[1].picture - np.arange(25).mean()) <= 0.52)
    assert shown[2].covered_s == pytest.approx(1.5, abs=1e-5)


def test_a_movie_that_ends_early_covers_less(make_movie):
    movie = probe(make_movie(seconds=4, sound=None))
    shown = {tr.tr: tr.covered_s for tr in tr_pictures(movie, np.arange(6) * 1.5, 8, 6)}
    assert shown == pytest.approx({0: 1.5, 1: 1.5, 2: 1.0}, abs=1e-5)


@pytest.mark.parametrize(
    ("covered_s", "covered"),
    [
        pytest.param(1.5, True, id="all"),
        pytest.param(1.46, True, id="all-but-one-frame"),
        pytest.param(1.45, False, id="more-than-one-frame-missing"),
        pytest.param(0.0, False, id="nothing"),
    ],
)
def test_a_tr_may_lack_one_frame(covered_s, covered):
    assert is_covered(covered_s, 1.5, Fraction(25)) is covered


@pytest.mark.realdata
# imageio-ffmpeg leaves its pipes to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_big_buck_bunny_equals_the_mean_of_its_decoded_frames(real):
    """40 TRs of 1.5 s at 24 fps, against full-size frames from imageio averaged in float64."""
    path = real / "movie" / "big_buck_bunny_60s.mp4"
    decoded = imageio_ffmpeg.read_frames(str(path))
    next(decoded)
    expected, count = np.zeros((40, 90, 160, 3)), np.zeros(40)
    for n, data in enumerate(decoded):
        frame = np.frombuffer(data, np.uint8).reshape(90, 4, 160, 4, 3)
        expected[n // 36] += frame.sum(axis=(1, 3), dtype=np.uint32) / 16
        count[n // 36] += 1
    assert list(count) == [36] * 40
    expected /= 36
    shown = list(tr_pictures(probe(path), np.arange(41) * 1.5, 160, 90))
    assert [tr.tr for tr in shown] == list(range(40))
    difference = np.stack([tr.picture for tr in shown]) - expected
    assert np.abs(difference).max() <= 1
    assert np.abs(difference).mean() < 0.26  # rounding alone makes 0.25
    assert abs(difference.mean()) < 0.05
