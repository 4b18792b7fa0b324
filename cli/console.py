"""What the three commands share: failures in one line, tables, JSON, progress.

People read stderr, scripts read stdout: progress and notes go to the first, results to the second.
"""

from __future__ import annotations

import functools
import io
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

import click
from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text
from sherlock_cli import logs
from sherlock_cli.ending import end_soon, wait_at_exit

from sherlock_data.errors import SherlockError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])

#: characters of a line that nobody looks at on a terminal: more than any table has
WIDE = 10_000
#: how words are shown that say how well something stands
STYLES = {
    "complete": "green",
    "built": "green",
    "repaired": "green",
    "met": "green",
    "resumable": "yellow",
    "damaged": "bold red",
    "MISSED": "bold red",
}
#: beginnings of lines for people, and how they are shown
MARKS = {"error: ": "bold red", "note: ": "yellow"}


class _Results(Console):
    """A console that breaks no line of a file or a pipe: who reads there counts no columns."""

    @property
    def size(self) -> ConsoleDimensions:
        known = super().size
        if "COLUMNS" in os.environ or self.file.isatty():
            return known
        return ConsoleDimensions(WIDE, known.height)


#: for people
notes = Console(stderr=True, highlight=False, markup=False)
#: for what moves, as bars do: on a terminal only, also where colours are asked for elsewhere
bars = notes if notes.file.isatty() else Console(stderr=True, force_terminal=False)
#: for results
results = _Results(highlight=False, markup=False)


def say(line: str, style: str | None = None) -> None:
    """Print a line for people on stderr; it is never broken, so that a path in it can be copied."""
    mark = next((mark for mark in MARKS if line.startswith(mark)), "")
    text = Text.assemble((mark, MARKS.get(mark, "")), line.removeprefix(mark))
    notes.print(text, style=style, soft_wrap=True)


def tell(line: str) -> None:
    """Print a line of a result on stdout, unbroken, so that a script finds its words together."""
    results.print(line, soft_wrap=True)


class Group(click.Group):
    """A command with commands, the nearest of which is said where one is mistyped."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is named, or say which is nearest."""
        name = args[0]
        known = self.get_command(ctx, name) is not None or name.startswith("-")
        if not known and not ctx.resilient_parsing:
            ctx.fail(f"No such command '{name}'; {did_you_mean(name, self.commands)}")
        return super().resolve_command(ctx, args)


def handled(command: F) -> F:
    """Turn a stated failure into one line on stderr and exit code 1; adds ``-v``, ``--debug``."""

    @click.option(
        "-v", "--verbose", count=True, help="Say on stderr what is done; -vv: every step."
    )
    @click.option(
        "--debug", is_flag=True, help="Show the traceback of a failure, and all that -vv says."
    )
    @functools.wraps(command)
    def wrapper(*args: Any, verbose: int = 0, debug: bool = False, **kwargs: Any) -> Any:
        _print_what_cannot_be_encoded()
        logs.start(2 if debug else verbose, say)
        try:
            return command(*args, **kwargs)
        except (SherlockError, OSError) as error:
            if debug:
                raise
            say(f"error: {_line(error)}")
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            end_soon(1)
            raise
        finally:
            wait_at_exit()

    return wrapper  # type: ignore[return-value]


def _print_what_cannot_be_encoded() -> None:
    """Print a mark for a letter that the encoding lacks, as in a file's name, and do not fail."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


@contextmanager
def stoppable() -> Iterator[None]:
    """Let a SIGTERM end the work as Ctrl-C does: what was begun is taken away, then exit 143.

    Only the main thread may listen to signals, so that no other may use this.
    """
    came = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.signal(number, signal.SIG_IGN)  # a second one would cut the clearing away short
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if came:  # not in the handler, which may have come in the middle of a print
            say("stopped by SIGTERM")
            end_soon(128 + signal.SIGTERM)


def _line(error: SherlockError | OSError) -> str:
    """Say in one line what the system refused: a read-only folder, a path through a file."""
    if isinstance(error, SherlockError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; check the path and its permissions"


def print_json(document: Any) -> None:
    """Print one JSON document; what is undefined (NaN) is null, never NaN."""
    click.echo(json.dumps(plain(document), indent=2, allow_nan=False))


def files_in(folder: Path) -> list[dict[str, Any]]:
    """Path, bytes and SHA-256 of every file in a folder, in order."""
    from sherlock_data.provenance import sha256_of

    return [
        {"path": path, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def plain(value: Any) -> Any:
    """Turn numpy scalars and arrays, paths and tuples into what JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    return str(value)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    numeric: Sequence[int] = (),
) -> None:
    """Print a table on stdout; ``numeric`` columns are set flush right.

    The title stays in one line and no cell is cut, so that paths and names are found whole.
    """
    if title:
        results.print(title, style="bold", soft_wrap=True)
    table = Table()
    for index, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if index in numeric else "left"
        table.add_column(column, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    results.print(table)


def _cell(value: Any) -> Text:
    text = "" if value is None else str(value)
    return Text(text, STYLES.get(text, ""))


def size(nbytes: float) -> str:
    """Bytes for people: ``1.2 GB``."""
    value, units = float(nbytes), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.3g} {units[0]}"


def seconds(value: float) -> str:
    """Seconds for people: ``1 h 02 min``."""
    if not math.isfinite(value):
        return "?"
    if value < 60:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
