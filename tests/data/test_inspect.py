"""``inspect``: what the files hold, which TR fits the movie, and every problem by its code."""

from __future__ import annotations

import hashlib
import json
import subprocess
from io import StringIO
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import nibabel
import numpy as np
import pytest
from rich.console import Console

from sherlock_data.catalog import DatasetEntry, load_catalog
from sherlock_data.errors import InputError
from sherlock_data.inspect import fits_movie, inspect_dataset, inspect_files, render
from sherlock_data.scan import resolve
from sherlock_data.timing import Run

TR_S = 1.5
RUN_VOLUMES = 30


def film(path: Path, seconds: float, sound: bool = True) -> Path:
    """A movie of 32 x 18 pixels at 20 fps, with a tone."""
    size = f"testsrc=size=32x18:rate=20:duration={seconds}"
    tone = ["-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=22050:duration={seconds}"]
    command = ["-f", "lavfi", "-i", size, *(tone if sound else []), "-pix_fmt", "yuv420p"]
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *command, str(path)], check=True
    )
    return path


def bold(path: Path, series: np.ndarray, tr: float = TR_S) -> Path:
    image = nibabel.Nifti1Image(series.astype(np.float32), np.diag([3.0, 3, 3, 1]))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = tr
    image.to_filename(path)
    return path


def noise(volumes: int = 2 * RUN_VOLUMES, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 4, 2, volumes))


def inspect(raw: Path, **keys: Any) -> dict[str, Any]:
    runs = [
        {"name": "run-1", "volumes": RUN_VOLUMES, "movie": "film.mp4"},
        {"name": "run-2", "volumes": RUN_VOLUMES},
    ]
    entry = {"bold": "s{subject}.nii.gz", "repetition_time_s": TR_S, "runs": runs, **keys}
    return inspect_dataset(resolve("movie", DatasetEntry.model_validate(entry), raw, strict=False))


def codes(document: dict[str, Any]) -> list[str]:
    return [problem["code"] for problem in document["problems"]]


@pytest.fixture(scope="module")
def whole_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("film") / "film.mp4", RUN_VOLUMES * TR_S)


@pytest.fixture
def raw(tmp_path: Path, whole_film: Path) -> Path:
    """Two subjects, headers that say TR 1.0, a constant tail in the second."""
    (tmp_path / "film.mp4").symlink_to(whole_film)
    bold(tmp_path / "s1.nii.gz", noise(), tr=1.0)
    series = noise(seed=1)
    series[..., 53:] = series[..., 53:54]
    bold(tmp_path / "s2.nii.gz", series, tr=1.0)
    return tmp_path


def test_the_contracts_document(raw: Path) -> None:
    document = json.loads(json.dumps(inspect(raw)))
    problems = document.pop("problems")
    movie_seconds = document["runs"][0].pop("movie_seconds")
    assert movie_seconds == pytest.approx(RUN_VOLUMES * TR_S, abs=0.1)
    assert document == {
        "dataset": "movie",
        "repetition_time_s": {"catalogue": 1.5, "header": 1.0, "used": 1.5},
        "runs": [
            {
                "run": "run-1",
                "volumes": 30,
                "seconds": 45.0,
                "movie": "film.mp4",
                "fits_movie": "catalogue",
            },
            {
                "run": "run-2",
                "volumes": 30,
                "seconds": 45.0,
                "movie": None,
                "movie_seconds": None,
                "fits_movie": None,
            },
        ],
        "subjects": [
            {
                "subject": "sub-01",
                "files": ["s1.nii.gz"],
                "volumes": 60,
                "constant_volumes": [],
            },
            {
                "subject": "sub-02",
                "files": ["s2.nii.gz"],
                "volumes": 60,
                "constant_volumes": [[53, 59]],
            },
        ],
    }
    assert [(problem["code"], problem["where"]) for problem in problems] == [
        ("tr-disagrees", "s1.nii.gz and 1 more files"),
        ("movie-missing", "run-2"),
        ("constant-volumes", "sub-02"),
    ]
    assert "7 (53 to 59)" in problems[2]["message"]


def test_constant_volumes_count_over_all_runs(tmp_path: Path) -> None:
    series = noise(RUN_VOLUMES)
    bold(tmp_path / "s1_r1.nii.gz", series)
    stuck = series.copy()
    stuck[..., 26:] = stuck[..., 26:27]
    bold(tmp_path / "s1_r2.nii.gz", stuck)
    document = inspect(tmp_path, bold="s{subject}_r{run}.nii.gz", runs=[])
    (subject,) = document["subjects"]
    assert subject["files"] == ["s1_r1.nii.gz", "s1_r2.nii.gz"]
    assert subject["constant_volumes"] == [[56, 59]]
    assert "4 (56 to 59)" in document["problems"][0]["message"]


@pytest.mark.parametrize(
    ("movie_seconds", "catalogue", "header", "expected"),
    [
        pytest.param(1426.0, 1.5, 1.0, "catalogue", id="sherlock"),
        pytest.param(950.0, 1.5, 1.0, "header", id="catalogue-wrong"),
        pytest.param(1426.0, 1.5, 1.5, "both", id="both"),
        pytest.param(3000.0, 1.5, 1.0, "neither", id="neither"),
        pytest.param(1426.0, None, 1.5, "header", id="header-alone"),
        pytest.param(1418.0, 1.5, None, "catalogue", id="less-than-a-tr-short"),
        pytest.param(1417.0, 1.5, None, "neither", id="more-than-a-tr-short"),
        pytest.param(1429.0, 1.5, None, "catalogue", id="ten-seconds-more"),
        pytest.param(1430.0, 1.5, None, "neither", id="eleven-seconds-more"),
    ],
)
def test_which_tr_fits_the_movie(
    movie_seconds: float, catalogue: float | None, header: float | None, expected: str
) -> None:
    assert fits_movie(Run("run-1", 946, "a.mp4"), movie_seconds, catalogue, header) == expected


