"""What a shell offers after Tab, asked as bash, zsh and fish ask; and bash itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete, get_completion_class
from sherlock_cli import completion, data, models, train

from sherlock_models.lesions.units import KINDS
from sherlock_models.resolve import settable
from tests.cli.test_imports import HEAVY, loaded

MAINS = {"sherlock-data": data.main, "sherlock-models": models.main, "sherlock-train": train.main}
CATALOG = "--catalog raw/catalog.yaml"
#: what may be loaded for a Tab: settings are pydantic's, labels zarr's
LOADABLE = {"pydantic", "zarr"}


def offered(typed: str) -> list[str]:
    """What is offered at the end of a line: `folders` and `files` are the shell's own to find."""
    name, *words = typed.split(" ")
    variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
    asked = ShellComplete(MAINS[name], {}, name, variable).get_completions(words[:-1], words[-1])
    kinds = {"dir": "folders", "file": "files"}
    return [kinds.get(item.type, item.value) for item in asked]


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        pytest.param("sherlock-data ver", ["verify"], id="command"),
        pytest.param("sherlock-data build --over", ["--overwrite"], id="option"),
        pytest.param("sherlock-data build sh", ["sherlock"], id="dataset"),
        pytest.param(f"sherlock-data build {CATALOG} la", ["lab"], id="own-dataset"),
        pytest.param("sherlock-data build lab p", ["parcels", "pca"], id="store"),
        pytest.param("sherlock-data build lab parcels p", ["pca"], id="another-store"),
        pytest.param("sherlock-data inspect ha", ["haxby2001"], id="dataset-or-file"),
        pytest.param("sherlock-data inspect raw/f", ["files"], id="dataset-or-a-file"),
        pytest.param("sherlock-data info stores/lab/vox", ["stores/lab/voxels.zarr"], id="store-"),
        pytest.param("sherlock-data info sto", ["stores/lab"], id="folder-of-stores"),
        pytest.param("sherlock-data info s3://lab/", [], id="address"),
        pytest.param("sherlock-data list --out st", ["folders"], id="folder"),
        pytest.param("sherlock-data list --catalog ra", ["files"], id="file"),
        pytest.param(
            "sherlock-data export stores/lab/voxels.zarr out.nii --subject ",
            ["sub-01", "sub-02"],
            id="subject-of-a-store",
        ),
        pytest.param(
            "sherlock-data export stores/lab/voxels.zarr out.nii --run ",
            ["run-1", "run-2"],
            id="run-of-a-store",
        ),
        pytest.param("sherlock-train conv-pa", ["conv-parcels"], id="entry"),
        pytest.param(f"sherlock-train {CATALOG} to", ["toy"], id="own-entry"),
        pytest.param("sherlock-train toy --data ", ["stores/lab"], id="data"),
        pytest.param("sherlock-train --resume ", ["runs/toy"], id="run"),
        pytest.param("sherlock-train --resume ./ru", ["./runs/toy"], id="run-from-here"),
        pytest.param("sherlock-train toy --resume nowhere", ["folders"], id="no-run"),
        pytest.param("sherlock-train toy --split r", ["run", "random"], id="choice"),
        pytest.param(
            "sherlock-train toy --set off", ["offload=true", "offload=false"], id="true-or-false"
        ),
        pytest.param(
            "sherlock-train toy --set prec", ["precision=fp32", "precision=bf16"], id="of"
        ),
        pytest.param("sherlock-train toy --set batch", ["batch_size=64"], id="default"),
        pytest.param(f"sherlock-train {CATALOG} toy --set hidd", ["hidden=4"], id="the-entry-s"),
        pytest.param("sherlock-models show runs/", ["runs/toy"], id="run-argument"),
        pytest.param("sherlock-models plan --gpu h", ["h100", "h200"], id="card"),
        pytest.param("sherlock-models lesion runs/toy --units net", ["networks"], id="units"),
        pytest.param("sherlock-models lesion runs/toy --units Net", ["Net1", "Net0"], id="network"),
        pytest.param(
            "sherlock-models lesion runs/toy --units Net0,7Networks_LH_",
            ["Net0,7Networks_LH_Net1_1", "Net0,7Networks_LH_Net0_2"],
            id="one-of-several",
        ),
        pytest.param("sherlock-models lesion runs/toy --units v1.n", ["files"], id="image"),
        pytest.param("sherlock-models lesion runs/toy --retrain net", ["files"], id="no-kind"),
        pytest.param("sherlock-models decode runs/toy --bold ", ["sub-01", "sub-02"], id="subject"),
        pytest.param("sherlock-models decode runs/none --bold ", [], id="subject-of-no-run"),
        pytest.param(
            "sherlock-models plan --catalog raw/film.mp4 conv-parc", ["conv-parcels"], id="no-yaml"
        ),
    ],
)
def test_what_is_offered(desk: Path, typed: str, wanted: list[str]) -> None:
    assert offered(typed) == wanted


