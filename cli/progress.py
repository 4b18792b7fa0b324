"""Progress for people, on stderr: what is done, the rate, the time left.

Bars on a terminal; a line now and then in a pipe or in a job's log, for work that takes long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text
from sherlock_cli import console
from sherlock_cli.console import bars

#: between two lines where no bar can be drawn
LINE_S = 10.0


class _Rate(TransferSpeedColumn):
    """Bytes per second, where it is bytes that are counted."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields.get("bytes") else Text("")


class _Lines:
    """Says what is done, a line now and then, where nothing can be drawn that moves."""

    def __init__(self) -> None:
        self.due = time.monotonic() + LINE_S
        self.turn = threading.Lock()

    def say(self, doing: str, task: Task | None = None) -> None:
        """Say it, and how far it is, unless a line was said just now."""
        if bars.is_terminal or (task is not None and not task.total):
            return
        with self.turn:
            if time.monotonic() < self.due:
                return
            self.due = time.monotonic() + LINE_S
        if task is None:
            console.say(f"{doing} ...")
            return
        left = task.time_remaining
        after = "" if left is None else f", about {console.seconds(left)} left"
        console.say(f"{doing}: {int(task.percentage)} %{after}")


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Give what is to be told what is done, in words, by work whose size is not known."""
    lines = _Lines()
    with bars.status("") as status:

        def say(doing: str) -> None:
            status.update(Text(f"{doing} ..."))
            lines.say(doing)

        yield say


class Bar:
    """One bar for work whose size is known once it has said what it will cost.

    Parameters
    ----------
    doing : str
        What is done meanwhile.
    """

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self.bars = Progress(
            TextColumn(doing),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=bars,
            transient=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def begin(self, total: float) -> None:
        """Show the bar."""
        self.task = self.bars.add_task("", total=total)
        self.lines = _Lines()
        self.bars.start()

    def advanced(self, done: float) -> None:
        """Move the bar."""
        self.bars.advance(self.task, done)
        self.lines.say(self.doing, self.bars.tasks[self.task])


class BuildProgress:
    """One line per store, or one line for work that reports a fraction.

    Used as a context manager; the store interface is :class:`sherlock_data.graph.Progress`.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.tasks: dict[str, TaskID] = {}
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=bars,
            transient=False,
        )
        self.lines = _Lines()

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def start(self, store: str, total: float, done: float) -> None:
        """Open a store's line."""
        self.tasks[store] = self.bars.add_task(
            f"{self.title} {store}", total=total or 1, completed=done, bytes=True
        )

    def update(self, store: str, done: float) -> None:
        """Set how many units are done."""
        self.bars.update(self.tasks[store], completed=done)
        self.lines.say(f"{self.title} {store}", self.bars.tasks[self.tasks[store]])

    def end(self, store: str) -> None:
        """Stop a store's clock; nothing to do for a store that never began."""
        if store in self.tasks:
            self.bars.stop_task(self.tasks[store])

    def fraction(self, done: float, what: str = "") -> None:
        """Set the one line of work that counts from 0 to 1, and what it is at."""
        if "" not in self.tasks:
            self.tasks[""] = self.bars.add_task(self.title, total=1.0)
        doing = f"{self.title} {what}".rstrip()
        self.bars.update(self.tasks[""], completed=done, description=doing)
        self.lines.say(doing, self.bars.tasks[self.tasks[""]])
