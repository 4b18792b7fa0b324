"""The map of the house, drawn from the imports: a room imports only from what stands below it."""

from __future__ import annotations

import ast
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import grimp
import networkx as nx

#: from the top of the picture to its ground
PACKAGES = ("sherlock_cli", "sherlock_models", "sherlock_data")
WIDTH, ROW, GAP, PADDING, CHARACTER = 960, 24, 6, 12, 6.7


class Room(NamedTuple):
    """A module or subpackage, and the first line it says of itself."""

    name: str
    files: int
    duty: str


def graph(package: str) -> nx.DiGraph:
    """Return the imports between rooms of a package; what lies inside a room is the room."""
    imports = grimp.build_graph(package, cache_dir=None)
    rooms = imports.find_children(package)
    for room in rooms:
        imports.squash_module(room)
    found = nx.DiGraph()
    found.add_nodes_from(room.rpartition(".")[2] for room in rooms)
    for room in rooms:
        for other in imports.find_modules_directly_imported_by(room) & rooms:
            found.add_edge(room.rpartition(".")[2], other.rpartition(".")[2])
    return found


def floors(imports: nx.DiGraph) -> list[list[str]]:
    """Rooms by height, the ground first; rooms that import each other share a floor."""
    whole = nx.condensation(imports)
    levels = nx.topological_generations(whole.reverse())
    return [sorted(room for n in level for room in whole.nodes[n]["members"]) for level in levels]


def folders(package: str) -> list[Path]:
    """Folders that a package is made of: one, if it is installed."""
    spec = find_spec(package)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def rooms(package: str) -> list[Room]:
    """Every room of a package, by name."""
    found = []
    for path in sorted(p for folder in folders(package) for p in folder.iterdir()):
        source = path / "__init__.py" if path.is_dir() else path
        if source.suffix != ".py" or path.name.startswith("__") or not source.exists():
            continue
        duty = (ast.get_docstring(ast.parse(source.read_text("utf-8"))) or "").partition("\n\n")[0]
        files = len(list(path.rglob("*.py"))) if path.is_dir() else 1
        found.append(Room(path.stem, files, " ".join(duty.split())))
    return found


def picture() -> str:
    """Return the map as SVG."""
    parts: list[str] = []
    top = 0.0
    for package in PACKAGES:
        known = {room.name: room for room in rooms(package)}
        inside, height = _floors(floors(graph(package)), known, top + 30)
        parts.append(
            f'<rect class="house" x="1" y="{top + 1}" width="{WIDTH - 2}" height="{height + 36}" '
            f'rx="8"/><text class="package" x="{PADDING}" y="{top + 20}">{package}</text>'
        )
        parts += inside
        top += height + 48
    style = (
        "text{font:11px monospace;fill:#222}.package{font:bold 14px sans-serif}"
        ".house{fill:#f5f5f2;stroke:#aaa}.room{fill:#fff;stroke:#9ab}.many{fill:#dfeaf5}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:g}">'
        f"<style>{style}</style>{''.join(parts)}</svg>"
    )


def _floors(levels: list[list[str]], known: dict[str, Room], top: float) -> tuple[list[str], float]:
    """Boxes of all floors, the highest first, and how much height they take."""
    parts, y = [], top
    for level in reversed(levels):
        x = float(PADDING)
        for name in level:
            width = len(name) * CHARACTER + 14
            if x + width > WIDTH - PADDING:
                x, y = float(PADDING), y + ROW
            many = " many" if known[name].files > 1 else ""
            parts.append(
                f'<g><title>{escape(known[name].duty)}</title><rect class="room{many}" x="{x:g}" '
                f'y="{y:g}" width="{width:g}" height="{ROW - 5}" rx="3"/>'
                f'<text x="{x + 7:g}" y="{y + 13:g}">{name}</text></g>'
            )
            x += width + GAP
        y += ROW + GAP
    return parts, y - top


def table() -> str:
    """Return the rooms and their duties, in Markdown."""
    lines = []
    for package in PACKAGES:
        lines += [f"## {package}", "", "| room | what it does |", "|---|---|"]
        for room in rooms(package):
            slash = "/" if room.files > 1 else ""
            lines.append(f"| `{room.name}{slash}` | {_cell(room.duty)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(duty: str) -> str:
    """Return a docstring's line as Markdown: double backticks are reST's, bars end a cell."""
    return duty.replace("``", "`").replace("|", "\\|")
