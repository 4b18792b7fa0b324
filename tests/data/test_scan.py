"""From a catalogue entry to files, clock and grid, and what is said when they disagree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from sherlock_data.catalog import DatasetEntry, load_catalog
from sherlock_data.errors import CatalogError, InputError
from sherlock_data.scan import Scan, identify, resolve

GRID = (3, 4, 2)


def bold(
    path: Path,
    volumes: int = 10,
    tr: float | None = 1.5,
    grid: tuple[int, int, int] = GRID,
    origin: float = 0.0,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([3.0, 3, 3, 1])
    affine[0, 3] = origin
    values = np.random.default_rng(0).normal(size=(*grid, volumes)).astype(np.float32)
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 0 if tr is None else tr
    image.to_filename(path)
    return path


def entry(**keys: Any) -> DatasetEntry:
    return DatasetEntry.model_validate(
        {"bold": "s{subject}.nii.gz", "repetition_time_s": 1.5} | keys
    )


def codes(scan: Scan) -> list[str]:
    return [problem.code for problem in scan.problems]


@pytest.mark.parametrize(
    ("pattern", "names", "expected"),
    [
        pytest.param(
            "s{subject}.nii.gz",
            ["s10.nii.gz", "s2.nii.gz", "s1.nii.gz", "other.nii.gz"],
            {"sub-01": [None], "sub-02": [None], "sub-10": [None]},
            id="numeric-order",
        ),
        pytest.param(
            "s{subject}.nii.gz",
            ["sxx.nii.gz", "s3.nii.gz"],
            {"sub-03": [None], "sub-xx": [None]},
            id="text-kept",
        ),
        pytest.param(
            "run-{run}.nii.gz",
            ["run-010.nii.gz", "run-002.nii.gz"],
            {"sub-01": ["run-002", "run-010"]},
            id="one-subject-many-runs",
        ),
        pytest.param(
            "sub-{subject}/func/sub-{subject}_task-movie_run-{run}_bold.nii.gz",
            [
                "sub-02/func/sub-02_task-movie_run-1_bold.nii.gz",
                "sub-01/func/sub-01_task-movie_run-2_bold.nii.gz",
                "sub-01/func/sub-01_task-movie_run-1_bold.nii.gz",
                "sub-02/func/sub-02_task-movie_run-2_bold.nii.gz",
                "sub-02/func/sub-01_task-movie_run-3_bold.nii.gz",  # folder and file disagree
                "sub-02/func/sub-02_task-rest_run-1_bold.nii.gz",
            ],
            {"sub-01": ["run-1", "run-2"], "sub-02": ["run-1", "run-2"]},
            id="bids",
        ),
        pytest.param(
            "{subject}/bold.nii.gz",
            ["sub-04/bold.nii.gz"],
            {"sub-04": [None]},
            id="a-folder-that-says-sub",
        ),
        pytest.param(
            "a[1]+s{subject}.nii.gz",
            ["a[1]+s1.nii.gz", "a1s2.nii.gz"],
            {"sub-01": [None]},
            id="all-else-is-literal",
        ),
    ],
)
def test_patterns(
    tmp_path: Path, pattern: str, names: list[str], expected: dict[str, list[str | None]]
) -> None:
    for name in names:
        bold(tmp_path / name)
    scan = resolve("movie", entry(bold=pattern), tmp_path)
    assert {subject: list(files) for subject, files in scan.files.items()} == expected
    assert scan.subjects == tuple(expected)
    assert scan.problems == []


def test_runs_in_one_file_come_from_the_catalogue(tmp_path: Path) -> None:
    bold(tmp_path / "s1.nii.gz", 10)
    runs = [{"name": "run-1", "volumes": 4, "movie_start_s": 3.0}, {"name": "run-2", "volumes": 6}]
    scan = resolve("movie", entry(runs=runs), tmp_path)
    assert scan.clock.run_offsets == {"run-1": 0, "run-2": 4}
    assert scan.clock.runs[0].movie_start_s == 3.0
    assert scan.header.shape == GRID
    assert scan.header.grid.same_as(GRID, np.diag([3.0, 3, 3, 1]))


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param([], {"run-1": 10}, id="none-declared"),
        pytest.param([{"name": "a"}], {"a": 10}, id="one-without-volumes"),
        pytest.param([{"name": "a", "volumes": 4}, {"name": "b"}], {"a": 4, "b": 6}, id="the-rest"),
    ],
)
def test_volumes_taken_from_the_header(
    tmp_path: Path, runs: list[dict[str, Any]], expected: dict[str, int]
) -> None:
    bold(tmp_path / "s1.nii.gz", 10)
    scan = resolve("movie", entry(runs=runs), tmp_path)
    assert {run.name: run.volumes for run in scan.clock.runs} == expected


def test_declared_runs_find_their_files_however_they_are_padded(tmp_path: Path) -> None:
    for run, volumes in (("01", 4), ("02", 6), ("03", 5)):
        bold(tmp_path / f"s1_run-{run}.nii.gz", volumes)
    runs = [{"name": "run-2"}, {"name": "run-1", "volumes": 4}]
    scan = resolve("movie", entry(bold="s{subject}_run-{run}.nii.gz", runs=runs), tmp_path)
    assert list(scan.files["sub-01"]) == ["run-2", "run-1"]  # the catalogue's order of scanning
    assert [run.volumes for run in scan.clock.runs] == [6, 4]
    assert codes(scan) == ["run-undeclared"]


def test_a_subject_without_one_of_the_runs_is_noted(tmp_path: Path) -> None:
    for name in ("s1_run-1", "s1_run-2", "s2_run-1"):
        bold(tmp_path / f"{name}.nii.gz")
    scan = resolve("movie", entry(bold="s{subject}_run-{run}.nii.gz"), tmp_path)
    assert list(scan.files["sub-02"]) == ["run-1"]
    (problem,) = scan.problems
    assert (problem.code, problem.where) == ("run-missing", "sub-02")


@pytest.mark.parametrize(
    ("subjects", "expected"),
    [
        pytest.param(2, [], id="as-many-as-expected"),
        pytest.param(4, ["subjects-missing"], id="fewer"),
        pytest.param(1, ["subjects-unexpected"], id="more"),
        pytest.param(["1", "3"], [], id="named"),
        pytest.param([1, "sub-03", "7"], ["subjects-missing"], id="one-of-the-named-is-missing"),
    ],
)
def test_expected_subjects(tmp_path: Path, subjects: Any, expected: list[str]) -> None:
    for number in (1, 3):
        bold(tmp_path / f"s{number}.nii.gz")
    assert codes(resolve("movie", entry(subjects=subjects), tmp_path)) == expected


def test_missing_subjects_are_named(tmp_path: Path) -> None:
    bold(tmp_path / "s1.nii.gz")
    (problem,) = resolve("movie", entry(subjects=3), tmp_path).problems
    assert problem.message == "1 of 3 subjects are here; missing: sub-02, sub-03"


def test_a_list_of_subjects_picks_them(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        bold(tmp_path / f"s{number}.nii.gz")
    assert resolve("movie", entry(subjects=["3", "1"]), tmp_path).subjects == ("sub-01", "sub-03")


@pytest.mark.parametrize(
    ("catalogue", "header", "used", "problems"),
    [
        pytest.param(1.5, 1.5, 1.5, [], id="agree"),
        pytest.param(1.5, 1.0, 1.5, ["tr-disagrees"], id="catalogue-wins"),
        pytest.param(None, 2.5, 2.5, [], id="header-alone"),
        pytest.param(1.5, None, 1.5, [], id="catalogue-alone"),
        pytest.param(0.72, 0.72, 0.72, [], id="float32-is-no-disagreement"),
    ],
)
def test_repetition_time(
    tmp_path: Path,
    catalogue: float | None,
    header: float | None,
    used: float,
    problems: list[str],
) -> None:
    bold(tmp_path / "s1.nii.gz", tr=header)
    scan = resolve("movie", entry(repetition_time_s=catalogue), tmp_path)
    assert scan.clock.repetition_time_s == used
    assert scan.header_repetition_time_s == header
    assert scan.catalogue_repetition_time_s == catalogue
    assert codes(scan) == problems
    if problems:
        assert "1.0 s" in scan.problems[0].message
        assert "1.5 s" in scan.problems[0].message


def test_a_movie_that_starts_after_its_run_is_noted(tmp_path: Path) -> None:
    bold(tmp_path / "s1.nii.gz", 10)
    (tmp_path / "one.mp4").touch()
    run = {"name": "run-1", "volumes": 10, "movie": "one.mp4", "movie_start_s": -6.0}
    scan = resolve("movie", entry(runs=[run]), tmp_path)
    (problem,) = scan.problems
    assert (problem.code, problem.where) == ("movie-starts-late", "run-1")
    assert "begins 6 s after the run's first volume" in problem.message
    assert scan.clock.runs[0].movie_start_s == -6.0


def test_movies_that_are_there_and_not(tmp_path: Path) -> None:
    bold(tmp_path / "s1.nii.gz", 10)
    (tmp_path / "one.mp4").touch()
    runs = [
        {"name": "run-1", "volumes": 3, "movie": "one.mp4"},
        {"name": "run-2", "volumes": 3, "movie": "two.mp4"},
        {"name": "run-3", "volumes": 4},
    ]
    scan = resolve("movie", entry(runs=runs), tmp_path)
    assert scan.movies == {"run-1": tmp_path / "one.mp4"}
    assert [run.movie for run in scan.clock.runs] == ["one.mp4", None, None]
    assert [(p.code, p.where) for p in scan.problems] == [
        ("movie-missing", "run-2"),
        ("movie-missing", "run-3"),
    ]
    assert "two.mp4" in scan.problems[0].message


def test_annotations(tmp_path: Path) -> None:
    bold(tmp_path / "s1.nii.gz")
    assert codes(resolve("m", entry(annotations="a.xlsx"), tmp_path)) == ["annotations-missing"]
    (tmp_path / "a.xlsx").touch()
    scan = resolve("m", entry(annotations="a.xlsx"), tmp_path)
    assert scan.annotations == tmp_path / "a.xlsx"


def grid_of_another_shape(raw: Path) -> DatasetEntry:
    bold(raw / "s1.nii.gz")
    bold(raw / "s2.nii.gz", grid=(3, 4, 3))
    return entry()


def another_affine(raw: Path) -> DatasetEntry:
    bold(raw / "s1.nii.gz")
    bold(raw / "s2.nii.gz", origin=0.5)
    return entry()


def volumes_that_do_not_add_up(raw: Path) -> DatasetEntry:
    bold(raw / "s1.nii.gz", 9)
    return entry(runs=[{"name": "run-1", "volumes": 4}, {"name": "run-2", "volumes": 6}])


def subjects_of_different_length(raw: Path) -> DatasetEntry:
    bold(raw / "s1.nii.gz", 10)
    bold(raw / "s2.nii.gz", 9)
    return entry()


def a_run_that_is_short(raw: Path) -> DatasetEntry:
    bold(raw / "s1_r1.nii.gz", 9)
    return entry(bold="s{subject}_r{run}.nii.gz", runs=[{"name": "run-1", "volumes": 10}])


@pytest.mark.parametrize(
    ("make", "code", "named"),
    [
        pytest.param(grid_of_another_shape, "grid-differs", ["s1", "s2", "(3, 4, 3)"], id="grid"),
        pytest.param(another_affine, "grid-differs", ["s1", "s2", "affine"], id="affine"),
        pytest.param(
            volumes_that_do_not_add_up,
            "run-lengths",
            ["s1", "has 9 volumes", "10 (4 of run-1 + 6 of run-2)"],
            id="sum-of-runs",
        ),
        pytest.param(
            subjects_of_different_length, "run-lengths", ["s2", "9", "10"], id="other-subject"
        ),
        pytest.param(a_run_that_is_short, "run-lengths", ["s1_r1", "9", "10"], id="one-run"),
    ],
)
def test_what_would_make_a_store_wrong_stops_a_build_and_is_listed_by_inspect(
    tmp_path: Path, make: Any, code: str, named: list[str]
) -> None:
    made = make(tmp_path)
    with pytest.raises(InputError) as failure:
        resolve("movie", made, tmp_path)
    line = str(failure.value)
    assert all(word in line for word in [*named, code])
    assert failure.value.remedy
    assert codes(resolve("movie", made, tmp_path, strict=False)) == [code]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        pytest.param({"bold": "z{subject}.nii.gz"}, "nearest names there: s1.nii.gz", id="name"),
        pytest.param({"bold": "dat/s{subject}.nii"}, "nearest names there: data", id="folder"),
        pytest.param({"subjects": ["9"]}, "of no subject and run", id="no-such-subject"),
        pytest.param(
            {"repetition_time_s": None}, "holds no TR, nor does the catalogue", id="no-tr"
        ),
        pytest.param(
            {"runs": [{"name": "a", "volumes": 10}, {"name": "b"}]}, "leaves none for b", id="rest"
        ),
    ],
)
def test_bad_datasets(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    bold(tmp_path / "s1.nii.gz", 10, tr=None)
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError) as failure:
        resolve("movie", entry(**keys), tmp_path)
    assert says in str(failure.value)
    assert failure.value.remedy


def test_no_raw_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; check --raw"):
        resolve("movie", entry(), tmp_path / "nowhere")


def test_two_files_of_one_subject(tmp_path: Path) -> None:
    bold(tmp_path / "s1.nii.gz")
    bold(tmp_path / "s01.nii.gz")
    with pytest.raises(InputError, match=r"is sub-01 .*keep one of the two"):
        resolve("movie", entry(), tmp_path)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        pytest.param({"bold": "s{subjct}.nii"}, "did you mean 'subject'", id="placeholder"),
        pytest.param({"bold": "/s{subject}.nii"}, "not relative", id="absolute"),
        pytest.param({"runs": [{"name": "a"}, {"name": "b"}]}, "declare no volumes", id="runs"),
    ],
)
def test_bad_catalogues(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    bold(tmp_path / "s1.nii.gz")
    with pytest.raises(CatalogError, match=says):
        resolve("movie", entry(**keys), tmp_path)


def test_identify(tmp_path: Path) -> None:
    scan = bold(tmp_path / "a.nii.gz")
    bare = scan.rename(tmp_path / "scan")
    film = tmp_path / "b.MP4"
    film.write_bytes(b"\0\0\0\x18ftypmp42")
    assert identify([bare, film]) == [(bare, "nifti"), (film, "movie")]
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="neither a NIfTI file nor a movie"):
        identify([tmp_path / "notes.txt"])
    with pytest.raises(InputError, match="No such file"):
        identify([tmp_path / "none.nii"])


@pytest.mark.realdata
def test_haxby(real: Path) -> None:
    scan = resolve("haxby2001", load_catalog().dataset("haxby2001"), real / "haxby2001")
    assert scan.subjects == ("sub-01",)
    assert list(scan.files["sub-01"]) == [f"run-00{n}" for n in range(1, 7)]
    assert scan.clock.volumes == 726
    assert scan.header.shape == (6, 10, 10)
    assert (scan.header_repetition_time_s, scan.space) == (2.5, "native")
    assert scan.problems == []
