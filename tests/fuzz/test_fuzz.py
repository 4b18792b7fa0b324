"""A few seconds of every fuzzer, always the same examples; `fuzz.py` goes on for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.fuzz import FUZZERS, edited, fuzz

EXAMPLES = 60


@pytest.mark.parametrize("name", FUZZERS)
def test_nothing_but_stated_failures(name: str, tmp_path: Path) -> None:
    assert fuzz(name, tmp_path, seconds=0, examples=EXAMPLES) >= EXAMPLES // 2


def test_an_edit_changes_the_copy_alone() -> None:
    document = {"a": {"b": [1, 2]}}
    assert edited(document, [(2, "replace", 7, "")]) == {"a": {"b": [7, 2]}}
    assert edited(document, [(1, "delete", None, "")]) == {"a": {}}
    assert document == {"a": {"b": [1, 2]}}
