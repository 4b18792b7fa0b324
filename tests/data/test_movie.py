"""A movie file as it is: true times for every frame and sample, and a clear word when it is bad."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import psutil
import pytest

from sherlock_data.errors import InputError
from sherlock_data.stimulus.movie import LEVEL, check_decodes, frames, probe, sound

H264 = (
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-crf",
    "23",
    "-pix_fmt",
    "yuv420p",
    "-c:a",
    "aac",
)
#: 25 fps for 2 s, then every fifth frame of it: 0.2 s each
VARIABLE = "select='if(lt(t,2),1,not(mod(n,5)))'"


@pytest.mark.parametrize(
    ("rate", "exact"),
    [
        pytest.param("25", Fraction(25), id="25fps"),
        pytest.param("24", Fraction(24), id="24fps"),
        pytest.param("24000/1001", Fraction(24000, 1001), id="23.976fps"),
        pytest.param("30000/1001", Fraction(30000, 1001), id="29.97fps"),
    ],
)
@pytest.mark.parametrize("name", ["movie.mp4", "movie.mkv"])
def test_frame_rate_is_exact_whatever_the_container_rounds_to(make_movie, rate, exact, name):
    movie = probe(make_movie(name, rate=rate, options=H264))
    assert movie.frame_rate == exact
    assert movie.video_seconds == pytest.approx(6, abs=0.03)
    starts = [frame.start_s for frame in frames(movie, 8, 4)]
    # Matroska keeps whole milliseconds
    np.testing.assert_allclose(starts, np.arange(len(starts)) / float(exact), atol=0.0006)


def test_probe_tells_what_the_file_holds(make_movie):
    path = make_movie(sound="aevalsrc=0|0:s=16000", size="64x36")
    movie = probe(path)
    assert (movie.width, movie.height, movie.video_codec) == (64, 36, "ffv1")
    assert (movie.has_audio, movie.sample_rate, movie.channels) == (True, 16000, 2)
    assert movie.bytes == path.stat().st_size
    assert len(movie.sha256) == 64
    assert movie.describe()["frame_rate"] == "25"


def test_probe_without_sound(make_movie):
    movie = probe(make_movie(sound=None))
    assert (movie.has_audio, movie.sample_rate, movie.channels) == (False, 0, 0)
    with pytest.raises(InputError, match=r"movie\.mkv: no sound stream"):
        next(sound(movie, 1))


def test_a_frame_stays_until_the_next_one_starts(make_movie):
    shown = list(frames(probe(make_movie(after=VARIABLE)), 4, 2))
    assert len(shown) == 50 + 20
    assert [round(frame.picture[0, 0, 0] / LEVEL) for frame in shown[48:53]] == [48, 49, 50, 55, 60]
    seconds = [frame.end_s - frame.start_s for frame in shown]
    np.testing.assert_allclose(seconds[:50], 0.04, atol=1e-9)
    np.testing.assert_allclose(seconds[50:-1], 0.2, atol=1e-9)
    assert all(a.end_s == b.start_s for a, b in pairwise(shown))


@pytest.mark.parametrize(
    ("width", "height"),
    [
        pytest.param(8, 6, id="whole-blocks"),
        pytest.param(5, 7, id="fractions-of-pixels"),
        pytest.param(32, 18, id="own-size"),
        pytest.param(32, 9, id="one-axis"),
        pytest.param(64, 36, id="larger"),
    ],
)
def test_a_grey_level_comes_back_as_it_is(make_movie, width, height):
    movie = probe(make_movie(rate="128", seconds=2, sound=None))
    levels = np.stack([frame.picture for frame in frames(movie, width, height)])
    assert levels.shape == (256, height, width, 3)
    expected = np.arange(256).reshape(-1, 1, 1, 1) * LEVEL
    np.testing.assert_allclose(levels - expected, 0, atol=LEVEL / 64)


@pytest.mark.parametrize("later_s", [0.25, 1.25, 3.0])
def test_sound_begins_where_its_packets_say(make_movie, later_s):
    later = ("-af", f"asetpts=PTS+{later_s}/TB", "-c:v", "ffv1", "-c:a", "pcm_f32le")
    movie = probe(make_movie(sound="aevalsrc=0.5:s=8000", options=later))
    heard = np.concatenate(list(sound(movie, 1)), axis=1)
    assert heard.dtype == np.float32
    assert np.flatnonzero(heard[0])[0] == pytest.approx(later_s * 8000, abs=8)
    assert next(frames(movie, 4, 2)).start_s == 0


def test_a_container_that_starts_late_starts_at_zero(make_movie):
    movie = probe(make_movie("late.ts", sound=None, options=(*H264, "-output_ts_offset", "7")))
    assert movie.start_s > 7
    assert next(frames(movie, 4, 2)).start_s == 0
    assert movie.video_seconds == pytest.approx(6, abs=0.1)


def test_closing_early_stops_ffmpeg(make_movie):
    before = psutil.Process().children()
    shown = frames(probe(make_movie(seconds=10, size="320x180")), 160, 90)
    next(shown)
    shown.close()
    assert psutil.Process().children() == before


@pytest.mark.parametrize(
    "name",
    ["-i.mkv", "a b'c\".mkv", "http:movie.mkv", "$(x).mkv", "fünf.mkv", "sub folder/x.mkv"],
)
def test_odd_file_names_are_only_names(make_movie, name):
    assert len(list(frames(probe(make_movie(name, seconds=1, sound=None)), 4, 2))) == 25


def _missing(make_movie):
    return make_movie().with_name("absent.mp4")


def _text(make_movie):
    path = make_movie().with_name("text.mp4")
    path.write_text("not a movie " * 1000)
    return path


def _truncated(make_movie):
    path = make_movie("cut.mp4", options=(*H264, "-movflags", "+faststart"), size="320x180")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _damaged(make_movie):
    picture = "geq=lum='random(1)*255':cb=128:cr=128"
    path = make_movie("damaged.mp4", options=H264, picture=picture, size="64x36", sound=None)
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 3, len(data) // 2, 97):
        data[place] ^= 0xFF
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(_missing, "no such movie file", id="missing"),
        pytest.param(_text, "does not decode", id="not-a-movie"),
        pytest.param(lambda make: make(picture=None), "no video stream", id="sound-only"),
        pytest.param(_truncated, "does not decode", id="truncated"),
        pytest.param(_damaged, "does not decode", id="damaged-in-the-middle"),
    ],
)
def test_bad_movies_are_refused_in_one_line(make_movie, make, message):
    path = make(make_movie)
    with pytest.raises(InputError, match=message) as failure:
        list(frames(probe(path), 8, 4))
    assert str(failure.value).startswith(f"{path}: ")
    assert "\n" not in str(failure.value)


def test_a_movie_that_never_decodes_is_refused_before_any_work(make_movie):
    path = make_movie(options=("-c:v", "mjpeg", "-bsf:v", "noise=amount=1"), sound=None)
    with pytest.raises(InputError, match="does not decode"):
        check_decodes(probe(path))


def test_damaged_sound_is_refused(make_movie):
    path = make_movie("noise.mp4", options=(*H264, "-bsf:a", "noise=amount=2"))
    with pytest.raises(InputError, match="does not decode"):
        list(sound(probe(path), 1))