def test_what_precedes_the_first_volume_does_not_count() -> None:
    assert fits_movie(Run("run-1", 100, "a.mp4", 60.0), 210.0, 1.5, None) == "catalogue"


@pytest.mark.parametrize(
    ("seconds", "sound", "code", "says"),
    [
        pytest.param(41.0, True, "movie-shorter", "ends 4.00 s before the run: 3 TRs", id="short"),
        pytest.param(45.0, False, "movie-silent", "no sound", id="silent"),
    ],
)
def test_movie_problems(tmp_path: Path, seconds: float, sound: bool, code: str, says: str) -> None:
    film(tmp_path / "film.mp4", seconds, sound)
    bold(tmp_path / "s1.nii.gz", noise())
    document = inspect(tmp_path)
    found = {problem["code"]: problem["message"] for problem in document["problems"]}
    assert set(found) == {code, "movie-missing"}
    assert says in found[code]


def test_problems_that_would_stop_a_build_are_listed(raw: Path) -> None:
    bold(raw / "s3.nii.gz", noise(59))
    bold(raw / "s4.nii.gz", noise()[:, :, :1])
    assert {"run-lengths", "grid-differs"} <= set(codes(inspect(raw)))


def test_nan_volumes_and_missing_subjects(raw: Path) -> None:
    series = noise(seed=3)
    series[..., 5] = np.nan
    bold(raw / "s3.nii.gz", series)
    found = codes(inspect(raw, subjects=4))
    assert {"nan-volumes", "subjects-missing"} <= set(found)


def test_a_movie_that_does_not_decode_names_itself(raw: Path) -> None:
    (raw / "film.mp4").unlink()
    (raw / "film.mp4").write_bytes(b"not a movie" * 100)
    with pytest.raises(InputError, match=r"film\.mp4"):
        inspect(raw)


def test_progress_runs_from_0_to_1(raw: Path) -> None:
    entry = DatasetEntry.model_validate({"bold": "s{subject}.nii.gz"})
    shares: list[float] = []
    inspect_dataset(resolve("movie", entry, raw), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_loose_files(tmp_path: Path, whole_film: Path) -> None:
    scan = bold(tmp_path / "a.nii.gz", np.round(noise(), 3))
    single = bold(tmp_path / "b.nii.gz", noise()[..., 0])
    document = inspect_files([scan, single, whole_film])
    rows = json.loads(json.dumps(document))["files"]
    assert [row["kind"] for row in rows] == ["nifti", "nifti", "movie"]
    assert rows[0]["shape"] == [3, 4, 2, 60]
    assert rows[0]["repetition_time_s"] == TR_S
    assert rows[0]["maximum"] == pytest.approx(np.round(noise(), 3).max())
    assert rows[0]["sha256"] == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert rows[1]["shape"] == [3, 4, 2]
    assert (rows[2]["width"], rows[2]["frame_rate"]) == (32, 20.0)
    assert document["problems"] == []


def test_tables_say_what_the_document_says(raw: Path) -> None:
    text = StringIO()
    render(inspect(raw), Console(file=text, width=140))
    for words in ("catalogue", "film.mp4", "53 to 59", "tr-disagrees", "sub-02"):
        assert words in text.getvalue()


def test_tables_of_loose_files(raw: Path) -> None:
    text = StringIO()
    odd = bold(raw / "a[b]c.nii.gz", noise())  # not rich's markup
    render(inspect_files([odd]), Console(file=text, width=200))
    assert "a[b]c.nii.gz" in text.getvalue()
    assert "No problems found." in text.getvalue()


def test_a_synthetic_dataset_whose_headers_lie(tmp_path: Path) -> None:
    """The issue's third acceptance line."""
    from sherlock_data.synthetic import synth

    catalogue = load_catalog(synth(tmp_path / "raw", header_tr_s=1.0, movies=["run-1"]))
    scan = resolve("synth", catalogue.dataset("synth"), tmp_path / "raw", strict=False)
    document = inspect_dataset(scan)
    assert document["repetition_time_s"] == {"catalogue": 1.5, "header": 1.0, "used": 1.5}
    assert [run["fits_movie"] for run in document["runs"]] == ["catalogue", None]
    assert {"tr-disagrees", "movie-missing", "constant-volumes"} <= set(codes(document))
    (tail,) = [row for row in document["subjects"] if row["constant_volumes"]]
    ((first, last),) = tail["constant_volumes"]
    values = np.asarray(nibabel.load(tmp_path / "raw" / tail["files"][0]).dataobj)
    assert last == values.shape[3] - 1
    assert (values[..., first:] == values[..., -1:]).all()
    assert (values[..., first - 1] != values[..., -1]).any()


@pytest.mark.realdata
def test_haxby(real: Path) -> None:
    entry = load_catalog().dataset("haxby2001")
    document = inspect_dataset(resolve("haxby2001", entry, real / "haxby2001"))
    assert document["problems"] == []
    assert document["subjects"][0]["volumes"] == 726


@pytest.mark.realdata
def test_big_buck_bunny_fits_its_run(real: Path, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").symlink_to(real / "movie" / "big_buck_bunny_60s.mp4")
    bold(tmp_path / "s1.nii.gz", noise(40))
    document = inspect(tmp_path, runs=[{"name": "run-1", "volumes": 40, "movie": "film.mp4"}])
    assert document["runs"][0]["movie_seconds"] == pytest.approx(60.1, abs=0.1)
    assert document["runs"][0]["fits_movie"] == "both"
    assert document["problems"] == []
