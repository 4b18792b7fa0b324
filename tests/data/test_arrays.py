"""Arrays that a user brings: each row is a TR of the scan, by its own clock and no other guess."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sherlock_data.errors import InputError, UnavailableError
from sherlock_data.stimulus.arrays import read_array
from sherlock_data.timing import Clock, Run

CLOCK = Clock(1.5, (Run("run-1", 4), Run("run-2", 3)))
BOTH = [{"run": "run-1", "volumes": 4}, {"run": "run-2", "volumes": 3}]


@pytest.fixture
def write(tmp_path):
    def write(values, runs=BOTH, **clock):
        np.save(tmp_path / "mine.npy", values, allow_pickle=True)
        document = {"repetition_time_s": 1.5, "runs": runs, **clock}
        (tmp_path / "mine.json").write_text(json.dumps(document))
        return tmp_path / "mine.npy"

    return write


@pytest.mark.parametrize(
    ("runs", "trs"),
    [
        pytest.param(BOTH, [0, 1, 2, 3, 4, 5, 6], id="both runs"),
        pytest.param(BOTH[::-1], [4, 5, 6, 0, 1, 2, 3], id="in another order"),
        pytest.param([BOTH[1]], [4, 5, 6], id="the second run alone"),
        pytest.param(
            [{"run": "run-1", "volumes": 2, "first_tr": 1}], [1, 2], id="a stretch of a run"
        ),
    ],
)
def test_rows_lie_where_their_clock_says(write, runs, trs):
    values = np.arange(len(trs) * 2, dtype=np.int16).reshape(-1, 2)
    array = read_array(write(values, runs), CLOCK)
    assert array.trs.tolist() == trs
    placed = array.values(CLOCK.volumes)
    np.testing.assert_array_equal(placed[trs], values)
    assert np.isnan(np.delete(placed, trs, axis=0)).all()


def test_one_column_needs_no_second_dim(write):
    assert read_array(write(np.zeros(7)), CLOCK).features == 1


@pytest.mark.parametrize(
    ("values", "clock", "message"),
    [
        pytest.param(np.zeros((8, 2)), {}, "8 rows, its clock has 7 TRs", id="a row too many"),
        pytest.param(np.zeros((7, 2)), {"repetition_time_s": 1.0}, "its TR is 1 s", id="other TR"),
        pytest.param(
            np.zeros((7, 2)), {"runs": [{"run": "run_1", "volumes": 7}]},
            "no run 'run_1'; did you mean 'run-1'", id="unknown run",
        ),
        pytest.param(
            np.zeros((7, 2)), {"runs": [{"run": "run-1", "volumes": 7}]},
            "7 TRs from TR 0 of run-1, which has 4", id="a run too long",
        ),
        pytest.param(
            np.zeros((8, 2)), {"runs": [BOTH[0], BOTH[0]]}, "named twice", id="a run twice"
        ),
        pytest.param(np.zeros((7, 2)), {"runs": []}, "no clock", id="no runs"),
        pytest.param(np.zeros((7, 2)), {"feature": ["a"]}, "1 names of features", id="names"),
        pytest.param(np.full((7, 2), np.inf), {}, "infinite", id="infinite"),
        pytest.param(np.zeros((7, 2), complex), {}, "array of complex128", id="complex"),
        pytest.param(np.array([{}] * 7), {}, r"no \.npy array", id="a pickle"),
    ],
)  # fmt: skip
def test_an_array_of_another_clock_is_refused(write, values, clock, message):
    with pytest.raises(InputError, match=message):
        read_array(write(values, **clock), CLOCK)


def test_an_array_without_a_clock_says_what_to_write(write):
    file = write(np.zeros((7, 2)))
    file.with_suffix(".json").unlink()
    with pytest.raises(UnavailableError, match=r'no clock.*"run-1", "volumes": 4'):
        read_array(file, CLOCK)
