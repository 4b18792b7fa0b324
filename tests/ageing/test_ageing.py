"""Stores and runs of earlier versions open, with the values they were written with.

`make.py` says by which commands the archives were made.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from sherlock_data.contract import SCHEMA_VERSION
from tests.ageing.make import FOLDER, HERE, STORES, values_of
from tests.corpus.case import snapshot
from tests.corpus.example import call

MOST_BYTES = 200_000
VERSIONS = sorted(HERE.glob("version-*.zip"))


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda path: path.stem)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `stores/lab/` and `runs/toy/` of an earlier version; read only."""
    folder = tmp_path_factory.mktemp(request.param.stem)
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(folder)
    config = folder / "runs/toy/config.yaml"
    config.write_text(config.read_text().replace(FOLDER, str(folder)))
    return folder


@pytest.fixture(scope="module")
def expected(old: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((old / "expected.json").read_text())
    return document


def test_every_version_is_kept_and_is_small() -> None:
    assert [path.stem for path in VERSIONS] == [f"version-{n + 1}" for n in range(SCHEMA_VERSION)]
    assert sum(path.stat().st_size for path in VERSIONS) < MOST_BYTES * len(VERSIONS)


def test_values_are_those_that_were_written(old: Path, expected: dict[str, Any]) -> None:
    found = values_of(old)
    assert found["stores"].keys() == expected["stores"].keys()
    for name, sums in expected["stores"].items():
        assert found["stores"][name] == pytest.approx(sums), name
    assert found["weights"] == pytest.approx(expected["weights"], rel=1e-5)
    for key in ("metrics", "subjects", "train_trs"):
        assert found[key] == expected[key]


@pytest.mark.parametrize("name", STORES)
def test_a_store_is_whole_by_command_and_by_plain_xarray(old: Path, name: str) -> None:
    path = old / f"stores/lab/{name}.zarr"
    outcome = call("sherlock-data", "verify", path)
    assert outcome.exit_code == 0, outcome.output
    assert call("sherlock-data", "info", path).exit_code == 0
    with xr.open_zarr(path) as plain:
        assert plain.attrs["schema_version"] <= SCHEMA_VERSION


def test_a_run_is_shown_and_a_finished_one_left_alone(old: Path) -> None:
    before = snapshot(old)
    shown = call("sherlock-models", "show", old / "runs/toy", "--json")
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    assert (document["entry"], document["state"], document["step"]) == ("toy", "finished", 2)
    resumed = call("sherlock-train", "--resume", old / "runs/toy")
    assert resumed.exit_code == 0, resumed.output
    assert snapshot(old) == before
