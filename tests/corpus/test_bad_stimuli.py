"""Movies and arrays that cannot be what they are named for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.corpus.case import Case, nothing, table
from tests.corpus.damage import (
    array,
    changed_json,
    cut,
    folder,
    removed,
    swapped,
    together,
    written,
)
from tests.corpus.example import write_movie

CATALOG = "raw/catalog.yaml"
BUILD = "sherlock-data build lab {} --catalog raw/catalog.yaml --out new"
MOVIE, ARRAY, CLOCK = "raw/film.mp4", "raw/pitch.npy", "raw/pitch.json"
DECODE = "sherlock-models decode runs/toy {} out.mp4"

MOVIES = [
    Case(
        "movie-of-words",
        written(MOVIE, "a film"),
        BUILD.format("stimulus"),
        MOVIE + ": does not decode ... re-encode it",
    ),
    Case(
        "movie-of-nothing",
        written(MOVIE, b""),
        BUILD.format("stimulus"),
        MOVIE + ": does not decode ... ; re-encode it",
    ),
    Case(
        "cut-movie",
        cut(MOVIE),
        BUILD.format("stimulus"),
        MOVIE + ": does not decode ... ; re-encode it",
    ),
    Case(
        "movie-without-pictures",
        lambda desk: write_movie(desk / MOVIE, 2, picture=False),
        BUILD.format("stimulus"),
        MOVIE + ": no video stream; name a movie file",
    ),
    Case(
        "no-movie-at-all",
        removed(MOVIE),
        BUILD.format("stimulus"),
        "lab: no run has a movie; name one",
    ),
    Case(
        "a-folder-for-a-movie",
        folder(MOVIE),
        BUILD.format("stimulus"),
        "movie ... ; name one in the catalogue's runs",
    ),
    Case(
        "list-of-movies",
        written(MOVIE, "ffconcat version 1.0\nfile /etc/passwd\n"),
        BUILD.format("stimulus"),
        MOVIE + ": is no movie, but a list of files",
    ),
    Case(
        "playlist-of-the-web",
        written(MOVIE, "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n"),
        BUILD.format("stimulus"),
        MOVIE + ": does not decode ... re-encode it",
    ),
    Case("decode-no-movie", nothing, DECODE.format("gone.mp4"), "gone.mp4: no such movie file"),
    Case(
        "decode-the-web",
        nothing,
        DECODE.format("http://127.0.0.1:1/film.mp4"),
        "http:/127.0.0.1:1/film.mp4: no such movie file",
    ),
    Case(
        "decode-a-list",
        nothing,
        DECODE.format("'concat:raw/film.mp4|raw/film.mp4'"),
        "concat:raw/film.mp4|raw/film.mp4: no such movie file",
    ),
    Case("decode-a-scan", nothing, DECODE.format("raw/s1.nii.gz"), "raw/s1.nii.gz: is no movie"),
    Case(
        "decode-without-sound",
        lambda desk: write_movie(desk / MOVIE, 9, sound=False),
        DECODE.format(MOVIE),
        MOVIE + ": ... sound ... ; add a sound track",
    ),
    Case(
        "decode-over-the-movie",
        nothing,
        f"sherlock-models decode runs/toy {MOVIE} {MOVIE} --overwrite",
        MOVIE + ": is the movie itself; name another file",
    ),
    Case(
        "decode-over-a-file",
        written("out.mp4", "mine"),
        DECODE.format(MOVIE),
        "out.mp4: is there already ... --overwrite",
    ),
    Case(
        "decode-into-no-folder",
        nothing,
        f"sherlock-models decode runs/toy {MOVIE} no/out.mp4",
        "no: no such folder; make it first",
    ),
    Case(
        "decode-an-unknown-brain",
        nothing,
        "sherlock-models decode runs/toy out.mp4 --bold sub-09",
        "no subject 'sub-09' ... sub-0",
    ),
    Case(
        "decode-an-unknown-unit",
        nothing,
        DECODE.format(MOVIE) + " --lesion Net7",
        "no unit 'Net7' ... Net",
    ),
    Case(
        "decode-stills-beyond-the-film",
        nothing,
        DECODE.format(MOVIE) + " --stills out.png --at 9999",
        "--stills: no picture to show; name times within the film",
    ),
    Case(
        "decode-stills-at-nan",
        nothing,
        DECODE.format(MOVIE) + " --stills out.png --at nan",
        "--stills: no picture to show; name times within the film",
    ),
    Case(
        "decode-to-words",
        nothing,
        f"sherlock-models decode runs/toy {MOVIE} out.txt",
        "out.txt: not the name of an mp4 file; end it in .mp4",
    ),
]

ARRAYS = [
    Case("no-array", removed(ARRAY), BUILD.format("features"), ARRAY + ": no array; check --raw"),
    Case(
        "no-clock",
        removed(CLOCK),
        BUILD.format("features"),
        CLOCK + ': no clock of the array; write {"repetition_time_s": 1.5',
    ),
    Case(
        "clock-of-words",
        written(CLOCK, "1.5 s"),
        BUILD.format("features"),
        CLOCK + ": no clock (Invalid JSON",
    ),
    Case(
        "clock-of-a-list",
        written(CLOCK, "[]"),
        BUILD.format("features"),
        CLOCK + ": no clock ... ; give it",
    ),
    Case(
        "clock-not-utf-8",
        written(CLOCK, b"\xff{}"),
        BUILD.format("features"),
        CLOCK + ": no clock ... ; give it",
    ),
    Case(
        "clock-of-nan",
        changed_json(CLOCK, lambda d: d.update(repetition_time_s=float("nan"))),
        BUILD.format("features"),
        CLOCK + " ... repetition_time_s: ... give it",
    ),
    Case(
        "clock-of-another-scan",
        changed_json(CLOCK, lambda d: d.update(repetition_time_s=2)),
        BUILD.format("features"),
        CLOCK + ": its TR is 2 s, the scan's 1.5 s; average it",
    ),
    Case(
        "clock-beyond-the-run",
        changed_json(CLOCK, lambda d: d["runs"][0].update(volumes=61)),
        BUILD.format("features"),
        CLOCK + ": 61 TRs from TR 0 of run-1, which has 60",
    ),
    Case(
        "array-of-objects",
        array(ARRAY, np.array([{}] * 120)),
        BUILD.format("features"),
        ARRAY + ": no .npy array (Array can't be memory-mapped: Python objects",
    ),
    Case(
        "array-of-words",
        array(ARRAY, np.array(["a"] * 120)),
        BUILD.format("features"),
        ARRAY + ": an array of <U1 (120,); save real numbers",
    ),
    Case(
        "array-of-cubes",
        array(ARRAY, np.zeros((120, 2, 2))),
        BUILD.format("features"),
        ARRAY + ": an array of float64 (120, 2, 2)",
    ),
    Case(
        "array-of-nothing",
        array(ARRAY, np.zeros((0, 2))),
        BUILD.format("features"),
        ARRAY + ": an array of float64 (0, 2)",
    ),
    Case(
        "array-cut",
        cut(ARRAY),
        BUILD.format("features"),
        ARRAY + ": no .npy array ... ; save it with numpy.save",
    ),
    Case(
        "array-of-bytes",
        written(ARRAY, b"\x93NUMPY\x01"),
        BUILD.format("features"),
        ARRAY + ": no .npy array ... ; save it with numpy.save",
    ),
    Case(
        "array-that-is-a-pickle",
        written(ARRAY, b"cos\nmkdir\n(S'hacked'\ntR."),
        BUILD.format("features"),
        ARRAY + ": no .npy array ... ; save it with numpy.save",
    ),
    Case(
        "array-of-a-zip",
        together(
            lambda desk: np.savez(desk / "raw/pitch.npz", x=[1]),
            lambda desk: (desk / "raw/pitch.npz").rename(desk / ARRAY),
        ),
        BUILD.format("features"),
        ARRAY,
    ),
    Case(
        "array-a-row-short",
        array(ARRAY, np.zeros((119, 2))),
        BUILD.format("features"),
        ARRAY + ": 119 rows, its clock has 120 TRs",
    ),
    Case(
        "array-of-infinity",
        array(ARRAY, np.full((120, 2), np.inf)),
        BUILD.format("features"),
        ARRAY + ": it holds infinite values; use NaN",
    ),
    Case(
        "array-outside-of-raw",
        swapped(CATALOG, "pitch: pitch.npy", "pitch: ../gone/pitch.npy"),
        BUILD.format("features"),
        "gone/pitch.npy: no array",
    ),
]

CASES = [*MOVIES, *ARRAYS]


@table(CASES)
def test_a_bad_input_is_one_line_and_nothing_is_written(case: Case, desk: Path) -> None:
    case.check(desk)
