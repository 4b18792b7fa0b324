"""Checkpoints: whole or absent, on any number of ranks, and never unpickled."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from sherlock_models import checkpoint, parallel
from sherlock_models.checkpoint import CheckpointError
from sherlock_models.parallel import World


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


def trainer(world: World, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = world.shard(Small(), "fp32")  # type: ignore[arg-type]
    return model, torch.optim.AdamW(model.parameters(), 1e-2, fused=True)


def walk(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> float:
    loss = torch.zeros(())
    for _ in range(steps):
        loss = model(torch.ones(2, 5)).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


def write(folder: Path, world: World, step: int = 3, **options: float) -> nn.Module:
    model, optimizer = trainer(world)
    walk(model, optimizer, step)
    extra = {"variance": torch.full((4,), 2.0)}
    checkpoint.save(folder, step, model, optimizer, extra, world, **options)
    return model


def test_going_on_equals_never_having_stopped(world: World, tmp_path: Path):
    model, optimizer = trainer(world)
    straight = walk(model, optimizer, 5)
    write(tmp_path, world)
    model, optimizer = trainer(world, seed=9)
    extra = {"variance": torch.zeros(4)}
    done = checkpoint.load(tmp_path / "step-3", model, optimizer, extra)
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


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(lambda f: f.write_bytes(f.read_bytes()[:100]), "damaged", id="cut short"),
        pytest.param(lambda f: f.write_bytes(b""), "damaged", id="empty"),
        pytest.param(Path.unlink, "damaged", id="missing"),
    ],
)
def test_damage_is_one_clear_line(tmp_path: Path, damage, says: str):
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

    monkeypatch.setattr(checkpoint, "save_shards", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write(tmp_path, world, 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.json", "step-2"]
    assert checkpoint.find(tmp_path, "last") == tmp_path / "step-2"


def test_a_run_without_one_says_so(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        checkpoint.find(tmp_path, "best")


def save_as_rank(folder: str) -> None:
    with parallel.world("cpu") as world:
        write(Path(folder), world)


def load_as_rank(folder: str, expected: float) -> None:
    with parallel.world("cpu") as world:
        model, optimizer = trainer(world, seed=9)
        checkpoint.load(Path(folder), model, optimizer, {"variance": torch.zeros(4)})
        found = walk(model, optimizer, 2)
        if abs(found - expected) > 1e-6:
            raise ValueError(f"{found} is not {expected}")


@pytest.mark.slow
def test_saved_on_two_ranks_resumed_on_one_and_on_three(tmp_path: Path):
    with parallel.world("cpu") as world:
        expected = walk(*trainer(world), 5)
    parallel.launch(2, save_as_rank, str(tmp_path))
    assert len(list((tmp_path / "step-3").glob("*.safetensors"))) == 2
    load_as_rank(str(tmp_path / "step-3"), expected)
    parallel.launch(3, load_as_rank, str(tmp_path / "step-3"), expected)
