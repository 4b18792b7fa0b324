"""`sherlock-models plan` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result
from sherlock_cli.models import main

#: of DESIGN's zoo, at the first analysis's sizes
EXACT = {
    "conv-voxels": 119_032_335,
    "conv-pca": 78_763_059,
    "conv-parcels": 34_059_835,
    "dense-voxels": 1_059_259_540,
    "dense-voxels-slim": 576_849_540,
    "brain-compressor": 706_496_300,
    "dense-compressed": 1_014_878_240,
    "spatial-grid": 2_747_449_664,
}
#: bytes by which the process may grow while it plans 9 GB of weights or more
GROWTH = 300e6
#: prints by how many bytes the peak of a process grew over planning one entry
GROWTH_OF = """
import resource, sys
from click.testing import CliRunner
from sherlock_cli.models import main

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def call(*arguments):
    assert CliRunner().invoke(main, ["plan", *arguments, "--json"]).exit_code == 0

call("conv-parcels")  # the libraries, once
before = peak()
call(sys.argv[1])
print(peak() - before)
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["plan", *(str(argument) for argument in arguments)])


def rows(*arguments: object) -> dict[str, dict[str, Any]]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return {row["entry"]: row for row in json.loads(result.stdout)["rows"]}


@pytest.fixture(scope="module")
def everything() -> dict[str, dict[str, Any]]:
    return rows()


def test_parameters_are_exact_whole_numbers(everything: dict[str, dict[str, Any]]) -> None:
    found = {name: everything[name]["parameters"] for name in EXACT}
    assert found == EXACT
    assert all(type(count) is int for count in found.values())


def test_parts_add_up(everything: dict[str, dict[str, Any]]) -> None:
    for name, row in everything.items():
        if row["parameters"] is not None:
            assert sum(row["parts"].values()) == row["parameters"], name
            assert {"encoder.trunk", "encoder.head", "decoder"} <= row["parts"].keys(), name


def test_bytes_are_whole_numbers_and_add_up(everything: dict[str, dict[str, Any]]) -> None:
    row = everything["conv-voxels"]
    assert row["weights"] == row["gradients"] == 4 * row["parameters"]
    assert row["optimizer"] - 8 * row["parameters"] < 1000
    together = row["weights"] + row["gradients"] + row["optimizer"] + row["activations"]
    assert together - row["activations"] < row["peak"] <= together
    whole = ("weights", "gradients", "optimizer", "activations", "peak", "data", "flops")
    assert all(type(row[key]) is int for key in whole)


def test_what_only_a_store_can_tell_is_null(everything: dict[str, dict[str, Any]]) -> None:
    row = everything["conv-coarse"]
    assert row["parameters"] is None
    assert row["machines"] is None


def test_claims_stand_beside_what_is_computed(everything: dict[str, dict[str, Any]]) -> None:
    claims = {claim["what"]: claim for claim in everything["dense-voxels"]["claims"]}
    assert claims["parameters"]["claimed"] == "575 M"
    assert claims["parameters"]["computed"] == "1,059,259,540"
    assert claims["8 GPUs"]["claimed"] == "8 times faster"
    assert all(claim["why"] for claim in claims.values())


@pytest.mark.parametrize("entry", ["spatial-grid", "dense-compressed"])
def test_billions_of_parameters_are_planned_without_memory(entry: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH_OF, entry], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < GROWTH


def test_a_named_entry_on_named_machines() -> None:
    row = rows("conv-parcels", "--gpu", "a6000", "--gpu", "h100", "--gpus", 8, "--batch-size", 64)
    machines = {m["machine"]: m for m in row["conv-parcels"]["machines"]}
    assert list(machines) == ["a6000", "h100"]
    assert machines["a6000"]["gpus"] == 8
    # PCIe is slower than NVLink, and is what the step waits for
    assert machines["a6000"]["step_s"] > machines["h100"]["step_s"]


def test_sizes_come_from_the_stores(tiny_stores) -> None:
    found = rows("--data", tiny_stores, "--set", "width=0.1")
    assert found["conv-frames"]["parameters"] is None
    assert "frames" in found["conv-frames"]["unknown"]
    row = found["conv-parcels"]
    assert row["parameters"] < 5e6
    assert row["data"] > 0


def test_this_processor_is_a_machine_of_unknown_speed() -> None:
    row = rows("conv-parcels", "--gpu", "cpu")["conv-parcels"]
    [machine] = row["machines"]
    assert machine["memory"] == psutil.virtual_memory().total
    assert machine["step_s"] is None


def test_this_processor_is_timed_on_request() -> None:
    [machine] = rows("conv-parcels", "--gpu", "cpu", "--measure")["conv-parcels"]["machines"]
    assert 0 < machine["step_s"] < 60


def test_a_card_of_ones_own() -> None:
    figures = ("--flops", "1e12", "--bandwidth", "1e11", "--memory", "1e9")
    [machine] = rows("conv-voxels", "--gpu", "mine", *figures)["conv-voxels"]["machines"]
    assert not machine["fits"]
    assert machine["gpus_needed"] is None
    assert machine["gpus_needed_sharded"] > 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("conv-voxles",), "conv-voxels", id="unknown entry"),
        pytest.param(("conv-voxels", "--gpu", "a600"), "a6000", id="unknown machine"),
        pytest.param(("conv-voxels", "--set", "hiden=3"), "hidden", id="unknown key"),
        pytest.param(("--set", "hiden=3"), "hiden", id="unknown key of all entries"),
        pytest.param(("conv-voxels", "--data", "nowhere"), "nowhere", id="no stores"),
    ],
)
def test_failures_are_one_line(arguments: tuple[str, ...], said: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 1
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_tables_for_people() -> None:
    overview = call().stdout
    assert "2,747,449,664" in overview
    assert "still too big" in overview
    detailed = call("conv-voxels").stdout
    assert "encoder.head" in detailed
    assert "first analysis" in detailed
