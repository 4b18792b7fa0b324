"""Checkpoints: whole or absent, on any number of ranks, and never unpickled."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sherlock_models import parallel
from sherlock_models.config import RunConfig
from sherlock_models.parallel import World
from sherlock_models.training import checkpoint, launch, saving, sharding
from sherlock_models.training.checkpoint import CheckpointError
from sherlock_models.training.saving import Saver


@pytest.fixture
def world() -> Iterator[World]:
    with parallel.world("cpu") as alone:
        yield alone


class Small(nn.Sequential):
    """Two dense layers: 3 and 7 rows, which no two ranks share evenly."""

    def __init__(self, outputs: int = 7) -> None:
        super().__init__(nn.Linear(5, 3), nn.Linear(3, outputs))

    def blocks(self) -> list[nn.Module]:
        return list(self)

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self[0](values)
        return found


def trainer(world: World, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Sharded where there are several ranks."""
    torch.manual_seed(seed)
    config = RunConfig(
        entry="", architecture="", brain="", stimulus=("video",), data="", parallel="fsdp"
    )
    chosen = sharding.choose(config, 0, world)
    model = sharding.place(Small, 0, config, chosen, world)  # type: ignore[arg-type]
    return model, torch.optim.AdamW(model.parameters(), 1e-2, fused=True)


def walk(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> float:
    loss = torch.zeros(())
    for _ in range(steps):
        loss = model(torch.ones(2, 5)).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


def write(
    folder: Path, world: World, step: int = 3, keep: int = 1, better: float | None = None
) -> nn.Module:
    model, optimizer = trainer(world)
    walk(model, optimizer, step)
    extra = {"variance": torch.full((4,), 2.0)}
    saver = Saver(world, keep)
    saver.save(folder, step, model, optimizer, extra, better=better)
    saver.wait()
    return model


def test_going_on_equals_never_having_stopped(world: World, tmp_path: Path):
    model, optimizer = trainer(world)
    straight = walk(model, optimizer, 5)
    write(tmp_path, world)
    model, optimizer = trainer(world, seed=9)
    extra = {"variance": torch.zeros(4)}
    done = checkpoint.load(tmp_path / "step-3", model, optimizer, extra, world)
    assert done == 3
    assert extra["variance"].tolist() == [2, 2, 2, 2]
    assert walk(model, optimizer, 2) == straight


def test_best_and_last_are_different_names(world: World, tmp_path: Path):
    write(tmp_path, world, 2, better=0.5)
    write(tmp_path, world, 4)
    assert checkpoint.find(tmp_path, "best") == tmp_path / "step-2"
    assert checkpoint.find(tmp_path, "last") == tmp_path / "step-4"
    assert checkpoint.read_index(tmp_path).best_loss == 0.5


def test_old_ones_are_thinned_out_but_never_best_or_last(world: World, tmp_path: Path):
    write(tmp_path, world, 1, better=0.5)
    for step in range(2, 7):
        write(tmp_path, world, step, keep=2)
    left = sorted(p.name for p in tmp_path.glob("step-*"))
    assert left == ["step-1", "step-4", "step-5", "step-6"]


def test_the_model_alone_is_read_without_a_process_group(tmp_path: Path):
    with parallel.world("cpu") as world:
        trained = write(tmp_path, world)
    model = Small()
    checkpoint.load_model(tmp_path / "step-3", model)
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)


class Malice:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def test_a_planted_pickle_is_refused_and_never_run(tmp_path: Path):
    mark = tmp_path / "ran"
    assert (pickle.loads(pickle.dumps(Malice(mark))), mark.exists()) == (None, True)  # noqa: S301
    mark.unlink()
    with parallel.world("cpu") as world:
        write(tmp_path, world)
    (tmp_path / "step-3" / ".metadata").write_bytes(pickle.dumps(Malice(mark)))
    with pytest.raises(CheckpointError, match=r"\.metadata, which is no safetensors"):
        checkpoint.load_model(tmp_path / "step-3", Small())
    assert not mark.exists()


