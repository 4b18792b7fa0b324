"""The page: self-contained, escaped, with a text for every picture."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.image import imread
from sherlock_cli.data import main as data
from sherlock_cli.models import main as models
from sherlock_cli.train import main as train

from sherlock_data.errors import ConfigError
from sherlock_models.lesions import lesion_store
from sherlock_models.lesions.lesion import lesion
from sherlock_models.page.report import _environment, score_tables, write_report
from sherlock_models.page.reproduce import UNKNOWN_CATALOG, commands
from sherlock_models.resolve import resolve
from sherlock_models.run import load
from sherlock_models.scoring.evaluate import evaluate
from sherlock_models.training.history import curves, sparkline
from sherlock_models.training.train import fit


class Page(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "br", "input", "col", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def written(judged: Path, tiny_raw: Path) -> str:
    return write_report(load(judged), tiny_raw / "truth.zarr").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(written: str) -> Page:
    return Page(written)


def test_every_tag_is_closed(page: Page) -> None:
    assert page.open == []


def test_nothing_comes_from_a_network(page: Page, written: str) -> None:
    assert all("src" not in attrs for attrs in page.of("script"))
    assert not page.of("link")
    for attrs in page.of("img") + page.of("source"):
        source = attrs.get("src") or attrs.get("srcset") or ""
        assert source.startswith("data:")
    (policy,) = [a for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:;")
    assert "url(" not in written
    assert "@import" not in written
    assert len(written) < 10_000_000


def test_every_picture_opens_and_has_a_text(page: Page) -> None:
    assert len(page.of("img")) >= 8  # curve, five strips, sound, glass brain
    for attrs in page.of("img"):
        assert len(attrs["alt"] or "") > 10
        if attrs["src"] == "data:,":  # the script fills it
            continue
        pixels = imread(io.BytesIO(base64.b64decode((attrs["src"] or "").split(",")[1])))
        assert np.ptp(pixels) > 0


def test_wide_tables_scroll_in_their_own_box_by_keyboard_too(page: Page) -> None:
    boxes = [attrs for attrs in page.of("div") if "scroll" in (attrs.get("class") or "")]
    assert len(boxes) >= len(page.of("table"))
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)


def test_says_what_was_trained_and_how_to_do_it_again(page: Page, judged: Path) -> None:
    run = load(judged)
    for text in ("conv-parcels", "synth", "Is it believable?", "delayed-ridge", "time index under"):
        assert text in page.text
    for identity in run.config.stores.values():
        assert identity.fingerprint in page.text
    assert all(command in page.text for command in commands(run))


def test_planted_regions_are_counted_only_with_a_truth(judged: Path, page: Page) -> None:
    assert "Was what was planted found?" in page.text
    assert "none (false alarms)" in page.text
    without = write_report(load(judged)).read_text(encoding="utf-8")
    assert "Was what was planted found?" not in without


def test_text_from_files_is_escaped(judged: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(judged, copy)
    document = json.loads((copy / "evaluation.json").read_text())
    document["notes"].append("<script>alert('r')</script>")
    (copy / "evaluation.json").write_text(json.dumps(document))
    text = write_report(load(copy)).read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_says_which_command_makes_the_lesions(page: Page, judged: Path) -> None:
    assert f"sherlock-models lesion {judged}" in page.text


def test_stills_and_slices_travel_with_the_page(page: Page, written: str, judged: Path) -> None:
    start = written.index('id="page-data">') + len('id="page-data">')
    data = json.loads(written[start : written.index("</script>", start)])
    names = [region["name"] for region in data["regions"]]
    assert len(data["stills"]["lesioned"]) == len(names) > 1
    sheet = imread(io.BytesIO(base64.b64decode(data["stills"]["decoded"])), format="jpeg")
    assert sheet.shape[0] == data["stills"]["height"] * len(data["stills"]["trs"])
    assert set(data["stills"]["trs"]) <= set(load(judged).data.split.test.tolist())
    cells = np.prod(data["volumes"]["shape"])
    region = np.frombuffer(base64.b64decode(data["volumes"]["region"]), np.uint8)
    assert len(region) == cells
    assert region.max() == len(names)
    (r,) = data["volumes"]["maps"]
    levels = np.frombuffer(base64.b64decode(r["data"]), np.uint8)
    assert levels.max() == 255
    assert ((region > 0) <= (levels > 0)).all()


def test_names_from_files_cannot_leave_the_data(judged: Path) -> None:
    text = (
        _environment()
        .from_string('<script type="application/json">{{ x | tojson }}</script>')
        .render(x="</script><script>alert(1)</script>")
    )
    assert text.count("<script") == text.count("</script") == 1


@pytest.mark.slow
def test_lesions_are_ranked_and_dissociated(judged: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(judged, copy)
    run = load(copy)
    lesion_store.save(run, lesion(run, "parcels", null_draws=2))
    page = Page(write_report(run).read_text(encoding="utf-8"))
    found = lesion_store.load_lesions(run)
    best = str(found["unit"].values[int(found["effect"].values[:, 0].argmax())])
    assert best in page.text
    assert "Strongest double dissociation of video and audio" in page.text
    assert f"sherlock-models lesion {copy}" in page.text


class TestBrowser:
    @pytest.mark.slow
    @pytest.mark.parametrize("width", [pytest.param(1280, id="desk"), pytest.param(400, id="hand")])
    def test_no_error_and_no_overflow(self, written: str, tmp_path: Path, width: int) -> None:
        chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
        if chromium is None:
            pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
        # a browser's window has a least width, a frame in it has none
        (tmp_path / "page.html").write_text(written.replace("</body>", f"{TELL}</body>"))
        frame = f'<iframe src="page.html" width="{width}" height="900"></iframe>'
        (tmp_path / "frame.html").write_text(f"{frame}{LISTEN}")
        command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += ["--enable-logging=stderr", "--virtual-time-budget=5000"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "frame.html").as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
        assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        told = json.loads(re.findall(r"told (\{.*?\})", done.stdout)[0])
        assert told["inner"] == width
        assert told["scroll"] <= width
        assert told["drawn"] > 1
        assert "mm" in told["said"]


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
#: what the page says of itself to the frame around it
TELL = """<script>setTimeout(() => parent.postMessage({
  inner: innerWidth, scroll: document.documentElement.scrollWidth,
  said: document.getElementById("slice-said").textContent,
  drawn: document.getElementById("canvas-x").height,
}, "*"), 500)</script>"""
LISTEN = """<p id="told"></p><script>addEventListener("message", (event) => {
  document.getElementById("told").textContent = "told " + JSON.stringify(event.data);
})</script>"""


def test_a_run_without_an_evaluation_writes_nothing(judged: Path, tmp_path: Path) -> None:
    shutil.copy(judged / "config.yaml", tmp_path)
    with pytest.raises(ConfigError, match="not evaluated"):
        write_report(load(tmp_path))
    assert not (tmp_path / "report.html").exists()


def test_commands_name_what_differs_from_the_defaults(judged: Path) -> None:
    run = load(judged)
    build, training, evaluation, report = commands(run)
    assert build.startswith("sherlock-data build synth parcels stimulus")
    assert "--steps 40" in training
    assert "--set width=0.05" in training
    assert "learning_rate" not in training
    assert evaluation == f"sherlock-models evaluate {run.path}"
    assert report == f"sherlock-models report {run.path}"


def test_a_catalogue_that_the_run_does_not_know_has_a_place_in_the_commands(
    judged: Path, page: Page
) -> None:
    build, training, *_ = commands(load(judged))  # 'synth' is in no packaged catalogue
    assert f" --catalog {UNKNOWN_CATALOG} " in build
    assert f" --catalog {UNKNOWN_CATALOG} " in training
    assert f"in the place of {UNKNOWN_CATALOG}" in page.text


@pytest.mark.slow
def test_the_commands_make_the_run_again(
    tiny_raw: Path, tiny_stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the page prints, typed in another folder once stores and run are gone."""
    shutil.copytree(tiny_raw, tmp_path / "raw")
    shutil.copytree(tiny_stores, tmp_path / "stores" / "synth")
    monkeypatch.chdir(tmp_path)
    options = {"steps": 4, "batch_size": 16, "width": 0.05, "validate_every": 4, "video": 400}
    config = resolve("conv-parcels", "stores/synth", catalog="raw/catalog.yaml", options=options)
    run = fit(config, Path("run"), device="cpu")
    evaluate(run)
    lesion_store.save(run, lesion(run, "networks", replace="mean"))
    printed = commands(run, Path("raw/truth.zarr"), lesion_store.load_lesions(run).attrs)
    before = json.loads((run.path / "evaluation.json").read_text())
    effects = lesion_store.load_lesions(run)["effect"].load()
    shutil.rmtree("stores")
    shutil.rmtree("run")
    monkeypatch.chdir("/")
    mains = {"sherlock-data": data, "sherlock-train": train, "sherlock-models": models}
    for line in printed:
        name, *arguments = shlex.split(line)
        done = CliRunner().invoke(mains[name], arguments)
        assert done.exit_code == 0, f"{line}: {done.output}"
    again = load(tmp_path / "run")
    assert again.config.options == config.options
    assert "Who loses what" in (again.path / "report.html").read_text()
    after = json.loads((again.path / "evaluation.json").read_text())
    pd.testing.assert_frame_equal(
        pd.DataFrame(before["rows"]), pd.DataFrame(after["rows"]), rtol=1e-4
    )
    np.testing.assert_allclose(
        effects, lesion_store.load_lesions(again)["effect"], rtol=1e-4, atol=1e-9
    )


