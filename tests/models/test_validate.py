"""What is said of planted truth: rates, bounds, lag and weights, each where the answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import CliRunner
from sherlock_cli.models import main

from sherlock_data.contract import strings
from sherlock_data.errors import ConfigError, InputError
from sherlock_models.config import RunConfig
from sherlock_models.feeding.loading import load_data
from sherlock_models.lesions.planted_lesions import recovery
from sherlock_models.run import load
from sherlock_models.scoring.heldout import Reader, Side
from sherlock_models.scoring.planted_encoder import lag_found_s, lag_scores, weight_correlation
from sherlock_models.validate import Outcome, bounds, document, validate

GOOD = Outcome(
    seed=0,
    auc=0.99,
    weights=0.9,
    lag_s=4.5,
    lag_planted_s=4.5,
    false_positives={"video": (1, 37), "audio": (0, 37)},
    other_target={"video": (0, 18), "audio": (1, 35)},
    found={"video": (16, 21), "audio": (8, 11)},
    dissociation=0.02,
    dissociation_p=0.001,
    ceiling_error=0.02,
    brain_r=0.3,
    seconds=1.0,
)


class TestBounds:
    def test_all_are_met(self) -> None:
        judged = bounds([GOOD, GOOD], "demo")
        assert all(bound.met for bound in judged)
        assert document([GOOD], judged, "demo")["met"]

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            pytest.param({"auc": 0.94}, "AUC", id="AUC"),
            pytest.param({"lag_s": 3.0}, "lag found", id="lag too short"),
            pytest.param({"lag_s": 6.0}, "lag found", id="lag too long"),
            pytest.param({"dissociation": -0.01}, "dissociation", id="sign"),
            pytest.param({"ceiling_error": 0.031}, "ceiling error", id="ceiling"),
            pytest.param(
                {"false_positives": {"video": (0, 37), "audio": (4, 37)}},
                "'none' parcels found on audio",
                id="false positives",
            ),
            pytest.param(
                {"found": {"video": (4, 21), "audio": (8, 11)}},
                "video parcels found on it",
                id="power",
            ),
        ],
    )
    def test_one_bad_seed_is_enough(self, change: dict, what: str) -> None:
        missed = [b for b in bounds([GOOD, replace(GOOD, **change)], "demo") if not b.met]
        assert [bound.what.startswith(what) for bound in missed] == [True]

    def test_rates_are_over_the_parcels_of_all_seeds(self) -> None:
        lucky = replace(GOOD, false_positives={"video": (0, 37), "audio": (0, 37)})
        unlucky = replace(GOOD, false_positives={"video": (3, 37), "audio": (0, 37)})
        assert not all(b.met for b in bounds([unlucky], "demo"))
        assert all(b.met for b in bounds([lucky, unlucky], "demo"))

    def test_a_size_too_small_for_power_is_not_asked_for_it(self) -> None:
        blind = replace(GOOD, found={"video": (0, 4), "audio": (0, 2)}, auc=0.7)
        assert all(bound.met for bound in bounds([blind], "tiny"))


class TestRecovery:
    names = ("a", "b", "c", "d", "e")
    truth = xr.Dataset(
        {
            "modality": strings("parcel", ["video", "video", "audio", "none", "none"]),
            "ceiling": ("parcel", [0.6, 0.1, 0.5, 0.0, 0.0]),
        },
        {"parcel": strings("parcel", names)},
    )

    def lesions(self, q: list[list[float]]) -> xr.Dataset:
        effect = np.array([[0.3, 0.0], [0.1, 0.0], [0.0, 0.2], [0.0, 0.0], [0.0, 0.0]])
        table = ("unit", "target")
        return xr.Dataset(
            {
                "effect": (table, effect),
                "q": (table, q),
                "increase": (("block", *table), np.stack([effect / 4] * 4)),
            },
            {
                "unit": strings("unit", self.names),
                "target": strings("target", ["video", "audio"]),
            },
        )

    def test_hits_and_false_alarms_are_counted_by_target(self) -> None:
        q = [[0.01, 0.9], [0.9, 0.04], [0.9, 0.05], [0.02, 0.9], [0.9, 0.9]]
        found = recovery(self.lesions(q), self.truth)
        assert found.auc == 1.0
        assert found.found == {"video": (1, 1), "audio": (1, 1)}  # b's ceiling is too low to count
        assert found.false_positives == {"video": (1, 2), "audio": (0, 2)}
        assert found.other_target == {"video": (0, 1), "audio": (1, 2)}
        assert found.dissociation == pytest.approx(0.2 + 0.2)

    def test_other_units_than_the_planted_are_refused(self) -> None:
        other = self.truth.assign_coords(parcel=strings("parcel", list("vwxyz")))
        with pytest.raises(InputError, match="no lesions of planted parcels"):
            recovery(self.lesions([[1.0, 1.0]] * 5), other)


class TestLag:
    @pytest.mark.parametrize("lag_s", [0.0, 3.0])
    def test_is_found_whatever_the_catalogue_says(
        self,
        make_stores: Callable[..., Path],
        configure: Callable[..., RunConfig],
        tmp_path: Path,
        lag_s: float,
    ) -> None:
        data = load_data(configure(data=make_stores(tmp_path, lag_s=lag_s)))
        assert lag_found_s(data) == lag_s
        wrong = replace(data, lag_trs=data.lag_trs + 1)
        assert lag_found_s(wrong) == lag_s

    def test_nothing_held_out_is_read(self, configure: Callable[..., RunConfig]) -> None:
        data = load_data(configure())
        before = lag_scores(data, (0, 2))
        held = torch.from_numpy(data.split.test)
        for table in data.tables.values():
            table.values[held] = table.values[held].flip(0)
        data.brains.raw[:, held + data.lag_trs] *= -3.0
        np.testing.assert_allclose(lag_scores(data, (0, 2)), before, atol=1e-5)


def test_planted_weights_of_a_run(judged: Path, tiny_raw: Path, tmp_path: Path) -> None:
    run = load(judged)
    reader = Reader(run, Side.of(run.data, "test"))
    truth = xr.open_zarr(tiny_raw / "truth.zarr")
    r = weight_correlation(reader, truth, tiny_raw / "features.npy")
    assert 0.1 < r < 1
    tracks = np.load(tiny_raw / "features.npy", allow_pickle=False)
    np.save(tmp_path / "features.npy", -tracks, allow_pickle=False)
    assert weight_correlation(reader, truth, tmp_path / "features.npy") == pytest.approx(-r)


def test_an_earlier_validation_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "seed-1").mkdir()
    with pytest.raises(ConfigError, match="seed-1: is there; name another --out"):
        validate(tmp_path, [0, 1], "tiny")
    assert not (tmp_path / "seed-0").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_command_goes_the_whole_way(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["validate", "--out", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["size"], found["met"]) == ("tiny", True)
    assert found["rows"][0]["lag_s"] == found["rows"][0]["lag_planted_s"]
    assert "1 dataset of size tiny: about" in result.stderr
    assert (tmp_path / "seed-0" / "run" / "lesions.zarr").is_dir()
