"""Ranks that die, are stopped, or run into a wall: nothing is lost, and every end is one line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.typing import NDArray

from sherlock_data.errors import ConfigError, SherlockError
from sherlock_models.config import RunConfig
from sherlock_models.run import load
from sherlock_models.training import checkpoint, launch, saving
from sherlock_models.training.train import Silent, StoppedError, fit
from sherlock_models.training.trainer import Trainer

Configure = Callable[..., RunConfig]
QUICK = {"steps": 12, "batch_size": 16, "validate_every": 4}


class At(Silent):
    """Does something at a step, once over all starts: it leaves a mark."""

    def __init__(self, step: int, act: Callable[[], object], mark: Path | None = None) -> None:
        self.at, self.act, self.mark = step, act, mark

    def step(self, step: int, values: dict[str, float], steps_per_s: float) -> None:
        if step == self.at and not (self.mark and self.mark.exists()):
            if self.mark:
                self.mark.touch()
            self.act()


def kill_this() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop_this() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fit_as_rank(document: dict[str, object], out: str, resume: bool = False) -> None:
    torch.set_num_threads(1)
    again = launch.restarted()
    fit(RunConfig.model_validate(document), out, resume=resume, again=again, device="cpu")


def fit_and_stop(document: dict[str, object], out: str, step: int) -> None:
    torch.set_num_threads(1)
    config = RunConfig.model_validate(document)
    try:
        fit(config, out, device="cpu", progress=At(step, stop_this))
    except StoppedError:
        raise SystemExit(launch.TERMINATED) from None


def fit_and_die(document: dict[str, object], out: str, who: str, mark: str) -> None:
    """Train; one rank dies at a step, the first time."""
    torch.set_num_threads(1)
    again = launch.restarted()
    dies = At(6, kill_this, Path(mark))
    if os.environ["RANK"] == who != "0":  # only the main rank's progress is told of steps
        take = Trainer.step

        def step(self: Trainer, number: int, stop: bool = False) -> object:
            taken = take(self, number, stop)
            dies.step(number + 1, {}, 0.0)
            return taken

        Trainer.step = step  # type: ignore[assignment,method-assign]
    progress = dies if who == "0" else None
    fit(RunConfig.model_validate(document), out, again=again, device="cpu", progress=progress)


def die_at_a_checkpoint(document: dict[str, object], out: str, when: str, mark: str) -> None:
    """Train, or go on; once, rank 1 dies while the others wait for its part of a checkpoint."""

    def die(*_: object, **__: object) -> None:
        Path(mark).touch()
        kill_this()

    if os.environ["RANK"] == "1" and not Path(mark).exists():
        if when == "read":
            checkpoint.load_shards = die
        else:
            write = saving._Writer.write_data
            saving._Writer.write_data = lambda self, *given: (  # type: ignore[method-assign]
                die() if self._folder.name == f".writing-{QUICK['steps']}" else write(self, *given)
            )
    fit_as_rank(document, out, resume=when == "read")


def fail_as_rank(line: str) -> None:
    raise ConfigError(line) if os.environ["RANK"] == "1" else RuntimeError("connection closed")


def assert_same_losses(run: Path, straight: Path) -> None:
    """Every line agrees to 1e-5 with a run that was never interrupted."""
    found, expected = load(run).metrics(), load(straight).metrics()
    assert [(m["step"], m["split"]) for m in found] == [(m["step"], m["split"]) for m in expected]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "spread",
    [
        pytest.param({"parallel": "fsdp"}, id="fsdp"),
        pytest.param({"parallel": "hybrid", "shard_ranks": 2}, id="hybrid"),
    ],
)
def test_saved_on_four_ranks_resumed_on_two_one_and_three(
    configure: Configure, tmp_path: Path, spread: dict[str, object]
):
    config = configure(**QUICK)
    fit(config, tmp_path / "straight")
    document = config.model_copy(update=spread).model_dump(mode="json")
    with pytest.raises(SystemExit) as ended:
        launch.launch(4, fit_and_stop, document, str(tmp_path / "four"), 6, start_method=SERVER)
    assert ended.value.code == launch.TERMINATED
    # asked during step 6, answered behind the next
    assert checkpoint.read_index(tmp_path / "four" / "checkpoints").last == 7
    for ranks in (2, 1, 3):
        path = tmp_path / f"on-{ranks}"
        shutil.copytree(tmp_path / "four", path)
        saved = load(path).config.model_copy(update={"parallel": "fsdp"})
        arguments = (saved.model_dump(mode="json"), str(path), True)
        launch.launch(ranks, fit_as_rank, *arguments, start_method=SERVER)
        assert load(path).state == "finished"
        assert_same_losses(path, tmp_path / "straight")


#: ranks part from a server that has imported torch: a launch takes a second instead of five
SERVER = "forkserver"


@pytest.mark.slow
@pytest.mark.parametrize("who", ["0", "1"])
def test_a_rank_that_dies_is_started_again(configure: Configure, tmp_path: Path, who: str):
    config = configure(**QUICK)
    fit(config, tmp_path / "straight")
    told: list[str] = []
    document = config.model_dump(mode="json")
    arguments = (document, str(tmp_path / "run"), who, str(tmp_path / "mark"))
    began = time.monotonic()
    launch.launch(
        2, fit_and_die, *arguments, restarts=2, tell=told.append, start_method=SERVER
    )  # fmt: skip
    assert time.monotonic() - began < 120
    assert len(told) == 1
    assert "starting all ranks again (1 of 2)" in told[0]
    assert load(tmp_path / "run").state == "finished"
    assert_same_losses(tmp_path / "run", tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["read", "written last"])
def test_a_rank_that_dies_at_a_checkpoint_is_started_again(
    configure: Configure, tmp_path: Path, when: str
):
    """The others find its connection closed; that is no statement about the checkpoint."""
    config = configure(**QUICK, parallel="fsdp")
    fit(config, tmp_path / "straight", device="cpu")
    if when == "read":
        with pytest.raises(StoppedError):
            fit(config, tmp_path / "run", device="cpu", progress=At(6, stop_this))
    told: list[str] = []
    arguments = (config.model_dump(mode="json"), str(tmp_path / "run"), when, str(tmp_path / "m"))
    launch.launch(
        2, die_at_a_checkpoint, *arguments, restarts=2, tell=told.append, start_method=SERVER
    )  # fmt: skip
    assert len(told) == 1
    assert load(tmp_path / "run").state == "finished"
    assert_same_losses(tmp_path / "run", tmp_path / "straight")


@pytest.mark.slow
def test_what_a_rank_states_is_not_tried_again(monkeypatch: pytest.MonkeyPatch):
    """And it is told, whatever the others died of for want of it; no folder is left behind."""
    told: list[str] = []
    made: list[str] = []
    make = tempfile.mkdtemp

    def noted(*arguments: str | None, **options: str) -> str:
        made.append(make(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", noted)
    with pytest.raises(SherlockError, match="rank 1: the moon is full"):
        launch.launch(
            2, fail_as_rank, "the moon is full", restarts=5, tell=told.append, start_method=SERVER
        )  # fmt: skip
    assert told == []
    assert made
    # the server that ranks part from has its socket in one until the end
    assert not [folder for folder in made if Path(folder).exists() and "pymp-" not in folder]


class TestTakingUp:
    """A rank that torchrun or SLURM started again goes on by itself."""

    @pytest.mark.parametrize("name", launch.RESTARTS)
    def test_a_launcher_says_so(self, monkeypatch: pytest.MonkeyPatch, name: str):
        for other in launch.RESTARTS:
            monkeypatch.delenv(other, raising=False)
        assert not launch.restarted()
        monkeypatch.setenv(name, "0")
        assert not launch.restarted()
        monkeypatch.setenv(name, "1")
        assert launch.restarted()

    def test_it_goes_on_with_this_very_run(self, configure: Configure, tmp_path: Path):
        config = configure(**QUICK)
        fit(config, tmp_path / "straight")
        with pytest.raises(StoppedError):
            fit(config, tmp_path / "run", progress=At(6, stop_this))
        fit(config.model_copy(update={"recompute": True}), tmp_path / "run", again=True)
        assert_same_losses(tmp_path / "run", tmp_path / "straight")

    def test_another_run_is_refused(self, configure: Configure, tmp_path: Path):
        fit(configure(**QUICK), tmp_path / "run")
        other = configure(**{**QUICK, "seed": 1, "batch_size": 8})
        with pytest.raises(ConfigError, match="holds another run: batch_size, seed"):
            fit(other, tmp_path / "run", again=True)

    @pytest.mark.parametrize("again", [True, False])
    def test_one_that_died_before_it_began_begins(
        self, configure: Configure, tmp_path: Path, again: bool
    ):
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        (tmp_path / "run" / "fitted.safetensors").write_bytes(b"cut")
        (tmp_path / "run" / ".config.yaml.123").write_bytes(b"cut")
        run = fit(configure(**QUICK), tmp_path / "run", again=again)
        assert run.state == "finished"

    def test_what_is_not_a_run_of_ours_stays(self, configure: Configure, tmp_path: Path):
        there = [tmp_path / "thesis.txt", tmp_path / "fitted.safetensors"]
        for file in there:
            file.touch()
        with pytest.raises(ConfigError, match="not empty"):
            fit(configure(**QUICK), tmp_path, again=True)
        assert all(file.exists() for file in there)


FULL = """
import resource, sys, time
import torch
torch.set_num_threads(1)
from pathlib import Path
from sherlock_data.errors import SherlockError
from sherlock_models.config import load_config
from sherlock_models.training.train import Silent, fit

