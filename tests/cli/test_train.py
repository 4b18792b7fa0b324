"""`sherlock-train` as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sherlock_cli.train import main

from sherlock_models.run import load
from tests.models.conftest import CATALOG, write_stores

Train = Callable[..., Result]
QUICK = ["--steps", "6", "--batch-size", "16", "--set", "validate_every=3"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stores(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "catalog.yaml"
    path.write_text(CATALOG, encoding="utf-8")
    return path


@pytest.fixture
def train(stores: Path, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Run `sherlock-train toy --data ... --out run` with further arguments, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, entry: str = "toy") -> Result:
        common = [entry, "--data", str(stores), "--catalog", str(catalog)]
        return CliRunner().invoke(main, [*common, *arguments])

    return run


def test_a_run_says_what_it_takes_and_what_it_reached(train: Train):
    result = train("--out", "run", *QUICK)
    assert result.exit_code == 0, result.output
    assert "training samples, 6 steps" in result.stderr
    assert "validation brain" in result.stderr
    assert "the mean" in result.stdout
    assert "sherlock-models evaluate run" in result.stdout
    assert load("run").state == "finished"


def test_json_is_alone_on_stdout(train: Train):
    result = train("--out", "run", *QUICK, "--json")
    document = json.loads(result.stdout)
    assert document["run"] == "run"
    assert document["steps"] == 6
    assert set(document["validation"]) == {"loss", "brain", "video", "audio"}


def test_out_is_chosen_where_it_is_not_named(train: Train):
    assert train(*QUICK).exit_code == 0
    assert train(*QUICK).exit_code == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == ["toy", "toy-2"]


def test_options_and_settings_reach_the_configuration(train: Train):
    arguments = ["--fold", "2", "--seed", "7", "--set", "delays=0,1", "--set", "width=0.5"]
    assert train("--out", "run", *QUICK, *arguments).exit_code == 0
    config = load("run").config
    assert (config.fold, config.seed, config.delays, config.width) == (2, 7, (0, 1), 0.5)


def test_the_random_split_warns(train: Train):
    result = train("--out", "run", *QUICK, "--split", "random")
    assert "note: a random split" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--set", "wdith=1"], "did you mean 'width'", id="unknown setting"),
        pytest.param(["--set", "width"], "write --set key=value", id="no value"),
        pytest.param(["--set", "stimulus=vidoe"], "did you mean 'video'", id="stimulus"),
        pytest.param(["--gpus", "64"], "64 asked for", id="more GPUs than there are"),
        pytest.param(["--fold", "5"], "folds are 0 to 4", id="fold"),
    ],
)
def test_failures_are_one_line_and_write_nothing(train: Train, arguments: list[str], says: str):
    result = train("--out", "run", *QUICK, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert not Path("run").exists()


def test_an_unknown_entry_names_the_nearest(train: Train):
    result = train(*QUICK, entry="conv-parcel")
    assert result.exit_code == 1
    assert "did you mean 'conv-parcels'" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="nothing"),
        pytest.param(["toy"], id="no data"),
        pytest.param(["--resume", "run", "--seed", "1"], id="resume with another seed"),
        pytest.param(["--resume", "run", "--set", "width=2"], id="resume with another width"),
        pytest.param(["--gpus", "1", "--processes", "2", "toy", "--data", "x"], id="both"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]):
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_resume_of_a_finished_run_leaves_it(train: Train):
    train("--out", "run", *QUICK)
    before = Path("run/metrics.jsonl").read_bytes()
    result = CliRunner().invoke(main, ["--resume", "run"])
    assert result.exit_code == 0
    assert Path("run/metrics.jsonl").read_bytes() == before


def test_a_run_may_be_spread_otherwise_when_it_goes_on(train: Train):
    train("--out", "run", *QUICK)
    result = CliRunner().invoke(main, ["--resume", "run", "--set", "parallel=fsdp"])
    assert result.exit_code == 0
    result = CliRunner().invoke(main, ["--resume", "run", "--set", "parallel=fdsp"])
    assert result.exit_code == 1
    assert "parallel" in result.stderr


def test_the_start_line_says_how_the_model_lies(train: Train):
    result = train("--out", "run", *QUICK, "--set", "recompute=true", "--set", "accumulate=2")
    assert result.exit_code == 0
    assert "parallel alone (one rank)" in result.stderr
    assert " samples/s, " in result.stderr


def start(stores: Path, catalog: Path, out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    code = "from sherlock_cli.train import main; main()"
    common = ["toy", "--data", str(stores), "--catalog", str(catalog), "--out", str(out)]
    long = ["--steps", "100000", "--set", "validate_every=50000", *arguments]
    return subprocess.Popen(
        [sys.executable, "-c", code, *common, *long],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def wait_for_steps(out: Path, steps: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (out / "metrics.jsonl").is_file() and len(load(out).metrics()) >= steps:
            return
        time.sleep(0.2)
    raise TimeoutError(f"{out} did not reach step {steps}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "ranks", [pytest.param([], id="alone"), pytest.param(["--processes", "2"], id="two ranks")]
)
def test_sigterm_ends_with_143_and_a_checkpoint(
    stores: Path, catalog: Path, tmp_path: Path, ranks: list[str]
):
    out = tmp_path / "run"
    process = start(stores, catalog, out, *ranks)
    wait_for_steps(out, 5)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 143, said.decode()
    assert load(out).state == "stopped"
    assert b"go on with sherlock-train --resume" in said
    assert len(list((out / "checkpoints").glob("step-*"))) == 1


@pytest.mark.slow
def test_a_failing_rank_is_one_line(stores: Path, catalog: Path, tmp_path: Path):
    arguments = ["--processes", "2", "--set", "learning_rate=1e30", "--set", "clip=1e30"]
    process = start(stores, catalog, tmp_path / "run", *arguments, "--set", "warmup=0")
    _, said = process.communicate(timeout=90)
    assert process.returncode == 1
    lines = [line for line in said.decode().splitlines() if "error:" in line]
    assert len(lines) == 1
    assert "the loss of step" in lines[0]
