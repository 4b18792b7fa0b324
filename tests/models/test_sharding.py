"""However a model lies on its ranks, it is the same training: twenty losses agree with one process.

One launch of ranks trains every case, since starting ranks takes far longer than the steps.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from sherlock_data.errors import ConfigError
from sherlock_models import parallel, zoo
from sherlock_models.config import RunConfig
from sherlock_models.feeding.loading import load_data
from sherlock_models.parallel import World
from sherlock_models.resolve import resolve
from sherlock_models.training import launch, sharding
from sherlock_models.training.train import settle
from sherlock_models.training.trainer import Trainer

Entries = dict[str, tuple[str, dict[str, Any]]]
Losses = dict[str, list[float]]
Configure = Callable[..., RunConfig]

STEPS = 20
#: a global batch that neither 2 x 3 micro-batches nor 4 ranks share evenly
BATCH = 10
DDP = {"parallel": "ddp"}
FSDP = {"parallel": "fsdp"}
HYBRID = {"parallel": "hybrid", "shard_ranks": 2}
#: on how many ranks, how the model lies on them
SPREADS = {
    "ddp on 2": (2, DDP),
    "fsdp on 2": (2, FSDP),
    "ddp on 4": (4, DDP),
    "fsdp on 4": (4, FSDP),
    "hybrid on 2 x 2": (4, HYBRID),
}
#: what saves memory, of one architecture
SAVERS = {
    "micro-batches": (2, {**FSDP, "accumulate": 3}),
    "micro-batches and replicas": (2, {**DDP, "accumulate": 3}),
    "micro-batches on 2 x 2": (4, {**HYBRID, "accumulate": 2}),
    "micro-batches of independent noise": (
        2,
        {**DDP, "accumulate": 2, "brain_noise": "independent"},
    ),
    "recomputed": (2, {**FSDP, "recompute": True}),
    "recomputed replicas": (2, {**DDP, "recompute": True}),
    "offloaded": (2, {**FSDP, "offload": True}),
    "all at once": (4, {**HYBRID, "offload": True, "recompute": True, "accumulate": 2}),
}
CASES = {
    **{
        f"{architecture}, {spread}": (architecture, ranks, options)
        for spread, (ranks, options) in SPREADS.items()
        for architecture in zoo.ARCHITECTURES
    },
    **{f"conv, {saver}": ("conv", ranks, options) for saver, (ranks, options) in SAVERS.items()},
}


def train(document: dict[str, Any], world: World) -> list[float]:
    """Losses of twenty steps."""
    config = RunConfig.model_validate(document)
    data = load_data(config, world)
    with closing(Trainer(settle(config, data), data, world)) as trainer:
        return [trainer.step(step)[0]["loss"] for step in range(STEPS)]


def train_as_rank(documents: dict[str, dict[str, Any]], out: str) -> None:
    torch.set_num_threads(1)
    with parallel.world("cpu") as world:
        losses = {name: train(document, world) for name, document in documents.items()}
        if world.main:
            Path(out).write_text(json.dumps(losses), encoding="utf-8")


def documents(stores: Path, of_each: Entries, ranks: int | None) -> dict[str, dict[str, Any]]:
    """Configurations of the cases for so many ranks; for one process, each once and plain."""
    found = {}
    for name, (architecture, wanted, options) in CASES.items():
        if ranks in (None, wanted):
            entry, small = of_each[architecture]
            noise = {key: value for key, value in options.items() if key == "brain_noise"}
            options = noise if ranks is None else options
            key = f"{architecture} {noise}" if ranks is None else name
            settings = {
                "steps": STEPS,
                "batch_size": BATCH,
                "learning_rate": 1e-4,
                **small,
                **options,
            }
            if key not in found:
                found[key] = resolve(entry, stores, options=settings).model_dump(mode="json")
    return found


@pytest.fixture(scope="module")
def alone(tiny_stores: Path, of_each: Entries) -> Losses:
    """Losses of one process."""
    with parallel.world("cpu") as world:
        plain = documents(tiny_stores, of_each, None)
        return {name: train(document, world) for name, document in plain.items()}


@pytest.fixture(scope="module")
def together(
    tiny_stores: Path, of_each: Entries, tmp_path_factory: pytest.TempPathFactory
) -> Losses:
    """Losses of every case."""
    multiprocessing.set_forkserver_preload(["sherlock_models.training.train"])
    losses: Losses = {}
    for ranks in (2, 4):
        out = tmp_path_factory.mktemp("losses") / "losses.json"
        cases = documents(tiny_stores, of_each, ranks)
        launch.launch(ranks, train_as_rank, cases, str(out), start_method="forkserver")
        losses |= json.loads(out.read_text(encoding="utf-8"))
    return losses


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_one_process(alone: Losses, together: Losses, case: str):
    architecture, _, options = CASES[case]
    noise = {key: value for key, value in options.items() if key == "brain_noise"}
    expected = alone[f"{architecture} {noise}"]
    assert len(expected) == STEPS
    assert together[case] == pytest.approx(expected, abs=1e-5)
    assert len(set(expected)) == STEPS, "the optimiser has moved the weights"


def train_in_turns(document: dict[str, Any], folder: str) -> None:
    """Train where the machine has no memory for two whole models; note when each was built."""
    torch.set_num_threads(1)
    sharding.free_memory = lambda: 0
    build, built = sharding._built, []

    def slowly(*arguments: Any) -> Any:
        began = time.monotonic()
        time.sleep(0.5)
        model = build(*arguments)
        built.append((began, time.monotonic()))
        return model

    sharding._built = slowly
    with parallel.world("cpu") as world:
        losses = train(document, world)
        told = {"built": built, "losses": losses}
        Path(folder, f"{world.rank}.json").write_text(json.dumps(told), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ranks_build_the_model_one_behind_the_other_where_memory_is_short(
    configure: Configure, tmp_path: Path
):
    config = configure(steps=STEPS, batch_size=BATCH, learning_rate=1e-4, parallel="fsdp")
    document = config.model_dump(mode="json")
    with parallel.world("cpu") as world:
        alone = train({**document, "parallel": "auto"}, world)
    launch.launch(3, train_in_turns, document, str(tmp_path), start_method="forkserver")
    told = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("?.json"))]
    assert [each["losses"] for each in told] == [pytest.approx(alone, abs=1e-5)] * 3
    turns = sorted(each["built"][0] for each in told)
    assert len(turns) == 3
    assert all(ended <= began for (_, ended), (began, _) in pairwise(turns))


@pytest.mark.parametrize("noise", ["residual", "independent", "0"])
def test_micro_batches_change_nothing_in_one_process(configure: Configure, noise: str):
    options = {"steps": STEPS, "batch_size": BATCH, "brain_noise": noise}
    with parallel.world("cpu") as world:
        whole, parts = (
            train(configure(**options, **micro).model_dump(mode="json"), world)
            for micro in ({}, {"accumulate": 3, "recompute": True})
        )
    assert parts == pytest.approx(whole, abs=1e-5)


class TestChoice:
    """What `auto` takes, from the memory that the tightest rank has free."""

    @pytest.mark.parametrize(
        ("ranks", "local", "options", "kind", "shards"),
        [
            pytest.param(1, 1, {}, "alone", 1, id="one rank"),
            pytest.param(1, 1, {"precision": "bf16"}, "fsdp", 1, id="one rank in bf16"),
            pytest.param(4, 4, {}, "ddp", 1, id="a replica fits"),
            pytest.param(4, 4, {"precision": "bf16"}, "fsdp", 4, id="bf16"),
            pytest.param(4, 4, {"offload": True}, "fsdp", 4, id="offloaded"),
            pytest.param(4, 4, {"parallel": "fsdp"}, "fsdp", 4, id="asked for shards"),
            pytest.param(8, 4, {"parallel": "hybrid"}, "hybrid", 4, id="a replica a machine"),
            pytest.param(
                8, 4, {"parallel": "hybrid", "shard_ranks": 2}, "hybrid", 2, id="of two ranks each"
            ),
        ],
    )
    def test_what_is_asked_for_and_what_fits(
        self, configure: Configure, ranks: int, local: int, options: dict[str, Any], kind: str,
        shards: int, monkeypatch: pytest.MonkeyPatch,
    ):  # fmt: skip
        monkeypatch.setattr(sharding, "_free", lambda world: 10**9)
        world = World(0, ranks, torch.device("cpu"), local=local)
        chosen = sharding.choose(configure(**options), 10**6, world)
        assert (chosen.kind, chosen.shards) == (kind, shards)

    @pytest.mark.parametrize(
        ("parameters", "ranks", "local", "kind"),
        [
            pytest.param(31_250_000, 8, 4, "ddp", id="0.5 of 1 GB a rank"),
            pytest.param(31_250_001, 8, 4, "hybrid", id="a little more: a machine's half"),
            pytest.param(31_250_001, 4, 4, "fsdp", id="on one machine there is but one replica"),
            pytest.param(125_000_001, 8, 4, "fsdp", id="more than half of a machine"),
        ],
    )
    def test_the_first_that_fits_says_why(
        self, configure: Configure, parameters: int, ranks: int, local: int, kind: str,
        monkeypatch: pytest.MonkeyPatch,
    ):  # fmt: skip
        monkeypatch.setattr(sharding, "_free", lambda world: 10**9)
        world = World(0, ranks, torch.device("cpu"), local=local)
        chosen = sharding.choose(configure(), parameters, world)
        assert chosen.kind == kind
        assert f"parallel {kind} (auto: " in str(chosen)
        assert " GB of weights, gradients and moments " in str(chosen)

    @pytest.mark.parametrize(
        ("parameters", "turns"),
        [
            pytest.param(31_250_000, 1, id="whole models of all ranks fit in half of what is free"),
            pytest.param(31_250_001, 4, id="they do not: a turn for each rank"),
        ],
    )
    def test_turns_of_building(self, parameters: int, turns: int, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(sharding, "free_memory", lambda: 10**9)
        monkeypatch.setattr(World, "gather", lambda self, rows, batch: rows)
        world = World(0, 4, torch.device("cpu"), local=4)
        assert sharding._turns(parameters, world) == turns

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            pytest.param(
                {"parallel": "hybrid", "shard_ranks": 3}, "3 ranks a replica do not divide 4",
                id="shards",
            ),
            pytest.param({"parallel": "ddp", "offload": True}, "for sharded models", id="offload"),
            pytest.param({"accumulate": 17, "batch_size": 64}, "17 micro-batches", id="too many"),
        ],
    )  # fmt: skip
    def test_what_does_not_go_together(
        self, configure: Configure, options: dict[str, Any], says: str
    ):
        world = World(0, 4, torch.device("cpu"), local=4)
        with pytest.raises(ConfigError, match=says):
            sharding.choose(configure(**options), 10**6, world)
