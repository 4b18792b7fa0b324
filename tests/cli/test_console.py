"""What the commands share: one line per failure, JSON without NaN, numbers for people."""

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from sherlock_cli import console

from sherlock_data.errors import ConfigError


@click.command()
@console.handled
def failing():
    raise ConfigError("does not fit", where="--size", remedy="use less")


def test_a_stated_failure_is_one_line_and_exit_1():
    outcome = CliRunner().invoke(failing)
    assert outcome.exit_code == 1
    assert outcome.stderr == "error: --size: does not fit; use less\n"
    assert outcome.stdout == ""


@click.command()
@console.handled
def blocked():
    Path("/dev/null/stores").mkdir()


def test_what_the_system_refuses_is_one_line_too():
    outcome = CliRunner().invoke(blocked)
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("error: /dev/null/stores: ")
    assert outcome.stderr.count("\n") == 1


def test_brackets_in_a_name_are_not_markup(capsys):
    console.print_table("", ["path"], [["runs/[red]a[/x]"]])
    assert "runs/[red]a[/x]" in capsys.readouterr().out


def test_debug_shows_the_traceback():
    assert isinstance(CliRunner().invoke(failing, ["--debug"]).exception, ConfigError)


def test_json_has_null_for_what_is_undefined(capsys):
    console.print_json({"r": np.array([0.5, np.nan]), "n": np.int64(3), "inf": float("inf")})
    assert json.loads(capsys.readouterr().out) == {"r": [0.5, None], "n": 3, "inf": None}


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(999, "999 B"), (1_500, "1.5 kB"), (2.1e9, "2.1 GB"), (5e12, "5 TB"), (5e15, "5e+03 TB")],
)
def test_sizes_for_people(nbytes, text):
    assert console.size(nbytes) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.2, "4 s"), (59.9, "60 s"), (90, "2 min"), (3720, "1 h 02 min"), (float("nan"), "?")],
)
def test_times_for_people(value, text):
    assert console.seconds(value) == text
