"""Read the blocks of a page of the docs, and run shell lines as the page shows them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
#: languages of blocks that start with one of these without saying so
PROGRAMS = ("sherlock-data", "sherlock-train", "sherlock-models", "make", "pip")
SETUP = re.compile(r"<!--\s*setup\n(.*?)-->", re.S)
NOT_RUN = re.compile(r"<!--\s*not run: (.*?)\s*-->", re.S)
FILE = re.compile(r"#\s*([\w/.-]+\.(?:ya?ml|py|json))\b")


@dataclass(frozen=True)
class Block:
    """A fence of a page, or a hidden setup; ``reason``: why it is not run."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """Name of the file that the block is."""
        named = FILE.match(self.text)
        return named[1] if named and self.language in ("yaml", "python") else None

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """Shell commands, each with the lines shown under it; those of a script show none."""
        if self.language in ("bash", "setup"):
            return [(self.text, [])]
        if self.language == "notebook":
            return [(line[1:], []) for line in _joined(self.text) if line.startswith("!")]
        found: list[tuple[str, list[str]]] = []
        for line in _joined(self.text) if self.language == "console" else ():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found:
                found[-1][1].append(line)
        return found


def _joined(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def blocks(page: Path) -> list[Block]:
    """Blocks of a page in order."""
    found, reason = [], None
    for token in MarkdownIt("commonmark").parse(page.read_text("utf-8")):
        line, text = (token.map or [0])[0] + 1, token.content
        if token.type == "html_block":
            if setup := SETUP.search(text):
                found.append(Block(page, line, "setup", setup[1]))
            if stated := NOT_RUN.search(text):
                reason = stated[1]
        elif token.type == "fence":
            found.append(Block(page, line, _language(token.info, text), text, reason))
            reason = None
        elif token.nesting == 0 and token.content:
            reason = None
    return found


def _language(info: str, text: str) -> str:
    language = info.split(" ")[0]
    if language == "{code-cell}":
        return "notebook"
    if not language and text.split(" ")[0] in PROGRAMS:
        return "bash"
    return language


def run(
    block: Block,
    script: str,
    shown: list[str],
    prologue: str = "",
    folder: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Run shell lines, hold what they print to what the page shows, and return it."""
    words = ["bash", "-c", f"set -euo pipefail; {prologue}\n{script}"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment)
    printed = done.stdout + done.stderr
    wanted = 1 if any(line.startswith("error:") for line in shown) else 0
    assert done.returncode == wanted, f"{block}: {script}\n{printed[-3000:]}"
    for line in shown:
        pieces = [_plain(piece) for piece in line.split("...")]
        assert all(piece in _plain(printed) for piece in pieces), f"{block}: {line}\n{printed}"
    return printed


def _plain(text: str) -> str:
    """Words alone: lines may be broken and columns set otherwise."""
    return " ".join(re.sub(r"[━┃┏┓┗┛┳┻╇┡┩│└┘┴├┤─]", " ", text).split())
