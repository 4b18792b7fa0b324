"""Every block of README and docs is true: commands parse, files load, pages run from top to bottom.

A page is run in an empty folder. A comment that no reader sees says what is different there:

    <!-- setup             shell lines run at this place; $TINY holds `raw` and `stores` of the tiny
    cp -r $TINY/raw .      synthetic dataset
    -->
    <!-- not run: why -->  the next block is only parsed, for the reason given

A block of YAML or Python whose first line is a comment with a file's name is that file. Of a
console block the lines that follow a command must be in what it prints (`...` stands for anything);
a shown `error:` is an exit code of 1. `pip` and `make` do nothing here, and are checked by name.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from sherlock_cli import data, models, train

from sherlock_data.catalog import SECTIONS, load_catalog
from sherlock_models.resolve import settable
from tests.docs.pages import ROOT, Block, blocks, run

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += [page for page in sorted(DOCS.rglob("*.md")) if "/_" not in page.as_posix()]
COMMANDS: dict[str, click.Command] = {
    "sherlock-data": data.main,
    "sherlock-train": train.main,
    "sherlock-models": models.main,
}
#: a word that a reader puts something else for
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*|\$\w+")


ALL = [block for page in PAGES for block in blocks(page)]


def simple_commands(script: str) -> Iterator[list[str]]:
    """Words of every simple command of a script, those in quoted scripts too."""
    script = re.sub(r"(^|\s)#.*$", "", script.replace("\\\n", " "), flags=re.M)
    lexer = shlex.shlex(script, posix=True, punctuation_chars=";&|<>()\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    words: list[str] = []
    for word in [*lexer, "\n"]:
        if set(word) <= set(";&|<>()\n"):
            yield words
            words = []
        elif " " in word and any(name in word for name in COMMANDS):
            yield from simple_commands(word)
        else:
            words.append(word)


def our_commands(script: str) -> Iterator[tuple[str, list[str]]]:
    """Our own commands in a script, also behind `srun torchrun ...`: name and arguments."""
    for words in simple_commands(script):
        for at, word in enumerate(words):
            if word in COMMANDS:
                if not any("_COMPLETE=" in before for before in words[:at]):  # a shell's script
                    yield word, words[at + 1 :]
                break


def parsed(name: str, arguments: list[str]) -> dict[str, Any]:
    """Options and arguments as click takes them; raises what click raises."""
    command, words = COMMANDS[name], list(arguments)
    if isinstance(command, click.Group):
        if words and words[0].startswith("-"):
            return {}
        if not words or words[0] not in command.commands:
            raise click.UsageError(f"{name} has no command {words[:1]}")
        command = command.commands[words.pop(0)]
    try:
        return {"command": command.name, **command.make_context(name, words).params}
    except click.exceptions.Exit:  # --help
        return {}


@functools.cache
def known_on(page: Path) -> dict[str, dict[str, Any]]:
    """What the packaged catalogue knows, and what the page's own YAML adds to it, by section."""
    known: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    texts = [b.text for b in blocks(page) if b.language == "yaml"] if page.suffix == ".md" else []
    with tempfile.TemporaryDirectory() as folder:
        for text in ["", *texts]:
            if not set(yaml.safe_load(text) or ()) <= set(SECTIONS):
                continue
            path = Path(folder) / "mine.yaml"
            path.write_text(text)
            for section, rows in load_catalog(path):
                known[section] |= rows
    known["datasets"].setdefault("synth", None)
    return known


def complaints(page: Path, script: str) -> list[str]:
    """Say what is wrong with our commands in a script."""
    found = []
    for name, arguments in our_commands(script):
        line = shlex.join([name, *arguments])
        try:
            given = parsed(name, arguments)
        except click.ClickException as error:
            found.append(f"{line}: {error.format_message()}")
            continue
        found += [f"{line}: {wrong}" for wrong in _unknown(known_on(page), given)]
    return found


def _unknown(known: dict[str, dict[str, Any]], given: dict[str, Any]) -> Iterator[str]:
    """Names that no catalogue has, and settings that the entry does not have."""
    entry = given.get("entry")
    named = [("models", entry), ("datasets", given.get("dataset"))]
    if given.get("command") == "inspect":
        named += [("datasets", target) for target in given["targets"] if "." not in target]
    if given.get("command") == "build":
        named += [("stores", store) for store in given["stores"]]
    for section, name in named:
        if name is not None and not PLACEHOLDER.fullmatch(name) and name not in known[section]:
            yield f"{section}: no '{name}'"
    rows = [known["models"][entry]] if entry in known["models"] else known["models"].values()
    keys = {key for row in rows for key in settable(row)}
    for setting in given.get("settings") or ():
        if setting.partition("=")[0].partition(".")[0] not in keys:
            yield f"no setting '{setting}'"


