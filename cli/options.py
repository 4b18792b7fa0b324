"""Options and arguments that more than one command takes, each declared once.

A command takes one as it takes click's own: ``@options.catalog``. Where commands mean the same but
say it in other words, the words are given: ``@options.seed("Of every draw.")``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from sherlock_cli import completion

F = TypeVar("F", bound=Callable[..., Any])

#: context settings of a command that a shell finds; the commands below it inherit them
HELP = {"help_option_names": ["-h", "--help"]}

_path = click.Path(path_type=Path)

entry = click.argument("entry", required=False, shell_complete=completion.entries)
run = click.argument("run", type=_path, shell_complete=completion.runs)

version = click.version_option(package_name="sherlock-zoo")
catalog = click.option(
    "--catalog", type=_path, metavar="FILE", help="Your catalogue, laid over the packaged one."
)
precision = click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    help="Numbers that are computed with.  [default: fp32]",
)


def data(words: str) -> Callable[[F], F]:
    """Add ``--data``, the folder of a dataset's stores; ``words`` end its help."""
    return click.option(
        "--data",
        metavar="DIR",
        shell_complete=completion.dataset_folders,
        help=f"Dataset folder, STORES/DATASET{words}",
    )


def batch_size(over: str) -> Callable[[F], F]:
    """Add ``--batch-size``; ``over`` is what shares a step's samples."""
    return click.option(
        "--batch-size",
        type=click.IntRange(1),
        metavar="N",
        help=f"Samples of a step, over all {over}.  [default: 64]",
    )


def settings(which: str) -> Callable[[F], F]:
    """Add ``--set``, passed on as ``settings``; ``which`` may be set."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        shell_complete=completion.settings,
        help=f"{which}, as width=0.5; may be repeated.",
    )


def subject(words: str) -> Callable[[F], F]:
    """Add ``--subject``, one of the dataset's."""
    return click.option(
        "--subject", metavar="SUBJECT", shell_complete=completion.subjects, help=words
    )


def seed(words: str) -> Callable[[F], F]:
    """Add ``--seed``, 0 by default."""
    return click.option("--seed", default=0, show_default=True, metavar="N", help=words)


def as_json(keys: str) -> Callable[[F], F]:
    """Add ``--json``, passed on as ``as_json``; ``keys`` of its document are part of its help."""
    return click.option(
        "--json", "as_json", is_flag=True, help=f"Print one JSON document on stdout: {keys}."
    )
