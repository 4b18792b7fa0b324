"""What the matrix installs is what pyproject.toml says, and a wheel is held to its tree."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def matrix():
    sys.path.insert(0, str(ROOT / ".ci"))
    import matrix

    yield matrix
    sys.path.remove(str(ROOT / ".ci"))


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def _project(*dependencies: str, **extras: list[str]) -> dict[str, Any]:
    return {"dependencies": list(dependencies), "optional-dependencies": extras}


class TestBounds:
    @pytest.mark.parametrize(
        ("text", "name", "lowest"),
        [
            pytest.param("numpy>=2.1", "numpy", "2.1", id="plain"),
            pytest.param("dask[array,distributed]>=2025.1", "dask", "2025.1", id="extras"),
            pytest.param("universal_pathlib>=0.3", "universal-pathlib", "0.3", id="underscore"),
            pytest.param("types-PyYAML>=6.0", "types-pyyaml", "6.0", id="capitals"),
            pytest.param("torch>=2.9,<3", "torch", "2.9", id="upper bound too"),
            pytest.param("numba>=0.61; python_version > '3'", "numba", "0.61", id="marker"),
        ],
    )
    def test_the_lower_bound_is_read(self, matrix, text: str, name: str, lowest: str) -> None:
        assert matrix.bounds(_project(text), []) == {name: lowest}

    @pytest.mark.parametrize("text", ["numpy", "numpy==2.1", "numpy<3"])
    def test_a_dependency_without_one_is_refused(self, matrix, text: str) -> None:
        with pytest.raises(ValueError, match="numpy: one lower bound"):
            matrix.bounds(_project(text), [])

    def test_extras_are_laid_beside_and_may_not_contradict(self, matrix) -> None:
        extras = {"s3": ["s3fs>=2025.3"], "other": ["s3fs>=2025.4"]}
        assert matrix.bounds(_project("numpy>=2.1", **extras), ["s3"])["s3fs"] == "2025.3"
        with pytest.raises(ValueError, match="s3fs"):
            matrix.bounds(_project(**extras), ["s3", "other"])


LOWEST = {"numpy": "2.1", "torch": "2.9"}
EXACT = {"numpy": "2.4.6", "torch": "2.13.0"}


class TestConstraints:
    @pytest.mark.parametrize(
        ("deps", "keep", "wanted"),
        [
            pytest.param("oldest", [], {"numpy": "2.1", "torch": "2.9"}, id="oldest"),
            pytest.param("oldest", ["torch"], {"numpy": "2.1", "torch": "2.13.0"}, id="kept"),
            pytest.param("newest", ["torch"], {"torch": "2.13.0"}, id="newest"),
            pytest.param("newest", [], {}, id="newest of all"),
        ],
    )
    def test_versions_to_install(self, matrix, deps: str, keep: list[str], wanted: Any) -> None:
        assert matrix.constraints(deps, LOWEST, EXACT, keep) == wanted

    def test_a_file_of_constraints_is_read(self, matrix) -> None:
        text = "# said first\nnumpy==2.4.6\n\nTypes_PyYAML==6.0  # why\n"
        assert matrix.pinned(text) == {"numpy": "2.4.6", "types-pyyaml": "6.0"}


def test_every_direct_dependency_is_pinned_at_its_bound_or_above(matrix, project) -> None:
    # `bench` and `fast` are peers of a benchmark and codecs: not in the environment of `make test`
    lowest = matrix.bounds(project, ["dev", "features", "s3", "docs"])
    exact = matrix.pinned((ROOT / "constraints.txt").read_text("utf-8"))
    assert not lowest.keys() - exact.keys()
    assert not [n for n, low in lowest.items() if Version(exact[n]) < Version(low)]


def test_a_claimed_python_is_one_of_the_matrix(matrix, project) -> None:
    head = "Programming Language :: Python :: "
    claimed = [c.removeprefix(head) for c in project["classifiers"] if c.startswith(head + "3.")]
    assert claimed
    assert set(claimed) <= set(matrix.PYTHONS)
    assert project["requires-python"] == f">={claimed[0]}"


def test_a_python_that_is_not_here_is_said(matrix, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert matrix.interpreter("3.12") is None
    row = matrix.Row("3.12", "oldest", {}, why="this machine does not have it")
    assert "this machine does not have it" in matrix.table([row])[-1]


def test_pyenvs_python_is_found_where_its_shim_refuses(matrix, tmp_path: Path, monkeypatch) -> None:
    shim, program = tmp_path / "python3.12", tmp_path / "versions/3.12.1/bin/python"
    program.parent.mkdir(parents=True)
    for path, code in ((shim, 127), (program, 0)):
        path.write_text(f"#!/bin/sh\nexit {code}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert matrix.interpreter("3.12") == str(program)


def test_errors_count_as_failures(matrix) -> None:
    report = '<testsuites><testsuite tests="9" errors="1" failures="2" skipped="3"/></testsuites>'
    assert matrix.counted(report) == (3, 3, 3)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param({"a.py": b"1", "b": b"?"}, [], id="same"),
        pytest.param({"b": b"?"}, ["missing: a.py"], id="forgotten"),
        pytest.param({"a.py": b"2", "b": b"?"}, ["other bytes: a.py"], id="stale"),
        pytest.param(
            {"a.py": b"1", "b": b"?", "tests/t.py": b""},
            ["does not belong there: tests/t.py"],
            id="too much",
        ),
    ],
)
def test_a_wheel_is_held_to_its_tree(matrix, found: dict[str, bytes], said: list[str]) -> None:
    import wheel_check

    assert list(wheel_check.differences(found, {"a.py": b"1", "b": None})) == said
