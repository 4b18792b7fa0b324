"""What is printed where: colours on a terminal, whole and plain words in a pipe, logs on stderr.

What depends on the terminal runs in a process of its own; a terminal is made with `pty`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from sherlock_cli import console
from sherlock_cli.data import main

ESCAPE = "\x1b["
#: colours, not bold and the like
COLOUR = re.compile(r"\x1b\[(?:[\d;]*;)?(?:3[0-7]|9[0-7])(?:;[\d;]*)?m")
LONG = "a-dataset-with-a-name-of-such-a-length-that-no-terminal-of-eighty-columns-shows-it"
#: what may be set around the tests
UNSET = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "SHERLOCK_LOG", "COLORTERM")


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    return {**kept, "TERM": "xterm-256color", **variables}


#: a table and a failure, as every command prints them
PRINTED = f"""
from sherlock_cli.console import print_table, say
rows = [["{LONG}", n, "complete", "{LONG}"] for n in range(3)]
print_table("Stores", ["dataset", "number", "state", "why not"], rows, numeric=[1])
say("error: nowhere.zarr: no store there")
"""


def piped(code: str = PRINTED, **variables: str) -> tuple[str, str]:
    """Stdout and stderr of Python code in pipes."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(**variables)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def on_a_terminal(columns: int = 80, **variables: str) -> str:
    """What is shown of the same on a terminal of so many columns."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (25, columns))
    ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen([sys.executable, "-c", PRINTED], env=environment(**variables), **ends):
        os.close(theirs)
        read = b""
        with contextlib.suppress(OSError):  # on Linux the end of a terminal is an error
            while piece := os.read(ours, 4096):
                read += piece
    os.close(ours)
    return read.decode().replace("\r\n", "\n")


def words(text: str) -> list[str]:
    """Characters but for spaces, lines and their order, however cells are folded."""
    return sorted(re.sub(r"\W", "", re.sub(r"\x1b\[[\d;]*m", "", text)))


def test_a_table_in_a_pipe_is_plain_and_every_row_a_line() -> None:
    printed, said = piped()
    assert ESCAPE not in printed + said
    assert "…" not in printed
    rows = [line for line in printed.splitlines() if LONG in line]
    assert [line.count(LONG) for line in rows] == [2, 2, 2]
    assert said == "error: nowhere.zarr: no store there\n"


def test_columns_are_respected_and_no_cell_loses_anything() -> None:
    free, _ = piped()
    narrow, _ = piped(COLUMNS="60")
    assert max(map(len, free.splitlines())) > 160
    assert max(map(len, narrow.splitlines())) <= 60
    assert words(narrow) == words(free)


def test_a_terminal_s_width_is_kept_and_colours_are_shown() -> None:
    shown = on_a_terminal(columns=70)
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert max(map(len, plain.splitlines())) <= 70
    assert words(shown) == words("".join(piped()))
    assert re.search(COLOUR.pattern + "complete", shown)
    assert re.search(COLOUR.pattern + "error: ", shown)


def test_no_color_and_terminals_that_can_do_nothing() -> None:
    plain = on_a_terminal(NO_COLOR="1")
    assert not COLOUR.search(plain)
    assert "nowhere.zarr: no store there" in plain
    assert ESCAPE not in on_a_terminal(TERM="dumb")


def test_force_color_colours_a_pipe_but_moves_no_bars() -> None:
    printed, said = piped(FORCE_COLOR="1")
    assert re.search(COLOUR.pattern + "complete", printed)
    assert COLOUR.search(said)
    assert [line.count(LONG) for line in printed.splitlines() if LONG in line] == [2, 2, 2]
    printed, said = piped(FORCE_COLOR="1", NO_COLOR="1")
    assert not COLOUR.search(printed + said)
    bar = "from sherlock_cli.progress import BuildProgress\nwith BuildProgress('x') as bar:"
    assert ESCAPE not in piped(f"{bar} bar.fraction(1.0)", FORCE_COLOR="1")[1]


#: work of three kinds, with no pause between lines
WORK = """
from sherlock_cli import progress
progress.LINE_S = {line_s}
with progress.Bar("lesions") as bar:
    bar.begin(8)
    bar.advanced(2)
