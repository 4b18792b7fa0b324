"""Movies, atlases, sheets of annotations and arrays that cannot be what they are named for."""

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
    values,
    written,
)
from tests.corpus.example import write_movie

CATALOG = "raw/catalog.yaml"
BUILD = "sherlock-data build lab {} --catalog raw/catalog.yaml --out new"
MOVIE, SHEET, ARRAY, CLOCK = "raw/film.mp4", "raw/sheet.tsv", "raw/pitch.npy", "raw/pitch.json"
IMAGE, TABLE = "raw/atlas.nii", "raw/atlas.tsv"
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

ATLASES = [
    Case(
        "no-image",
        removed(IMAGE),
        BUILD.format("parcels"),
        IMAGE + ": no such file; atlas paths: relative to the catalogue",
    ),
    Case(
        "no-table",
        removed(TABLE),
        BUILD.format("parcels"),
        TABLE + ": no label table (FileNotFoundError ... give a TSV",
    ),
    Case(
        "image-of-words",
        written(IMAGE, "atlas"),
        BUILD.format("parcels"),
        IMAGE + ": not a readable image ... give a 3-D NIfTI file",
    ),
    Case(
        "image-of-fractions",
        values(IMAGE, lambda v: (v + 0.5).astype(np.float32)),
        BUILD.format("parcels"),
        IMAGE + ": holds values that are no labels",
    ),
    Case(
        "image-below-zero",
        values(IMAGE, lambda v: -v),
        BUILD.format("parcels"),
        IMAGE + ": holds values that are no labels",
    ),
    Case(
        "image-of-nan",
        values(IMAGE, lambda v: np.full(v.shape, np.nan, np.float32)),
        BUILD.format("parcels"),
        IMAGE + ": holds values that are no labels",
    ),
    Case(
        "image-of-infinity",
        values(IMAGE, lambda v: np.full(v.shape, np.inf, np.float32)),
        BUILD.format("parcels"),
        IMAGE + ": holds values that are no labels",
    ),
    Case(
        "image-of-labels-beyond-counting",
        values(IMAGE, lambda v: (v * 1e12).astype(np.float64)),
        BUILD.format("parcels"),
        IMAGE + ": holds values that are no labels",
    ),
    Case(
        "image-of-background",
        values(IMAGE, np.zeros_like),
        BUILD.format("parcels"),
        "no parcel ... lies on the scan's grid; check the atlas's affine",
    ),
    Case(
        "image-of-a-series",
        values(IMAGE, lambda v: np.stack([v, v], axis=-1)),
        BUILD.format("parcels"),
        IMAGE + " ... has 4 dimensions (4, 3, 2, 2) ... give one 3-D volume",
    ),
    Case(
        "atlas-of-another-space",
        swapped(CATALOG, "atlas.tsv, space: native", "atlas.tsv, space: MNI152"),
        BUILD.format("parcels"),
        "atlas quarters: is in MNI152 space, the dataset in native; name an atlas",
    ),
    Case(
        "table-with-commas",
        swapped(TABLE, "index\tname", "index,name"),
        BUILD.format("parcels"),
        TABLE + ": no label table ... give a TSV",
    ),
    Case(
        "table-of-nothing",
        written(TABLE, ""),
        BUILD.format("parcels"),
        TABLE + ": no label table ... give a TSV",
    ),
    Case(
        "table-of-words",
        swapped(TABLE, "1\t7", "one\t7"),
        BUILD.format("parcels"),
        TABLE + ": no label table ... give a TSV",
    ),
    Case(
        "table-not-utf-8",
        written(TABLE, b"index\tname\n1\tAire \xe9\n"),
        BUILD.format("parcels"),
        TABLE + ": no label table ... give a TSV",
    ),
    Case(
        "table-twice-an-index",
        swapped(TABLE, "2\t7", "1\t7"),
        BUILD.format("parcels"),
        TABLE + ": index 1 is there twice; name parcels once",
    ),
    Case(
        "table-lacks-a-parcel",
        swapped(TABLE, "4\t7Networks_RH_Net0_4\n", ""),
        BUILD.format("parcels"),
        TABLE + ": 1 labels of the image have no name, the first is 4; add",
    ),
    Case(
        "table-of-huge-numbers",
        swapped(TABLE, "4\t7", f"{2**40}\t7"),
        BUILD.format("parcels"),
        TABLE + ": no label table ... an index is above 2147483647",
    ),
]

