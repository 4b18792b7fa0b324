"""`sherlock-models` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sherlock_cli.models import main
from sherlock_cli.train import main as train


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(tiny_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps, not evaluated."""
    path = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["conv-parcels", "--data", tiny_stores, "--out", path, "--steps", 8]
    arguments += ["--batch-size", 16, "--set", "width=0.05", "--set", "validate_every=4"]
    result = CliRunner().invoke(train, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return path


def test_list_counts_parameters_exactly() -> None:
    rows = {row["entry"]: row for row in json.loads(call("list", "--json").stdout)["rows"]}
    assert rows["conv-voxels"]["parameters"] == 119_032_335
    assert rows["conv-voxels"]["claimed"] == "119 M"
    assert rows["conv-coarse"]["parameters"] is None
    assert "from the store" in call("list").stdout


def test_show_puts_every_term_beside_the_mean(run: Path) -> None:
    summary = json.loads(call("show", run, "--json").stdout)
    assert (summary["state"], summary["step"], summary["eta_s"]) == ("finished", 8, None)
    assert {term["term"] for term in summary["terms"]} == {"brain", "video", "audio"}
    assert all(term["mean"] == 1 and term["last"] > 0 for term in summary["terms"])
    assert "finished, step 8 of 8" in call("show", run).stdout


def test_evaluate_then_report(run: Path, tiny_raw: Path) -> None:
    document = json.loads(call("evaluate", run, "--json").stdout)
    assert document == json.loads((run / "evaluation.json").read_text())
    made = json.loads(call("report", run, "--truth", tiny_raw / "truth.zarr", "--json").stdout)
    assert made == {"page": str(run / "report.html"), "bytes": (run / "report.html").stat().st_size}


def test_report_evaluates_first_if_need_be(run: Path) -> None:
    (run / "evaluation.json").unlink(missing_ok=True)
    assert call("report", run).exit_code == 0
    assert (run / "evaluation.json").is_file()
    table = call("evaluate", run).stdout
    assert "delayed-ridge" in table
    assert "noise ceiling" in table


@pytest.mark.parametrize("command", ["show", "evaluate", "report"])
def test_a_folder_that_is_no_run_is_one_line_and_exit_1(command: str, tmp_path: Path) -> None:
    result = call(command, tmp_path)
    assert result.exit_code == 1
    assert result.stderr.strip().startswith(f"error: {tmp_path}: no config.yaml there")
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
