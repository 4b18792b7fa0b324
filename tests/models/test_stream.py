"""Brains read from their store in blocks: the same rows, within the buffer, for any ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sherlock_data.errors import ConfigError, StoreError
from sherlock_models.config import RunConfig
from sherlock_models.feeding.dataset import MovieBrainData
from sherlock_models.feeding.feed import Feed, order
from sherlock_models.feeding.loading import load_data
from sherlock_models.feeding.stream import Source, StreamedBrains, block_batches
from sherlock_models.parallel import World
from sherlock_models.scoring.evaluate import evaluate
from sherlock_models.training.objective import fit_objective
from sherlock_models.training.train import fit

Configure = Callable[..., RunConfig]
ROW_GB = 12 * 4 / 1e9  # of 12 parcels


def rank(number: int, ranks: int) -> World:
    return World(number, ranks, torch.device("cpu"))


@pytest.fixture
def chunked(make_stores: Callable[..., Path], tmp_path: Path) -> Path:
    """A dataset folder whose parcels are stored as builds store them: chunks of 8 in a shard."""
    folder = make_stores(tmp_path / "chunked")
    store = xr.open_zarr(folder / "parcels.zarr").load()
    for variable in store.variables.values():
        variable.encoding = {}
    layout = {"chunks": (1, 8, 12), "shards": (1, 64, 12)}
    store.to_zarr(folder / "parcels.zarr", mode="w", zarr_format=3, encoding={"bold": layout})
    return folder


@pytest.fixture
def data(configure: Configure, chunked: Path) -> MovieBrainData:
    return load_data(configure(data=chunked, placement="stream", buffer_gb=200 * ROW_GB))


@pytest.fixture
def held(configure: Configure, chunked: Path) -> MovieBrainData:
    return load_data(configure(data=chunked))


def streamed(data: MovieBrainData) -> StreamedBrains:
    assert isinstance(data.brains, StreamedBrains)
    return data.brains


class TestStatistics:
    @pytest.mark.parametrize(
        "options",
        [
            pytest.param({}, id="block"),
            pytest.param({"split": "run", "fold": 1}, id="a run wholly held out"),
            pytest.param({"split": "subject"}, id="a subject held out"),
        ],
    )
    def test_out_of_core_they_are_those_of_memory(
        self, configure: Configure, chunked: Path, options: dict[str, object]
    ):
        config = configure(data=chunked, **options)
        one = load_data(config).brains
        other = load_data(config.model_copy(update={"placement": "stream"})).brains
        torch.testing.assert_close(one.mean * one.signal[:, None], other.mean, rtol=1e-6, atol=0)
        torch.testing.assert_close(one.inverse_std, other.inverse_std, rtol=1e-5, atol=0)
        assert torch.equal(one.signal, other.signal)
        assert torch.equal(one.run, other.run)
        assert one.own_statistics == other.own_statistics
        np.testing.assert_array_equal(one.valid, other.valid)

    @pytest.mark.parametrize("split", ["block", "run", "subject"])
    def test_the_variance_of_the_brain_is_known_without_reading(
        self, configure: Configure, chunked: Path, split: str
    ):
        config = configure(data=chunked, split=split)
        expected = fit_objective(load_data(config), {}).variance["brain"]
        data = load_data(config.model_copy(update={"placement": "stream"}))
        assert fit_objective(data, {}).variance["brain"] == pytest.approx(expected, rel=1e-5)

    def test_held_out_data_change_nothing(
        self, configure: Configure, chunked: Path, data: MovieBrainData
    ):
        out = np.setdiff1d(np.arange(160), data.split.train)
        store = xr.open_zarr(chunked / "parcels.zarr").load()
        store.bold.values[:, out] *= -3
        for variable in store.variables.values():
            variable.encoding = {}
        store.to_zarr(chunked / "parcels.zarr", mode="r+", zarr_format=3, consolidated=False)
        again = load_data(configure(data=chunked, placement="stream"))
        assert torch.equal(data.brains.mean, again.brains.mean)
        assert torch.equal(data.brains.inverse_std, again.brains.inverse_std)


class TestRows:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
    @given(picked=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 159)), max_size=30))
    def test_any_rows_in_any_order(
        self, data: MovieBrainData, held: MovieBrainData, picked: list[tuple[int, int]]
    ):
        subject, tr = torch.tensor(picked, dtype=torch.int64).view(-1, 2).unbind(1)
        bold, signal = data.brains.rows(subject, tr)
        expected, there = held.brains.rows(subject, tr)
        torch.testing.assert_close(bold, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(signal, there)

    def test_a_grid_is_flattened(self, tmp_path: Path):
        bold = np.arange(2 * 5 * 24, dtype=np.float32).reshape(2, 5, 2, 3, 4)
        grid = xr.Dataset({"bold": (("subject", "time", "x", "y", "z"), bold)})
        grid.to_zarr(tmp_path / "volumes.zarr", zarr_format=3)
        source = Source(str(tmp_path / "volumes.zarr"))
        assert source.shape == (2, 5, 24)
        np.testing.assert_array_equal(source[1, slice(2, 4)], bold[1, 2:4].reshape(2, 24))

    def test_blocks_are_whole_chunks(self, data: MovieBrainData):
        source = streamed(data).source
        assert source.block_trs == 32
        assert source.block_trs % source._bold.chunks[1] == 0

    def test_a_damaged_chunk_is_named(self, data: MovieBrainData, chunked: Path):
        for shard in (chunked / "parcels.zarr" / "bold" / "c" / "1").rglob("*"):
            if shard.is_file():
                shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
        with pytest.raises(StoreError, match=r"subject 1, TRs 0 to 31 .*sherlock-data verify"):
            streamed(data).source.read(1, 0, np.empty((32, 12), dtype=np.float32))


class TestFeed:
    @pytest.mark.parametrize("ranks", [1, 2, 3, 5])
    @pytest.mark.parametrize("rows", [40, 90, 10_000])
    def test_any_ranks_get_the_rows_of_memory(
        self,
        configure: Configure,
        chunked: Path,
        held: MovieBrainData,
        ranks: int,
        rows: int,
    ):
        data = load_data(configure(data=chunked, placement="stream", buffer_gb=rows * ROW_GB))
        samples = data.samples("train")
        batches = order(data, samples, 13, seed=1)
        alone = order(data, samples, 13, seed=1)
        feeds = [Feed(data, samples, batches, rank(r, ranks)) for r in range(ranks)]
        assert sum(feed.nbytes for feed in feeds) <= (rows + 13 * ranks * 2) * 48
        for step in [*range(batches.steps_per_epoch + 2), 40, 5]:
            parts = [feed.at(step) for feed in feeds]
            together = torch.cat([part.brain for part in parts])
            expected = held.batch(samples, alone.at(step))
            torch.testing.assert_close(together, expected.brain, rtol=1e-4, atol=1e-4)
            assert torch.equal(torch.cat([part.tr for part in parts]), expected.tr)
            assert torch.cat([p.position for p in parts]).tolist() == list(range(len(together)))
        for feed in feeds:
            assert feed.waited_s > 0
            feed.close()

    def test_the_buffer_is_all_that_is_held(self, data: MovieBrainData):
        samples = data.samples("train")
        feed = Feed(data, samples, order(data, samples, 16, seed=0), rank(0, 1))
        assert feed.nbytes <= streamed(data).buffer_bytes
        addresses = set()
        for step in range(30):
            feed.at(step)
            window = feed._windows._now  # type: ignore[union-attr]
            addresses.add(window.buffer.data_ptr())  # type: ignore[union-attr]
        feed.close()
        assert len(addresses) == 2, "two windows take turns"

    def test_a_buffer_below_two_batches_is_refused(self, data: MovieBrainData):
        with pytest.raises(
            ConfigError, match=r"buffer_gb=.* does not hold two batches .*use --set"
        ):
            block_batches(streamed(data), data.samples("train"), 0, batch_size=101, seed=0)

    def test_a_block_that_cannot_be_read_ends_the_training(
        self, data: MovieBrainData, chunked: Path
    ):
        samples = data.samples("train")
        feed = Feed(data, samples, order(data, samples, 16, seed=0), rank(0, 1))
        for shard in (chunked / "parcels.zarr" / "bold" / "c").rglob("*"):
            if shard.is_file():
                shard.write_bytes(b"not a shard")
        with pytest.raises(StoreError, match="cannot be read"):
            feed.at(0)
        feed.close()


def test_a_streamed_run_is_evaluated_and_says_how_it_was_read(
    configure: Configure, chunked: Path, tmp_path: Path
):
    options = {"steps": 4, "batch_size": 16, "validate_every": 4}
    config = configure(data=chunked, placement="stream", buffer_gb=200 * ROW_GB, **options)
    run = fit(config, tmp_path / "run", device="cpu")
    document = evaluate(run, draws=50, null_draws=50)
    assert any(row["metric"] == "r" and row["value"] is not None for row in document["rows"])
    assert any("read from the store" in note for note in document["notes"])
