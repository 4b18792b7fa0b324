"""Splits: sides that never touch, copies that stay together, everything used once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sherlock_data.errors import ConfigError
from sherlock_data.splits import make_split
from sherlock_data.timing import Clock, Run

SUBJECTS = tuple(f"sub-{i:02d}" for i in range(1, 7))


def clock_of(*volumes: int) -> Clock:
    return Clock(1.5, tuple(Run(f"run-{i}", v) for i, v in enumerate(volumes, 1)))


def split_of(kind: str, clock: Clock, usable=None, **options):
    usable = np.ones(clock.volumes, bool) if usable is None else usable
    return make_split(kind, clock, usable, SUBJECTS, **options)


def distance(clock: Clock, a: np.ndarray, b: np.ndarray) -> int:
    """Least distance in TRs between two sets within a run."""
    run = clock.run_of_tr()
    same = run[a][:, None] == run[b][None, :]
    gaps = np.abs(a[:, None] - b[None, :])[same]
    return int(gaps.min()) if gaps.size else 10**6


@pytest.mark.parametrize(
    "volumes",
    [
        pytest.param((60, 60), id="tiny"),
        pytest.param((300, 300), id="demo"),
        pytest.param((946, 1030), id="sherlock"),
        pytest.param((121,) * 6, id="haxby"),
    ],
)
@pytest.mark.parametrize("fold", range(5))
def test_block_holds_out_a_tenth_and_a_fifth(volumes, fold):
    clock = clock_of(*volumes)
    split = split_of("block", clock, fold=fold)
    assert len(split.test) == pytest.approx(0.2 * clock.volumes, abs=2)
    assert 0.04 * clock.volumes < len(split.validation) <= 0.1 * clock.volumes + 1
    # two runs of 60 lose the stub that a held-out block leaves of one of them
    assert len(split.train) > (0.3 if volumes == (60, 60) else 0.35) * clock.volumes


@settings(max_examples=60, deadline=None)
@given(
    volumes=st.lists(st.integers(90, 400), min_size=1, max_size=4),
    fold=st.integers(0, 4),
    context=st.integers(0, 20),
    lag=st.integers(0, 4),
)
def test_no_training_window_touches_a_held_out_tr(volumes, fold, context, lag):
    clock = clock_of(*volumes)
    try:
        split = split_of("block", clock, fold=fold, context_trs=context, lag_trs=lag)
    except ConfigError as error:
        assert "usable TRs" in str(error)  # noqa: PT017
        return
    gap = max(10, context + lag)
    assert split.gap_trs == gap
    assert distance(clock, split.train, split.test) > gap
    assert distance(clock, split.train, split.validation) > gap
    assert distance(clock, split.validation, split.test) > gap


@pytest.mark.parametrize("kind", ["block", "subject", "random"])
def test_every_usable_tr_is_tested_once_over_the_folds(kind):
    clock = clock_of(300, 280)
    usable = np.ones(clock.volumes, bool)
    usable[100:120] = False
    tested = np.concatenate([split_of(kind, clock, usable, fold=k).test for k in range(5)])
    assert np.array_equal(np.sort(tested), np.flatnonzero(usable))


@pytest.mark.parametrize("fold", range(5))
def test_no_run_trains_on_a_handful_of_trs(fold):
    clock = clock_of(60, 60)
    split = split_of("block", clock, fold=fold)
    runs, counts = np.unique(clock.run_of_tr()[split.train].astype(str), return_counts=True)
    assert len(runs) >= 1
    assert (counts >= 10).all()


def test_where_no_run_has_enough_each_keeps_what_it_has():
    clock = clock_of(40)
    assert 0 < len(split_of("block", clock, fold=0).train) < 10


def test_sides_are_disjoint_and_complete():
    clock = clock_of(300, 300)
    split = split_of("block", clock, fold=2)
    parts = np.concatenate([split.train, split.validation, split.test, split.gap])
    assert np.array_equal(np.sort(parts), clock.tr())


@pytest.mark.parametrize("fold", range(5))
@pytest.mark.parametrize("start", [0, 50])
def test_copies_of_a_repeated_stretch_are_never_on_two_sides(fold, start):
    clock = clock_of(300, 300)
    split = split_of("block", clock, fold=fold, repeats=[(26, {"run-1": start, "run-2": 0})])
    run_1 = np.arange(start, start + 26)
    run_2 = np.arange(300, 326)
    for a, b in [(run_1, run_2), (run_2, run_1)]:
        held = np.isin(a, np.r_[split.test, split.validation])
        assert not np.isin(b[held], split.train).any()
        near_held = np.isin(a, split.gap)
        assert not np.isin(b[near_held], split.train).any()


@pytest.mark.parametrize("fold", range(5))
def test_no_training_window_reads_a_copy_of_a_held_out_tr(fold):
    clock = clock_of(300, 300)
    split = split_of(
        "block", clock, fold=fold, context_trs=2, repeats=[(26, {"run-1": 0, "run-2": 0})]
    )
    held = np.r_[split.test, split.validation]
    copies = np.r_[held[held < 26] + 300, held[(held >= 300) & (held < 326)] - 300]
    assert distance(clock, split.train, copies) > 10


def test_every_subject_is_held_out_once_over_the_folds():
    people = tuple(f"sub-{i:02d}" for i in range(1, 18))
    clock = clock_of(300, 300)
    usable = np.ones(600, bool)
    held = [make_split("subject", clock, usable, people, fold=k).test_subjects for k in range(5)]
    assert sorted(name for fold in held for name in fold) == list(people)


def test_run_leaves_one_run_out():
    clock = clock_of(300, 200)
    split = split_of("run", clock, fold=1)
    assert np.array_equal(split.test, np.arange(300, 500))
    assert split.validation.max() == 299
    assert split.folds == 2


def test_run_with_one_stimulus_run_names_block():
    usable = np.r_[np.ones(300, bool), np.zeros(200, bool)]
    with pytest.raises(ConfigError, match="--split block"):
        split_of("run", clock_of(300, 200), usable)


def test_subject_holds_out_people_and_time():
    split = split_of("subject", clock_of(300, 300), fold=1)
    assert split.test_subjects == ("sub-02",)
    assert "sub-02" not in split.train_subjects
    assert distance(clock_of(300, 300), split.train, split.test) > 10


def test_random_warns_and_has_no_gap():
    split = split_of("random", clock_of(300, 300), seed=3)
    assert split.gap_trs == 0
    assert "--split block" in split.warning
    assert len(split.gap) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"kind": "blok"}, "did you mean 'block'", id="unknown-kind"),
        pytest.param({"kind": "block", "fold": 5}, "folds are 0 to 4", id="no-such-fold"),
        pytest.param({"kind": "block", "context_trs": 300}, "shorter temporal", id="nothing-left"),
    ],
)
def test_what_cannot_be_split_is_said(options, message):
    options = dict(options)
    with pytest.raises(ConfigError, match=message):
        split_of(options.pop("kind"), clock_of(300, 300), **options)