SHEETS = [
    Case(
        "no-sheet",
        removed(SHEET),
        BUILD.format("annotations"),
        "annotations ... ; name a sheet in the catalogue",
    ),
    Case(
        "sheet-of-nothing",
        written(SHEET, ""),
        BUILD.format("annotations"),
        SHEET + ": cannot be read as a table",
    ),
    Case(
        "sheet-of-a-header",
        written(SHEET, "run\tonset\tduration\tmusic\n"),
        BUILD.format("annotations"),
        SHEET + ": no row lies within the scan",
    ),
    Case(
        "sheet-without-times",
        swapped(SHEET, "onset", "when"),
        BUILD.format("annotations"),
        SHEET + ": no columns say when ... name them onset and duration",
    ),
    Case(
        "sheet-not-utf-8",
        written(SHEET, b"onset\tduration\tplace\n0\t9\tcaf\xe9\n"),
        BUILD.format("annotations"),
        SHEET + ": cannot be read as a table",
    ),
    Case(
        "sheet-of-ragged-rows",
        written(SHEET, "onset\tduration\n0\t9\n0\t9\t9\t9\n"),
        BUILD.format("annotations"),
        SHEET + ": cannot be read as a table",
    ),
    Case(
        "sheet-of-no-labels",
        written(SHEET, "run\tonset\tduration\n1\t0\t45\n"),
        BUILD.format("annotations"),
        SHEET + ": says nothing beside its times; add a column of labels",
    ),
    Case(
        "sheet-of-an-unknown-run",
        swapped(SHEET, "2\t0", "run-3\t0"),
        BUILD.format("annotations"),
        SHEET + ": no run 'run-3'; did you mean 'run-",
    ),
    Case(
        "sheet-backwards",
        swapped(SHEET, "1\t0\t45", "1\t0\t-5"),
        BUILD.format("annotations"),
        SHEET + ": a segment ends before it starts",
    ),
    Case(
        "sheet-of-two-columns-of-a-name",
        swapped(SHEET, "music\tplace", "music\tMusic "),
        BUILD.format("annotations"),
        SHEET + ": column 'Music ' gives a label 'music', as column 'music' does; give it another",
    ),
    Case(
        "workbook-that-is-none",
        together(swapped(CATALOG, "sheet.tsv", "sheet.xlsx"), written("raw/sheet.xlsx", "x")),
        BUILD.format("annotations"),
        "raw/sheet.xlsx: cannot be read as a table ... save it again",
    ),
    Case(
        "workbook-of-another-zip",
        together(
            swapped(CATALOG, "sheet.tsv", "sheet.xlsx"),
            lambda desk: np.savez(desk / "raw/sheet", x=[1]),
            lambda desk: (desk / "raw/sheet.npz").rename(desk / "raw/sheet.xlsx"),
        ),
        BUILD.format("annotations"),
        "raw/sheet.xlsx: cannot be read as a table",
    ),
    Case(
        "sheet-of-another-program",
        together(swapped(CATALOG, "sheet.tsv", "sheet.ods"), written("raw/sheet.ods", "x")),
        BUILD.format("annotations"),
        "raw/sheet.ods: annotations in a '.ods' file; save as .xlsx",
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

CASES = [*MOVIES, *ATLASES, *SHEETS, *ARRAYS]


@table(CASES)
def test_a_bad_input_is_one_line_and_nothing_is_written(case: Case, desk: Path) -> None:
    case.check(desk)
