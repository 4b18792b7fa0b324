"""Training: it learns, it writes every step, and no interruption changes what comes out."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sherlock_data import locks
from sherlock_data.errors import ConfigError, StoreError
from sherlock_models import zoo
from sherlock_models.config import RunConfig
from sherlock_models.resolve import resolve
from sherlock_models.run import Run, load
from sherlock_models.training import checkpoint, launch
from sherlock_models.training.journal import truncate
from sherlock_models.training.train import Cost, StoppedError, fit
from sherlock_models.training.trainer import DivergedError, learning_rate

Configure = Callable[..., RunConfig]
QUICK = {"steps": 12, "batch_size": 16, "validate_every": 4}


class Watcher:
    """Notes what it is told, and acts at a step."""

    def __init__(self, at: int = 0, act: Callable[[], None] = lambda: None) -> None:
        self.at, self.act = at, act
        self.cost: Cost | None = None
        self.done = -1

    def started(self, cost: Cost, done: int) -> None:
        self.cost, self.done = cost, done

    def step(self, step: int, values: dict[str, float], steps_per_s: float) -> None:
        if step == self.at:
            self.act()

    def validated(self, step: int, values: dict[str, float], best: bool) -> None: ...


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class TestSchedule:
    @pytest.mark.parametrize(
        ("step", "expected"),
        [
            pytest.param(0, 1e-4, id="first step: a tenth of the warm-up"),
            pytest.param(9, 1e-3, id="end of the warm-up: the peak"),
            pytest.param(10, 1e-3, id="the cosine begins at the peak"),
            pytest.param(55, 5e-4, id="half way down: half"),
            pytest.param(99, 1e-3 / 2 * (1 + math.cos(math.pi * 89 / 90)), id="last step"),
        ],
    )
    def test_formula(self, step: int, expected: float):
        assert learning_rate(step, 100, 1e-3, 0.1) == pytest.approx(expected, rel=1e-12)

    def test_no_warm_up(self):
        assert learning_rate(0, 10, 1e-3, 0.0) == 1e-3

    def test_the_optimiser_is_told(self, configure: Configure, tmp_path: Path):
        run = fit(configure(**QUICK, warmup=0.25, learning_rate=2e-3), tmp_path / "run")
        told = [m["lr"] for m in run.metrics() if m["split"] == "train"]
        assert told == [learning_rate(step, 12, 2e-3, 0.25) for step in range(12)]


class TestLearning:
    def test_the_planted_relation_is_found(self, configure: Configure, tmp_path: Path):
        config = configure(
            steps=150, batch_size=32, brain="voxels", learning_rate=3e-3, stimulus="audio"
        )
        run = fit(config, tmp_path / "run")
        index = checkpoint.read_index(tmp_path / "run" / "checkpoints")
        best = next(
            m for m in run.metrics() if m["split"] == "validation" and m["step"] == index.best
        )
        assert best["brain"] < 1, "the mean scores 1; sixteen TRs of it can be unlike the rest"
        assert best["audio"] < 0.3
        trained = [m["brain"] for m in run.metrics() if m["split"] == "train"][-20:]
        assert sum(trained) / 20 < 0.6, "three quarters of the voxels follow the tracks"
        losses = [m["loss"] for m in run.metrics() if m["split"] == "validation"]
        assert best["loss"] == min(losses) == index.best_loss

    @pytest.mark.parametrize(
        "options",
        [
            pytest.param({"subject": "embedding"}, id="subject embedding"),
            pytest.param({"subject": "embedding", "split": "subject"}, id="unseen subject"),
            pytest.param({"subject": "mean"}, id="mean brain"),
            pytest.param({"delays": [0, 2, 4]}, id="delays"),
            pytest.param({"brain_noise": "independent"}, id="independent noise"),
            pytest.param({"brain_noise": "0", "brain_forcing": 0}, id="plain autoencoder"),
            pytest.param({"stimulus": "annotations"}, id="annotations"),
            pytest.param({"split": "run"}, id="run held out"),
            pytest.param({"precision": "bf16"}, id="bf16"),
            pytest.param({"weights": {"audio": 0}}, id="weights"),
        ],
    )
    def test_every_choice_trains(
        self, configure: Configure, tmp_path: Path, options: dict[str, object]
    ):
        run = fit(configure(**{**QUICK, **options}), tmp_path / "run")
        lines = run.metrics()
        assert [m["step"] for m in lines if m["split"] == "train"] == list(range(1, 13))
        assert [m["step"] for m in lines if m["split"] == "validation"] == [4, 8, 12]
        for line in lines:
            assert {"step", "split", "loss", *run.config.terms} <= set(line)
            assert math.isfinite(line["loss"])

    def test_random_split_warns(self, configure: Configure, tmp_path: Path):
        watcher = Watcher()
        fit(configure(**QUICK, split="random"), tmp_path / "run", progress=watcher)
        assert watcher.cost is not None
        assert any("a random split" in note for note in watcher.cost.notes)

    def test_epochs_become_steps(self, configure: Configure, tmp_path: Path):
        watcher = Watcher()
        config = configure(epochs=2, batch_size=64, validate_every=100)
        run = fit(config, tmp_path / "run", progress=watcher)
        assert watcher.cost is not None
        assert run.config.steps == watcher.cost.steps == 2 * -(-watcher.cost.samples // 64)
        assert watcher.cost.epochs == 2

    def test_patience(self, configure: Configure, tmp_path: Path):
        config = configure(**{**QUICK, "steps": 400}, patience=2, learning_rate=0.3)
        run = fit(config, tmp_path / "run")
        assert run.state == "finished"
        assert "no better validation in 2" in run.progress["reason"]
        assert run.progress["step"] < 400


class TestFolder:
    def test_what_it_holds(self, configure: Configure, tmp_path: Path):
        run = fit(configure(**QUICK), tmp_path / "run")
        names = {p.name.split(".")[0] for p in run.path.iterdir()}
        assert names == {"config", "metrics", "fitted", "state", "checkpoints", "events"}
        assert run.state == "finished"
        assert run.config.steps == 12
        assert run.eta_s is None

    def test_the_best_model_comes_back(self, configure: Configure, tmp_path: Path):
        fit(configure(**QUICK), tmp_path / "run")
        run = load(tmp_path / "run")
        from sherlock_models.training.objective import fit_objective

        batch = run.data.batch(
            side := run.data.samples("validation"), torch.arange(len(side)).numpy()
        )
        with torch.no_grad():
            output = run.model(batch.stimulus, signal=batch.signal)
        objective = fit_objective(run.data, {})
        sums, counts = objective.sums(output, batch), objective.counts(batch)
        best = min(
            (m for m in run.metrics() if m["split"] == "validation"), key=lambda m: m["loss"]
        )
        expected = [best[term] for term in run.config.terms]
        torch.testing.assert_close((sums / counts).tolist(), expected, rtol=1e-5, atol=1e-6)
        mean = run.data.normaliser.scales["video"].mean
        torch.testing.assert_close(run.normaliser.scales["video"].mean, mean)

    def test_the_same_run_again_from_its_own_configuration(
        self, configure: Configure, tmp_path: Path
    ):
        first = fit(configure(**QUICK), tmp_path / "first")
        again = fit(first.config, tmp_path / "again")
        assert again.metrics() == first.metrics()

    def test_a_folder_with_something_in_it_is_refused(self, configure: Configure, tmp_path: Path):
        (tmp_path / "thesis.txt").touch()
        with pytest.raises(ConfigError, match="not empty"):
            fit(configure(**QUICK), tmp_path)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            pytest.param({"fold": 9}, "fold 9 of 5", id="fold"),
            pytest.param({"hidden": "many"}, "hidden", id="architecture's option"),
        ],
    )
    def test_nothing_is_written_when_it_cannot_start(
        self, configure: Configure, tmp_path: Path, options: dict[str, object], says: str
    ):
        with pytest.raises(ConfigError, match=says):
            fit(configure(**QUICK, **options), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_what_is_no_run_is_said(self, tmp_path: Path):
        with pytest.raises(ConfigError, match="name a folder that sherlock-train made"):
            load(tmp_path)

    @pytest.mark.parametrize(
        ("name", "content", "says"),
        [
            pytest.param("config.yaml", b"entry: a\ndata: b\n", "is not complete", id="cut"),
            pytest.param("config.yaml", b"\xff\xfe\x80", "not valid YAML", id="no text"),
            pytest.param("state.json", b"{", "is damaged", id="state cut"),
            pytest.param("state.json", b"\xff", "is damaged", id="state no text"),
            pytest.param("state.json", b"[1]", "is damaged", id="another state"),
            pytest.param("metrics.jsonl", b"\xff}", "is damaged", id="metrics no text"),
            pytest.param("metrics.jsonl", b"step}\n", "is damaged", id="metrics no JSON"),
        ],
    )
    def test_damaged_files_are_one_line(self, tmp_path: Path, name: str, content: bytes, says: str):
        (tmp_path / "config.yaml").write_text("entry: a\n")
        (tmp_path / name).write_bytes(content)
        run = load(tmp_path)
        read = {
            "config.yaml": lambda: run.config,
            "state.json": lambda: run.state,
            "metrics.jsonl": run.metrics,
        }
        with pytest.raises(ConfigError, match=says) as caught:
            read[name]()
        assert "\n" not in str(caught.value)

    def test_a_folder_that_another_process_trains_is_refused(
        self, configure: Configure, tmp_path: Path
    ):
        with locks.held(tmp_path / "run"), pytest.raises(StoreError, match="is being trained by"):
            fit(configure(**QUICK), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_rank_that_is_started_again_elsewhere_waits_for_the_dead_ones_silence(
        self, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """Which machine has the main rank may change when torchrun starts all of them again."""
        silent_s = iter([0.0, 0.0, 1000.0])
        monkeypatch.setattr(locks._FileLock, "_silence_s", lambda lock: next(silent_s))
        monkeypatch.setattr(locks, "WAIT_S", 0.01)
        dead = {"host": "elsewhere", "pid": 1, "since": "2000-01-01T00:00:00+00:00", "beat": 0.0}
        (tmp_path / "run.lock").write_text(json.dumps(dead))
        with pytest.raises(StoreError, match="is being trained by process 1 on elsewhere"):
            fit(configure(**QUICK), tmp_path / "run")
        assert fit(configure(**QUICK), tmp_path / "run", again=True).state == "finished"

    def test_a_run_whose_process_is_gone_has_stopped(self, tmp_path: Path):
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        from sherlock_models.run import write_state

        write_state(tmp_path, state="running", step=1, steps=9)
        assert Run(tmp_path).state == "running"
        text = (tmp_path / "state.json").read_text().replace(str(os.getpid()), str(ended.pid))
        (tmp_path / "state.json").write_text(text)
        assert Run(tmp_path).state == "stopped"


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from sherlock_models.config import load_config
from sherlock_models.training.train import fit
from pathlib import Path

class Killer:
    def started(self, cost, done): pass
    def validated(self, step, values, best): pass
    def step(self, step, values, rate):
        if step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

fit(load_config(Path(sys.argv[1])), sys.argv[2], progress=Killer())
"""


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
def test_every_architecture_goes_on_as_if_it_had_never_stopped(
    tiny_stores: Path,
    tmp_path: Path,
    of_each: dict[str, tuple[str, dict[str, Any]]],
    architecture: str,
):
    entry, options = of_each[architecture]
    config = resolve(
        entry, tiny_stores, options={"steps": 6, "batch_size": 8, "validate_every": 3, **options}
    )
    straight = fit(config, tmp_path / "straight")
    with pytest.raises(StoppedError):
        fit(config, tmp_path / "run", progress=Watcher(2, ask_to_stop))
    run = load(tmp_path / "run")
    fit(run.config, run.path, resume=True)
    assert run.metrics() == straight.metrics(), "bit for bit"
    finished = [load(tmp_path / name).model.state_dict() for name in ("straight", "run")]
    assert all(torch.equal(finished[0][name], finished[1][name]) for name in finished[0])


