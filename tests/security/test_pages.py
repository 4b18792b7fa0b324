"""A page about data from strangers: whatever their names say, they stay text."""

from __future__ import annotations

import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.corpus.example import call
from tests.models.conftest import CATALOG, PARCELS, SUBJECTS, write, write_stores

SCRIPT = "<script>alert('{}')</script>"
IMAGE = '"><img src=x onerror=alert(1)>'
QUICK = ["--steps", 2, "--batch-size", 16, "--set", "validate_every=2"]


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose name, title, subjects, parcels and networks are pieces of HTML."""
    folder = write_stores(tmp_path_factory.mktemp("hostile"))
    string = np.dtypes.StringDType()
    with xr.open_zarr(folder / "parcels.zarr") as opened:
        data = opened.load()
    names = {
        "subject": [SCRIPT.format(f"subject {n}") for n in range(len(SUBJECTS))],
        "parcel": [SCRIPT.format(f"parcel {n}") for n in range(PARCELS)],
    }
    data = data.assign_coords({dim: np.array(text, dtype=string) for dim, text in names.items()})
    networks = np.array([IMAGE] * PARCELS, dtype=string)
    data = data.assign_coords(network=("parcel", networks))
    for variable in (*data.coords, *data.data_vars):
        data[variable].encoding.clear()
    attrs = {"dataset": SCRIPT.format("dataset"), "title": SCRIPT.format("title")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        write(folder / "parcels.zarr", data.assign_attrs(attrs))
    return folder


def test_names_in_a_page_are_text(stores: Path, tmp_path: Path) -> None:
    catalog, run = tmp_path / "catalog.yaml", tmp_path / "run"
    catalog.write_text(CATALOG)
    target = ["--data", stores, "--catalog", catalog, "--out", run]
    for command in (
        ("sherlock-train", "toy", *target, *QUICK),
        ("sherlock-models", "report", run),
    ):
        outcome = call(*command)
        assert outcome.exit_code == 0, (outcome.output, outcome.exception)
    page = Tags((run / "report.html").read_text(encoding="utf-8"))
    scripts = [attrs.get("id") for tag, attrs in page.found if tag == "script"]
    assert set(scripts) <= {"page-data", "viewer"}
    for tag, attrs in page.found:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        if tag in ("img", "source"):
            assert (attrs.get("src") or attrs.get("srcset") or "").startswith("data:")
    for words in ("dataset", "parcel 0"):
        assert SCRIPT.format(words) in page.text
