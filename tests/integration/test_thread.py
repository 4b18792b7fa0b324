"""The whole thread on made-up data: scans and a movie to a judged model and its page."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from sherlock_cli import demo

import sherlock_data as sd


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Folder of a tiny demo, made as `make demo` makes the large one."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    demo.main(args=[str(folder), "--size", "tiny", "--steps", "40"], standalone_mode=False)
    return folder


def test_every_step_left_what_it_promises(out):
    run = out / "runs" / "conv-parcels"
    for name in ("config.yaml", "metrics.jsonl", "evaluation.json", "report.html", "overview.png"):
        assert (run / name).stat().st_size > 100
    with xr.open_zarr(run / "lesions.zarr") as lesions:
        assert lesions.sizes["unit"] == 20
    page = (run / "report.html").read_text()
    assert "Who loses what" in page
    assert "No lesions of this checkpoint yet" not in page
    assert list(sd.open(out / "stores/synth").children) == [
        "coarse",
        "grey",
        "parcels",
        "pca",
        "stimulus",
        "volumes",
        "voxels",
    ]


def test_metrics_have_a_line_for_every_step_and_term(out):
    lines = [
        json.loads(line)
        for line in (out / "runs/conv-parcels/metrics.jsonl").read_text().splitlines()
    ]
    train = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in train] == list(range(1, 41))
    assert all({"loss", "brain", "video", "audio"} <= set(line) for line in lines)


def test_the_page_needs_no_network_and_has_no_broken_image(out):
    page = (out / "runs/conv-parcels/report.html").read_text()
    sources = re.findall(r'(?:src|srcset|href)="([^"]+)"', page)
    assert any(source.startswith("data:image/png;base64,") for source in sources)
    assert not [s for s in sources if not s.startswith(("data:", "#"))]
    images = re.findall(r"<img\b[^>]*>", page)
    assert images
    assert all(re.search(r'alt="[^"]+"', image) for image in images)


def test_a_second_call_keeps_what_was_made(out):
    before = (out / "runs/conv-parcels/metrics.jsonl").read_bytes()
    demo.main(args=[str(out), "--size", "tiny", "--steps", "40"], standalone_mode=False)
    assert (out / "runs/conv-parcels/metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "command", ["sherlock_cli.data", "sherlock_cli.train", "sherlock_cli.models"]
)
def test_help_is_quick_to_write(command):
    code = f"from {command} import main; main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Usage:" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_finds_what_was_planted(tmp_path):
    """Acceptance of the demo itself: better than the mean frame and the mean brain."""
    demo.main(args=[str(tmp_path / "demo")], standalone_mode=False)
    evaluation = json.loads((tmp_path / "demo/runs/conv-parcels/evaluation.json").read_text())
    rows = {(r["predictor"], r["target"], r["metric"]): r for r in evaluation["rows"]}
    assert rows["model", "brain", "r2"]["low"] > 0
    assert rows["model", "brain", "r"]["low"] > 0.15
    assert (
        rows["model", "video", "psnr"]["value"] > rows["mean-frame", "video", "psnr"]["value"] + 1
    )
    assert rows["model/measured-brain", "video", "r2"]["low"] > 0
    assert rows["model/shuffled-brain", "video", "r2"]["high"] < 0
    assert abs(evaluation["canary"]["block"]) < 0.1
    assert evaluation["canary"]["random"] > 0.3
    assert np.isfinite(evaluation["smuggled"]["video"]["total"])
