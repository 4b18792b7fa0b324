"""Tests of lesions: calibrated where there is nothing, and able to find what is there."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, kstest, permutation_test

from sherlock_models.lesions import block_tests as lesion_tests
from sherlock_models.lesions.block_tests import (
    apart,
    autocorrelation_trs,
    dissociation,
    flips,
    q_values,
    sign_flip,
    smallest_p,
    strongest_dissociation,
    time_blocks,
    two_sided,
)
from sherlock_models.scoring.scores import BLOCK_TRS


def ar1(rng: np.random.Generator, time: int, n: int, a: float) -> np.ndarray:
    series = rng.standard_normal((time, n))
    for t in range(1, time):
        series[t] = a * series[t - 1] + np.sqrt(1 - a * a) * series[t]
    return series


def null_p(seed: int, a: float, time: int = 160, units: int = 400) -> np.ndarray:
    """P of units that tell nothing: their increases have the autocorrelation of BOLD."""
    rng = np.random.default_rng(seed)
    # a product of two series, as the increase of a squared error is: skewed and heavy-tailed
    increase = ar1(rng, time, units, a) * ar1(rng, time, units, a)
    length = autocorrelation_trs(increase, np.zeros(time))
    blocks = time_blocks(np.arange(time), np.zeros(time, dtype=int), length)
    kept = np.flatnonzero(apart(blocks, length))
    return sign_flip(blocks.sums(kept, increase[kept]))


@pytest.mark.parametrize("a", [0.0, 0.5, 0.7])
def test_p_is_uniform_where_there_is_nothing(a: float) -> None:
    p = np.concatenate([null_p(seed, a) for seed in range(5)])
    assert kstest(p, "uniform").pvalue > 0.001
    for level in (0.01, 0.05, 0.2):
        assert np.mean(p <= level) <= level + 3 * np.sqrt(level / len(p))


def test_blocks_shorter_than_the_autocorrelation_would_lie() -> None:
    rng = np.random.default_rng(0)
    series = ar1(rng, 240, 2000, 0.9)
    blocks = time_blocks(np.arange(240), np.zeros(240, dtype=int), 1)
    honest = time_blocks(
        np.arange(240), np.zeros(240, dtype=int), autocorrelation_trs(series, np.zeros(240))
    )
    share = [np.mean(sign_flip(b.sums(np.arange(240), series)) <= 0.05) for b in (blocks, honest)]
    assert share[0] > 0.08
    assert share[1] < share[0]


def test_an_effect_in_every_block_is_found() -> None:
    rng = np.random.default_rng(1)
    increase = rng.standard_normal((12, 3)) + np.array([0.0, 3.0, -3.0])
    p = sign_flip(increase)
    assert p[1] == smallest_p(12)
    assert p[2] == 1.0
    assert 0.01 < p[0] < 0.99


def test_it_is_scipys_permutation_test_of_signs() -> None:
    increase = np.random.default_rng(2).standard_normal(9) + 0.4
    theirs = permutation_test(
        (increase,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert sign_flip(increase) == pytest.approx(theirs.pvalue)


@given(st.integers(1, 10), st.integers(0, 2**32 - 1), st.floats(0.1, 100))
@settings(max_examples=40, deadline=None)
def test_p_knows_no_scale_and_mirrors(blocks: int, seed: int, scale: float) -> None:
    increase = np.random.default_rng(seed).standard_normal((blocks, 5))
    p = sign_flip(increase)
    np.testing.assert_allclose(sign_flip(increase * scale), p)
    # a sum and its mirror image share the sum itself
    np.testing.assert_allclose(p + sign_flip(-increase), 1 + 2.0**-blocks)
    assert (two_sided(increase) <= 1).all()


def test_many_blocks_draw_flips_and_keep_the_data_among_them() -> None:
    signs = flips(40)
    assert len(signs) == lesion_tests.FLIPS
    assert (signs[0] == 1).all()
    assert sign_flip(np.ones((40, 1)))[0] == pytest.approx(1 / lesion_tests.FLIPS)
    assert sorted(map(tuple, flips(2).tolist())) == sorted(itertools.product((-1, 1), repeat=2))


def test_q_is_scipys_over_units() -> None:
    p = np.random.default_rng(3).uniform(size=(50, 2)) ** 2
    q = q_values(p)
    for column in range(2):
        np.testing.assert_allclose(q[:, column], false_discovery_control(p[:, column], method="bh"))


def test_a_double_dissociation_is_signed() -> None:
    rng = np.random.default_rng(4)
    increase = 0.1 * rng.standard_normal((12, 2, 2))
    increase[:, 0, 0] += 1.0
    increase[:, 1, 1] += 1.0
    value, p = dissociation(increase, 0, 1, 0, 1)
    assert value == pytest.approx(24, abs=2)
    assert p == pytest.approx(2 * smallest_p(12))
    assert dissociation(increase, 1, 0, 0, 1)[0] == pytest.approx(-value)
    assert dissociation(increase, 0, 0, 0, 1)[1] == 1.0


def test_the_strongest_dissociation_holds_over_all_pairs() -> None:
    rng = np.random.default_rng(6)
    nothing = [strongest_dissociation(rng.standard_normal((9, 30, 2)), 0, 1).p for _ in range(60)]
    assert np.mean(np.array(nothing) <= 0.1) < 0.25  # chosen, and yet not found
    increase = 0.1 * rng.standard_normal((9, 30, 2))
    increase[:, 7, 0] += 1.0
    increase[:, 21, 1] += 1.0
    found = strongest_dissociation(increase, 0, 1)
    assert (found.a, found.b) == (7, 21)
    assert found.value == pytest.approx(18, abs=2)
    assert found.p <= 2 * smallest_p(9)


@pytest.mark.parametrize(
    ("a", "expected"), [pytest.param(0.0, 1, id="white"), pytest.param(0.8, 9, id="0.8")]
)
def test_autocorrelation_of_a_known_process(a: float, expected: float) -> None:
    series = ar1(np.random.default_rng(5), 4000, 20, a)
    assert autocorrelation_trs(series, np.zeros(4000)) == pytest.approx(expected, abs=1.5)


def test_blocks_are_at_least_as_long_as_the_autocorrelation() -> None:
    run = np.repeat([0, 1], 100)
    for length in (3, 17):
        blocks = time_blocks(np.arange(20, 180), run, length)
        whole = np.bincount(blocks.block)
        assert np.median(whole) >= max(length, BLOCK_TRS)
        assert len({(b, r) for b, r in zip(blocks.block, run[20:180], strict=True)}) == len(whole)