def test_the_model_comes_first_in_every_table() -> None:
    rows = [
        {
            "predictor": name,
            "target": "audio",
            "metric": "r2",
            "value": 0.123,
            "low": None,
            "high": None,
            "n": 3,
        }
        for name in ("mean", "model", "previous-tr", "model/noisy-brain")
    ]
    (table,) = score_tables(rows)
    assert [name for name, _ in table.rows] == ["model", "model/noisy-brain", "mean", "previous-tr"]
    assert table.rows[0][1] == ["0.12"]


class TestHistory:
    LINES = (
        {"step": 1, "split": "train", "brain": 1.0, "audio": 0.9},
        {"step": 2, "split": "train", "brain": 0.8, "audio": 0.7},
        {"step": 2, "split": "validation", "brain": 0.9, "audio": 0.95},
    )

    def test_curves_are_sorted_by_term_and_side(self) -> None:
        found = curves(self.LINES, ("brain", "audio"))
        assert [(c.term, c.split, c.last) for c in found] == [
            ("brain", "train", 0.8),
            ("brain", "validation", 0.9),
            ("audio", "train", 0.7),
            ("audio", "validation", 0.95),
        ]

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            pytest.param([3.0, 2.0, 1.0], "█▅▁", id="falling"),
            pytest.param([1.0, 1.0], "▁▁", id="flat"),
            pytest.param([], "", id="nothing yet"),
        ],
    )
    def test_sparkline(self, values: list[float], expected: str) -> None:
        assert sparkline(values) == expected
