"""Two stages, judged in voxels: what the code decodes to, beside the baselines of a voxel model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import sherlock_data as sd
from sherlock_models.code import PcaCode
from sherlock_models.feeding.dataset import MovieBrainData
from sherlock_models.feeding.loading import load_data
from sherlock_models.feeding.voxel_series import VoxelSeries, encode
from sherlock_models.resolve import resolve
from sherlock_models.run import Run, load
from sherlock_models.scoring.evaluate import evaluate
from sherlock_models.scoring.heldout import Side
from sherlock_models.scoring.scores import nan_mean, pearson_by_run
from sherlock_models.training.train import fit
from tests.models.two_stages import QUICK, stage_two, value


def by_hand(run: Run, voxels: MovieBrainData) -> tuple[float, float]:
    """Mean r and R² of the decoded voxels, step by step from the store's own arrays."""
    data, test = run.data, Side.of(run.data, "test")
    runs, train = data.brains.run.numpy(), Side.of(voxels, "train")
    r, r2 = [], []
    for subject in test.subjects:
        trs = test.of_subject(subject)
        with torch.no_grad():
            code = run.model.encode(data.stimulus_inputs(trs)).numpy()
            which = runs[trs + data.lag_trs]
            code = code / data.brains.inverse_std[subject].numpy()[which]
            code = code + data.brains.mean[subject].numpy()[which]
            if run.config.compressor is None:
                pca = sd.open(Path(run.config.data) / "pca.zarr")
                told = code @ pca["loadings"].values + pca["voxel_mean"].values
            else:
                told = load(run.config.compressor.run).model.expand(torch.from_numpy(code)).numpy()
        measured = voxels.brain_matrix(subject)[trs + data.lag_trs]
        known = voxels.signal[subject]
        told, measured = told[:, known], measured[:, known]
        r.append(nan_mean(pearson_by_run(told, measured, runs[trs])))
        error = np.square(told - measured, dtype=np.float64).sum(axis=0)
        r2.append(np.mean(1 - error / np.square(measured, dtype=np.float64).sum(axis=0)))
    assert len(train.subjects) == len(data.subjects)
    return float(np.mean(r)), float(np.mean(r2))


@pytest.fixture(scope="module", params=["pca", "compressor"])
def judged(
    request: pytest.FixtureRequest,
    tiny_stores: Path,
    compressor: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Run, dict[str, Any]]:
    one = compressor if request.param == "compressor" else None
    config = stage_two(tiny_stores, one, stimulus="audio")
    run = fit(config, tmp_path_factory.mktemp("two") / "run", device="cpu")
    return run, evaluate(run, draws=10, null_draws=20)


class TestJudgedInVoxels:
    def test_as_by_hand(self, judged: tuple[Run, dict[str, Any]], tiny_stores: Path):
        run, document = judged
        voxels = load_data(resolve("conv-voxels", tiny_stores, options=QUICK))
        r, r2 = by_hand(run, voxels)
        assert value(document, "model", "r") == pytest.approx(r, abs=1e-4)
        assert value(document, "model", "r2") == pytest.approx(r2, abs=1e-3)

    def test_beside_the_baselines_of_a_voxel_model(
        self, judged: tuple[Run, dict[str, Any]], tiny_stores: Path, tmp_path: Path
    ):
        document = judged[1]
        options = {**QUICK, "stimulus": "audio", "steps": 1, "validate_every": 1}
        config = resolve("dense-voxels", tiny_stores, options=options)
        plain = evaluate(fit(config, tmp_path / "run", device="cpu"), draws=10, null_draws=20)
        for name in ("delayed-ridge", "other-subjects"):
            for metric in ("r", "r2"):
                theirs = value(plain, name, metric)
                assert value(document, name, metric) == pytest.approx(theirs, abs=1e-5)
        assert document["ceiling"] == pytest.approx(plain["ceiling"], abs=1e-6)
        assert document["canary"] == pytest.approx(plain["canary"], abs=1e-6)
        assert document["held_out"]["units"] == plain["held_out"]["units"]
        assert document["held_out"]["store"] == "voxels"

    def test_the_codes_own_units_are_told_apart(self, judged: tuple[Run, dict[str, Any]]):
        run, document = judged
        assert value(document, "mean", "r2", "code") == pytest.approx(0, abs=0.01)
        assert value(document, "model", "r", "code") != value(document, "model", "r")
        arrays = xr.open_zarr(run.path / "evaluation.zarr")
        assert arrays.sizes["unit"] == sd.open(f"{run.config.data}/voxels.zarr").sizes["voxel"]
        assert "standardised voxels of 'voxels'" in " ".join(document["notes"])


class TestMeanBrain:
    @pytest.mark.parametrize("kind", ["pca", "compressor"])
    def test_is_the_code_of_the_averaged_voxels(
        self, tiny_stores: Path, compressor: Path, kind: str
    ):
        one = compressor if kind == "compressor" else None
        config = stage_two(tiny_stores, one, subject="mean")
        data = load_data(config)
        mean = load_data(resolve("conv-voxels", tiny_stores, options={**QUICK, "subject": "mean"}))
        voxels = torch.from_numpy(mean.brain_matrix(0))
        if one is None:
            code = PcaCode.read(config)
            expected = code.from_voxels(voxels, "mean")
        else:
            with torch.no_grad():
                expected = load(compressor).model.compress(voxels)
        there = torch.from_numpy(np.flatnonzero(data.valid[0]))
        torch.testing.assert_close(data.brains.raw[0, there], expected[there], rtol=1e-3, atol=1e-3)
        assert data.subjects == ("mean",)


def test_pca_scores_follow_the_voxels_that_this_training_standardises(tiny_stores: Path):
    """Encoding by hand gives what the store holds, where both standardise on the same TRs."""
    config = stage_two(tiny_stores)
    data = load_data(config)
    train = data.split.train + data.lag_trs
    used = np.flatnonzero(data.usable) + data.lag_trs
    series = VoxelSeries.of(str(tiny_stores), "voxels", data.clock, train, used, averaged=False)
    raw, valid, signal = encode(series, PcaCode.read(config), data.subjects)
    np.testing.assert_array_equal(valid, data.valid)
    assert signal.all()
    here = torch.from_numpy(np.stack([valid] * raw.shape[2], axis=2))
    torch.testing.assert_close(raw[here], data.brains.raw[here], rtol=1e-3, atol=1e-3)
