"""The order of samples: once per epoch, resumable anywhere, the same for any number of ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sherlock_models.feeding.sampler import BlockBatches, GlobalBatches, rank_share

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


@st.composite
def block_batches(draw: st.DrawFn) -> BlockBatches:
    """Samples of a few subjects with gaps between them, in any batches, windows and blocks."""
    present = draw(st.lists(st.sets(st.integers(0, 90), min_size=1), min_size=1, max_size=4))
    subject = np.repeat(np.arange(len(present)), [len(trs) for trs in present])
    tr = np.concatenate([np.array(sorted(trs)) for trs in present])
    ints = st.integers(1, 40)
    return BlockBatches(subject, tr, draw(ints), draw(st.integers(0, 5)), draw(ints), draw(ints))


class TestBlocks:
    @given(batches=block_batches(), epoch=st.integers(0, 3))
    def test_each_sample_once_per_epoch_and_a_short_last_batch(
        self, batches: BlockBatches, epoch: int
    ):
        first = epoch * batches.steps_per_epoch
        seen = [batches.at(first + step) for step in range(batches.steps_per_epoch)]
        assert sorted(np.concatenate(seen)) == list(range(batches.samples))
        assert {len(batch) for batch in seen[:-1]} <= {batches.batch_size}
        assert len(seen[-1]) == batches.samples - (len(seen) - 1) * batches.batch_size

    @given(batches=block_batches(), step=st.integers(0, 200))
    def test_resumable_at_any_batch(self, batches: BlockBatches, step: int):
        fresh = replace(batches)
        for earlier in range(max(0, step - 4), step):
            batches.at(earlier)
        np.testing.assert_array_equal(batches.at(step), fresh.at(step))

    @given(batches=block_batches(), step=st.integers(0, 200))
    def test_every_step_lies_in_one_window_of_one_epoch(self, batches: BlockBatches, step: int):
        window = batches.window(step)
        assert step in window
        assert len(window) <= batches.window_steps
        assert all(batches.window(other) == window for other in window)
        assert len({batches.epoch(other) for other in window}) == 1

    @given(batches=block_batches())
    def test_a_window_of_a_lane_is_read_in_few_slices(self, batches: BlockBatches):
        """What a position of the batch needs within a window lies in blocks end to end."""
        window = batches.window(0)
        lane = np.array([batches.at(step)[0] for step in window])
        places = set(zip(batches.subject[lane], batches.tr[lane] // batches.block_trs, strict=True))
        everywhere = zip(batches.subject, batches.tr // batches.block_trs, strict=True)
        sizes = sorted(np.unique(list(everywhere), axis=0, return_counts=True)[1])
        # at worst the lane begins and ends within a block, and has the smallest ones between
        most = int(np.searchsorted(np.cumsum(sizes), len(lane))) + 2
        assert len(places) <= most

    def test_batches_are_as_mixed_as_at_random(self):
        """Batch means of a slow signal vary as those of random batches do, or less."""
        subject, tr = np.repeat(np.arange(6), 800), np.tile(np.arange(800), 6)
        slow = np.sin(tr / 40) + subject
        blocks = BlockBatches(subject, tr, 32, 0, window_steps=20)
        random = GlobalBatches(len(tr), 32, 0)
        spread = {
            name: np.var([slow[order.at(step)].mean() for step in range(order.steps_per_epoch)])
            for name, order in {"blocks": blocks, "random": random}.items()
        }
        assert spread["blocks"] < 1.5 * spread["random"]
        order = np.concatenate([blocks.at(step) for step in range(blocks.steps_per_epoch)])
        assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.1
        assert not np.array_equal(blocks.at(0), blocks.at(blocks.steps_per_epoch)), "epochs differ"
