"""``sherlock-data`` as people and scripts meet it."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from sherlock_cli.data import main

from sherlock_data.synthetic import synth

SECOND = "bold/sub-02_movie.nii.gz"


def invoke(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def failure(*args):
    """Run a command that must fail: one line on stderr, exit code 1."""
    outcome = invoke(*args)
    assert outcome.exit_code == 1, outcome.output
    lines = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, outcome.stderr
    assert "Traceback" not in outcome.output
    return lines[0]


@pytest.fixture
def raw(tiny_raw, tmp_path):
    return shutil.copytree(tiny_raw, tmp_path / "raw")


@pytest.fixture(scope="module")
def lying_header(tmp_path_factory):
    """A tiny dataset whose headers say TR 1.0 and whose second run has no movie."""
    out = tmp_path_factory.mktemp("lying") / "raw"
    synth(out, size="tiny", seed=1, header_tr_s=1.0, movies=["run-1"])
    return out


def edit(raw, **keys):
    path = raw / "catalog.yaml"
    document = yaml.safe_load(path.read_text())
    document["datasets"]["synth"].update(keys)
    path.write_text(yaml.safe_dump(document))


def test_inspect_tells_what_headers_get_wrong(lying_header):
    outcome = invoke("inspect", "synth", "--catalog", lying_header / "catalog.yaml", "--json")
    assert outcome.exit_code == 0
    document = json.loads(outcome.stdout)
    assert document["repetition_time_s"] == {"catalogue": 1.5, "header": 1.0, "used": 1.5}
    first, second = document["runs"]
    assert (first["volumes"], first["seconds"], first["fits_movie"]) == (60, 90.0, "catalogue")
    assert first["movie"] == "run-1.mp4"
    assert (second["movie"], second["movie_seconds"], second["fits_movie"]) == (None, None, None)
    tails = {s["subject"]: s["constant_volumes"] for s in document["subjects"]}
    assert tails == {"sub-01": [], "sub-02": [], "sub-03": [[115, 119]]}
    codes = {problem["code"] for problem in document["problems"]}
    assert {"tr-disagrees", "movie-missing", "constant-volumes"} <= codes


def test_inspect_says_the_same_to_people(lying_header):
    outcome = invoke("inspect", "synth", "--catalog", lying_header / "catalog.yaml")
    text = " ".join(outcome.stdout.split())
    for words in ("catalogue │ 1.5", "header │ 1.0", "used │ 1.5", "115 to 119"):
        assert words in text


def test_build_list_info_export_in_json_and_tables(raw, tmp_path):
    catalog, out = ["--catalog", raw / "catalog.yaml"], ["--out", tmp_path / "stores"]
    plan = json.loads(invoke("build", "synth", *catalog, *out, "--dry-run", "--json").stdout)
    assert {row["status"] for row in plan["rows"]} == {"planned", "skipped"}
    built = json.loads(invoke("build", "synth", *catalog, *out, "--json").stdout)
    assert {r["store"]: r["status"] for r in built["rows"]}["voxels"] == "built"
    rows = json.loads(invoke("list", *catalog, *out, "--json").stdout)["rows"]
    states = {(row["dataset"], row["store"]): row["state"] for row in rows}
    assert states["synth", "parcels"] == "complete"
    assert states["sherlock", "volumes"] == "absent"
    info = json.loads(invoke("info", tmp_path / "stores/synth", "--json").stdout)["rows"]
    assert {row["store"] for row in info} >= {"volumes", "voxels", "parcels", "stimulus"}
    assert invoke("info", tmp_path / "stores/synth/voxels.zarr").exit_code == 0
    image = tmp_path / "back.nii.gz"
    store = tmp_path / "stores/synth/volumes.zarr"
    assert invoke("export", store, image, "--subject", "sub-01").exit_code == 0
    was, now = nib.load(raw / "bold/sub-01_movie.nii.gz"), nib.load(image)
    np.testing.assert_array_equal(now.affine, was.affine)
    np.testing.assert_array_equal(now.header.get_zooms(), was.header.get_zooms())
    np.testing.assert_array_equal(now.get_fdata(dtype="f4"), was.get_fdata(dtype="f4"))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def three_d(raw):
    image = nib.load(raw / SECOND)
    flat = nib.Nifti1Image(np.asarray(image.dataobj)[..., 0], image.affine)
    nib.save(flat, raw / SECOND)


def other_affine(raw):
    image = nib.load(raw / SECOND)
    moved = image.affine.copy()
    moved[0, 3] += 3
    nib.save(nib.Nifti1Image(image.get_fdata(dtype="f4"), moved), raw / SECOND)


def other_grid(raw):
    image = nib.load(raw / SECOND)
    data = image.get_fdata(dtype="f4")[:-1]
    nib.save(nib.Nifti1Image(data, image.affine), raw / SECOND)


BAD_INPUT = [
    pytest.param(
        lambda raw: truncate(raw / SECOND),
        "sub-02_movie.nii.gz",
        id="truncated-gzip",
    ),
    pytest.param(
        lambda raw: (raw / SECOND).write_text("hello"),
        "sub-02_movie.nii.gz",
        id="not-a-nifti",
    ),
    pytest.param(three_d, "sub-02_movie.nii.gz", id="three-d"),
    pytest.param(other_affine, "sub-0", id="other-affine"),
    pytest.param(other_grid, "sub-0", id="other-grid"),
    pytest.param(
        lambda raw: edit(
            raw, runs=[{"name": "run-1", "volumes": 60}, {"name": "run-2", "volumes": 61}]
        ),
        "121",
        id="run-lengths",
    ),
    pytest.param(
        lambda raw: shutil.copy(raw / "features.json", raw / "run-1.mp4"),
        "run-1.mp4",
        id="not-a-movie",
    ),
    pytest.param(lambda raw: truncate(raw / "run-1.mp4"), "run-1.mp4", id="cut-movie"),
    pytest.param(lambda raw: edit(raw, lag_s=4.0), "3 or 4.5 s", id="lag-between-trs"),
    pytest.param(lambda raw: edit(raw, lag_s=float("nan")), "lag_s", id="lag-nan"),
    pytest.param(lambda raw: edit(raw, bolt="x"), "did you mean 'bold'", id="unknown-key"),
    pytest.param(
        lambda raw: edit(raw, bold="bold/sub-{subject}_movi.nii.gz"),
        "sub-01_movie.nii.gz",
        id="pattern-matches-nothing",
    ),
]


@pytest.mark.parametrize(("damage", "named"), BAD_INPUT)
def test_bad_input_is_one_line_and_nothing_is_written(raw, tmp_path, damage, named):
    damage(raw)
    out = tmp_path / "stores"
    line = failure("build", "synth", "--catalog", raw / "catalog.yaml", "--out", out)
    assert named in line
    assert ";" in line, "no remedy"
    assert not out.exists()


def test_a_movie_without_video_is_refused(raw, tmp_path):
    import subprocess

    import imageio_ffmpeg

    sound = raw / "run-1.mp4"
    sound.unlink()
    tone = ["-f", "lavfi", "-i", "sine=duration=92"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *tone, sound], check=True)
    line = failure("build", "synth", "--catalog", raw / "catalog.yaml", "--out", tmp_path / "s")
    assert "run-1.mp4" in line
    assert "video" in line
    assert not (tmp_path / "s").exists()


def test_soft_problems_are_said_recorded_and_exit_0(lying_header, tmp_path):
    import sherlock_data as sd

    out = tmp_path / "stores"
    outcome = invoke("build", "synth", "--catalog", lying_header / "catalog.yaml", "--out", out)
    assert outcome.exit_code == 0
    for words in ("1.0", "1.5", "115 to 119"):
        assert words in outcome.stderr
    for name in ("volumes", "voxels"):
        codes = {p["code"] for p in sd.open(out / f"synth/{name}.zarr").attrs["problems"]}
        assert {"tr-disagrees", "constant-volumes"} <= codes
    stimulus = sd.open(out / "synth/stimulus.zarr")
    assert stimulus.has_stimulus.values.tolist() == [True] * 60 + [False] * 60


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(["inspect", "nothing"], "no dataset 'nothing'", id="inspect-unknown"),
        pytest.param(["build", "sherlok"], "did you mean 'sherlock'", id="build-unknown"),
        pytest.param(["info", "nowhere.zarr"], "sherlock-data build", id="info-nothing"),
        pytest.param(["build", "sherlock", "--raw", "nowhere"], "check --raw", id="no-raw-folder"),
        pytest.param(["build", "sherlock"], "sherlock_movie_s", id="no-raw-files"),
    ],
)
def test_what_is_not_there_is_said(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    assert message in failure(*args)
