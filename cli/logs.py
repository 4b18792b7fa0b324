"""What the packages log, shown on stderr as far as ``-v`` or ``SHERLOCK_LOG`` asks for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import click

from sherlock_data.errors import did_you_mean

#: names the level where no ``-v`` does
VARIABLE = "SHERLOCK_LOG"
LEVELS = ("error", "warning", "info", "debug")
#: loggers of our packages; what other libraries log is their users' to ask for
OURS = ("sherlock_data", "sherlock_models")


class _Lines(logging.Handler):
    """Hands every record on as a line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        self.say(self.format(record))


def start(verbose: int, say: Callable[[str], None]) -> None:
    """Show records from a level on.

    Parameters
    ----------
    verbose : int
        How often ``-v`` was given: 1 shows ``info``, 2 ``debug``; 0 leaves it to the environment.
    say : callable
        Prints a line.

    Raises
    ------
    click.UsageError
        If the environment names no level.
    """
    level = ("", "info", "debug")[min(verbose, 2)] or os.environ.get(VARIABLE, "").lower()
    level = level or "warning"
    if level not in LEVELS:
        raise click.UsageError(f"{VARIABLE}: no level '{level}'; {did_you_mean(level, LEVELS)}")
    for name in OURS:
        logger = logging.getLogger(name)
        logger.setLevel(level.upper())
        if not any(isinstance(handler, _Lines) for handler in logger.handlers):
            logger.addHandler(_Lines(say))
