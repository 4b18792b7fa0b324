"""A run to hand on: the same model from one file, and a card that says what it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt

from sherlock_data.errors import ConfigError
from sherlock_models.config import RunConfig
from sherlock_models.export import CARD, export, model_card
from sherlock_models.run import WEIGHTS, Run, load
from sherlock_models.training.checkpoint import CheckpointError
from sherlock_models.training.train import fit

Configure = Callable[..., RunConfig]
FILES = {CARD, "config.yaml", "evaluation.json", "fitted.safetensors", WEIGHTS}


@pytest.fixture
def exported(judged: Path, tmp_path: Path) -> Run:
    return load(export(load(judged), tmp_path / "out"))


def test_it_opens_as_a_run_and_its_model_is_the_same(judged: Path, exported: Run):
    assert {path.name for path in exported.path.iterdir()} == FILES
    assert exported.state == "exported"
    run = load(judged)
    assert exported.config == run.config
    found, wanted = exported.model.state_dict(), run.model.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    video = torch.rand(2, *run.normaliser.scales["video"].mean.shape)
    one, other = (which.normaliser.forward("video", video) for which in (run, exported))
    assert torch.equal(one, other)


def test_the_card_says_what_it_is_and_how_good(judged: Path, exported: Run):
    text = (exported.path / CARD).read_text(encoding="utf-8")
    assert text == model_card(load(judged), "out")
    assert "| entry | conv-parcels |" in text
    assert str(judged.parent) not in text
    rows = json.loads((judged / "evaluation.json").read_text(encoding="utf-8"))["rows"]
    [r] = [
        row["value"]
        for row in rows
        if (row["predictor"], row["target"], row["metric"]) == ("model", "brain", "r")
    ]
    assert f"| brain | {r:.3f} |" in text


def test_a_run_that_was_not_evaluated_says_so(configure: Configure, tmp_path: Path):
    run = fit(configure(steps=2, batch_size=8, validate_every=2), tmp_path / "run", device="cpu")
    out = export(run, tmp_path / "out")
    assert {path.name for path in out.iterdir()} == FILES - {"evaluation.json"}
    assert "It was not evaluated" in (out / CARD).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a|b", "[x](http://y)", "`code`"])
def test_no_name_breaks_out_of_the_card(judged: Path, tmp_path: Path, name: str):
    run = load(judged)
    config = run.config.model_copy(update={"data": f"stores/{name.replace('/', '')}"})
    shutil.copytree(judged, tmp_path / "run")
    config.save(tmp_path / "run" / "config.yaml")
    html = MarkdownIt("commonmark").enable("table").render(model_card(load(tmp_path / "run"), "o"))
    assert not any(tag in html for tag in ("<script", "<a ", "<code>a", "<code>code</code>"))
    facts = html.partition("</table>")[0].split("<tr>")[2:]
    assert {row.count("<td>") for row in facts} == {2}


@pytest.mark.parametrize("there", ["a file", "a folder", "a link to nothing"])
def test_what_is_there_stays(judged: Path, tmp_path: Path, there: str):
    out = tmp_path / "out"
    make = {"a file": out.touch, "a folder": out.mkdir}
    make.get(there, lambda: out.symlink_to(tmp_path / "nowhere"))()
    with pytest.raises(ConfigError, match="is there already"):
        export(load(judged), out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_without_a_checkpoint_writes_nothing(judged: Path, tmp_path: Path):
    shutil.copytree(judged, tmp_path / "run", ignore=shutil.ignore_patterns("step-*"))
    with pytest.raises(CheckpointError):
        export(load(tmp_path / "run"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("how", ["cut short", "another model's"])
def test_weights_that_are_not_its_own_are_refused(exported: Run, how: str):
    from safetensors.torch import save_file

    weights = exported.path / WEIGHTS
    if how == "cut short":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        save_file({"other": torch.zeros(3)}, weights)
    with pytest.raises(CheckpointError, match="cannot be read as this model"):
        load(exported.path).model  # noqa: B018 - read when it is asked for


def test_it_cannot_be_trained_on(exported: Run):
    before = {path.name for path in exported.path.iterdir()}
    with pytest.raises(ConfigError, match="is exported: the model without its training"):
        fit(exported.config, exported.path, resume=True, device="cpu")
    assert {path.name for path in exported.path.iterdir()} == before
