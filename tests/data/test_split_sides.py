"""Splits: sides that never touch, copies that stay together, everything used once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sherlock_data.errors import ConfigError
from sherlock_data.splits import make_split
from tests.data.splitting import SIDES, clock_of, distance, split_of


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


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_on_one_side_of_a_random_split_or_on_none(seed):
    repeats = [(15, {"run-1": 2, "run-2": 5})]
    split = split_of("random", clock_of(60, 60), seed=seed, repeats=repeats)
    now = {tr: side for side in SIDES for tr in split.trs(side)}
    without = split_of("random", clock_of(60, 60), seed=seed)
    before = {tr: side for side in SIDES for tr in without.trs(side)}
    copy_of = {first: first + 63 for first in range(2, 17)}
    for tr in set(before) - {*copy_of, *copy_of.values()}:
        assert now[tr] == before[tr]
    for first, again in copy_of.items():
        if before[first] == before[again]:
            assert now[first] == now[again] == before[first]
        else:
            assert len({now.get(first), now.get(again)} - {None}) == 1


def test_every_subject_is_held_out_once_over_the_folds():
    people = tuple(f"sub-{i:02d}" for i in range(1, 18))
    clock = clock_of(300, 300)
    usable = np.ones(600, bool)
    held = [make_split("subject", clock, usable, people, fold=k).test_subjects for k in range(5)]
    assert sorted(name for fold in held for name in fold) == list(people)
