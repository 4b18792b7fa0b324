"""The soak's own judgement: what is wrong is counted, and what grows is seen."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _benchmarks_are_found():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def values():
    return {
        "store/voxels/bold": np.array([1.0, np.nan, 3.0], dtype=np.float32),
        "evaluation.zarr/unit": np.array(["left", "right"]),
    }


def test_the_same_values_do_not_differ():
    from soak_way import differing

    assert differing(values(), values()) == []


@pytest.mark.parametrize(
    ("name", "other"),
    [
        pytest.param("store/voxels/bold", np.float32([1.0, np.nan, 3.0000002]), id="last-bit"),
        pytest.param("store/voxels/bold", np.float32([1.0, 0.0, 3.0]), id="nan-became-zero"),
        pytest.param("store/voxels/bold", np.float64([1.0, np.nan, 3.0]), id="other-dtype"),
        pytest.param("store/voxels/bold", np.float32([1.0, np.nan]), id="shorter"),
        pytest.param("evaluation.zarr/unit", np.array(["left", "wrong"]), id="label"),
        pytest.param("evaluation.zarr/p", np.zeros(1), id="not-wanted"),
    ],
)
def test_one_wrong_value_is_named(name, other):
    from soak_way import differing

    assert differing({**values(), name: other}, values()) == [name]


def test_a_missing_value_is_named():
    from soak_way import differing

    found = values()
    del found["evaluation.zarr/unit"]
    assert differing(found, values()) == ["evaluation.zarr/unit"]


def samples(grows_mib=0.0, fds=()):
    rng = np.random.default_rng(0)
    level = {"children": 0, "temporary": 0, "threads": 9}
    return [
        {
            "at_s": 30.0 * n,
            "rss_mib": 600 + grows_mib * n + rng.normal(0, 2),
            "anonymous_mib": 500 + grows_mib * n + rng.normal(0, 2),
            "fds": 20 + sum(n >= at for at in fds),
            **level,
        }
        for n in range(60)
    ]


@pytest.mark.parametrize(
    ("found", "flat"),
    [
        pytest.param(samples(), True, id="level"),
        pytest.param(samples(grows_mib=1.0), False, id="a-mebibyte-per-round"),
        pytest.param(samples(fds=[50]), False, id="one-file-stays-open"),
        pytest.param(samples(fds=[3]), True, id="opened-in-the-warm-up"),
    ],
)
def test_what_grows_is_seen(found, flat):
    from soak_worker import flatness

    assert flatness(found)["flat"] is flat


def test_the_slope_is_in_mebibytes_per_hour():
    from soak_worker import flatness

    found = flatness(samples(grows_mib=1.0))["rss"]
    assert found["low"] < 120 < found["high"]
    assert found["slope"] == pytest.approx(120, rel=0.1)


def test_too_few_rounds_say_nothing_of_growth():
    from soak_worker import flatness

    assert flatness(samples()[:4])["flat"] is None


HEAD = "Traceback (most recent call last):\n"
THEIRS = HEAD + '  File "/lib/pathlib.py", line 14, in <module>\nKeyboardInterrupt\n'
OURS = HEAD + '  File "/zoo/cli/data.py", line 14, in build\nKeyboardInterrupt\n'


@pytest.mark.parametrize(
    ("said", "by", "faults"),
    [
        pytest.param(OURS, "SIGINT", 1, id="a command's own"),
        pytest.param(THEIRS, "SIGINT", 0, id="before the command began"),
        pytest.param(f"Exception ignored in: <x>\n{OURS}", "SIGINT", 0, id="in a __del__"),
        pytest.param(THEIRS, "SIGTERM", 1, id="not by a Ctrl-C"),
    ],
)
def test_a_traceback_is_a_fault_but_where_no_command_could_hear(said: str, by: str, faults: int):
    import signal

    from soak import Counts
    from soak_kills import Ended

    counts = Counts()
    counts.note("here", Ended(code=1, seconds=1.0, sent=signal.Signals[by], said=said))
    assert (len(counts.tracebacks), counts.cut_short) == (faults, 1 - faults)
