"""The parts of a build: at once where they can be, one behind another where they must."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
import xarray as xr

from sherlock_data import store
from sherlock_data.graph import Silent, run_parts
from sherlock_data.plan import StorePlan

LOCK = threading.Lock()


@dataclass
class Noting:
    """A part that notes when it begins and ends."""

    name: str
    log: list[str] = field(default_factory=list)
    weight: float = 1.0

    def run(self, path, report):
        with LOCK:
            self.log.append(f"{self.name} begins")
        time.sleep(0.05)
        with LOCK:
            self.log.append(f"{self.name} ends")
        return {"name": np.array(self.name)}


def plan(path, log, names, after):
    parts = [Noting(name, log) for name in names]
    return StorePlan(path, {}, [], xr.Dataset(), {}, parts, lambda found: xr.Dataset(), after)


@pytest.mark.parametrize(
    ("names", "after"),
    [
        pytest.param(["fit", "one", "two"], {"one": ("fit",), "two": ("fit",)}, id="listed first"),
        pytest.param(["two", "one", "fit"], {"one": ("fit",), "two": ("fit",)}, id="listed last"),
        pytest.param(["two", "one", "fit"], {"one": ("fit",), "two": ("one",)}, id="a chain"),
    ],
)
def test_a_part_begins_when_those_it_waits_for_have_ended(tmp_path, names, after):
    log: list[str] = []
    found = run_parts("toy", plan(tmp_path / "toy.zarr", log, names, after), Silent(), workers=3)
    assert set(found) == set(names)
    for name, others in after.items():
        for other in others:
            assert log.index(f"{other} ends") < log.index(f"{name} begins")


def test_a_finished_part_is_not_waited_for_again(tmp_path):
    path, log = tmp_path / "toy.zarr", []
    store.save_part(path, "fit", {"name": np.array("fit")})
    run_parts("toy", plan(path, log, ["fit", "one"], {"one": ("fit",)}), Silent(), workers=1)
    assert log == ["one begins", "one ends"]


def test_parts_that_wait_for_nothing_run_at_once(tmp_path):
    log: list[str] = []
    run_parts("toy", plan(tmp_path / "toy.zarr", log, ["one", "two"], {}), Silent(), workers=2)
    assert {entry.split()[1] for entry in log[:2]} == {"begins"}
