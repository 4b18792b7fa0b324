"""Annotations belong to a run and to seconds of it; labels become numbers, shares or text."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sherlock_data.errors import InputError, UnavailableError
from sherlock_data.stimulus import annotations
from sherlock_data.stimulus.annotations import feature_names, to_dataset
from sherlock_data.stimulus.labels import labels_of
from sherlock_data.stimulus.segments import Segments, read_segments
from sherlock_data.timing import Clock, Run

Damage = Callable[[bytes], bytes]
CLOCK = Clock(2.0, (Run("run-1", 4), Run("run-2", 3)))
SHERLOCK = Clock(1.5, (Run("run-1", 946), Run("run-2", 1030)))
SHEET = "sherlock/Sherlock_Segments_1000_NN_2017.xlsx"


def write(folder: Path, rows: dict[str, list[object]], name: str = "sheet.csv") -> Path:
    path, table = folder / name, pd.DataFrame(rows)
    if name.endswith(".xlsx"):
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, index=False, sep="\t" if name.endswith(".tsv") else ",", na_rep="n/a")
    return path


@pytest.mark.parametrize(
    ("rows", "seconds"),
    [
        pytest.param(
            {"Start Time (TRs, 2.0s)": [1, 4, 5], "End Time (TRs, 2.0s)": [3, 4, 7]},
            [(0, 6), (6, 8), (8, 14)],
            id="trs-from-1-inclusive-over-both-runs",
        ),
        pytest.param(
            {"onset": [0, 3, 1], "duration": [2, 2, 4], "run": ["run-1", "run-1", "run-2"]},
            [(0, 2), (3, 5), (9, 13)],
            id="bids-events-with-run-names",
        ),
        pytest.param(
            {"start": [0, 3, 1], "end": [2, 5, 5], "run": [1, 1, 2]},
            [(0, 2), (3, 5), (9, 13)],
            id="start-end-with-run-numbers",
        ),
        pytest.param(
            {"Start Time (s) ": [0, 3, 0], "End Time (s)": [3, 8, 6]},
            [(0, 3), (3, 8), (8, 14)],
            id="seconds-that-begin-again",
        ),
        pytest.param(
            {"start": [7, 0], "end": [11, 2]},
            [(7, 8), (8, 10)],
            id="a-segment-ends-with-its-run",
        ),
        pytest.param(
            {"start": [0, None, 100], "end": [2, 3, 102]}, [(0, 2)], id="rows-out-of-time-dropped"
        ),
    ],
)
@pytest.mark.parametrize("name", ["sheet.csv", "sheet.tsv", "sheet.xlsx"])
def test_rows_find_their_seconds(tmp_path, rows, seconds, name):
    rows = {**rows, "music": ["yes"] * len(next(iter(rows.values())))}
    found = read_segments(write(tmp_path, rows, name), CLOCK)
    pairs = zip(found.starts.tolist(), found.ends.tolist(), strict=True)
    assert list(pairs) == seconds
    assert found.dropped == len(rows["music"]) - len(seconds)
    assert list(found.labels) == ["music"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param({"when": [1]}, "no columns say when", id="no-times"),
        pytest.param({"start": [3], "end": [1]}, "ends before it starts", id="backwards"),
        pytest.param({"start_tr": [1], "end_tr": [8]}, "the scan has 1 to 7", id="beyond-the-scan"),
        pytest.param({"start_tr": [0], "end_tr": [1]}, "count TRs from 1", id="counted-from-0"),
        pytest.param(
            {"Start (TRs, 1.5s)": [1], "End (TRs, 1.5s)": [2]}, "TRs are of 1.5 s", id="another-TR"
        ),
        pytest.param({"start": ["soon"], "end": [1]}, "'start' holds other things", id="words"),
        pytest.param(
            {"start": [0], "end": [1], "run": ["run-3"]}, "no run 'run-3'; did you mean", id="run"
        ),
        pytest.param({"start": [4, 2, 0], "end": [5, 3, 1]}, "the scan has 2 runs", id="unsorted"),
        pytest.param({"start": [99], "end": [100]}, "no row lies within", id="none-left"),
    ],
)
def test_sheets_that_make_no_sense_are_refused(tmp_path, rows, message):
    path = write(tmp_path, {**rows, "music": ["yes"] * len(next(iter(rows.values())))})
    with pytest.raises(InputError, match=message) as failure:
        read_segments(path, CLOCK)
    assert str(failure.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        pytest.param("xl/worksheets/sheet1.xml", lambda text: text[:90], id="cut"),
        pytest.param("xl/worksheets/sheet1.xml", lambda text: b"no XML", id="no XML"),
        pytest.param(
            "xl/worksheets/sheet1.xml", lambda text: text.replace(b" r=", b" s="), id="cells"
        ),
        pytest.param(
            "xl/styles.xml", lambda text: text.replace(b"numFmtId", b"numberFormat"), id="styles"
        ),
        pytest.param("xl/workbook.xml", lambda text: b"", id="empty"),
    ],
)
def test_a_damaged_excel_file_is_a_line(tmp_path: Path, part: str, damage: Damage) -> None:
    path = write(tmp_path, {"start": [0], "end": [9], "music": ["Yes"]}, "sheet.xlsx")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert damage(parts[part]) != parts[part]
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, damage(text) if name == part else text)
    with pytest.raises(InputError, match=r"sheet.xlsx: .*(cannot be read as a table|no )"):
        read_segments(path, CLOCK)


@pytest.mark.parametrize("name", ["sheet.xlsx", "sheet.csv", "sheet.ods"])
def test_files_that_are_no_tables_are_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\xff\xfe\x00" * 100)
    with pytest.raises(InputError, match=name):
        read_segments(path, CLOCK)


@pytest.mark.parametrize(
    ("columns", "name", "encoding", "values"),
    [
        pytest.param({"Music Presence ": ["Yes", "No"]}, "music", "numeric", [1, 0], id="yes-no"),
        pytest.param(
            {"Valence - Rater 1": ["+", "-"], "Valence - Rater 2": ["+", "+"]},
            "valence", "numeric", [1, 0], id="raters-of-signs",
        ),
        pytest.param(
            {"Arousal - Rater 1": [1, 3], "Arousal - Rater 2": [2, None]},
            "arousal", "numeric", [1.5, 3], id="raters-one-missing",
        ),
        pytest.param(
            {"Name - Speaking": ["John", None]}, "speaking", "numeric", [1, 0], id="speaks"
        ),
        pytest.param(
            {"Space-In/Outdoor": ["Indoor", "Unknown"]}, "indoor", "numeric", [1, 0], id="indoor"
        ),
        pytest.param(
            {"Camera Angle": ["Top, Medium", "Long"]},
            "camera_angle_medium", "one-hot", [1, 0], id="one-cell-names-two",
        ),
        pytest.param(
            {"trial_type": ["face", "house"]}, "trial_type_house", "one-hot", [0, 1], id="bids"
        ),
        pytest.param(
            {"Scene Segments": ["1. Cartoon", None]},
            "scene", "text", ["1. Cartoon", "1. Cartoon"], id="scenes-last",
        ),
        pytest.param(
            {"Words on Screen ": ["Wrong!", None]}, "words", "text", ["Wrong!", ""], id="words"
        ),
    ],
)  # fmt: skip
def test_columns_are_read_by_what_they_hold(columns, name, encoding, values):
    labels = {label.name: label for label in labels_of(pd.DataFrame(columns))}
    assert labels[name].encoding == encoding
    assert labels[name].values.tolist() == values


def segments(starts, ends, **columns) -> Segments:
    return Segments(
        np.array(starts, float), np.array(ends, float), pd.DataFrame(columns), "start and end", 0
    )


def test_a_tr_is_the_mean_over_its_seconds():
    """TR 0: 0.5 s of 1 and 1.5 s of 5; TR 2: two segments at once; TR 3: covered by a quarter."""
    found = to_dataset(
        segments([0, 0.5, 4, 4, 6], [0.5, 2, 6, 6, 6.5], value=[1.0, 5.0, 2.0, 4.0, 9.0]), CLOCK
    )
    np.testing.assert_array_equal(found.value, [4, np.nan, 3, np.nan, np.nan, np.nan, np.nan])
    assert found.has_stimulus.values.tolist() == [True, False, True, *[False] * 4]
    assert found.value.dtype == np.float32


def test_text_is_that_of_the_longest_segment():
    found = to_dataset(segments([0, 0.5, 4], [0.5, 2, 8], place=["a", "b", "c"]), CLOCK)
    assert found.place.values.tolist() == ["b", "", "c", "c", "", "", ""]
    assert feature_names(found) == ["place_a", "place_b", "place_c"]


def test_a_value_nobody_gave_is_nan_and_does_not_drag_the_mean():
    found = to_dataset(segments([0, 1, 2], [1, 2, 4], value=[6.0, np.nan, np.nan]), CLOCK)
    np.testing.assert_array_equal(found.value[:2], [6, np.nan])
    assert found.has_stimulus.values[:2].all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 14), min_size=2, max_size=20, unique=True), st.integers(0, 2**31))
def test_shares_of_categories_add_up(cuts, seed):
    """Segments without a gap, each of one category: the shares of every covered TR sum to 1."""
    edges = np.sort([*cuts, 0.0, 14.0])
    kinds = np.random.default_rng(seed).choice(["a", "b", "c"], len(edges) - 1)
    found = to_dataset(segments(edges[:-1], edges[1:], kind=kinds), CLOCK)
    total = sum(found[name].values for name in feature_names(found))
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_a_store_from_a_sheet(dataset, series, tmp_path):
    dataset.write("s1.nii.gz", series[0])
    rows = {"start": [0, 4, 99], "end": [4, 30, 100], "music": ["yes", "no", "no"]}
    write(dataset.raw, {**rows, "place": ["here", "there", "there"]})
    dataset.entry["annotations"] = "sheet.csv"
    store = dataset.build("annotations")
    assert store.music.values[:4].tolist() == pytest.approx([1, 1, 2 / 3, 0])
    assert store.place.values[:4].tolist() == ["here", "here", "here", "there"]
    assert feature_names(store) == ["music", "place_here", "place_there"]
    assert (store.attrs["segments"], store.attrs["segments_dropped"]) == (2, 1)
    assert store.attrs["problems"][0]["code"] == "annotations-untimed"
    assert store.attrs["inputs"][0]["name"] == "sheet.csv"


def test_a_dataset_without_a_sheet(dataset, series):
    dataset.write("s1.nii.gz", series[0])
    catalog = dataset.catalog()
    recipe = catalog.recipe("tiny", "annotations")
    with pytest.raises(UnavailableError, match="no annotations"):
        annotations.plan(dataset.scan(), recipe, dataset.path("annotations"), catalog)


@pytest.mark.realdata
def test_the_published_sheet(real):
    sheet = read_segments(real / SHEET, SHERLOCK)
    assert (sheet.timed_by, len(sheet.starts), sheet.dropped) == ("TRs", 998, 2)
    covered = np.zeros(SHERLOCK.volumes, int)
    for first, last in zip(sheet.starts / 1.5, sheet.ends / 1.5, strict=True):
        covered[round(first) : round(last)] += 1
    assert (covered.min(), int((covered > 1).sum())) == (1, 89)
    found = to_dataset(sheet, SHERLOCK)
    assert found.has_stimulus.all()
    features = feature_names(found)
    assert {"speaking", "music", "indoor", "arousal", "valence", "words_on_screen"} <= set(features)
    assert {"camera_angle_long", "location_warehouse", "name_focus_sherlock"} <= set(features)
    for name in features:
        assert np.isfinite(found[name]).all(), name
    assert (float(found.arousal.min()), float(found.arousal.max())) == pytest.approx((1, 5), abs=1)
    # both runs open with the same cartoon, and run 2 tells it as run 1 did
    assert found.scene.values[[0, 946]].tolist() == ["1. Cartoon", "28. Cartoon"]
    np.testing.assert_array_equal(found.music[:26], found.music[946:972])


@pytest.mark.realdata
@pytest.mark.parametrize(("run", "expected"), [("run-1", 0.56), ("run-2", 0.52)])
def test_speech_drives_the_early_auditory_cortex_at_lag_0(
    real, tmp_path, dataset, series, run, expected
):
    """Through our own scan, clock and store; the published BOLD is already shifted by 4.5 s."""
    with np.load(real / "sherlock" / "roi_timeseries.npz", allow_pickle=False) as rois:
        bold = rois["aud_early"].mean(axis=1)
    dataset.write("s1.nii.gz", bold.reshape(1, 1, 1, -1))
    dataset.entry["runs"] = [{"name": r.name, "volumes": r.volumes} for r in SHERLOCK.runs]
    dataset.entry["annotations"] = "annotations.xlsx"
    (dataset.raw / "annotations.xlsx").write_bytes((real / SHEET).read_bytes())
    store = dataset.build("annotations")
    inside = (store.run == run).values
    speaking, heard = store.speaking.values[inside], bold[inside]
    r = {}
    for lag in range(-5, 6):
        early, late = max(0, -lag), max(0, lag)
        stop = len(heard) - abs(lag)
        r[lag] = np.corrcoef(speaking[early : early + stop], heard[late : late + stop])[0, 1]
    assert max(r, key=r.__getitem__) == 0
    assert r[0] == pytest.approx(expected, abs=0.01)
