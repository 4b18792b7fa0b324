"""`sherlock-models decode` as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sherlock_cli.models import main
from sherlock_cli.train import main as train


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["decode", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def run(tiny_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["conv-parcels", "--data", tiny_stores, "--out", path, "--steps", 2]
    arguments += ["--batch-size", 8, "--set", "width=0.02", "--set", "validate_every=2"]
    result = CliRunner().invoke(train, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return path


def test_a_film_its_cost_and_its_stills(run: Path, tiny_raw: Path, tmp_path: Path) -> None:
    out, strip = tmp_path / "out.mp4", tmp_path / "out.png"
    arguments = ["--lesion", "SynA", "--replace", "mean", "--stills", strip]
    result = call(run, tiny_raw / "run-1.mp4", out, *arguments)
    assert result.exit_code == 0, result.output
    assert "TRs decoded" in result.stdout
    assert "held out" in result.stdout
    assert "TRs to decode" in result.stderr
    assert out.stat().st_size > 10_000
    assert strip.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


def test_json_of_a_measured_brain(run: Path, tmp_path: Path) -> None:
    result = call(run, "--bold", "sub-01", tmp_path / "bold.mp4", "--json")
    document = json.loads(result.stdout)
    assert document["film"] == str(tmp_path / "bold.mp4")
    assert document["trs"] == 120
    assert 0 < document["held_out_trs"] < document["decoded_trs"] <= 120


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(("out.mp4",), 2, "name two files", id="one file"),
        pytest.param(("a.mp4", "b.mp4", "c.mp4"), 2, "only MOVIE OUT.mp4", id="three files"),
        pytest.param(("none.mp4", "out.mp4"), 1, "no such movie file", id="no movie"),
        pytest.param(("none.mp4", "out.mp4", "--at", "soon"), 1, "no list of seconds", id="times"),
        pytest.param(
            ("a.mp4", "b.mp4", "--lesion", "SynA", "--replace", "shuffle"),
            2,
            "another TR's value is not known yet",
            id="shuffle",
        ),
        pytest.param(("a.mp4", "b.mp4", "--replace", "mean"), 2, "name one", id="no unit"),
        pytest.param(("none.mp4", "no/out.mp4"), 1, "no such folder", id="no folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(run, *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        pytest.param(signal.SIGTERM, 143, "stopped by SIGTERM", id="SIGTERM"),
        pytest.param(signal.SIGINT, 1, "Aborted!", id="Ctrl-C"),
    ],
)
def test_a_film_that_is_stopped_leaves_nothing(
    run: Path, tiny_raw: Path, tmp_path: Path, number: signal.Signals, code: int, line: str
) -> None:
    arguments = ["decode", run, tiny_raw / "run-1.mp4", tmp_path / "out.mp4"]
    arguments += ["--stills", tmp_path / "out.png"]
    # who runs the tests in the background of a shell hands down an ignored SIGINT
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start = [sys.executable, "-c", f"{listening}from sherlock_cli.models import main; main()"]
    process = subprocess.Popen(
        [*start, *(str(argument) for argument in arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        begun = time.monotonic()
        while not list(tmp_path.iterdir()) and process.poll() is None:
            assert time.monotonic() < begun + 200
            time.sleep(0.01)
        process.send_signal(number)
        printed, said = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == code, said.decode()
    assert said.decode().strip().splitlines()[-1] == line
    assert b"Traceback" not in said
    assert printed == b""
    assert list(tmp_path.iterdir()) == []
