"""An evaluation as the contract has it, on held-out TRs only, and blind to what it must not see."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sherlock_data.contract import strings
from sherlock_data.errors import ConfigError, InputError
from sherlock_models.run import load
from sherlock_models.scoring import planted
from sherlock_models.scoring.brain_scores import Baselines
from sherlock_models.scoring.evaluate import canary, grouped, is_current, load_evaluation
from sherlock_models.scoring.heldout import (
    MEASURED,
    NOISY,
    PREDICTED,
    SHUFFLED,
    Reader,
    Side,
    partners,
)
from sherlock_models.scoring.verdict import FAILED, OPEN, PASSED, number, significant, verdicts

ROW = {"predictor", "target", "metric", "value", "low", "high", "n"}
BRAIN = {"r", "r_over_ceiling", "significant", "r2", "identification"}
VIDEO = {"r", "r2", "identification", "psnr", "ssim", "r_spatial"}


@pytest.fixture(scope="module")
def document(judged: Path) -> dict:
    return json.loads((judged / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def arrays(judged: Path) -> xr.Dataset:
    return load_evaluation(judged)[1]


@pytest.fixture(scope="module")
def reader(judged: Path) -> Reader:
    run = load(judged)
    return Reader(run, Side.of(run.data, "test"))


class TestDocument:
    def test_rows_have_the_contracts_keys_and_undefined_is_null(self, document: dict) -> None:
        assert {"run", "split", "rows"} <= set(document)
        assert document["split"] == "block"
        assert all(set(row) == ROW for row in document["rows"])
        text = json.dumps(document)
        assert "NaN" not in text
        assert "Infinity" not in text

    @pytest.mark.parametrize(
        ("predictor", "target", "metrics"),
        [
            pytest.param("model", "brain", BRAIN, id="model, brain"),
            pytest.param("mean", "brain", BRAIN, id="mean brain"),
            pytest.param("time-index", "brain", BRAIN, id="time index"),
            pytest.param("delayed-ridge", "brain", BRAIN, id="delayed ridge"),
            pytest.param("banded-ridge", "brain", BRAIN, id="banded ridge"),
            pytest.param("pca-ridge", "brain", BRAIN, id="PCA ridge"),
            pytest.param("other-subjects", "brain", BRAIN, id="other subjects"),
            pytest.param("model", "video", VIDEO, id="predicted brain"),
            pytest.param("model/noisy-brain", "video", VIDEO, id="noisy brain"),
            pytest.param("model/measured-brain", "video", VIDEO, id="measured brain"),
            pytest.param("model/shuffled-brain", "video", VIDEO, id="shuffled brain"),
            pytest.param("mean-frame", "video", VIDEO, id="mean frame"),
            pytest.param("previous-frame", "video", VIDEO, id="previous frame"),
            pytest.param("model", "audio", {"r", "r2", "identification"}, id="sound"),
            pytest.param("mean", "audio", {"r", "r2", "identification"}, id="mean sound"),
        ],
    )
    def test_every_predictor_has_every_metric_of_its_target(
        self, document: dict, predictor: str, target: str, metrics: set[str]
    ) -> None:
        found = {
            row["metric"]
            for row in document["rows"]
            if (row["predictor"], row["target"]) == (predictor, target)
        }
        assert found == metrics

    def test_what_does_not_vary_has_no_r(self, document: dict) -> None:
        for row in document["rows"]:
            if row["predictor"] in ("mean", "mean-frame") and row["metric"] == "r":
                assert row["value"] is None
                assert row["n"] == 0

    def test_every_band_of_the_sound_has_its_r(self, document: dict) -> None:
        assert set(document["bands"]) == {"audio"}
        bands = document["bands"]["audio"]["model"]
        assert len(bands) == 20  # over both channels
        (mean,) = (
            row["value"]
            for row in document["rows"]
            if (row["predictor"], row["target"], row["metric"]) == ("model", "audio", "r")
        )
        assert np.mean(list(bands.values())) == pytest.approx(mean, abs=1e-6)
        assert set(document["bands"]["audio"]["mean"].values()) == {None}

    def test_smuggled_is_the_sum_of_its_halves(self, document: dict) -> None:
        assert set(document["smuggled"]) == {"video", "audio"}
        for part in document["smuggled"].values():
            assert part["total"] == pytest.approx(part["below_noise"] + part["small_noise"])

    def test_random_split_feeds_the_canary_and_blocks_do_not(self, document: dict) -> None:
        assert document["canary"]["random"] > 0.2
        block = document["canary"]["block"]
        assert block is None or abs(block) < document["canary"]["random"] / 2

    def test_notes_say_what_every_baseline_was_fitted_on(self, document: dict) -> None:
        notes = " ".join(document["notes"])
        for name in ("delayed-ridge:", "mean:", "time-index:", "other-subjects:", "mean-frame"):
            assert name in notes
        assert f"{document['held_out']['train_trs']} training TRs" in notes
        assert "previous-frame (video), previous-tr (audio): the true stimulus" in notes
        assert "can exceed 1" in notes

    @pytest.mark.parametrize(
        ("notes", "expected"),
        [
            pytest.param(["a: x", "b: y", "c: x"], ["a, c: x", "b: y"], id="the first's place"),
            pytest.param(["x", "x", "a: x"], ["a: x"], id="with and without a name"),
            pytest.param(["a: x: y", "b: x: y"], ["a, b: x: y"], id="the first colon"),
            pytest.param(["a: x", "a: x"], ["a: x"], id="the very same"),
            pytest.param([], [], id="none"),
        ],
    )
    def test_what_is_said_of_several_is_said_once(
        self, notes: list[str], expected: list[str]
    ) -> None:
        assert grouped(notes) == expected


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            pytest.param(0.11236, "0.112", id="three digits"),
            pytest.param(0.1, "0.100", id="zeros that tell"),
            pytest.param(-0.0023456, "-0.00235", id="small"),
            pytest.param(-0.0000234, "-2.34e-05", id="tiny"),
            pytest.param(123.4, "123", id="large"),
            pytest.param(-0.0, "0", id="no negative zero"),
            pytest.param(None, "\N{EN DASH}", id="undefined"),
            pytest.param(float("nan"), "\N{EN DASH}", id="not a number"),
        ],
    )
    def test_digits_that_tell(self, value: float | None, expected: str) -> None:
        assert significant(value) == expected

    def test_fixed_digits_have_no_negative_zero(self) -> None:
        assert number(-0.0004, 2) == "0.00"
        assert number(float("nan")) == "\N{EN DASH}"


class TestArrays:
    def test_hold_every_unit_and_the_decoded_pictures(self, arrays: xr.Dataset) -> None:
        assert arrays["r"].dims == ("predictor", "unit")
        assert arrays.sizes["unit"] == 20
        assert arrays["video"].dtype == np.uint8
        assert list(arrays["video_source"].values[:2]) == ["original", "model"]
        assert set(arrays["shown_tr"].values) <= set(arrays["tr"].values)

    def test_original_pictures_are_the_stores(self, judged: Path, arrays: xr.Dataset) -> None:
        run = load(judged)
        stored = xr.open_zarr(f"{run.config.data}/stimulus.zarr")["video"]
        expected = stored.isel(time=arrays["shown_tr"].values).values.astype(int)
        assert np.abs(arrays["video"].values[0].astype(int) - expected).max() <= 1

    def test_the_judged_checkpoint_is_remembered(self, judged: Path) -> None:
        assert is_current(load(judged))

    def test_a_run_without_an_evaluation_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"not evaluated; run sherlock-models evaluate"):
            load_evaluation(tmp_path)


class TestFourBrains:
    def test_are_predicted_noisy_measured_and_shuffled(self, reader: Reader) -> None:
        brains = reader.brains(0)
        assert list(brains) == [PREDICTED, NOISY, MEASURED, SHUFFLED]
        trs = reader.test.of_subject(0)
        expected = reader.test.data.brain_matrix(0)[trs + reader.test.data.lag_trs]
        np.testing.assert_array_equal(brains[MEASURED], expected)
        ordered = np.sort(brains[SHUFFLED], axis=0)
        np.testing.assert_array_equal(ordered, np.sort(expected, axis=0))
        assert not np.array_equal(brains[SHUFFLED], expected)

    def test_noise_is_another_trs_residual(self, reader: Reader) -> None:
        brains = reader.brains(0)
        residual = brains[MEASURED] - brains[PREDICTED]
        borrowed = brains[NOISY] - brains[PREDICTED]
        distance = np.abs(borrowed[:, None] - residual[None]).max(axis=2)
        assert (distance.min(axis=1) < 1e-5).all()
        assert (np.diag(distance) > 1e-3).all()

    def test_partner_is_ten_trs_away_or_the_farthest(self) -> None:
        trs = np.concatenate([np.arange(12), np.arange(60, 65)])
        other = partners(trs, np.random.default_rng(0))
        assert (np.abs(trs - trs[other]) >= 10).all()
        close = np.arange(4)
        assert partners(close, np.random.default_rng(0)).tolist() == [3, 3, 0, 0]

    def test_a_zeroed_brain_is_decoded_to_one_picture(self, reader: Reader) -> None:
        brain = np.zeros((5, reader.test.data.signal.shape[1]), dtype=np.float32)
        video = reader.decode(brain)["video"]
        assert np.ptp(video, axis=0).max() == 0


def test_held_out_brains_do_not_change_the_baselines(judged: Path) -> None:
    data = load(judged).data
    train, test = Side.of(data, "train"), Side.of(data, "test")
    before = Baselines(train, test)
    raw = data.brains.raw.clone()
    held = np.setdiff1d(np.arange(data.clock.volumes), data.split.train + data.lag_trs)
    raw[:, torch.from_numpy(held)] += 50 * torch.rand(raw[:, held].shape)
    changed = replace(data, brains=replace(data.brains, raw=raw))
    after = Baselines(Side.of(changed, "train"), Side.of(changed, "test"))
    assert set(before.ridges) == {"delayed-ridge", "pca-ridge", "banded-ridge"}
    for name, values in before.ridges.items():
        np.testing.assert_array_equal(after.ridges[name], values)
    for name in ("mean", "time-index"):
        np.testing.assert_array_equal(after.of(0)[name], before.of(0)[name])
    assert not np.array_equal(after.of(0)["other-subjects"], before.of(0)["other-subjects"])


def test_canary_follows_the_fold_it_is_given(judged: Path) -> None:
    data = load(judged).data
    assert set(canary(data, ["random"], folds=3)) == {"random"}


class TestPlanted:
    def test_counts_hits_misses_and_false_alarms(self) -> None:
        names = ["a", "b", "c", "d"]
        arrays = xr.Dataset(
            {
                "r": (("predictor", "unit"), [[0.5, 0.1, 0.3, 0.0]]),
                "p": (("predictor", "unit"), [[0.001, 0.4, 0.01, np.nan]]),
                "significant": (("predictor", "unit"), [[True, False, True, False]]),
            },
            {"predictor": ["model"], "unit": names},
        )
        truth = xr.Dataset(
            {
                "modality": strings("parcel", ["none", "video", "video", "none"]),
                "ceiling": ("parcel", [0.0, 0.2, 0.6, 0.0]),
            },
            {"parcel": ["c", "b", "a", "d"]},
        )
        video, none = planted.found(arrays, truth)
        assert (video.modality, video.found, video.total) == ("video", 1, 2)
        assert video.r == pytest.approx(0.3)
        assert (none.modality, none.found, none.total) == ("none", 1, 1)  # d was never tested
        with pytest.raises(InputError, match="no unit of the run is a planted parcel"):
            planted.found(arrays, truth.assign_coords(parcel=list("wxyz")))

    def test_truth_that_is_not_there_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"truth\.zarr: no planted truth"):
            planted.load_truth(tmp_path / "truth.zarr")


class TestVerdicts:
    def evaluation(self, split: str = "block", block: float | None = 0.02, **r2: float) -> dict:
        values = {PREDICTED: 0.4, MEASURED: 0.3, SHUFFLED: 0.0, **r2}
        rows = [
            {
                "predictor": name,
                "target": "audio",
                "metric": "r2",
                "value": value,
                "low": value - 0.05,
                "high": value + 0.05,
                "n": 40,
            }
            for name, value in values.items()
        ]
        rows.append(
            {
                "predictor": "model",
                "target": "brain",
                "metric": "r",
                "value": 0.2,
                "low": 0.1,
                "high": 0.3,
                "n": 9,
            }
        )
        canaries = {"block": block, "random": 0.8}
        return {"split": split, "canary": canaries, "rows": rows}

    @pytest.mark.parametrize(
        ("evaluation", "question", "state"),
        [
            pytest.param({}, "Is the split honest?", PASSED, id="blocks"),
            pytest.param({"split": "random"}, "Is the split honest?", FAILED, id="random split"),
            pytest.param({"block": 0.3}, "Is the split honest?", FAILED, id="leaking blocks"),
            pytest.param({"block": None}, "Is the split honest?", PASSED, id="constant canary"),
            pytest.param({}, "Does it decode the sound", PASSED, id="decoded"),
            pytest.param({PREDICTED: -0.1}, "Does it decode the sound", FAILED, id="not decoded"),
            pytest.param({PREDICTED: 0.03}, "Does it decode the sound", OPEN, id="barely decoded"),
            pytest.param({}, "Does a measured brain tell the sound", PASSED, id="honest"),
            pytest.param({MEASURED: 0.1}, "Does a measured brain tell the sound", OPEN, id="less"),
            pytest.param(
                {MEASURED: 0.0}, "Does a measured brain tell the sound", FAILED, id="code"
            ),
        ],
    )
    def test_follow_from_the_numbers(self, evaluation: dict, question: str, state: str) -> None:
        found = [v for v in verdicts(self.evaluation(**evaluation)) if question in v.question]
        assert [v.state for v in found] == [state]
