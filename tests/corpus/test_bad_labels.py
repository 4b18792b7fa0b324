"""Atlases and sheets of annotations that cannot be what they are named for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.corpus.case import Case, table
from tests.corpus.damage import (
    removed,
    swapped,
    together,
    values,
    written,
)

CATALOG = "raw/catalog.yaml"
BUILD = "sherlock-data build lab {} --catalog raw/catalog.yaml --out new"
SHEET = "raw/sheet.tsv"
IMAGE, TABLE = "raw/atlas.nii", "raw/atlas.tsv"

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

CASES = [*ATLASES, *SHEETS]


@table(CASES)
def test_a_bad_input_is_one_line_and_nothing_is_written(case: Case, desk: Path) -> None:
    case.check(desk)
