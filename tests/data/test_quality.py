"""Which volumes carry no signal: repeated, of one value, or lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sherlock_data.quality import REPEATS, VolumeCheck, ranges_of

GRID = (4, 3, 5)


def noise(volumes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(volumes, *GRID)).astype(np.float32)


def check(series: np.ndarray, block: int = 7) -> VolumeCheck:
    found = VolumeCheck()
    for start in range(0, len(series), block):
        found.update(series[start : start + block])
    return found


@pytest.mark.parametrize("block", [1, 2, 7, 100])
@pytest.mark.parametrize(
    ("stretches", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param([(25, 29)], [(25, 29)], id="tail-with-its-first-volume"),
        pytest.param([(0, 2)], [(0, 2)], id="head"),
        pytest.param([(4, 5)], [], id="a-pair-may-be-chance"),
        pytest.param([(3, 5), (6, 9)], [(3, 5), (6, 9)], id="two-in-a-row-stay-apart"),
        pytest.param([(0, 29)], [(0, 29)], id="everything"),
    ],
)
def test_repeated_volumes(
    stretches: list[tuple[int, int]], expected: list[tuple[int, int]], block: int
) -> None:
    series = noise(30)
    for first, last in stretches:
        series[first : last + 1] = series[first]
    found = check(series, block)
    assert found.constant_ranges() == expected
    invalid = {i for first, last in expected for i in range(first, last + 1)}
    np.testing.assert_array_equal(np.flatnonzero(~found.valid()), sorted(invalid))


def test_volumes_that_differ_in_one_voxel_are_different() -> None:
    series = np.repeat(noise(1), 10, axis=0)
    series[:, 0, 0, 0] = np.arange(10)  # not in the plane that is looked at first
    assert check(series).constant_ranges() == []


def test_a_volume_of_one_value_is_constant_on_its_own() -> None:
    series = noise(10)
    series[4] = 7
    assert check(series).constant_ranges() == [(4, 4)]


def test_a_blank_tail_is_one_stretch() -> None:
    series = noise(10)
    series[6:] = 0
    assert check(series).constant_ranges() == [(6, 9)]


def test_a_grid_of_one_voxel_is_not_constant_in_space() -> None:
    assert check(noise(10)[:, :1, :1, :1]).constant_ranges() == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_lost_volumes(value: float) -> None:
    series = noise(12)
    series[3] = value
    series[8, :2] = value
    found = check(series)
    assert found.lost_ranges() == [(3, 3), (8, 8)]
    np.testing.assert_array_equal(np.flatnonzero(~found.valid()), [3, 8])
    assert [problem.code for problem in found.problems("sub-01")] == ["nan-volumes"]


def test_a_background_of_nan_costs_no_volume_and_is_told() -> None:
    series = noise(12)
    series[:, :, 0] = np.nan
    found = check(series)
    assert found.valid().all()
    (problem,) = found.problems("sub-01")
    assert problem.code == "nan-voxels"
    assert "20 of 60 voxels" in problem.message


def test_nothing_but_nan_is_lost_and_repeated() -> None:
    found = check(np.full((5, *GRID), np.nan, dtype=np.float32))
    assert found.lost_ranges() == [(0, 4)]
    assert not found.valid().any()
    assert np.isnan(found.minimum)


def test_range_of_the_finite_values() -> None:
    series = noise(12)
    series[2, 0, 0, 0], series[5, 0, 0, 1], series[7, 0, 0, 2] = -99, 99, np.nan
    assert (check(series).minimum, check(series).maximum) == (-99, 99)


def test_problems_count_on_the_scan_clock() -> None:
    series = noise(60)
    series[9:] = series[9]
    (problem,) = check(series).problems("sub-05", first=1916)
    assert (problem.code, problem.where) == ("constant-volumes", "sub-05")
    assert "51 (1925 to 1975)" in problem.message


@given(labels=st.lists(st.integers(0, 2), max_size=40), block=st.integers(1, 12))
def test_stretches_are_those_of_equal_neighbours(labels: list[int], block: int) -> None:
    """Against a plain loop: volumes are equal where their labels are."""
    series = noise(3, seed=1)[np.array(labels, dtype=int)]
    expected, start = [], 0
    for i in range(1, len(labels) + 1):
        if i == len(labels) or labels[i] != labels[start]:
            if i - start >= REPEATS:
                expected.append((start, i - 1))
            start = i
    assert check(series, block).constant_ranges() == expected


@given(st.lists(st.booleans(), max_size=30))
def test_ranges_of_a_mask_paint_it_again(mask: list[bool]) -> None:
    again = np.zeros(len(mask), dtype=bool)
    for first, last in ranges_of(np.array(mask, dtype=bool)):
        again[first : last + 1] = True
    assert again.tolist() == mask
