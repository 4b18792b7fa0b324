"""The page of the environment names every variable that the packages read, and none in vain."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sherlock_cli

import sherlock_data
import sherlock_models

PAGE = Path(__file__).parents[2] / "docs/reference/environment.md"
PACKAGES = (sherlock_data, sherlock_models, sherlock_cli)
SOURCES = [path for package in PACKAGES for path in Path(package.__file__).parent.rglob("*.py")]
READERS = ("os.environ.get", "os.getenv")
#: read by click, whose name of them is made of the command's
COMPLETION = {f"_SHERLOCK_{name}_COMPLETE" for name in ("DATA", "TRAIN", "MODELS")}
#: written as f"{tracker}_PROJECT"
TRACKERS = {"WANDB_PROJECT", "TRACKIO_PROJECT"}

#: a loop's variable, and the constant that the loop is over
LOOPS = {"name": "RESTARTS"}


def on_the_page() -> set[str]:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def read_by(path: Path) -> Iterator[ast.expr]:
    """Yield what stands for a variable's name wherever `os.environ` is asked."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            yield node.slice
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in READERS:
            yield node.args[0]
        elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]) == "os.environ":
            yield node.left


def names(path: Path) -> Iterator[str]:
    """Yield names of variables; a constant or a loop over one is looked up in the module."""
    package = next(p for p in PACKAGES if path.is_relative_to(Path(p.__file__).parent))
    inside = path.relative_to(Path(package.__file__).parent).with_suffix("")
    module = ".".join([package.__name__, *inside.parts]).removesuffix(".__init__")
    for node in read_by(path):
        if isinstance(node, ast.Constant):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            [end] = [part.value for part in node.values if isinstance(part, ast.Constant)]
            yield from (name for name in TRACKERS if name.endswith(end))
        else:
            constant = LOOPS.get(ast.unparse(node), ast.unparse(node).partition("[")[0])
            value = vars(importlib.import_module(module))[constant]
            yield from [value] if isinstance(value, str) else value


@pytest.fixture(scope="module")
def read() -> set[str]:
    return {name for path in SOURCES for name in names(path)}


def test_every_variable_that_is_read_is_on_the_page(read: set[str]) -> None:
    assert {"RANK", "SHERLOCK_LOG", "SLURM_RESTART_COUNT", "WANDB_PROJECT"} <= read
    assert read <= on_the_page()


def test_no_variable_of_ours_is_on_the_page_in_vain(read: set[str]) -> None:
    ours = {name for name in on_the_page() if "SHERLOCK" in name}
    assert ours == {name for name in read if "SHERLOCK" in name} | COMPLETION
