"""Trackers beside TensorBoard: told of the lines that the run writes, and of the same run again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sherlock_data.errors import ConfigError
from sherlock_models.config import RunConfig
from sherlock_models.run import load
from sherlock_models.training.train import Silent, fit

Configure = Callable[..., RunConfig]
QUICK = {"steps": 6, "batch_size": 16, "validate_every": 3}
NAMES = ["wandb", "trackio"]


class Fake:
    """A tracker's package: notes every call."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, **options: Any) -> Fake:
        print("View dashboard by going to")
        self.begun.append(options)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


class Interrupted(Silent):
    """Ctrl-C after a step."""

    def step(self, step: int, values: dict[str, float], steps_per_s: float) -> None:
        if step == 5:
            raise KeyboardInterrupt


@pytest.fixture(params=NAMES)
def tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Fake]:
    """Name and package of a tracker that is installed."""
    fake = Fake()
    monkeypatch.setitem(sys.modules, request.param, fake)  # type: ignore[arg-type]
    monkeypatch.delenv(f"{request.param.upper()}_PROJECT", raising=False)
    return request.param, fake


def test_it_is_told_of_every_line(
    configure: Configure, tmp_path: Path, tracker: tuple[str, Fake],
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    name, fake = tracker
    run = fit(configure(**QUICK, tracker=name), tmp_path / "run")
    expected = [
        (m.pop("step"), {f"{split}/{key}": value for key, value in m.items()})
        for m in run.metrics()
        for split in [m.pop("split")]
    ]
    assert fake.logged == expected
    assert fake.finished == 1
    [options] = fake.begun
    assert options["project"] == "sherlock-zoo"
    assert options["name"].startswith("run-")
    assert options["config"]["learning_rate"] == run.config.learning_rate
    assert capsys.readouterr().out == "", "stdout is for --json"


def test_a_run_that_goes_on_is_the_same_to_it(
    configure: Configure, tmp_path: Path, tracker: tuple[str, Fake]
):
    name, fake = tracker
    with pytest.raises(KeyboardInterrupt):
        fit(configure(**QUICK, tracker=name), tmp_path / "run", progress=Interrupted())
    run = load(tmp_path / "run")
    fit(run.config, run.path, resume=True)
    first, second = fake.begun
    assert first["name"] == second["name"]
    assert first.get("id") == second.get("id")
    assert second["resume"] == "allow"
    steps = [step for step, values in fake.logged if "train/loss" in values]
    assert steps == [1, 2, 3, 4, 5, 4, 5, 6], "from the checkpoint after step 3"
    assert fake.finished == 2


def test_it_may_be_named_when_a_run_goes_on(
    configure: Configure, tmp_path: Path, tracker: tuple[str, Fake]
):
    with pytest.raises(KeyboardInterrupt):
        fit(configure(**QUICK), tmp_path / "run", progress=Interrupted())
    assert not tracker[1].begun
    config = load(tmp_path / "run").config.model_copy(update={"tracker": tracker[0]})
    fit(config, tmp_path / "run", resume=True)
    assert [step for step, _ in tracker[1].logged] == [4, 5, 6, 6]


def test_the_project_may_be_named(
    configure: Configure, tmp_path: Path, tracker: tuple[str, Fake],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setenv(f"{tracker[0].upper()}_PROJECT", "thesis")
    fit(configure(**QUICK, tracker=tracker[0]), tmp_path / "run")
    assert tracker[1].begun[0]["project"] == "thesis"


@pytest.mark.parametrize("name", NAMES)
def test_one_that_is_missing_is_named_before_anything_is_written(
    configure: Configure, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=f"{name} is not installed; pip install {name}"):
        fit(configure(**QUICK, tracker=name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_that_cannot_begin_is_one_line(
    configure: Configure, tmp_path: Path, tracker: tuple[str, Fake],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    def init(**options: Any) -> None:
        raise RuntimeError("api_key not configured\nrun wandb login")

    monkeypatch.setattr(tracker[1], "init", init)
    with pytest.raises(ConfigError, match=r"api_key not configured\).*--set tracker=none") as said:
        fit(configure(**QUICK, tracker=tracker[0]), tmp_path / "run")
    assert "\n" not in str(said.value)
    fit(load(tmp_path / "run").config.model_copy(update={"tracker": "none"}), tmp_path / "run",
        resume=True)  # fmt: skip
    assert load(tmp_path / "run").state == "finished"
