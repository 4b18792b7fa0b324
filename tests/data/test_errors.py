"""A failure is one line: where, what, what to do; and it survives a trip between processes."""

import pickle

import pytest

from sherlock_data.errors import InputError, NoSpaceError, did_you_mean


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
    ],
)
def test_did_you_mean(name, known, answer):
    assert did_you_mean(name, known) == answer