with progress.Bar("nothing") as bar:
    bar.begin(0)
    bar.advanced(0)
with progress.BuildProgress("building") as build:
    build.start("grey", 4.0, 0.0)
    build.update("grey", 1.0)
    build.fraction(0.5, "[/data]")
with progress.stages() as say:
    say("canary of [/data]")
"""


def test_where_nothing_moves_a_line_is_said_now_and_then() -> None:
    """In a pipe, as in a job's log, silence would look like a command that hangs."""
    _, said = piped(WORK.format(line_s=0))
    shares = [re.sub(", about .*", "", line) for line in said.splitlines() if line.strip()]
    assert [line for line in shares if "━" not in line] == [
        "lesions: 25 %",
        "building grey: 25 %",
        "building [/data]: 50 %",
        "canary of [/data] ...",
    ]
    _, said = piped(WORK.format(line_s=60))
    assert " %" not in re.sub("━.*", "", said)


def test_a_closed_stderr_is_no_failure() -> None:
    """As of `sherlock-data list 2>&-`: Python then has no `sys.stderr`."""
    code = f"import os, sys; os.close(2); sys.stderr = None; {PRINTED.strip()}"
    printed, _ = piped(code)
    assert LONG in printed


def test_what_a_narrow_encoding_lacks_is_replaced() -> None:
    printed, _ = piped(
        "import click\n"
        "from sherlock_cli import console\n"
        "@click.command()\n"
        "@console.handled\n"
        "def command():\n"
        "    console.print_table('R²', ['curve'], [['▁▃▇']])\n"
        "    console.tell('R² 0.5')\n"
        "command()",
        PYTHONIOENCODING="ascii",
    )
    assert "R? 0.5" in printed
    assert "| ???   |" in printed


@pytest.mark.parametrize("typed", ["info {stores}/parcels.zarr", "inspect synth --catalog {raw}"])
def test_no_table_of_a_narrow_terminal_cuts_a_cell(
    tiny_stores: Path, tiny_raw: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    paths = {"stores": tiny_stores, "raw": tiny_raw / "catalog.yaml"}
    arguments = typed.format(**paths).split()
    free = CliRunner().invoke(main, arguments).stdout
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(console.results, "_width", 40)  # read when the process begins
    narrow = CliRunner().invoke(main, arguments).stdout
    assert "…" not in narrow
    assert words(narrow) == words(free)


@pytest.mark.parametrize(
    ("options", "variables", "levels"),
    [
        pytest.param([], {}, set(), id="silent"),
        pytest.param(["-v"], {}, {"INFO"}, id="v"),
        pytest.param(["-vv"], {}, {"INFO", "DEBUG"}, id="vv"),
        pytest.param(["--debug"], {}, {"INFO", "DEBUG"}, id="debug"),
        pytest.param([], {"SHERLOCK_LOG": "info"}, {"INFO"}, id="environment"),
        pytest.param(["-v"], {"SHERLOCK_LOG": "error"}, {"INFO"}, id="option wins"),
    ],
)
def test_logs_go_to_stderr_as_far_as_asked(
    tiny_raw: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    variables: dict[str, str],
    levels: set[str],
) -> None:
    monkeypatch.delenv("SHERLOCK_LOG", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    typed = ["list", "--catalog", str(tiny_raw / "catalog.yaml"), "--json", *options]
    outcome = CliRunner().invoke(main, typed)
    assert set(re.findall(r" (INFO|DEBUG) sherlock_\w+", outcome.stderr)) == levels
    assert json.loads(outcome.stdout)["rows"]
    others = re.findall(r"^.* (?:INFO|DEBUG) (?!sherlock_).*$", outcome.stderr, re.M)
    assert not others, "what other packages log is theirs"


def test_a_level_that_is_none_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHERLOCK_LOG", "debgu")
    outcome = CliRunner().invoke(main, ["list"])
    assert outcome.exit_code == 2
    assert "SHERLOCK_LOG: no level 'debgu'; did you mean 'debug'?" in outcome.stderr


@pytest.mark.parametrize("package", ["sherlock_data", "sherlock_models"])
def test_a_program_that_asks_for_no_log_sees_none(package: str) -> None:
    code = f"import logging, {package}; logging.getLogger('{package}.x').error('unasked')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