def test_a_damaged_store_offers_nothing(desk: Path) -> None:
    (desk / "stores/lab/parcels.zarr/subject/zarr.json").write_text("{}")
    assert offered("sherlock-models decode runs/toy --bold ") == []


def test_a_number_for_a_name_is_not_offered(desk: Path) -> None:
    Path("years.yaml").write_text("datasets: {2024: {}}\nmodels: {7: {}}\nstores: {1: {}}\n")
    assert offered("sherlock-data build --catalog years.yaml sh") == ["sherlock"]
    assert "7" not in offered("sherlock-train --catalog years.yaml ")


def test_a_name_that_no_file_can_have_offers_nothing(desk: Path) -> None:
    name = "x" * 300
    assert offered(f"sherlock-data export {name} out.nii --subject ") == []
    assert offered(f"sherlock-models decode {name} --bold ") == []


def test_a_pipe_is_not_waited_for(desk: Path) -> None:
    os.mkfifo("pipe.yaml")
    assert offered("sherlock-data build --catalog pipe.yaml sh") == ["sherlock"]


def test_names_are_those_of_the_packages() -> None:
    from sherlock_data.catalog import load_catalog
    from sherlock_data.contract import SUFFIX
    from sherlock_data.objects import ROOT
    from sherlock_models.run import CONFIG

    assert completion.UNITS == KINDS
    assert (completion.ENDING, completion.COMPLETE, completion.CONFIG) == (SUFFIX, ROOT, CONFIG)
    for name, entry in load_catalog().models.items():
        keys = {value.partition("=")[0] for value in offered(f"sherlock-train {name} --set ")}
        assert keys <= {*settable(entry), "architecture"}, name


def arguments_and_options() -> list[tuple[str, click.Parameter]]:
    leaves = [
        ("train", train.main),
        *((f"data {name}", command) for name, command in data.main.commands.items()),
        *((f"models {name}", command) for name, command in models.main.commands.items()),
    ]
    return [(name, p) for name, command in leaves for p in command.params]


def test_whatever_has_known_values_offers_them() -> None:
    """Free text alone is left: numbers, seconds, addresses, names of new files."""
    free = {
        f"{name} {p.name}"
        for name, p in arguments_and_options()
        if p._custom_shell_complete is None
        and not isinstance(p.type, click.Choice | click.Path)
        and not getattr(p, "is_flag", False)
        and not getattr(p, "count", False)
        and not isinstance(p.type, click.types.IntParamType | click.types.FloatParamType)
    }
    assert free == {
        "data build scheduler",
        "data export time_range",
        "models decode at",
        "models decode replace",
    }


@pytest.mark.parametrize(
    "typed", ["sherlock-data build ", "sherlock-train conv", "sherlock-train --set w"]
)
def test_a_tab_loads_nothing_heavy(typed: str) -> None:
    name, *words = typed.split(" ")
    room = name.removeprefix("sherlock-")
    statement = (
        "from click.shell_completion import ShellComplete; "
        f"from sherlock_cli.{room} import main; "
        f"ShellComplete(main, {{}}, {name!r}, 'X').get_completions({words[:-1]!r}, {words[-1]!r})"
    )
    assert loaded(statement) & HEAVY <= LOADABLE


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("name", MAINS)
def test_every_shell_gets_its_script(shell: str, name: str) -> None:
    variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
    script = get_completion_class(shell)(MAINS[name], {}, name, variable).source()
    assert name in script
    assert variable in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        pytest.param(["sherlock-data", "build", "lab", "vo"], ["volumes", "voxels"], id="store"),
        pytest.param(["sherlock-train", "--resume", "ru"], ["runs/toy"], id="run"),
    ],
)
def test_bash_completes(desk: Path, words: list[str], wanted: list[str]) -> None:
    command = words[0]
    function = f"_{command.replace('-', '_')}_completion"
    script = f"""
        eval "$(_{command.upper().replace("-", "_")}_COMPLETE=bash_source {command})"
        COMP_WORDS=({" ".join(words)}) COMP_CWORD={len(words) - 1}
        {function} {command}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, env={"PATH": path}
    )
    assert done.stderr == ""
    assert done.stdout.split() == wanted
