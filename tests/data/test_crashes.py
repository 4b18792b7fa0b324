"""What killed builds leave is never taken for a store, and is gone when the store is whole."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sherlock_data import contract, repair, store
from sherlock_data.build import Options, build
from sherlock_data.errors import StoreError
from sherlock_data.graph import Silent, run_parts
from sherlock_data.verify import examine, verify

HARNESS = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_builds.py"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_builds_killed_at_random_instants_leave_no_trace():
    done = subprocess.run(
        [sys.executable, str(HARNESS), "--count", "5", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["trials"] == 5
    assert found["kills"] > 0
    for key in ("failed", "half_built", "wrong_values", "leftovers"):
        assert found[key] == 0


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param("bold/c/0/0/0/0/0.f00d.partial", id="chunk-being-written"),
        pytest.param("valid/c/0/0", id="small-variable"),
        pytest.param("valid/zarr.json", id="damaged-metadata-of-a-small-variable"),
        pytest.param("manifest.json", id="manifest"),
        pytest.param(".parts/sub-01.npz", id="record"),
        pytest.param("zarr.f00d.partial", id="root-being-written"),
    ],
)
def test_a_resumed_build_leaves_nothing_over(dataset, series, monkeypatch, rest):
    from sherlock_data.representations.volumes import VolumesPart

    dataset.write("s1.nii.gz", series[0])
    dataset.write("s2.nii.gz", series[1])
    dataset.build("volumes")
    whole = files(dataset.path("volumes"))
    store.remove(dataset.path("volumes"))
    right = VolumesPart.run

    def dies(self, path, report):
        if self.name == "sub-02":
            raise KeyboardInterrupt
        return right(self, path, report)

    monkeypatch.setattr(VolumesPart, "run", dies)
    with pytest.raises(KeyboardInterrupt):
        dataset.build("volumes")
    monkeypatch.setattr(VolumesPart, "run", right)
    left = dataset.path("volumes") / rest
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"?")
    dataset.build("volumes")
    assert files(dataset.path("volumes")) == whole
    assert verify(dataset.path("volumes")) == []


def test_a_build_killed_just_after_completion_is_tidied_by_the_next(dataset, series):
    dataset.write("s1.nii.gz", series[0])
    dataset.build("volumes")
    before = files(dataset.out)
    path = dataset.path("volumes")
    store.write_bytes(store.build_place(path), "plan.json", b"{}")
    (path / "input-times.f00d.partial").write_bytes(b"?")
    path.with_name("volumes.zarr.lock").write_bytes(b"")
    (outcome,) = build(dataset.scan(), dataset.catalog(), dataset.out, ["volumes"], Options())
    assert outcome.status == "up to date"
    assert files(dataset.out) == before


@dataclass(frozen=True)
class Writes:
    """Adds 1 to another array's values, or to 0."""

    name: str
    reads: str | None = None
    weight: float = 1.0

    def run(self, path, report):
        before = 0 if self.reads is None else store.open_array(path, self.reads, "r")[:]
        store.open_array(path, self.name)[:] = np.full(4, 1.0, "f4") + before
        return {}


def chain(path: Path) -> store.StorePlan:
    """Three parts, of which each reads what the one before it wrote; and one apart."""
    spec = store.ArraySpec(dims=("time",), shape=(4,), dtype="float32", chunks=(4,))
    attrs = contract.store_attrs(
        dataset="toy", store="toy", recipe={}, space="native", repetition_time_s=1.5, lag_s=0.0
    )
    return store.StorePlan(
        path=path,
        attrs={**attrs, "runs": []},
        inputs=[],
        coords=xr.Dataset(),
        arrays=dict.fromkeys("abcd", spec),
        parts=[Writes("a"), Writes("b", "a"), Writes("c", "b"), Writes("d")],
        finish=lambda results: xr.Dataset(),
        after={"b": ("a",), "c": ("b",)},
    )


def build_chain(plan: store.StorePlan) -> None:
    store.begin(plan)
    store.complete(plan, run_parts("toy", plan, Silent()), [])


@pytest.mark.parametrize(
    ("damaged", "again"),
    [
        pytest.param("a/c/0", ["a", "b", "c"], id="first"),
        pytest.param("b/c/0", ["b", "c"], id="middle"),
        pytest.param(".parts/c.npz", ["c"], id="record-of-the-last"),
        pytest.param("d/c/0", ["d"], id="apart"),
        pytest.param("a/zarr.json", [], id="metadata"),
        pytest.param("manifest.json", [], id="manifest"),
    ],
)
def test_parts_that_read_a_damaged_part_are_done_again_too(tmp_path, damaged, again):
    path = tmp_path / "toy.zarr"
    build_chain(chain(path))
    before = files(path)
    (path / damaged).write_bytes(b"?")
    plan = chain(path)
    found = repair.dismantle(plan, examine(path))
    assert found == again
    build_chain(plan)
    assert files(path) == before
    assert store.open_store(path).c.values.tolist() == [3.0] * 4


def test_a_part_whose_record_is_lost_is_not_passed_over(tmp_path):
    plan = chain(tmp_path / "toy.zarr")
    store.begin(plan)
    results = run_parts("toy", plan, Silent())
    (tmp_path / "toy.zarr.build" / "b.npz").unlink()
    with pytest.raises(StoreError, match="part b is missing"):
        store.complete(plan, results, [])
    assert store.state(plan.path) == "resumable"
