"""`sherlock-models lesion` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xarray as xr
from click.testing import CliRunner, Result
from sherlock_cli.models import main
from sherlock_cli.train import main as train

from sherlock_models.scoring.verdict import significant


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["lesion", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def run(tiny_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["conv-parcels", "--data", tiny_stores, "--out", path, "--steps", 4]
    arguments += ["--batch-size", 16, "--set", "width=0.02", "--set", "validate_every=4"]
    result = CliRunner().invoke(train, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return path


def test_the_table_and_what_it_costs(run: Path) -> None:
    result = call(run, "--units", "networks", "--parts")
    assert result.exit_code == 0, result.output
    for word in ("video:", "audio:", "double dissociation", "lesions.zarr"):
        assert word in result.stdout
    for part in ("video, part by part", "upper left", "0-2 cycles", "audio, part by part"):
        assert part in result.stdout
    assert "-0.0000" not in result.stdout
    assert "brains to decode, from the first layer's output" in result.stderr
    assert "the smallest p is" in result.stderr
    with xr.open_zarr(run / "lesions.zarr") as kept:
        assert {"effect", "null_mean", "null_std", "q"} <= set(kept.data_vars)
        assert kept.attrs["units"] == "networks"
        strongest = float(kept["effect"].sel(target="audio").max())
    assert significant(strongest) in result.stdout


def test_json_has_a_row_for_every_unit_and_target(run: Path) -> None:
    result = call(run, "--units", "networks", "--mode", "isolate", "--replace", "mean", "--json")
    document = json.loads(result.stdout)
    assert (document["mode"], document["replace"]) == ("isolate", "mean")
    assert Path(document["path"]).name == "isolations.zarr"
    with xr.open_zarr(run / "isolations.zarr") as kept:
        assert len(document["rows"]) == kept.sizes["unit"] * kept.sizes["target"]
    assert {"unit", "network", "target", "effect", "z", "p", "q"} <= set(document["rows"][0])
    (pair,) = document["dissociations"]
    assert pair["targets"] == ["video", "audio"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(("--units", "networs"), 1, "did you mean 'networks'?", id="unknown unit"),
        pytest.param(("--units", "v1.nii.gz"), 1, "no such file", id="no image"),
        pytest.param(("--units", "components"), 1, "has no components", id="components"),
        pytest.param(("--mode", "cut"), 2, "'cut' is not one of", id="mode"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    run: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    before = sorted(run.iterdir())
    result = call(run, *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(run.iterdir()) == before


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    result = call(tmp_path)
    assert result.exit_code == 1
    assert "name a folder that sherlock-train made" in result.stderr
