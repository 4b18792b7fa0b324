"""A build on a dask cluster of processes over TCP: workers die on the way, values do not change."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from distributed import LocalCluster
from sherlock_cli.data import main

from sherlock_data import contract, store
from sherlock_data.build import Options, build
from sherlock_data.errors import InputError, SherlockError
from sherlock_data.graph import Silent, run_parts
from sherlock_data.plan import ArraySpec, StorePlan
from sherlock_data.verify import verify


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes of one thread each; a nanny starts those anew that die."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, protocol="tcp"
    ) as made:
        assert made.scheduler_address.startswith("tcp://")
        yield made
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class Dies:
    """Writes its row; before that, the first ``deaths`` times, it kills the process it is in."""

    name: str
    row: int
    deaths: int = 0
    weight: float = 1.0

    def run(self, path, report):
        died = Path(f"{path}.{self.name}.deaths")
        so_far = len(died.read_text()) if died.exists() else 0
        view = store.open_array(path, "a")
        if so_far < self.deaths:
            died.write_text("x" * (so_far + 1))
            view[self.row] = -1.0
            os.kill(os.getpid(), signal.SIGKILL)
        view[self.row] = float(self.row)
        return {}


@dataclass(frozen=True)
class Fails:
    """Finds its input damaged."""

    name: str = "fails"
    weight: float = 1.0

    def run(self, path, report):
        raise InputError("is damaged", where="s1.nii.gz", remedy="fetch it again")


def plan(path, parts, after=None):
    spec = ArraySpec(dims=("row", "time"), shape=(8, 4), dtype="float32", chunks=(1, 4))
    attrs = contract.store_attrs(
        dataset="toy", store="toy", recipe={}, space="native", repetition_time_s=1.5, lag_s=0.0
    )
    finish = lambda results: xr.Dataset()  # noqa: E731
    return StorePlan(
        path, {**attrs, "runs": []}, [], xr.Dataset(), {"a": spec}, parts, finish, after or {}
    )


def test_parts_of_a_killed_worker_are_done_by_another(cluster, tmp_path):
    parts = [Dies(f"part-{row}", row, deaths=int(row in (1, 5))) for row in range(8)]
    made = plan(tmp_path / "toy.zarr", parts, {"part-7": ("part-1", "part-5")})
    store.begin(made)
    results = run_parts("toy", made, Silent(), cluster.scheduler_address)
    store.complete(made, results, [])
    assert len(list(tmp_path.glob("*.deaths"))) == 2
    assert verify(made.path) == []
    assert store.open_store(made.path).a.values[:, 0].tolist() == list(range(8))


@pytest.mark.slow
def test_a_part_that_takes_every_worker_down_is_one_line(cluster, tmp_path):
    made = plan(tmp_path / "toy.zarr", [Dies("greedy", 0, deaths=99)])
    store.begin(made)
    with pytest.raises(SherlockError, match=r"took its worker down.*greedy|_run_part.*memory"):
        run_parts("toy", made, Silent(), cluster.scheduler_address)
    assert store.state(made.path) == "resumable"


def test_a_failure_comes_home_as_it_is(cluster, tmp_path):
    made = plan(tmp_path / "toy.zarr", [Fails(), *[Dies(f"part-{r}", r) for r in range(8)]])
    store.begin(made)
    with pytest.raises(InputError, match=r"^s1\.nii\.gz: is damaged; fetch it again$"):
        run_parts("toy", made, Silent(), cluster.scheduler_address)


def kill_one_worker(cluster, path):
    """Kill a worker as soon as a build has begun."""
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.002)
    victim = next(iter(cluster.workers.values()))
    os.kill(victim.pid, signal.SIGKILL)


def test_a_dataset_built_while_workers_die_is_the_same(cluster, dataset, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(1, 7):
        values = rng.normal(1000, 30, size=(12, 11, 10, 60)).astype("f4")
        dataset.write(f"s{number}.nii.gz", values)
    right = dataset.build("volumes", "voxels").load()
    volumes = dataset.open("volumes").load()
    out = tmp_path / "cluster"
    killer = threading.Thread(
        target=kill_one_worker, args=(cluster, out / "tiny" / "volumes.zarr.build" / "plan.json")
    )
    killer.start()
    options = Options(scheduler=cluster.scheduler_address)
    outcomes = build(dataset.scan(), dataset.catalog(), out, ["volumes", "voxels"], options)
    killer.join()
    assert [outcome.status for outcome in outcomes] == ["built", "built"]
    assert verify(out / "tiny") == []
    xr.testing.assert_identical(store.open_store(out / "tiny" / "voxels.zarr").load(), right)
    xr.testing.assert_identical(store.open_store(out / "tiny" / "volumes.zarr").load(), volumes)
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("closed", id="closed-port"),
        pytest.param("tcp://127.0.0.1", id="no-port"),
        pytest.param("nonsense", id="no-address"),
        pytest.param("tcp://no-such-host.invalid:8786", id="no-such-host"),
    ],
)
def test_an_address_that_does_not_answer_is_one_prompt_line(dataset, series, address):
    if address == "closed":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    dataset.write("s1.nii.gz", series[0])
    dataset.catalog()
    command = ["build", "tiny", "volumes", "--catalog", str(dataset.raw / "catalog.yaml")]
    done = CliRunner().invoke(main, [*command, "--out", str(dataset.out), "--scheduler", address])
    assert done.exit_code == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {address}: no dask scheduler answers"), done.stderr
    assert "check --scheduler" in last
    assert not dataset.out.exists()
