"""`--json` of every command: one document on stdout, with the keys that its help names."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from sherlock_cli import data, models, train

from tests.corpus.example import call

CATALOG = "--catalog raw/catalog.yaml"
#: what is typed, in the folder of the good example
TYPED = [
    f"sherlock-data list {CATALOG}",
    f"sherlock-data inspect lab {CATALOG}",
    "sherlock-data inspect raw/s1.nii.gz",
    "sherlock-data synth made",
    f"sherlock-data build lab {CATALOG}",
    f"sherlock-data build lab {CATALOG} --dry-run",
    "sherlock-data info stores/lab",
    "sherlock-data verify stores/lab/voxels.zarr",
    "sherlock-data export stores/lab/voxels.zarr out.nii --subject sub-01",
    f"sherlock-train toy --data stores/lab {CATALOG} --steps 2 --set validate_every=2",
    "sherlock-models list",
    "sherlock-models plan conv-parcels",
    "sherlock-models show runs/toy",
    "sherlock-models evaluate runs/toy",
    "sherlock-models lesion runs/toy",
    "sherlock-models decode runs/toy --bold sub-01 film.mp4 --stills stills.png",
    "sherlock-models report runs/toy",
    "sherlock-models export runs/toy exported",
]
#: takes minutes; tests/models/test_validate.py holds its document
LONG = "sherlock-models validate"
DAMAGED = "stores/lab/voxels.zarr/mean/c/0/0/0"
#: words of a help that are no keys
PLAIN = set(re.findall(r"\w+", "of and more none where all is whole how one for each"))


def commands() -> dict[str, click.Command]:
    """Every command that does something."""
    groups = {"sherlock-data": data.main, "sherlock-models": models.main}
    found = {f"{n} {c}": command for n, g in groups.items() for c, command in g.commands.items()}
    return {**found, "sherlock-train": train.main}


def promised(command: click.Command) -> list[str]:
    """Keys that a command's help names."""
    [option] = [parameter for parameter in command.params if parameter.name == "as_json"]
    return re.findall(r"\w+", option.help.partition("stdout: ")[2])


def keys(value: Any) -> Iterator[str]:
    """Keys of a document and of the objects in its lists."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield key
            if isinstance(member, list):
                for item in member[:1]:
                    yield from keys(item)


def test_every_command_has_it_and_is_tried() -> None:
    tried = {name for name in commands() for typed in TYPED if typed.startswith(name)}
    assert tried | {LONG} == set(commands())
    assert all(promised(command) for command in commands().values())


@pytest.mark.parametrize("typed", TYPED, ids=lambda typed: " ".join(typed.split()[:3]))
def test_a_document_has_the_keys_that_help_names(typed: str, desk: Path) -> None:
    if " verify " in typed:  # a whole store has no rows
        (desk / DAMAGED).write_bytes(b"damaged")
    outcome = call(*shlex.split(typed), "--json")
    assert outcome.exit_code == (1 if " verify " in typed else 0), outcome.output
    found = set(keys(json.loads(outcome.stdout)))
    name = max((name for name in commands() if typed.startswith(name)), key=len)
    wanted = set(promised(commands()[name])) - PLAIN
    if " inspect " in typed:  # of a dataset what stands before the semicolon, of files behind it
        wanted = {"files", "problems"} if ".nii" in typed else wanted - {"files"}
    assert wanted <= found, wanted - found


def test_hashes_are_of_the_files_that_were_written(desk: Path) -> None:
    export = "sherlock-data export stores/lab/voxels.zarr out.nii --subject sub-01 --json"
    document = json.loads(call(*export.split()).stdout)
    content = (desk / document["file"]).read_bytes()
    assert document["bytes"] == len(content)
    assert document["sha256"] == hashlib.sha256(content).hexdigest()
    made = json.loads(call("sherlock-data", "synth", "made", "--json").stdout)
    assert {file["path"] for file in made["files"]} == {
        str(path.relative_to(desk)) for path in (desk / "made").rglob("*") if path.is_file()
    }
    first = made["files"][0]
    assert first["sha256"] == hashlib.sha256((desk / first["path"]).read_bytes()).hexdigest()
