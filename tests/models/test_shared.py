"""Shared memory: one copy of the data per machine, and nothing left of it however a rank ends."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sherlock_data.errors import ConfigError, SherlockError
from sherlock_models import parallel
from sherlock_models.config import RunConfig
from sherlock_models.feeding import shared
from sherlock_models.feeding.loading import load_data
from sherlock_models.feeding.placement import Room, choose
from sherlock_models.feeding.shared import Machine
from sherlock_models.training import launch

pytestmark = pytest.mark.skipif(not shared.available(), reason="no memfd on this system")

Configure = Callable[..., RunConfig]
RANKS = 4
#: copies of every voxel of the toy store: 3 x 160 x 54,000 float32, 105 MB, far more than the
#: modules that a rank imports while it loads
COPIES = 1800


def tables() -> dict[str, torch.Tensor]:
    return {
        "bold": torch.arange(24.0).view(2, 3, 4),
        "present": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
    }


class TestOneRank:
    def test_what_is_held_is_what_was_read(self):
        with parallel.world("cpu") as world:
            machine = Machine(world)
            assert machine.leads
            held = machine.hold(tables)
        for name, expected in tables().items():
            assert held[name].dtype == expected.dtype
            assert torch.equal(held[name], expected)

    def test_what_was_made_there_is_not_copied(self):
        with parallel.world("cpu") as world:
            machine = Machine(world)
            made: list[torch.Tensor] = []

            def read() -> dict[str, torch.Tensor]:
                made.append(machine.empty((5, 7)).fill_(3))
                return {"bold": made[0]}

            assert machine.hold(read)["bold"].data_ptr() == made[0].data_ptr()

    def test_memory_that_is_not_there_is_not_asked_for(self, monkeypatch: pytest.MonkeyPatch):
        """The system would hand out page after page until it kills processes for want of one."""
        monkeypatch.setattr(shared, "free_memory", lambda: 99)
        with parallel.world("cpu") as world, pytest.raises(ConfigError, match="more than is free"):
            Machine(world).empty((25,))


@pytest.fixture
def wide(make_stores: Callable[..., Path], tmp_path: Path) -> Path:
    """A dataset folder whose voxels store is large enough to be seen in a process's memory."""
    folder = make_stores(tmp_path / "wide")
    store = xr.open_zarr(folder / "voxels.zarr").load()
    voxels = np.tile(np.arange(store.sizes["voxel"]), COPIES)
    large = store.isel(voxel=voxels).assign_coords(voxel=np.arange(len(voxels)))
    for variable in large.variables.values():
        variable.encoding = {}
    large.to_zarr(folder / "voxels.zarr", mode="w", zarr_format=3, consolidated=True)
    return folder


def large_files() -> set[str]:
    """Files of named shared memory that could hold the tables."""
    there = Path("/dev/shm").glob("*")  # noqa: S108
    return {path.name for path in there if path.stat().st_size > 1_000_000}


def shared_bytes() -> dict[str, int]:
    """Resident and proportional bytes of this process's shared tables, and its own memory's."""
    text = Path("/proc/self/smaps").read_text(encoding="utf-8")
    found = {"Rss": 0, "Pss": 0}
    for mapping in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text):
        if "memfd:sherlock-models" in mapping.partition("\n")[0]:
            for key in found:
                match = re.search(rf"^{key}:\s+(\d+) kB", mapping, re.MULTILINE)
                found[key] += 1024 * int(match[1]) if match else 0
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    match = re.search(r"^Pss_Anon:\s+(\d+) kB", rollup, re.MULTILINE)
    return {**found, "own": 1024 * int(match[1]) if match else 0}


def measure_as_rank(document: dict[str, object], out: str) -> None:
    torch.set_num_threads(1)
    with parallel.world("cpu") as world:
        before = shared_bytes()["own"]
        data = load_data(RunConfig.model_validate(document), world)
        brains = data.brains
        tables = [brains.raw, brains.mean, brains.inverse_std, brains.signal]
        tables += [table.values for table in data.tables.values()]
        # every page is touched: 1,024 numbers of up to 4 bytes are at most one
        total = sum(float(table.flatten()[::1024].sum()) for table in tables)
        world.barrier()
        found = shared_bytes()
        world.barrier()
        report = {**found, "grown": found["own"] - before, "bytes": data.nbytes, "total": total}
        report["leads"] = world.main
        Path(out, f"{world.rank}.json").write_text(json.dumps(report), encoding="utf-8")


@pytest.mark.slow
def test_four_ranks_hold_one_copy(configure: Configure, wide: Path, tmp_path: Path):
    config = configure(data=wide, brain="voxels", placement="shared")
    before = large_files()
    launch.launch(RANKS, measure_as_rank, config.model_dump(mode="json"), str(tmp_path))
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(RANKS)]
    nbytes = ranks[0]["bytes"]
    assert len({rank["total"] for rank in ranks}) == 1
    for rank in ranks:
        assert rank["Rss"] >= nbytes, "every rank sees all of it"
        if not rank["leads"]:
            assert rank["grown"] < nbytes / 2, "and has no copy of its own"
    # each page counts 1/4 in each of four ranks: together, once
    assert sum(rank["Pss"] for rank in ranks) == pytest.approx(nbytes, rel=0.1)
    assert large_files() <= before


def die_as_rank(document: dict[str, object], who: int, when: str) -> None:
    torch.set_num_threads(1)

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with parallel.world("cpu") as world:
        if world.rank == who and when == "while reading":
            shared.Machine._placed = die  # type: ignore[assignment,method-assign]
        load_data(RunConfig.model_validate(document), world)
        if world.rank == who:
            die()
        world.barrier()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "when"),
    [
        pytest.param(0, "while reading", id="the one that reads"),
        pytest.param(1, "while training", id="one that only looks"),
    ],
)
def test_nothing_is_left_when_a_rank_is_killed(
    configure: Configure, wide: Path, who: int, when: str
):
    config = configure(data=wide, brain="voxels", placement="shared")
    before = large_files()
    with pytest.raises(SherlockError):
        launch.launch(2, die_as_rank, config.model_dump(mode="json"), who, when)
    assert large_files() <= before


def test_without_such_memory_it_is_an_error_and_auto_does_without(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(shared, "available", lambda: False)
    with parallel.world("cpu") as world, pytest.raises(ConfigError, match="placement=stream"):
        Machine(world)
    assert choose("auto", 10, Room(1000, 1000, ranks=4, gpu=False)).kind == "device"