def flip_last(file: Path) -> None:
    """One bit of the last number: safetensors itself would read it."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(flip_last, "the bytes of .* are not those that were written", id="a bit"),
        pytest.param(lambda f: f.write_bytes(f.read_bytes()[:100]), "are not those", id="cut"),
        pytest.param(lambda f: f.write_bytes(b""), "are not those", id="empty"),
        pytest.param(Path.unlink, "lacks ", id="missing"),
        pytest.param(
            lambda f: (f.parent / "more.safetensors").touch(), "was not written with", id="one more"
        ),
        pytest.param(lambda f: (f.parent / "step.json").unlink(), r"no step\.json", id="no step"),
        pytest.param(
            lambda f: (f.parent / "step.json").write_text('{"step": 3}'), r"no step\.json",
            id="no checksums",
        ),
    ],
)  # fmt: skip
def test_damage_is_one_clear_line(tmp_path: Path, damage: Callable[[Path], None], says: str):
    with parallel.world("cpu") as world:
        write(tmp_path, world)
    damage(next((tmp_path / "step-3").glob("*.safetensors")))
    with pytest.raises(CheckpointError, match=says) as caught:
        checkpoint.load_model(tmp_path / "step-3", Small())
    assert "\n" not in str(caught.value)


def test_another_model_is_refused(tmp_path: Path):
    with parallel.world("cpu") as world:
        write(tmp_path, world)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        checkpoint.load_model(tmp_path / "step-3", Small(outputs=8))


def test_a_failed_save_leaves_the_one_before(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path, world, 2)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving.HuggingFaceStorageWriter, "write_data", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write(tmp_path, world, 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.json", "step-2"]
    assert checkpoint.find(tmp_path, "last") == tmp_path / "step-2"


def test_the_steps_go_on_while_it_is_written(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is written is what was there at the call, and it is absent until it is whole."""
    model, optimizer = trainer(world)
    walk(model, optimizer, 3)
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    go, write_data = threading.Event(), saving.HuggingFaceStorageWriter.write_data

    def slowly(self: Any, *arguments: Any) -> Any:
        go.wait(60)
        return write_data(self, *arguments)

    monkeypatch.setattr(saving.HuggingFaceStorageWriter, "write_data", slowly)
    saver, extra = Saver(world), {"variance": torch.ones(4)}
    saver.save(tmp_path, 3, model, optimizer, extra)
    walk(model, optimizer, 5)
    extra["variance"].zero_()
    assert checkpoint.read_index(tmp_path).last is None
    assert not (tmp_path / "step-3").exists()
    go.set()
    saver.wait()
    other, other_optimizer = trainer(world, seed=9)
    extra = {"variance": torch.zeros(4)}
    checkpoint.load(tmp_path / "step-3", other, other_optimizer, extra, world)
    assert extra["variance"].tolist() == [1, 1, 1, 1]
    for name, value in other.state_dict().items():
        assert torch.equal(value, saved[name])
    for state, expected in zip(other_optimizer.state.values(), moments, strict=True):
        assert torch.equal(state["exp_avg"], expected)


def test_without_room_for_a_copy_the_steps_wait(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(saving, "free_memory", lambda: 99)
    monkeypatch.setattr(saving, "async_save", None)
    write(tmp_path, world)
    assert checkpoint.find(tmp_path, "last") == tmp_path / "step-3"


def test_a_run_without_one_says_so(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        checkpoint.find(tmp_path, "best")


def save_as_rank(folder: str) -> None:
    with parallel.world("cpu") as world:
        write(Path(folder), world)


def load_as_rank(folder: str, expected: float) -> None:
    with parallel.world("cpu") as world:
        model, optimizer = trainer(world, seed=9)
        checkpoint.load(Path(folder), model, optimizer, {"variance": torch.zeros(4)}, world)
        found = walk(model, optimizer, 2)
        if abs(found - expected) > 1e-6:
            raise ValueError(f"{found} is not {expected}")


@pytest.mark.slow
def test_saved_on_two_ranks_resumed_on_one_and_on_three(tmp_path: Path):
    with parallel.world("cpu") as world:
        expected = walk(*trainer(world), 5)
    launch.launch(2, save_as_rank, str(tmp_path))
    assert len(list((tmp_path / "step-3").glob("*.safetensors"))) == 2
    load_as_rank(str(tmp_path / "step-3"), expected)
    launch.launch(3, load_as_rank, str(tmp_path / "step-3"), expected)
