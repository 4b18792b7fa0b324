"""Every stated failure of the packages, read from their source: class, text, remedy."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from house import PACKAGES, folders

HOLE = "…"
BASE = "SherlockError"


class Message(NamedTuple):
    """One way to fail; what is only known when it happens is a hole in the text."""

    kind: str
    text: str
    remedy: str


def messages() -> list[Message]:
    """Return every message, by class and text; each once."""
    trees = [ast.parse(path.read_text("utf-8")) for path in sources()]
    kinds = error_classes(trees)
    found = {m for tree in trees for m in _of_module(tree, kinds) if m.text.strip(f"{HOLE}() ")}
    return sorted(found, key=lambda m: (m.kind, m.text.lower().lstrip("…' ")))


def error_classes(trees: list[ast.Module]) -> set[str]:
    """Names of `SherlockError` and of what derives from it, however far."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    kinds = {BASE}
    while more := {name for name, of in bases.items() if of & kinds} - kinds:
        kinds |= more
    return kinds


def table() -> str:
    """Return the messages in Markdown, a section per class."""
    lines: list[str] = []
    known = messages()
    for kind in sorted({message.kind for message in known}):
        lines += [f"## {kind}", "", "| text | remedy |", "|---|---|"]
        lines += [f"| {_cell(m.text)} | {_cell(m.remedy)} |" for m in known if m.kind == kind]
        lines.append("")
    return "\n".join(lines)


def sources() -> Iterator[Path]:
    """Every file of the packages."""
    for package in PACKAGES:
        for folder in folders(package):
            yield from sorted(folder.rglob("*.py"))


def _of_module(tree: ast.Module, kinds: set[str]) -> Iterator[Message]:
    constants = _assigned(tree.body)
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        names = {**constants, **_assigned(list(ast.walk(scope)))}
        for call in (node for node in ast.walk(scope) if isinstance(node, ast.Call)):
            kind, arguments, code = _failure(call, kinds)
            if kind and arguments:
                remedy = next((k.value for k in call.keywords if k.arg == "remedy"), None)
                remedy = arguments[1] if remedy is None and len(arguments) > 1 else remedy
                text = re.sub(f"{HOLE}+", HOLE, _text(arguments[0], names)) + code
                yield Message(kind, text, _text(remedy, names))


def _failure(call: ast.Call, kinds: set[str]) -> tuple[str, list[ast.expr], str]:
    """Tell a failure's class, arguments and code; `fatal` is an `InputError` that has a code."""
    if isinstance(call.func, ast.Name) and call.func.id in kinds:
        return call.func.id, call.args[:1], ""
    if isinstance(call.func, ast.Attribute) and call.func.attr == "fatal":
        return "InputError", call.args[2:], f" ({_text(call.args[0], {})})"
    return "", [], ""


def _assigned(nodes: list[ast.AST] | list[ast.stmt]) -> dict[str, ast.expr]:
    return {
        target.id: node.value
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _text(node: ast.expr | None, names: dict[str, ast.expr], depth: int = 0) -> str:
    """Say what an expression says, with holes."""
    if node is None:
        return ""
    if isinstance(node, ast.Constant):
        return "" if node.value is None else str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, names, depth) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, names, depth) + _text(node.right, names, depth)
    if isinstance(node, ast.IfExp):
        return _text(node.body, names, depth) or _text(node.orelse, names, depth)
    if isinstance(node, ast.Name) and node.id in names and depth < 2:
        return _text(names[node.id], names, depth + 1)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "or_beside":
            return _text(node.args[1], names, depth)
        return f"did you mean '{HOLE}'?" if node.func.id == "did_you_mean" else HOLE
    return HOLE


def _cell(text: str) -> str:
    """Return text as Markdown shows it, letter for letter."""
    text = " ".join(text.split())
    return f"`` {text} ``".replace("|", "\\|") if text else ""
