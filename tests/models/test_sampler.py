"""The order of samples: once per epoch, resumable anywhere, the same for any number of ranks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sherlock_models.sampler import GlobalBatches, rank_share

sizes = st.integers(1, 200)


@given(samples=sizes, batch=sizes, seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_each_sample_once_per_epoch(samples: int, batch: int, seed: int, epoch: int):
    batches = GlobalBatches(samples, batch, seed)
    first = epoch * batches.steps_per_epoch
    seen = [batches.at(first + step) for step in range(batches.steps_per_epoch)]
    assert sorted(np.concatenate(seen)) == list(range(samples))
    assert batches.epoch(first) == epoch


@given(samples=sizes, batch=sizes, step=st.integers(0, 500))
def test_a_batch_depends_on_the_step_alone(samples: int, batch: int, step: int):
    fresh, walked = GlobalBatches(samples, batch, 3), GlobalBatches(samples, batch, 3)
    for earlier in range(max(0, step - 5), step):
        walked.at(earlier)
    np.testing.assert_array_equal(fresh.at(step), walked.at(step))


@given(batch=st.integers(1, 100), ranks=st.integers(1, 16))
def test_ranks_share_a_batch_in_order(batch: int, ranks: int):
    shares = [rank_share(batch, rank, ranks) for rank in range(ranks)]
    assert [i for share in shares for i in range(batch)[share]] == list(range(batch))
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_epochs_and_seeds_differ():
    batches, other = GlobalBatches(100, 100, 0), GlobalBatches(100, 100, 1)
    assert not np.array_equal(batches.at(0), batches.at(1))
    assert not np.array_equal(batches.at(0), other.at(0))
