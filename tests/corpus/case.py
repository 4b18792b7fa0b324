"""One row of the corpus: what is damaged, what is typed, what a person then reads."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.corpus.example import call

FAILED, USAGE = 1, 2


def nothing(desk: Path) -> None:
    """Leave the example good: what is typed is wrong."""


@dataclass(frozen=True)
class Case:
    """A mistake and its answer.

    Attributes
    ----------
    name : str
        Of the test.
    damage : callable
        Done to a copy of the good example, a folder with `raw/`, `stores/lab/`, `runs/toy/`.
    command : str
        As it is typed in that folder.
    says : str
        Pieces of the line in their order, with ` ... ` between: what, where, remedy.
    code : int
        1: a stated failure, 2: usage.
    """

    name: str
    damage: Callable[[Path], object]
    command: str
    says: str
    code: int = FAILED

    def check(self, desk: Path) -> None:
        """Damage, run, and look: one line, the exit code, not a file more, less or other."""
        self.damage(desk)
        before = snapshot(desk)
        outcome = call(*shlex.split(self.command))
        said = f"{outcome.output}\n{outcome.exception!r}"
        assert isinstance(outcome.exception, SystemExit), said
        assert outcome.exit_code == self.code, said
        assert "Traceback" not in outcome.output
        start = "error: " if self.code == FAILED else "Error: "
        lines = [line for line in outcome.stderr.splitlines() if line.startswith(start)]
        assert len(lines) == 1, said
        assert_reads(lines[0].removeprefix(start), self.says)
        assert outcome.stdout == ""
        assert snapshot(desk) == before, "something was written"


def table(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """Turn a table into tests named after its rows."""
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def assert_reads(line: str, says: str) -> None:
    """Hold a line to the pieces it must hold, in their order."""
    at = 0
    for piece in says.split(" ... "):
        found = line.find(piece, at)
        assert found >= 0, f"no {piece!r} after character {at} of: {line}"
        at = found + len(piece)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file, folder and link below a folder, with what it holds."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*"))}


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
