"""The site's own parts: the map of the house, the citation, pages short enough to be read."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def house():
    pytest.importorskip("grimp")
    sys.path.insert(0, str(DOCS / "_ext"))
    import house

    yield house
    sys.path.remove(str(DOCS / "_ext"))


@pytest.mark.parametrize("package", ["sherlock_cli", "sherlock_models", "sherlock_data"])
def test_no_room_imports_from_a_floor_above(house, package: str) -> None:
    imports = house.graph(package)
    floors = house.floors(imports)
    height = {room: at for at, floor in enumerate(floors) for room in floor}
    assert set(height) == {room.name for room in house.rooms(package)}
    assert not [(a, b) for a, b in imports.edges if height[a] < height[b]]


def test_every_room_is_drawn_and_says_what_it_does(house) -> None:
    picture, table = house.picture(), house.table()
    for room in (room for package in house.PACKAGES for room in house.rooms(package)):
        assert f">{room.name}<" in picture
        assert f"| `{room.name}" in table
        assert room.duty


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])


def test_no_page_is_longer_than_a_sitting() -> None:
    pages = [page for page in DOCS.rglob("*.md") if "/_" not in page.as_posix()]
    # a benchmark's page is as long as its table
    written = [page for page in pages if page.name not in ("performance.md", "zoo.md")]
    assert not {p.name: n for p in written if (n := p.read_text("utf-8").count("\n")) > 150}
