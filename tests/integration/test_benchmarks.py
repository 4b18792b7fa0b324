"""Benchmarks run from end to end, small and on a processor: their figures are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_steps_are_measured_and_become_a_page(tiny_stores: Path, tmp_path: Path) -> None:
    out, written = tmp_path / "gpu.json", tmp_path / "performance.md"
    small = ("--width", 0.02, "--steps", 2, "--warmup", 1, "--batch-size", 8, "--ranks", 2)
    entries = ("--device", "cpu", "--data", tiny_stores, "--entries", "conv-parcels")
    run("gpu.py", *entries, *small, "--json", out)
    document = json.loads(out.read_text())
    failed = [row["failed"] for row in document["rows"] if "failed" in row]
    assert not failed
    cases = {(row["precision"], row["placement"], row["ranks"]) for row in document["rows"]}
    alone = {(p, where, 1) for p in ("fp32", "bf16") for where in ("device", "stream")}
    assert alone | {("fp32", "auto", 2), ("bf16", "auto", 2)} == cases
    assert all(row["step_s"] > 0 and row["peak"] > 0 for row in document["rows"])
    run("performance.py", out, "--page", written)
    page = written.read_text()
    assert "No GPU was at hand" in page
    assert page.count("| conv-parcels |") == len(document["rows"])


@pytest.mark.slow
def test_entries_of_the_zoo_become_a_page(tiny_stores: Path, tmp_path: Path) -> None:
    folder, written = tmp_path / "zoo", tmp_path / "zoo.md"
    entries = ("--entries", "conv-parcels", "brain-compressor", "dense-compressed")
    small = ("--size", "tiny", "--width", 0.01, "--steps", 2)
    common = ("--data", tiny_stores, "--folder", folder, *entries, *small)
    run("zoo.py", *common, "--page", written)
    page = written.read_text()
    names = ("conv-parcels", "brain-compressor", "dense-compressed, stage 1's code", "mean")
    assert all(f"| {name} |" in page for name in names)
    before = {path: path.stat().st_mtime for path in folder.rglob("evaluation.json")}
    assert len(before) == 4
    run("zoo.py", *common)
    assert before == {path: path.stat().st_mtime for path in folder.rglob("evaluation.json")}
