"""Troubleshooting holds what the code says: every code, every class, and no text that is gone."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PACKAGES = [DOCS.parent / name for name in ("sherlock_data", "sherlock_models", "cli")]
#: what a problem's code looks like where it is made
CODE = re.compile(r'(?:Problem\(|\.note\(|\.fatal\(|"code": )\s*"([a-z]+-[a-z-]+)"')


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "problems.md").read_text("utf-8")


@pytest.fixture(scope="module")
def extension():
    """The docs' own reader of messages."""
    pytest.importorskip("grimp")
    sys.path.insert(0, str(DOCS / "_ext"))
    import messages

    yield messages
    sys.path.remove(str(DOCS / "_ext"))


def section(page: str, first: str, last: str) -> str:
    return page[page.index(first) : page.index(last)]


def test_every_code_of_a_problem_is_explained_and_none_is_gone(page: str) -> None:
    sources = [path.read_text("utf-8") for folder in PACKAGES for path in folder.rglob("*.py")]
    made = {code for source in sources for code in CODE.findall(source)}
    table = section(page, "| code |", "## Errors")
    told = {
        code for line in table.splitlines() for code in re.findall(r"`(\w+-[\w-]+)`", line[:40])
    }
    assert made == told


def test_every_class_of_error_is_there(page: str, extension) -> None:
    trees = [extension.ast.parse(path.read_text("utf-8")) for path in extension.sources()]
    kinds = extension.error_classes(trees) - {extension.BASE}
    assert {"InputError", "CheckpointError"} < kinds
    assert not {kind for kind in kinds if f"`{kind}`" not in page}


def test_every_text_is_one_that_the_code_says(page: str, extension) -> None:
    said = {message.text for message in extension.messages()} | {"rank …: …"}
    rows = re.findall(r"^\| (`.*?) \|", section(page, "## Errors", "### It is slow"), re.M)
    told = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    assert len(told) > 25
    assert not [text for text in told if text not in said]


def test_every_message_has_a_text_and_most_have_a_remedy(extension) -> None:
    found = extension.messages()
    assert len(found) > 250
    assert sum(not message.remedy for message in found) < 0.15 * len(found)
