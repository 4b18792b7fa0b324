"""`--help` of every command: every option has its word, an example, and 80 columns are enough."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner
from sherlock_cli import data, demo, models, train

MAINS = {
    "sherlock-data": data.main,
    "sherlock-models": models.main,
    "sherlock-train": train.main,
    "python -m sherlock_cli.demo": demo.main,
}
#: every command, a new one too, by what is typed
COMMANDS: dict[str, click.Command] = {
    **MAINS,
    **{
        f"{name} {command}": found
        for name, main in MAINS.items()
        if isinstance(main, click.Group)
        for command, found in main.commands.items()
    },
}
COLUMNS = 80

every_command = pytest.mark.parametrize("name", COMMANDS)


def shown(name: str) -> str:
    """What `--help` prints on a terminal of 80 columns."""
    start = next(main for main in sorted(MAINS, key=len, reverse=True) if name.startswith(main))
    arguments = [*name.removeprefix(start).split(), "--help"]
    done = CliRunner().invoke(MAINS[start], arguments, prog_name=start, terminal_width=COLUMNS)
    assert done.exit_code == 0
    return done.stdout


@every_command
def test_no_line_is_wider_than_a_terminal(name: str) -> None:
    assert [line for line in shown(name).splitlines() if len(line) > COLUMNS] == []


@every_command
def test_every_option_has_its_word(name: str) -> None:
    context = click.Context(COMMANDS[name])
    options = [p for p in COMMANDS[name].get_params(context) if isinstance(p, click.Option)]
    assert not [option.opts for option in options if not option.help]


@every_command
def test_there_are_examples_of_the_command_itself(name: str) -> None:
    _, found, examples = shown(name).partition("Examples:\n")
    assert found
    typed = [line.strip() for line in examples.partition("\nOptions:")[0].splitlines()]
    assert all(line.startswith(name) for line in typed if line)


@pytest.mark.parametrize("name", list(MAINS))
def test_the_list_of_commands_cuts_no_sentence(name: str) -> None:
    _, _, commands = shown(name).partition("\nCommands:\n")
    assert not [line for line in commands.splitlines() if line.endswith("...")]


@every_command
def test_no_word_of_click_s_own_is_left_where_ours_says_more(name: str) -> None:
    assert not re.findall(r"--[\w-]+ (?:TEXT|INTEGER|FLOAT|PATH)\b.*", shown(name))
