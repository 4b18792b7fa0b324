"""Where data lie changes how fast they come, and nothing about what comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sherlock_data.errors import ConfigError
from sherlock_models import parallel
from sherlock_models.config import RunConfig, load_config
from sherlock_models.feeding.loading import load_data
from sherlock_models.feeding.normaliser import Scale
from sherlock_models.feeding.placement import Placement, Room, choose
from sherlock_models.run import Run, load
from sherlock_models.training.train import Cost, Silent, StoppedError, fit

Configure = Callable[..., RunConfig]
QUICK = {"steps": 10, "batch_size": 16, "validate_every": 5}
#: rows of 12 parcels: 100 at a time
BUFFER_GB = 100 * 12 * 4 / 1e9
GB = 10**9

CPU, CPUS = Room(20 * GB, 20 * GB, 1, gpu=False), Room(20 * GB, 20 * GB, 4, gpu=False)
GPUS = Room(40 * GB, 100 * GB, 8, gpu=True)


class Note(Silent):
    """Remembers the cost line; may stop the run at a step."""

    def __init__(self, stop_at: int = 0) -> None:
        self.cost: Cost | None = None
        self.stop_at = stop_at

    def started(self, cost: Cost, done: int) -> None:
        self.cost = cost

    def step(self, step: int, values: dict[str, float], steps_per_s: float) -> None:
        import os
        import signal

        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


class TestChoice:
    @pytest.mark.parametrize(
        ("room", "gigabytes", "kind", "why"),
        [
            pytest.param(CPU, 11, "device", "for each of 1 ranks", id="one rank: its own memory"),
            pytest.param(CPU, 16, "stream", "do not fit", id="one rank: too large"),
            pytest.param(CPUS, 11, "shared", "once for 4 ranks", id="ranks share"),
            pytest.param(CPUS, 16, "stream", "do not fit", id="ranks: too large"),
            pytest.param(GPUS, 11, "device", "half of the GPU's 40.0 GB", id="on the GPU"),
            pytest.param(GPUS, 25, "shared", "once for 8 ranks", id="too large for the GPU"),
            pytest.param(GPUS, 90, "stream", "do not fit", id="too large for the machine"),
        ],
    )
    def test_auto_takes_the_fastest_that_fits(
        self, room: Room, gigabytes: int, kind: str, why: str
    ):
        found = choose("auto", gigabytes * GB, room)
        assert found.kind == kind
        assert why in found.why
        assert str(found).startswith(f"placement {kind} (auto: ")

    @pytest.mark.parametrize(
        ("asked", "room"),
        [
            pytest.param("device", CPUS, id="four copies"),
            pytest.param("shared", Room(GB, GB, 4, gpu=False), id="one copy"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, asked: str, room: Room):
        with pytest.raises(ConfigError, match=r"of data, .* free; use --set placement=auto"):
            choose(asked, 6 * GB, room)

    def test_a_mean_brain_is_held_and_says_so(self):
        found = choose("stream", GB, CPU, blocks=False)
        assert found.kind == "device"
        assert "made once and held, not streamed" in found.why


def losses(run: Run) -> list[dict[str, float]]:
    return run.metrics()


class TestTraining:
    @pytest.mark.parametrize("subject", ["none", "mean", "embedding"])
    def test_in_memory_the_losses_are_the_same_to_the_bit(
        self, configure: Configure, tmp_path: Path, subject: str
    ):
        found = {
            placement: losses(
                fit(
                    configure(**QUICK, placement=placement, subject=subject, delays=[0, 2]),
                    tmp_path / placement,
                    device="cpu",
                )
            )
            for placement in ("auto", "device", "shared")
        }
        assert found["auto"] == found["device"] == found["shared"]

    @pytest.mark.parametrize(
        "options",
        [
            pytest.param({}, id="plain"),
            pytest.param({"subject": "embedding", "delays": [0, 1]}, id="embedding and delays"),
            pytest.param({"split": "run", "fold": 1}, id="a run held out"),
            pytest.param({"brain": "voxels"}, id="another store"),
        ],
    )
    def test_streamed_is_another_order_and_resumes_exactly(
        self, configure: Configure, tmp_path: Path, options: dict[str, object]
    ):
        config = configure(**QUICK, **options, placement="stream", buffer_gb=BUFFER_GB)
        whole = fit(config, tmp_path / "whole", device="cpu")
        with pytest.raises(StoppedError):
            fit(config, tmp_path / "cut", device="cpu", progress=Note(stop_at=3))
        resumed = fit(load_config(tmp_path / "cut" / "config.yaml"), tmp_path / "cut", resume=True)
        assert losses(resumed) == losses(whole)
        in_memory = fit(configure(**QUICK, **options), tmp_path / "memory", device="cpu")
        assert losses(in_memory) != losses(whole)

    def test_the_cost_line_says_what_was_chosen_and_why(self, configure: Configure, tmp_path: Path):
        note = Note()
        fit(configure(**QUICK), tmp_path / "run", device="cpu", progress=note)
        assert note.cost is not None
        assert note.cost.placement.startswith("placement device (auto: ")
        assert load(tmp_path / "run").config.placement == "auto"

    def test_streaming_that_auto_chose_is_recorded(
        self, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(Room, "of", lambda _: Room(0, 0, 1, gpu=False))
        run = fit(configure(**QUICK, buffer_gb=BUFFER_GB), tmp_path / "run", device="cpu")
        assert run.config.placement == "stream"
        assert run.config.buffer_gb == BUFFER_GB

    def test_a_run_from_memory_is_not_resumed_in_another_order(
        self, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        with pytest.raises(StoppedError):
            fit(configure(**QUICK), tmp_path / "run", device="cpu", progress=Note(stop_at=3))
        monkeypatch.setattr(Room, "of", lambda _: Room(0, 0, 1, gpu=False))
        with pytest.raises(ConfigError, match="data were in memory and are too large"):
            fit(load_config(tmp_path / "run" / "config.yaml"), tmp_path / "run", resume=True)


class TestGathering:
    """The same rows, whatever they are gathered from."""

    def test_a_streamed_batch_is_the_one_in_memory(self, configure: Configure):
        held, streamed = load_data(configure()), load_data(configure(placement="stream"))
        samples, chosen = held.samples("train"), np.array([70, 3, 3, 150, 71])
        one, other = (d.batch(samples, chosen, first=4) for d in (held, streamed))
        torch.testing.assert_close(one.brain, other.brain, rtol=1e-5, atol=1e-5)
        assert torch.equal(one.signal, other.signal)
        for name in one.stimulus:
            assert torch.equal(one.stimulus[name], other.stimulus[name])
            assert torch.equal(one.target[name], other.target[name])

    def test_pictures_are_normalised_as_they_are_picked(self):
        generator = torch.Generator().manual_seed(0)
        table = torch.randint(0, 256, (6, 3, 4, 5), generator=generator, dtype=torch.uint8)
        scale = Scale(100 * torch.rand(3, 4, 5, generator=generator), torch.tensor(7.3))
        row = torch.tensor([4, 0, 4])
        expected = (table[row].float() - scale.mean) / scale.scale
        torch.testing.assert_close(scale.pick(table, row), expected)

    def test_what_is_not_finite_is_the_mean(self, configure: Configure):
        data = load_data(configure())
        raw = data.brains.raw.clone()
        raw[0, 30, 2], raw[0, 31, 2] = torch.nan, torch.inf
        data.brains.raw.copy_(raw)
        rows, _ = data.brains.rows(torch.zeros(2, dtype=torch.int64), torch.tensor([30, 31]))
        expected = -data.brains.mean[0, 0, 2] * data.brains.inverse_std[0, 0, 2]
        assert rows[:, 2].tolist() == [expected, expected]

    def test_one_rank_alone_shares_with_itself(self, configure: Configure):
        with parallel.world("cpu") as world:
            data = load_data(configure(placement="shared"), world)
        assert data.placement == Placement("shared", "as asked", 1)
        mine = load_data(configure())
        assert torch.equal(data.brains.raw, mine.brains.raw)
        assert data.brains.own_statistics == mine.brains.own_statistics
        assert data.nbytes == mine.nbytes
