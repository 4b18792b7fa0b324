"""Splits: which TRs each kind puts on which side, and what cannot be split."""

import numpy as np
import pytest

from sherlock_data.errors import ConfigError
from sherlock_data.splits import make_split
from tests.data.splitting import SIDES, SUBJECTS, clock_of, distance, split_of


def spans(trs: np.ndarray) -> str:
    """Write TRs as their unbroken stretches, first and last: "0..59 120..179"."""
    cuts = np.flatnonzero(np.diff(trs) > 1) + 1
    return " ".join(f"{part[0]}..{part[-1]}" for part in np.split(trs, cuts) if len(part))


@pytest.mark.parametrize(
    ("kind", "volumes", "options", "train", "validation", "test"),
    [
        pytest.param(
            "block",
            (300,),
            {"fold": 0},
            "110..299",
            "70..99",
            "0..59",
            id="block: a fifth, a gap, a tenth, a gap, the rest",
        ),
        pytest.param(
            "block",
            (300,),
            {"fold": 4},
            "0..189",
            "200..229",
            "240..299",
            id="block, the last fold: validation lies before the test",
        ),
        pytest.param(
            "block",
            (100,),
            {"fold": 3},
            "0..49",
            "90..99",
            "60..79",
            id="block, the last but one: validation just fits behind the test",
        ),
        pytest.param(
            "block",
            (20, 80, 100),
            {"folds": 2, "fold": 1, "context_trs": 80},
            "20..99",
            "0..19",
            "100..199",
            id="block, half of it tested: validation just fits in at the start",
        ),
        pytest.param(
            "block",
            (600,),
            {"fold": 1},
            "0..49 170..349 470..599",
            "130..159 430..459",
            "60..119 360..419",
            id="block, 600 TRs: two stretches of 60 rather than one of 120",
        ),
        pytest.param(
            "block",
            (600,),
            {"fold": 4},
            "0..229 350..489",
            "310..339 500..529",
            "240..299 540..599",
            id="block, 600 TRs, the last fold",
        ),
        pytest.param(
            "block",
            (300,),
            {"folds": 4, "fold": 3},
            "0..174",
            "185..214",
            "225..299",
            id="block, four folds: a quarter is tested",
        ),
        pytest.param(
            "block",
            (300,),
            {"context_trs": 9, "lag_trs": 3},
            "114..299",
            "72..101",
            "0..59",
            id="block: context and lag make the gap 12 TRs",
        ),
        pytest.param(
            "block",
            (300,),
            {"lag_trs": -15},
            "120..299",
            "75..104",
            "0..59",
            id="block: a lag back in time keeps its distance too",
        ),
        pytest.param(
            "block",
            (120, 120),
            {"folds": 2, "context_trs": 50},
            "230..239",
            "110..119",
            "0..59 120..179",
            id="block: validation takes no TR from the test of the next run",
        ),
        pytest.param(
            "block",
            (3, 10, 1),
            {},
            "3..12",
            "13..13",
            "0..2",
            id="block: one TR validates at least",
        ),
        pytest.param(
            "block",
            (300, 300),
            {"fold": 0, "repeats": [(26, {"run-1": 50, "run-2": 0})]},
            "110..299 410..599",
            "76..99 370..399",
            "0..59 300..359",
            id="copies: 60..75 are shown again in the test, they and their neighbours do not train",
        ),
        pytest.param(
            "block",
            (300, 300),
            {"fold": 4, "repeats": [(26, {"run-1": 50, "run-2": 0})]},
            "0..49 86..229 350..489",
            "310..339 500..529",
            "240..299 540..599",
            id="copies: 60..75 are shown again in validation, and are nobody's",
        ),
        pytest.param(
            "block",
            (300, 300),
            {"fold": 2, "repeats": [(26, {"run-1": 50, "run-2": 0})]},
            "0..109 230..409 530..599",
            "190..219 490..519",
            "120..179 420..479",
            id="copies: what is held out nowhere trains wherever it is shown",
        ),
        pytest.param(
            "block",
            (300, 300),
            {"fold": 0, "repeats": [(20, {"run-1": 70, "run-2": 200})]},
            "110..299 410..489 530..599",
            "70..99 370..399",
            "0..59 300..359",
            id="copies: 70..89 validate, and are shown again at 500..519",
        ),
        pytest.param(
            "run",
            (100, 200, 300),
            {"fold": 1},
            "0..99 300..529",
            "540..599",
            "100..299",
            id="run: the end of the run after it validates",
        ),
        pytest.param(
            "run",
            (100, 200, 300),
            {"fold": 2},
            "0..29 100..299",
            "40..99",
            "300..599",
            id="run, the last: the run after it is the first",
        ),
        pytest.param(
            "run",
            (20, 10, 5, 10),
            {},
            "35..44",
            "26..29",
            "0..19",
            id="run: ten TRs are enough to train on, five are nobody's",
        ),
        pytest.param(
            "run", (1, 2, 1), {}, "3..3", "2..2", "0..0", id="run: one TR validates at least"
        ),
    ],
)
def test_which_trs_are_on_which_side(kind, volumes, options, train, validation, test):
    split = split_of(kind, clock_of(*volumes), **options)
    found = spans(split.train), spans(split.validation), spans(split.test)
    assert found == (train, validation, test)
    assert (split.kind, split.fold) == (kind, options.get("fold", 0))


