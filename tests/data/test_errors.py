"""A failure is one line: where, what, what to do; and it survives a trip between processes."""

import pickle

import pytest

from sherlock_data.errors import InputError, NoSpaceError, did_you_mean, or_beside


def test_one_line_with_where_and_remedy():
    error = InputError("3-D,\n wanted 4-D", where="a.nii", remedy="give the BOLD series")
    assert str(error) == "a.nii: 3-D, wanted 4-D; give the BOLD series"


def test_a_worker_sends_it_home_whole():
    error = pickle.loads(pickle.dumps(NoSpaceError("full", where="x", remedy="free some")))  # noqa: S301
    assert (type(error), str(error)) == (NoSpaceError, "x: full; free some")


@pytest.mark.parametrize(
    ("name", "known", "answer"),
    [
        pytest.param("voxel", ["voxels", "parcels"], "did you mean 'voxels'?", id="near"),
        pytest.param("zzz", ["b", "a"], "known: a, b", id="far"),
        pytest.param("zzz", [], "known: none", id="nothing-known"),
        pytest.param("VIDEO", ["video", "audio"], "did you mean 'video'?", id="other-case"),
        pytest.param(
            "sub-3", ["sub-01", "sub-02"], "did you mean 'sub-01' or 'sub-02'?", id="equally-near"
        ),
        pytest.param(
            "zzz",
            [f"p{n:03}" for n in range(400)],
            "known: p000, p001, p002, p003, p004, p005, p006, p007, p008, p009, p010, p011, ... "
            "(400 in all)",
            id="too-many-to-list",
        ),
    ],
)
def test_did_you_mean(name, known, answer):
    assert did_you_mean(name, known) == answer


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        pytest.param("runs/tyo", "did you mean 'runs/toy'? Otherwise train", id="folder"),
        pytest.param(
            "rnus/toy/x.zarr", "did you mean 'runs/toy/x.zarr'? Otherwise train", id="further-up"
        ),
        pytest.param("scan2.nii", "did you mean 'scan.nii'? Otherwise train", id="file"),
        pytest.param("scan2.nii.gz", "train", id="another-kind-of-file"),
        pytest.param("other", "train", id="nothing-like-it"),
        pytest.param("runs/toy", "train", id="it-is-there"),
        pytest.param("scan.nii/x", "train", id="below-a-file"),
        pytest.param("s3://lab/rnus", "train", id="address"),
    ],
)
def test_what_lies_beside_a_path_that_is_not_there(tmp_path, monkeypatch, path, answer):
    (tmp_path / "runs/toy").mkdir(parents=True)
    (tmp_path / "scan.nii").touch()
    monkeypatch.chdir(tmp_path)
    assert or_beside(path, "train") == answer
