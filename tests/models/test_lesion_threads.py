"""Threads that share the units of a lesion: nothing shows how many there were, or that any were."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sherlock_models.architectures.paths import PictureBack
from sherlock_models.lesions.brain import Reading
from sherlock_models.lesions.effects import Change, Decoding, increases
from tests.models.by_hand import decoding_of, each_unit, reading_of

UNITS, TRS = 7, 20
#: large enough for torch to share the sum over a picture among its threads
PICTURE = (96, 128)


class Pictures(nn.Module):
    """A picture from a brain of 7 units."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(UNITS, 6)
        self.back = PictureBack(PICTURE, (3, 8), width=6)

    def forward(self, read: Tensor) -> dict[str, Tensor]:
        return {"video": self.back(torch.relu(self.first(read)))}


@pytest.fixture
def decoding() -> Decoding:
    target = torch.randn(TRS, 3, *PICTURE, generator=torch.Generator().manual_seed(1))
    return decoding_of(Pictures(), UNITS, {"video": target})


@pytest.fixture
def reading() -> Reading:
    return reading_of(torch.randn(TRS, UNITS, generator=torch.Generator().manual_seed(2)))


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def lesions(reading: Reading) -> list[Callable[[slice], Change]]:
    return (each_unit(reading) * 9)[:60]


def threads_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_the_same_to_the_bit_for_any_number(decoding: Decoding, reading: Reading) -> None:
    found = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        found.append(increases(decoding, reading, lesions(reading), reading.read))
    assert np.abs(found[0]).max() > 0
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_two_at_once_are_as_one(decoding: Decoding, reading: Reading) -> None:
    """The second begins while the first runs, and ends after it; then nothing is left of either."""
    wanted = increases(decoding, reading, lesions(reading), reading.read)
    running, go_on = threading.Event(), threading.Event()

    def wait(samples: int) -> None:
        running.set()
        assert go_on.wait(30)

    run = partial(increases, decoding, reading, lesions(reading), reading.read)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        first = one.submit(run, wait)
        assert running.wait(30)
        second = two.submit(
            run, lambda samples: np.testing.assert_array_equal(first.result(), wanted)
        )
        go_on.set()
        np.testing.assert_array_equal(second.result(), wanted)
    assert torch.get_num_threads() == threads_of_a_new_thread() == 3


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_of_one_ends_all(
    decoding: Decoding, reading: Reading, error: type[BaseException]
) -> None:
    before, told = threading.active_count(), []

    def fail(samples: int) -> None:
        told.append(samples)
        raise error("in a thread")

    with pytest.raises(error, match="in a thread"):
        increases(decoding, reading, lesions(reading) * 20, reading.read, fail)
    assert len(told) < 20 * 60 / decoding.group / 2
    assert threading.active_count() == before
    assert torch.get_num_threads() == threads_of_a_new_thread() == 3


def test_a_change_of_nothing_is_exactly_nothing(decoding: Decoding, reading: Reading) -> None:
    def none(rows: slice) -> Change:
        return torch.arange(1), torch.zeros_like(reading.read[rows, :1])

    found = increases(decoding, reading, [none, *lesions(reading)[:6]], reading.read)
    assert not found[0].any()
    assert found[1:].any(axis=2).all()  # every other, at every TR, is there