class Fills(Silent):
    def step(self, step, values, rate):
        if step == 6:  # from here on no file may grow beyond a kilobyte, as on a full disk
            import signal
            before = Path(sys.argv[2], "checkpoints", "step-4")
            while not before.exists():  # written beside the training
                time.sleep(0.01)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)

try:
    fit(load_config(Path(sys.argv[1])), sys.argv[2], progress=Fills(), device="cpu")
except SherlockError as error:
    sys.exit(f"error: {error}")
"""


class TestWalls:
    """Each is one clear line, and the checkpoint before it is whole."""

    @pytest.fixture
    def straight(self, configure: Configure, tmp_path: Path) -> RunConfig:
        config = configure(**QUICK)
        fit(config, tmp_path / "straight")
        return config

    @pytest.mark.slow
    def test_a_full_disk(self, straight: RunConfig, tmp_path: Path):
        document = load(tmp_path / "straight").config
        document.save(tmp_path / "config.yaml")
        limit = (tmp_path / "straight" / "metrics.jsonl").stat().st_size * 4
        largest = max(p.stat().st_size for p in (tmp_path / "straight").rglob("*.safetensors"))
        assert limit < largest, "shards do not fit, lines do"
        arguments = [str(tmp_path / "config.yaml"), str(tmp_path / "run"), str(limit)]
        ended = subprocess.run(
            [sys.executable, "-c", FULL, *arguments], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 1
        lines = [line for line in ended.stderr.splitlines() if "error:" in line]
        assert len(lines) == 1
        assert "step-8: cannot be written (" in lines[0]
        assert "make room, then --resume" in lines[0]
        folder = tmp_path / "run" / "checkpoints"
        assert checkpoint.find(folder, "last") == folder / "step-4"
        assert sorted(p.name for p in folder.iterdir()) == ["index.json", "step-4"]
        fit(straight, tmp_path / "run", resume=True)
        assert_same_losses(tmp_path / "run", tmp_path / "straight")

    def test_the_run_s_folder_deleted(self, configure: Configure, tmp_path: Path):
        gone = At(2, lambda: shutil.rmtree(tmp_path / "run" / "checkpoints"))
        with pytest.raises(SherlockError, match="cannot be written"):
            fit(configure(**QUICK), tmp_path / "run", progress=gone)

    def test_a_store_deleted_before_it_goes_on(
        self, configure: Configure, make_stores: Callable[..., Path], tmp_path: Path
    ):
        config = configure(data=make_stores(tmp_path / "data"), **QUICK)
        with pytest.raises(StoppedError):
            fit(config, tmp_path / "run", progress=At(6, stop_this))
        shutil.rmtree(Path(config.data) / "parcels.zarr")
        with pytest.raises(SherlockError, match="no complete store 'parcels'") as caught:
            fit(load(tmp_path / "run").config, tmp_path / "run", resume=True)
        assert "\n" not in str(caught.value)
        # asked during step 6, answered behind the next
        assert checkpoint.read_index(tmp_path / "run" / "checkpoints").last == 7

    def test_a_store_deleted_while_it_is_streamed(
        self, configure: Configure, make_stores: Callable[..., Path], tmp_path: Path
    ):
        data = make_stores(tmp_path / "data")
        config = configure(
            data=data, brain="voxels", placement="stream", buffer_gb=1e-5, epochs=40, steps=200,
            batch_size=16, validate_every=4,
        )  # fmt: skip
        gone = At(6, lambda: shutil.rmtree(data / "voxels.zarr"))
        with pytest.raises(SherlockError) as caught:
            fit(config, tmp_path / "run", progress=gone)
        assert "voxels.zarr" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert checkpoint.read_index(tmp_path / "run" / "checkpoints").last is not None

    def test_nan_planted_in_the_sound_is_not_trained_on(
        self, configure: Configure, make_stores: Callable[..., Path], tmp_path: Path
    ):
        """A TR whose sound is no number is no sample; a loss that is none stops the run anyway."""
        data = make_stores(tmp_path / "data")
        before = trained_trs(configure(data=data))
        store = xr.open_zarr(data / "stimulus.zarr").load()
        store.audio_bands.values[before[3]] = np.nan
        for variable in store.variables.values():
            variable.encoding = {}
        store.to_zarr(data / "stimulus.zarr", mode="w", zarr_format=3, consolidated=True)
        assert before[3] not in trained_trs(configure(data=data))


def trained_trs(config: RunConfig) -> NDArray[np.int64]:
    from sherlock_models.feeding.loading import load_data

    return load_data(config).split.train
