"""NIfTI files that are cut, lie in their header, or hold what is no scan."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.corpus.case import Case, table
from tests.corpus.damage import (
    cut,
    flipped,
    header,
    inflated,
    linked,
    removed,
    swapped,
    together,
    values,
    written,
)
from tests.corpus.example import call

SCAN = "raw/s2.nii.gz"
BUILD = "sherlock-data build lab voxels --catalog raw/catalog.yaml --out new"
LOOK = f"sherlock-data inspect {SCAN}"
NAME = f"{SCAN}: "
AGAIN = "fetch or write the file again"


def dim(*sizes: int) -> list[int]:
    """Fill the header's eight shorts."""
    return [*sizes, *[1] * (8 - len(sizes))]


CASES = [
    Case("empty", written(SCAN, b""), BUILD, NAME + "is not a NIfTI file; give a NIfTI file"),
    Case("a-link-to-itself", linked(SCAN, "s2.nii.gz"), LOOK, NAME + "no such file"),
    Case("a-link-to-nothing", linked(SCAN, "gone.nii.gz"), LOOK, NAME + "no such file"),
    Case("words", written(SCAN, "subject 2"), LOOK, NAME + "is not a NIfTI file; give"),
    Case(
        "gzipped-words",
        written(SCAN, gzip.compress(b"subject 2" * 99)),
        LOOK,
        NAME + "is not a NIfTI file ... ; give a NIfTI file",
    ),
    Case(
        "ends-in-its-header",
        inflated(SCAN, lambda data: data[:200]),
        LOOK,
        NAME + "ends within its header; " + AGAIN,
    ),
    Case("cut-gzip", cut(SCAN), LOOK, NAME + "is cut off: its gzip stream has no end; " + AGAIN),
    Case("flipped-bit", flipped(SCAN, 400), BUILD, NAME + "has a corrupt gzip stream ... fetch"),
    Case("flipped-checksum", flipped(SCAN, -6), BUILD, NAME + "has a corrupt gzip stream"),
    Case(
        "rubbish-behind-gzip",
        lambda desk: (desk / SCAN).write_bytes((desk / SCAN).read_bytes() + b"more" * 10),
        BUILD,
        NAME + "has bytes after the end of its gzip stream",
    ),
    Case(
        "a-volume-short",
        inflated(SCAN, lambda data: data[:-48]),
        BUILD,
        NAME + "ends after 119 of the 120 volumes its header promises; " + AGAIN,
    ),
    Case(
        "a-volume-more",
        inflated(SCAN, lambda data: data + bytes(48)),
        BUILD,
        NAME + "goes on after the 120 volumes its header promises",
    ),
    Case(
        "half-of-a-pair",
        header(SCAN, magic=b"ni1"),
        LOOK,
        NAME + "is half of a .hdr/.img pair; convert it",
    ),
    Case("analyze", header(SCAN, magic=b""), LOOK, NAME + "is not a NIfTI file (Analyze 7.5?)"),
    Case(
        "one-volume",
        values(SCAN, lambda data: data[..., 0]),
        BUILD,
        NAME + "is one 3-D image (4, 3, 2), not a time series",
    ),
    Case(
        "a-plane",
        header(SCAN, dim=dim(2, 4, 3)),
        LOOK,
        NAME + "has the shape (4, 3) ... ; give a 4-D file",
    ),
    Case(
        "five-dims",
        header(SCAN, dim=dim(5, 4, 3, 2, 60, 2)),
        LOOK,
        NAME + "has the shape (4, 3, 2, 60, 2)",
    ),
    Case(
        "no-dims", header(SCAN, dim=dim(0)), LOOK, NAME + "has ... the shape (0,); give a 4-D file"
    ),
    Case(
        "nine-dims",
        header(SCAN, dim=dim(9, 4, 3, 2, 120)),
        LOOK,
        NAME + "has ... the shape ... give a 4-D file",
    ),
    Case(
        "a-side-of-nothing",
        header(SCAN, dim=dim(4, 4, 0, 2, 120)),
        LOOK,
        NAME + "has the shape (4, 0, 2, 120)",
    ),
    Case(
        "a-side-below-nothing",
        header(SCAN, dim=dim(4, 4, -3, 2, 120)),
        LOOK,
        NAME + "has ... the shape (4, -3, 2, 120); give a 4-D file",
    ),
    Case(
        "larger-than-it-can-be",
        header(SCAN, dim=dim(4, 32767, 32767, 32767, 32767)),
        LOOK,
        NAME + "ends after 0 of the 32767 volumes",
    ),
    Case(
        "complex-values",
        header(SCAN, datatype=32, bitpix=64),
        LOOK,
        NAME + "holds complex64 values; give real numbers",
    ),
    Case(
        "colours",
        header(SCAN, datatype=128, bitpix=24),
        LOOK,
        NAME + "holds RGB values; give real numbers",
    ),
    Case(
        "bits",
        header(SCAN, datatype=1, bitpix=1),
        LOOK,
        NAME + "holds binary values; give real numbers",
    ),
    Case(
        "a-type-nobody-knows",
        header(SCAN, datatype=4242),
        LOOK,
        NAME + "has a broken header (no data type 4242)",
    ),
    Case(
        "affine-of-nothing",
        header(SCAN, sform_code=1, srow_x=0, srow_y=0, srow_z=0),
        LOOK,
        NAME + "has an affine that places no voxel; mend its sform",
    ),
    Case(
        "affine-of-nan",
        header(SCAN, sform_code=1, srow_x=[np.nan] * 4),
        LOOK,
        NAME + "has an affine that places no voxel",
    ),
    Case(
        "flat-voxels",
        header(SCAN, sform_code=0, qform_code=1, pixdim=[1, 3, 0, 3, 1.5, 1, 1, 1]),
        BUILD,
        SCAN + " ... has an affine that places no voxel; mend its sform or qform",
    ),
    Case(
        "quaternion-beyond-one",
        header(SCAN, sform_code=0, qform_code=1, quatern_b=5, quatern_c=5),
        LOOK,
        NAME + " ... has a broken header ... fetch",
    ),
    Case(
        "data-before-the-header",
        header(SCAN, vox_offset=-352),
        BUILD,
        NAME + "has a broken header (data at byte -352) ... ; fetch or write",
    ),
    Case(
        "data-beyond-the-file",
        header(SCAN, vox_offset=1e9),
        BUILD,
        NAME + "ends after 0 of the 120 volumes",
    ),
    Case(
        "data-at-nan",
        header(SCAN, vox_offset=np.nan),
        BUILD,
        NAME + "has a broken header ... ; fetch or write",
    ),
    Case(
        "data-at-infinity",
        header(SCAN, vox_offset=np.inf),
        BUILD,
        NAME + "has a broken header ... ; fetch or write",
    ),
    Case(
        "moved-by-nan",
        header(SCAN, scl_inter=np.nan),
        BUILD,
        NAME + "has a broken header ... ; fetch or write",
    ),
    Case(
        "no-tr-anywhere",
        together(
            swapped("raw/catalog.yaml", "    repetition_time_s: 1.5\n", ""),
            header(SCAN, pixdim=[1, 3, 3, 3, 0, 1, 1, 1]),
            header("raw/s1.nii.gz", pixdim=[1, 3, 3, 3, 0, 1, 1, 1]),
        ),
        BUILD,
        "raw/s1.nii.gz: holds no TR, nor does the catalogue; give the dataset's",
    ),
    Case(
        "another-grid",
        values(SCAN, lambda data: data[:3]),
        BUILD,
        NAME + "has a grid of (3, 3, 2) other than that of raw/s1.nii.gz (4, 3, 2) ... resample it",
    ),
    Case(
        "moved",
        header(SCAN, sform_code=1, srow_x=[3, 0, 0, 40]),
        BUILD,
        NAME + "has an affine other than that of raw/s1.nii.gz",
    ),
    Case(
        "volumes-that-do-not-add-up",
        values(SCAN, lambda data: data[..., :119]),
        BUILD,
        NAME + "has 119 volumes, the runs should have 120 (60 of run-1 + 60 of run-2)",
    ),
    Case(
        "files-of-nobody",
        together(removed(SCAN), removed("raw/s1.nii.gz")),
        BUILD,
        "raw: no file matches 's{subject}.nii.gz'; nearest names there",
    ),
    Case(
        "two-files-of-one-subject",
        lambda desk: (desk / "raw/s02.nii.gz").write_bytes((desk / SCAN).read_bytes()),
        BUILD,
        "is sub-02 ... keep one of the two",
    ),
    Case(
        "neither-scan-nor-movie",
        written("raw/notes.txt", "x"),
        "sherlock-data inspect raw/notes.txt",
        "raw/notes.txt: is neither a NIfTI file nor a movie; give .nii",
    ),
    Case(
        "one-of-the-files-gone",
        removed(SCAN),
        f"sherlock-data inspect raw/s1.nii.gz {SCAN}",
        NAME + "no such file; give one dataset, or files only",
    ),
]


@table(CASES)
def test_a_bad_scan_is_one_line_and_nothing_is_written(case: Case, desk: Path) -> None:
    case.check(desk)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: np.full(data.shape, np.nan, np.float32), id="only-nan"),
        pytest.param(np.zeros_like, id="only-zeros"),
    ],
)
def test_what_only_reading_finds_leaves_no_store(
    change: Callable[[np.ndarray], np.ndarray], desk: Path
) -> None:
    for subject in (1, 2):
        values(f"raw/s{subject}.nii.gz", change)(desk)
    outcome = call("sherlock-data", *BUILD.split()[1:])
    assert outcome.exit_code == 1, outcome.output
    [line] = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert "voxel" in line
    assert list((desk / "new/lab").iterdir()) == []