# ---------------------------------------------------------------- every block, by its language


@pytest.mark.parametrize("block", [b for b in ALL if b.commands], ids=str)
def test_our_commands_parse(block: Block) -> None:
    assert not [wrong for script, _ in block.commands for wrong in complaints(block.page, script)]


def _leaves() -> Iterator[click.Command]:
    for main in COMMANDS.values():
        yield main
        yield from main.commands.values() if isinstance(main, click.Group) else ()


@pytest.mark.parametrize("command", list(_leaves()), ids=lambda command: command.name)
def test_the_examples_of_help_parse(command: click.Command) -> None:
    examples = [
        line.partition("   ")[0] for line in map(str.strip, (command.help or "").splitlines())
    ]
    script = "\n".join(line for line in examples if line.startswith(tuple(COMMANDS)))
    assert script, "no example"
    assert not complaints(ROOT / "catalog.yaml", script)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_the_text_have_their_options(page: Path) -> None:
    wrong = []
    for code in re.findall(r"(?<!`)`(sherlock-[^`\n]+)`", page.read_text("utf-8")):
        name, *words = code.split()
        command = COMMANDS[name]
        if isinstance(command, click.Group) and words and words[0] in command.commands:
            command = command.commands[words[0]]
        known = {option for p in command.params for option in p.opts} | {"--help", "--version"}
        wrong += [code for word in words if word.startswith("--") and word not in known]
    assert not wrong


@pytest.mark.parametrize(
    "block", [b for b in ALL if b.language in ("yaml", "json", "python")], ids=str
)
def test_files_load(block: Block, tmp_path: Path) -> None:
    if block.language == "python":
        compile(block.text, str(block), "exec")
    elif block.language == "json":
        json.loads(block.text)
    elif set(yaml.safe_load(block.text)) <= set(SECTIONS):
        path = tmp_path / "mine.yaml"
        path.write_text(block.text)
        load_catalog(path)


def test_extras_and_targets_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    for block in ALL:
        for words in (w for script, _ in block.commands for w in simple_commands(script) if w):
            if words[0] == "make":
                assert {w for w in words[1:] if "=" not in w} <= set(targets), str(block)
            for extra in re.findall(r"sherlock-zoo\[([\w,]+)\]|\.\[([\w,]+)\]", " ".join(words)):
                assert set("".join(extra).split(",")) <= set(extras), str(block)


def test_what_is_not_run_says_why() -> None:
    reasons = [(str(block), block.reason) for block in ALL if block.reason is not None]
    assert reasons
    assert not [where for where, reason in reasons if len(reason.split()) < 3]


def test_a_wrong_command_is_found() -> None:
    script = (
        "sherlock-train conv-voxel --data x --set widht=2 | tee log\n"
        "bash -c 'sherlock-data build sherlock voxel'; sherlock-models plan --gups 8"
    )
    told = " ".join(complaints(ROOT / "README.md", script))
    for wrong in ("'conv-voxel'", "'widht=2'", "'voxel'", "--gups"):
        assert wrong in told


# ---------------------------------------------------------------- every page, run


@pytest.fixture(scope="module")
def tiny(tiny_raw: Path, tiny_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of `raw` and `stores`, to be copied."""
    folder = tmp_path_factory.mktemp("tiny")
    shutil.copytree(tiny_raw, folder / "raw")
    shutil.copytree(tiny_stores.parent, folder / "stores")
    return folder


@pytest.fixture
def shell(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and this environment's commands."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    values = {"PATH": path, "TINY": tiny, "DOCS": DOCS, "COLUMNS": 160, "OMP_NUM_THREADS": 1}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _runs(block: Block) -> bool:
    return block.language in ("console", "bash", "python") and block.reason is None


#: what a test must not do
NOTHING = "pip() { :; }; make() { :; }"
RUN = [page for page in PAGES if any(map(_runs, blocks(page)))]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", RUN, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_page_runs(page: Path, shell: Path) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.file:
            target = shell / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text)
        elif block.language == "python" and not block.reason:
            exec(compile(block.text, str(block), "exec"), names)  # noqa: S102 - our own pages
        elif block.reason is None:
            for script, shown in block.commands:
                run(block, script, shown, NOTHING)
