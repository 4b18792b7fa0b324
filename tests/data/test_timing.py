"""The one clock: every second belongs to the TR that covers it, and none is stretched."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sherlock_data.errors import ConfigError, InputError
from sherlock_data.timing import (
    Clock,
    Run,
    frames_per_tr,
    overlaps,
    read_delays,
    seconds_from_trs,
    shifted_index,
)

SHERLOCK = Clock(1.5, (Run("run-1", 946, movie="part1.m4v"), Run("run-2", 1030)))


def test_sherlock_has_1976_trs_in_two_runs():
    assert SHERLOCK.volumes == 1976
    assert SHERLOCK.run_offsets == {"run-1": 0, "run-2": 946}
    assert SHERLOCK.time()[946] == 1419.0
    assert SHERLOCK.run_time()[946] == 0.0
    assert list(SHERLOCK.run_of_tr()[[945, 946]]) == ["run-1", "run-2"]
    assert SHERLOCK.run_of_tr().dtype == object  # plain str, whatever their length


def test_run_edges_are_movie_seconds():
    clock = Clock(2.0, (Run("run-1", 3, movie="m.mp4", movie_start_s=10.0),))
    assert clock.tr_edges("run-1").tolist() == [10.0, 12.0, 14.0, 16.0]


def test_seconds_are_float64_also_where_all_are_whole():
    clock = Clock(2, (Run("run-1", 3, movie="m.mp4", movie_start_s=1),))
    shared = overlaps([0], [3], [0, 2, 4])
    columns = seconds_from_trs([1], [2], 2)
    seconds = [clock.time(), clock.run_time(), clock.tr_edges("run-1"), shared.seconds, *columns]
    assert [found.dtype for found in seconds] == [np.float64] * 6


@pytest.mark.parametrize(
    ("rate", "frames"),
    [
        pytest.param("25", Fraction(75, 2), id="25fps-37.5"),
        pytest.param("24", Fraction(36), id="24fps-36"),
        pytest.param("30000/1001", Fraction(45000, 1001), id="ntsc"),
    ],
)
def test_frames_per_tr_is_exact(rate, frames):
    assert frames_per_tr(1.5, rate) == frames


@pytest.mark.parametrize(
    ("lag_s", "trs"),
    [
        pytest.param(0.0, 0, id="none"),
        pytest.param(4.5, 3, id="3"),
        pytest.param(-1.5, -1, id="-1"),
    ],
)
def test_lag_in_whole_trs(lag_s, trs):
    assert SHERLOCK.lag_in_trs(lag_s) == trs


def test_a_lag_between_two_trs_is_refused_with_both_neighbours():
    with pytest.raises(ConfigError) as refusal:
        SHERLOCK.lag_in_trs(4.0)
    assert str(refusal.value) == (
        "lag_s: a lag of 4.0 s is 2.67 TRs of 1.5 s; use a whole number of TRs: 3 or 4.5 s"
    )


def test_a_millionth_of_a_tr_is_rounding():
    clock = Clock(1.0, (Run("a", 9),))
    assert clock.lag_in_trs(1e-6) == 0
    with pytest.raises(ConfigError):
        clock.lag_in_trs(2e-6)


@pytest.mark.parametrize(
    ("tr", "runs", "line"),
    [
        pytest.param(
            0.0,
            (Run("a", 1),),
            "repetition_time_s: a TR of 0.0 s is not a time; give the seconds between two volumes",
            id="zero-tr",
        ),
        pytest.param(1.5, (), "runs: runs are []; name at least one run, each once", id="no-run"),
        pytest.param(
            1.5,
            (Run("a", 1), Run("a", 2)),
            "runs: runs are ['a', 'a']; name at least one run, each once",
            id="twice",
        ),
    ],
)
def test_a_clock_that_cannot_run(tr, runs, line):
    with pytest.raises(ConfigError) as refusal:
        Clock(tr, runs)
    assert str(refusal.value) == line


def test_a_run_that_is_not_there_is_answered_with_those_that_are():
    assert SHERLOCK.run("run-2").volumes == 1030
    with pytest.raises(ConfigError) as refusal:
        SHERLOCK.run("run-3")
    assert str(refusal.value) == "no run 'run-3'; runs: run-1, run-2"


def test_overlap_weights_a_frame_that_straddles_two_trs():
    # 25 fps and TR 1.5 s: frame 37 covers 1.48 to 1.52 s, half of it in each TR
    starts = np.arange(75) / 25
    shared = overlaps(starts, starts + 0.04, [0.0, 1.5, 3.0])
    pairs = {
        (s, t): w for s, t, w in zip(shared.source, shared.target, shared.seconds, strict=True)
    }
    assert pairs[37, 0] == pytest.approx(0.02)
    assert pairs[37, 1] == pytest.approx(0.02)
    assert shared.covered == pytest.approx([1.5, 1.5])
    whole = [sum(range(37)), sum(range(38, 75))]
    assert shared.mean(np.arange(75.0)) == pytest.approx([(v + 18.5) / 37.5 for v in whole])


def test_overlapping_pieces_cover_a_bin_once():
    shared = overlaps([0.0, 0.5], [1.0, 1.5], [0.0, 2.0])
    assert shared.covered == pytest.approx([1.5])
    assert shared.mean([0.0, 1.0]) == pytest.approx([0.5])


def test_a_bin_nothing_covers_has_no_mean():
    assert np.isnan(overlaps([0.0], [1.0], [0.0, 1.0, 2.0]).mean([3.0])[1])


def test_pictures_are_averaged_number_by_number():
    """Two frames of 2 x 3 grey levels: the first lasts one second of the TR, the second three."""
    frames = np.array([[[0, 0, 40], [80, 8, 4]], [[4, 0, 0], [80, 8, 0]]], dtype=np.uint8)
    mean = overlaps([0.0, 1.0], [1.0, 4.0], [0.0, 4.0]).mean(frames)
    assert mean.tolist() == [[[3, 0, 10], [80, 8, 1]]]


def test_a_nanosecond_is_not_shared():
    """Times of frames and TRs are rounded differently: what lies between them is no share."""
    assert len(overlaps([0.0], [1e-9], [0.0, 1.0]).source) == 0
    assert len(overlaps([0.0], [2e-9], [0.0, 1.0]).source) == 1


@settings(max_examples=200, deadline=None)
@given(
    starts=st.lists(st.floats(-5, 20), max_size=12),
    lengths=st.lists(st.floats(0, 6), min_size=12, max_size=12),
    bins=st.integers(1, 8),
    width=st.floats(0.5, 3),
)
def test_overlap_agrees_with_a_fine_ruler(starts, lengths, bins, width):
    ends = [start + length for start, length in zip(starts, lengths, strict=False)]
    edges = np.arange(bins + 1) * width
    shared = overlaps(starts, ends, edges)
    for i, (a, b) in enumerate(zip(starts, ends, strict=True)):
        inside = max(0.0, min(b, edges[-1]) - max(a, edges[0]))
        assert shared.seconds[shared.source == i].sum() == pytest.approx(inside, abs=1e-6)
    ruler = (np.arange(bins * 2000) + 0.5) * width / 2000
    hit = np.zeros(len(ruler), bool)
    for a, b in zip(starts, ends, strict=True):
        hit |= (ruler >= a) & (ruler < b)
    assert shared.covered == pytest.approx(hit.reshape(bins, -1).mean(1) * width, abs=0.02)


@given(shift=st.integers(-12, 12))
def test_a_shift_never_leaves_its_run(shift):
    clock = Clock(2.0, (Run("a", 7), Run("b", 5)))
    there = shifted_index(clock, shift)
    run = clock.run_of_tr()
    inside = there >= 0
    assert set(there[~inside]) <= {-1}
    assert (there[inside] - clock.tr()[inside] == shift).all()
    assert (run[there[inside]] == run[inside]).all()
    assert inside.sum() == max(0, 7 - abs(shift)) + max(0, 5 - abs(shift))


def test_one_based_tr_columns():
    start, stop = seconds_from_trs([1, 9], [8, 10], 1.5)
    assert start.tolist() == [0.0, 12.0]
    assert stop.tolist() == [12.0, 15.0]


def test_a_segment_of_one_tr_lasts_one_tr_and_none_ends_before_it_starts():
    start, stop = seconds_from_trs([5], [5], 1.5)
    assert (stop - start).tolist() == [1.5]
    with pytest.raises(InputError) as refusal:
        seconds_from_trs([5], [4], 1.5)
    assert str(refusal.value) == "a segment ends before it starts; check the TR columns"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param("0..3", (0, 1, 2, 3), id="range"),
        pytest.param("2..2", (2,), id="range-of-one"),
        pytest.param(4, (4,), id="number"),
        pytest.param([0, 2], [0, 2], id="list"),
        pytest.param("7", ("7",), id="number-in-text"),
        pytest.param("0:45", ("0:45",), id="left-for-the-caller-to-refuse"),
        pytest.param("0..end", ("0..end",), id="no-last"),
        pytest.param("start..45", ("start..45",), id="no-first"),
        pytest.param("0..1..2", ("0..1..2",), id="two-ranges-in-one"),
        pytest.param(None, None, id="nothing"),
    ],
)
def test_delays_as_a_person_writes_them(written, read):
    assert read_delays(written) == read


RATES = [Fraction(24000, 1001), Fraction(24), Fraction(25), Fraction(30000, 1001)]


def exact_seconds(starts, ends, edges):
    """Seconds that every frame and TR share, in fractions: {(frame, TR): seconds}."""
    found = {}
    for frame, (a, b) in enumerate(zip(starts, ends, strict=True)):
        for tr, (first, last) in enumerate(pairwise(edges)):
            shared = min(b, last) - max(a, first)
            if shared > 0:
                found[frame, tr] = shared
    return found


@settings(max_examples=150, deadline=None)
@given(
    tr_s=st.fractions(Fraction(1, 2), 3, max_denominator=20),
    start_s=st.fractions(-4, 6, max_denominator=20),
    volumes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    rate=st.one_of(
        st.sampled_from(RATES),
        st.lists(st.fractions(Fraction(1, 60), 1, max_denominator=1000), min_size=5, max_size=5),
    ),
    seconds=st.integers(1, 9),
)
def test_frames_of_any_rate_lie_in_the_trs_that_show_them(tr_s, start_s, volumes, rate, seconds):
    """``rate``: frames per second, or the seconds that five frames stay, over and over."""
    steps = [1 / rate] if isinstance(rate, Fraction) else rate
    starts = [Fraction(0)]
    while starts[-1] < seconds:
        starts.append(starts[-1] + steps[(len(starts) - 1) % len(steps)])
    starts, ends = starts[:-1], starts[1:]
    runs = [
        Run(f"run-{i}", n, movie="m.mkv", movie_start_s=float(start_s))
        for i, n in enumerate(volumes)
    ]
    clock = Clock(float(tr_s), tuple(runs))
    offset = 0
    for run in runs:
        exact_edges = [start_s + k * tr_s for k in range(run.volumes + 1)]
        edges = clock.tr_edges(run.name)
        np.testing.assert_allclose(edges, [float(edge) for edge in exact_edges], atol=1e-9)
        shared = overlaps([float(t) for t in starts], [float(t) for t in ends], edges)
        wanted = exact_seconds(starts, ends, exact_edges)
        found = np.zeros((len(starts), run.volumes))
        found[shared.source, shared.target] = shared.seconds
        right = np.zeros_like(found)
        for (frame, tr), value in wanted.items():
            right[frame, tr] = float(value)
        np.testing.assert_allclose(found, right, atol=1e-9)
        covered = right.sum(axis=0)
        np.testing.assert_allclose(shared.covered, covered, atol=1e-9)
        if isinstance(rate, Fraction):
            whole = np.isclose(covered, float(tr_s), atol=1e-9)
            per_tr = covered[whole] * float(rate)
            np.testing.assert_allclose(per_tr, float(frames_per_tr(float(tr_s), str(rate))))
        # every run counts on from the one before it on the scan's clock, and from 0 on its own
        assert clock.run_offsets[run.name] == offset
        piece = clock.run_slice(run.name)
        own = np.arange(run.volumes) * float(tr_s)
        np.testing.assert_allclose(clock.run_time()[piece], own, atol=1e-9)
        np.testing.assert_allclose(clock.time()[piece], offset * float(tr_s) + own, atol=1e-9)
        offset += run.volumes