def test_blocks_are_cut_out_of_the_trs_that_have_a_stimulus():
    """Unusable TRs belong to no side, and a block goes on behind them."""
    usable = np.ones(300, bool)
    usable[55:75] = False
    split = split_of("block", clock_of(300), usable)
    assert (spans(split.test), spans(split.validation)) == ("0..54 75..75", "86..113")
    assert (spans(split.train), spans(split.gap)) == ("124..299", "76..85 114..123")


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


def test_run_leaves_one_run_out():
    clock = clock_of(300, 200)
    split = split_of("run", clock, fold=1)
    assert np.array_equal(split.test, np.arange(300, 500))
    assert split.validation.max() == 299
    assert split.folds == 2


def test_run_with_one_stimulus_run_names_block():
    usable = np.r_[np.ones(300, bool), np.zeros(200, bool)]
    with pytest.raises(ConfigError) as refusal:
        split_of("run", clock_of(300, 200), usable)
    assert str(refusal.value) == (
        "--split run: leaving one run out needs two runs with a stimulus, there is 1; "
        "use --split block"
    )


def test_subject_holds_out_people_and_time():
    split = split_of("subject", clock_of(300, 300), fold=1)
    assert split.subjects("test") == ("sub-02",)
    others = ("sub-01", "sub-03", "sub-04", "sub-05", "sub-06")
    assert split.subjects("train") == split.subjects("validation") == others
    assert distance(clock_of(300, 300), split.train, split.test) > 10


@pytest.mark.parametrize("people", [SUBJECTS[:2], SUBJECTS[:3]], ids=["two", "three"])
@pytest.mark.parametrize("fold", range(5))
def test_with_fewer_people_than_folds_everybody_takes_turns(fold, people):
    split = make_split("subject", clock_of(300), np.ones(300, bool), people, fold=fold)
    held_out = people[fold % len(people)]
    assert split.test_subjects == (held_out,)
    assert split.train_subjects == tuple(name for name in people if name != held_out)


def test_the_seed_and_nothing_else_draws_a_random_split():
    unsaid, first, again, other = (
        split_of("random", clock_of(300), **seed).test.tolist()
        for seed in ({}, {"seed": 0}, {"seed": 0}, {"seed": 1})
    )
    assert unsaid == first == again != other


def test_random_gives_one_tr_at_least_to_each_side():
    split = split_of("random", clock_of(3))
    assert [len(split.trs(side)) for side in SIDES] == [1, 1, 1]


def test_random_warns_and_has_no_gap():
    split = split_of("random", clock_of(300, 300), seed=3)
    assert (len(split.test), len(split.validation), len(split.train)) == (120, 60, 420)
    assert split.gap_trs == 0
    assert "--split block" in split.warning
    assert len(split.gap) == 0
    assert split_of("block", clock_of(300, 300)).warning is None


@pytest.mark.parametrize(
    ("kind", "options", "line"),
    [
        pytest.param(
            "blok", {}, "--split: no split 'blok'; did you mean 'block'?", id="unknown-kind"
        ),
        pytest.param(
            "block", {"fold": 5}, "--fold: fold 5 of 5; folds are 0 to 4", id="no-such-fold"
        ),
        pytest.param(
            "block", {"fold": -1}, "--fold: fold -1 of 5; folds are 0 to 4", id="no-fold-below-0"
        ),
        pytest.param("run", {"fold": 2}, "--fold: fold 2 of 2; folds are 0 to 1", id="no-such-run"),
        pytest.param(
            "block",
            {"context_trs": 300},
            "--split block: no TR left for train and validation: 600 usable TRs, gap 300 TRs "
            "(train 0, validation 0, test 120); "
            "use a longer run, a shorter temporal context or another fold",
            id="nothing-left",
        ),
        pytest.param(
            "block",
            {"folds": 2, "fold": 1, "clock": clock_of(20, 80, 100), "context_trs": 100},
            "--split block: no TR left for validation: 200 usable TRs, gap 100 TRs "
            "(train 100, validation 0, test 100); "
            "use a longer run, a shorter temporal context or another fold",
            id="no-room-for-validation",
        ),
        pytest.param(
            "block",
            {"usable": np.zeros(600, bool)},
            "--split block: no TR left for train and validation and test: 0 usable TRs, gap 10 TRs "
            "(train 0, validation 0, test 0); "
            "use a longer run, a shorter temporal context or another fold",
            id="no-stimulus-to-cut",
        ),
        pytest.param(
            "run",
            {"usable": np.zeros(600, bool)},
            "--split run: leaving one run out needs two runs with a stimulus, there is 0; "
            "use --split block",
            id="no-stimulus",
        ),
    ],
)
def test_what_cannot_be_split_is_said(kind, options, line):
    with pytest.raises(ConfigError) as refusal:
        split_of(kind, **{"clock": clock_of(300, 300), **options})
    assert str(refusal.value) == line


def test_one_person_cannot_be_left_out():
    with pytest.raises(ConfigError) as refusal:
        make_split("subject", clock_of(300), np.ones(300, bool), ("sub-01",))
    assert str(refusal.value) == (
        "--split subject: leaving subjects out needs two, there is 1; use --split block"
    )