class TestInterruption:
    @pytest.mark.slow
    @pytest.mark.parametrize("at", [3, 10], ids="killed after step {}".format)
    def test_sigkill_and_resume_equal_never_having_stopped(
        self, configure: Configure, tmp_path: Path, at: int
    ):
        config = configure(**QUICK, brain_noise="independent", delays=[0, 1])
        straight = fit(config, tmp_path / "straight")
        config.save(tmp_path / "config.yaml")
        arguments = [str(tmp_path / "config.yaml"), str(tmp_path / "killed"), str(at)]
        ended = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
        assert ended.returncode == -signal.SIGKILL
        killed = load(tmp_path / "killed")
        assert killed.state == "stopped"
        kept = checkpoint.read_index(killed.path / "checkpoints").last or 0
        assert at - kept < 8, "the last validation before it, or the one before if still written"
        watcher = Watcher()
        fit(killed.config, killed.path, resume=True, progress=watcher)
        assert watcher.done == kept
        assert killed.metrics() == straight.metrics(), "bit for bit"

    def test_sigterm_writes_a_checkpoint(self, configure: Configure, tmp_path: Path):
        config = configure(**QUICK)
        straight = fit(config, tmp_path / "straight")
        with pytest.raises(StoppedError, match=r"after step 7, checkpoint written.*--resume"):
            fit(config, tmp_path / "run", progress=Watcher(6, ask_to_stop))
        run = load(tmp_path / "run")
        assert run.state == "stopped"
        assert checkpoint.read_index(run.path / "checkpoints").last == 7
        fit(run.config, run.path, resume=True)
        assert run.state == "finished"
        assert run.metrics() == straight.metrics()

    def test_a_finished_run_is_left_alone(self, configure: Configure, tmp_path: Path):
        run = fit(configure(**QUICK), tmp_path / "run")
        before = (run.path / "metrics.jsonl").read_bytes()
        fit(run.config, run.path, resume=True)
        assert (run.path / "metrics.jsonl").read_bytes() == before

    def test_a_line_cut_short_is_dropped(self, tmp_path: Path):
        path = tmp_path / "metrics.jsonl"
        lines = [f'{{"step": {n}, "split": "train", "loss": 1.0}}\n' for n in range(1, 6)]
        path.write_text("".join(lines) + '{"step": 6, "sp')
        truncate(path, 9)
        assert path.read_text() == "".join(lines)
        truncate(path, 3)
        assert path.read_text() == "".join(lines[:3])

    def test_a_loss_that_is_not_finite_stops_the_run(self, configure: Configure, tmp_path: Path):
        config = configure(**QUICK, learning_rate=1e30, warmup=0, clip=1e30)
        with pytest.raises(DivergedError) as caught:
            fit(config, tmp_path / "run")
        said = str(caught.value)
        assert "the loss of step 2 (epoch 1) is" in said
        assert "its batch is sub-0" in said
        assert "and 8 more" in said
        assert "no checkpoint yet" in said
        assert load(tmp_path / "run").state == "stopped"

    def test_the_last_good_checkpoint_is_named(
        self, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        from sherlock_models.feeding.dataset import MovieBrainData

        gather = MovieBrainData.batch
        seen: list[int] = []

        def poisoned(self: MovieBrainData, *arguments: object, **options: object) -> object:
            batch = gather(self, *arguments, **options)  # type: ignore[arg-type]
            seen.append(len(seen))
            if len(seen) > 10:
                batch.target["audio"][0] = math.nan
            return batch

        monkeypatch.setattr(MovieBrainData, "batch", poisoned)
        with pytest.raises(DivergedError, match=r"last good checkpoint is .*step-4"):
            fit(configure(**QUICK), tmp_path / "run")
        weights = load(tmp_path / "run").model_at("last").state_dict()
        assert all(value.isfinite().all() for value in weights.values())


def fit_as_rank(document: dict[str, object], out: str) -> None:
    torch.set_num_threads(1)
    fit(RunConfig.model_validate(document), out, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["residual", "independent"])
def test_two_ranks_train_as_one(configure: Configure, tmp_path: Path, noise: str):
    config = configure(steps=5, batch_size=15, validate_every=5, brain_noise=noise)
    alone = fit(config, tmp_path / "alone").metrics()
    document = config.model_dump(mode="json")
    launch.launch(2, fit_as_rank, document, str(tmp_path / "two"))
    together = load(tmp_path / "two").metrics()
    assert len(together) == len(alone) == 6
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
