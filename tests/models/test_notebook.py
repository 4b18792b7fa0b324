"""What runs, models and the zoo show of themselves: right numbers, escaped, without a network."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

import sherlock_data as sd
import sherlock_models as sm
from tests.corpus.example import call

SCRIPT = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags, attributes and text of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += f"{data} | "


def assert_harmless(page: Page) -> None:
    """Only tables, which lead nowhere and run nothing."""
    assert set(page.tags) <= {"table", "tr", "th", "td", "div"}
    assert page.attributes <= {"style", "colspan"}


def test_a_run_says_what_it_is_in_a_line(desk: Path) -> None:
    run = sm.load("runs/toy")
    assert repr(run) == "Run('runs/toy': toy on lab, finished, step 2 of 2)"


def test_a_run_shows_state_size_and_scores(desk: Path) -> None:
    run = sm.load("runs/toy")
    page = Page(run._repr_html_())
    assert_harmless(page)
    for words in ("toy", "lab", "finished, step 2 of 2", "parcels, 4 units", "block, fold 0"):
        assert words in page.text
    assert f"{run.model.count_parameters():,}" in page.text
    assert "R²" not in page.text
    assert call("sherlock-models", "evaluate", "runs/toy").exit_code == 0
    assert repr(run).endswith("step 2 of 2, evaluated)")
    page = Page(run._repr_html_())
    assert_harmless(page)
    rows = json.loads(Path("runs/toy/evaluation.json").read_text())["rows"]
    own = {(r["target"], r["metric"]): r["value"] for r in rows if r["predictor"] == "model"}
    for target in ("brain", "video", "audio"):
        shown = f"{target} | {own[target, 'r']:.3f} | {own[target, 'r2']:.3f}"
        assert shown in page.text


def test_a_run_called_a_script_is_text(desk: Path) -> None:
    folder = desk / SCRIPT.replace("/", "-")
    shutil.copytree("runs/toy", folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("entry: toy", f"entry: {SCRIPT}"))
    page = Page(sm.load(folder)._repr_html_())
    assert_harmless(page)
    assert SCRIPT in page.text
    assert folder.name in page.text


@pytest.mark.parametrize("file", ["config.yaml", "state.json"])
def test_a_damaged_run_is_shown_as_that(desk: Path, file: str) -> None:
    (desk / "runs/toy" / file).write_text("{")
    run = sm.load("runs/toy")
    assert file in repr(run)
    page = Page(run._repr_html_())
    assert_harmless(page)
    assert file in page.text


@pytest.mark.parametrize("text", ["{", '{"rows": 3, "step": 2}', "[]", '{"rows": [{}]}'])
def test_damaged_scores_are_said_to_be(desk: Path, text: str) -> None:
    (desk / "runs/toy/evaluation.json").write_text(text)
    page = Page(sm.load("runs/toy")._repr_html_())
    assert "evaluation.json is damaged" in page.text
    assert "finished, step 2 of 2" in page.text


def test_a_model_shows_its_parts(desk: Path) -> None:
    model = sm.create("toy", data="stores/lab", catalog="raw/catalog.yaml")
    page = Page(model._repr_html_())
    assert_harmless(page)
    parts = re.findall(r"(?:trunk|head|decoder) \| ([\d,]+) \|", page.text)
    assert len(parts) == 3
    assert sum(int(part.replace(",", "")) for part in parts) == model.count_parameters()
    assert f"{model.count_parameters():,} (" in page.text
    assert "6 x 8 x 3" in page.text
    assert "4 units" in page.text


def test_the_zoo_is_a_table_and_still_a_list() -> None:
    rows = sm.list_models()
    assert isinstance(rows, list)
    assert {"entry", "input", "brain", "parameters", "claimed"} == set(rows[0])
    page = Page(rows._repr_html_())
    assert_harmless(page)
    lines = repr(rows).splitlines()
    assert len(lines) == len(rows) + 1 == page.tags.count("tr")
    one = next(line for line in lines if line.startswith("conv-voxels "))
    assert re.search(r"video \+ audio +voxels +119,032,335", one)
    assert "119,032,335" in page.text


def test_a_catalogue_names_what_it_has() -> None:
    text = repr(sd.load_catalog())
    assert text.startswith("Catalog(datasets: sherlock, haxby2001; atlases: ")
    assert "conv-parcels" in text
    assert len(text) < 1000
