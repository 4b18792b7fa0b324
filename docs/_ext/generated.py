"""What is written into `docs/_generated/` before Sphinx reads the pages, and one directive."""

from __future__ import annotations

import importlib
import inspect
import typing
from pathlib import Path
from typing import Any

import house
import messages
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

#: pages that a benchmark writes beside the others, and what they are called
MEASURED = {"performance": "Measured speed and memory", "zoo": "The zoo, measured"}


class Returned(SphinxDirective):
    """Document the classes of our own that the public functions of packages return."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Hand each class to autodoc."""
        found: dict[str, None] = {}
        packages = self.arguments[0].split()
        for package in map(importlib.import_module, packages):
            for name in package.__all__:
                function = getattr(package, name)
                if inspect.isfunction(function):
                    kind = typing.get_type_hints(function).get("return")
                    if inspect.isclass(kind) and kind.__module__.partition(".")[0] in packages:
                        found[f"{kind.__module__}.{kind.__qualname__}"] = None
        public = {f"{p.__module__}.{p.__qualname__}" for p in _public_classes(packages)}
        lines = []
        for path in found:
            if path not in public:
                lines += [f".. autoclass:: {path}", "   :members:", ""]
        return self.parse_text_to_nodes("```{eval-rst}\n" + "\n".join(lines) + "\n```")


def _public_classes(packages: list[str]) -> list[type]:
    values = (getattr(p, n) for p in map(importlib.import_module, packages) for n in p.__all__)
    return [value for value in values if inspect.isclass(value)]


def measured(folder: Path) -> str:
    """Return links to the pages that benchmarks have written, if any."""
    there = [name for name in MEASURED if (folder / f"{name}.md").exists()]
    if not there:
        return "None in this checkout."
    lines = [f"- [{MEASURED[name]}](../{name}.md)" for name in there]
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *(f"/{n}" for n in there), "```"])


def write(app: Sphinx) -> None:
    """Draw the map of the house, list its rooms and every message."""
    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    generated = {
        "house.svg": house.picture(),
        "rooms.md": house.table(),
        "messages.md": messages.table(),
        "measured.md": measured(Path(app.srcdir)),
    }
    for name, text in generated.items():
        (folder / name).write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Have it written when a build begins."""
    app.connect("builder-inited", write)
    app.add_directive("returned", Returned)
    return {"parallel_read_safe": True}
