"""Looking around is quick: `--help` and importing the packages load nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from sherlock_cli import data, models

import sherlock_data
import sherlock_models

#: packages of which each takes a tenth of a second or more
HEAVY = {
    "dask", "distributed", "himalaya", "librosa", "matplotlib", "nibabel", "nilearn", "numba",
    "pandas", "pydantic", "scipy", "sklearn", "tensorboard", "torch", "xarray", "zarr",
}  # fmt: skip
#: runs a statement, then prints what it loaded as its last line
LOADED = """
import sys
try:
    {statement}
except SystemExit as end:
    assert not end.code, end.code
print()
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
#: every command, a new one too, and the three themselves
COMMANDS = {"data": ["", *data.main.commands], "models": ["", *models.main.commands], "train": [""]}


def loaded(statement: str, *arguments: str) -> set[str]:
    """Top-level packages that a fresh Python has after a statement."""
    command = [sys.executable, "-c", LOADED.format(statement=statement), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("package", ["sherlock_data", "sherlock_models"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    found = loaded(f"import {package}")
    assert package in found
    assert found & HEAVY == set()


@pytest.mark.parametrize(
    ("room", "command"),
    [
        pytest.param(room, command, id=f"{room} {command}".strip())
        for room, commands in COMMANDS.items()
        for command in commands
    ],
)
def test_help_loads_nothing_heavy(room: str, command: str) -> None:
    arguments = [*command.split(), "--help"]
    found = loaded(f"from sherlock_cli.{room} import main; main()", *arguments)
    assert "click" in found
    assert found & HEAVY == set()


def test_what_is_asked_for_is_loaded() -> None:
    found = loaded("import sherlock_models; sherlock_models.load; sherlock_models.list_models")
    assert "torch" in found


@pytest.mark.parametrize("package", [sherlock_data, sherlock_models])
def test_public_names_are_there(package: object) -> None:
    names = package.__all__
    assert set(names) <= set(dir(package))
    assert all(getattr(package, name) is not None for name in names)
    assert package.__version__ == version("sherlock-zoo")
    with pytest.raises(AttributeError, match="lode"):
        package.lode  # noqa: B018
