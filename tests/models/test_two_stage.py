"""Two stages: a compressor of the brain, then a movie model held to its code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import CliRunner
from sherlock_cli.models import main as models_cli
from sherlock_cli.train import main as train_cli

from sherlock_data.errors import ConfigError, SherlockError, StoreError
from sherlock_data.fitting import ranges
from sherlock_models import parallel
from sherlock_models.code import weights_hash
from sherlock_models.config import RunConfig
from sherlock_models.feeding.dataset import MovieBrainData
from sherlock_models.feeding.loading import load_data
from sherlock_models.output import Output
from sherlock_models.resolve import resolve
from sherlock_models.run import load
from sherlock_models.scoring.evaluate import evaluate
from sherlock_models.scoring.heldout import Side
from sherlock_models.scoring.scores import nan_mean, pearson_by_run
from sherlock_models.training import checkpoint
from sherlock_models.training.objective import fit_objective
from sherlock_models.training.train import fit
from sherlock_models.training.trainer import Trainer
from tests.models.two_stages import CODE, QUICK, stage_one, stage_two, value


@pytest.fixture(scope="module")
def coded(tiny_stores: Path, compressor: Path) -> MovieBrainData:
    return load_data(stage_two(tiny_stores, compressor))


class TestStageOne:
    def test_has_one_term_which_the_mean_scores_exactly_one(self, tiny_stores: Path):
        config = resolve("brain-compressor", tiny_stores, options=QUICK)
        data = load_data(config)
        batch = data.batch(data.samples("train"), np.arange(len(data.samples("train"))))
        objective = fit_objective(data, config.weights)
        nothing = torch.zeros_like(batch.brain)
        output = Output(nothing[:, :2], nothing[:, :2], {"brain": nothing})
        sums, counts = objective.sums(output, batch), objective.counts(batch)
        assert objective.terms == config.terms == ("brain",)
        assert float(objective.combine(sums / counts)) == pytest.approx(1.0, abs=1e-5)

    def test_sees_the_brain_it_gives_back_and_holds_it_once(self, tiny_stores: Path):
        data = load_data(resolve("brain-compressor", tiny_stores, options=QUICK))
        batch = data.batch(data.samples("train"), np.arange(5))
        assert batch.stimulus["brain"].data_ptr() == batch.brain.data_ptr()
        assert torch.equal(batch.stimulus["brain"][:, 0], batch.brain)
        assert data.nbytes < 1.1 * data.brains.raw.nbytes

    def test_what_has_no_signal_counts_nothing(self, configure: Callable[..., RunConfig]):
        data = load_data(configure(entry="brain-compressor", brain="parcels"))
        batch = data.batch(data.samples("train"), np.arange(30))
        wild = torch.where(batch.signal, batch.brain, 1e6)
        sums = fit_objective(data, {}).sums(Output(wild, wild, {"brain": wild}), batch)
        assert float(sums) == 0

    def test_splits_as_the_movie_models_do(self, tiny_stores: Path):
        one = load_data(resolve("brain-compressor", tiny_stores, options=QUICK))
        two = load_data(resolve("conv-voxels", tiny_stores, options=QUICK))
        for side in ("train", "validation", "test"):
            np.testing.assert_array_equal(one.split.trs(side), two.split.trs(side))

    def test_writes_down_what_it_was_fitted_on(self, compressor: Path):
        run = load(compressor)
        found, split = run.config.fitted_on, run.data.split
        assert found["subjects"] == list(split.train_subjects)
        assert found["trs"] == ranges(split.train + run.data.lag_trs)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            pytest.param(
                {"brain_noise": "residual"}, "a free code has no measured one", id="noise"
            ),
            pytest.param({"brain_forcing": 0.5}, "a free code has no measured one", id="forcing"),
            pytest.param({"stimulus": ["brain", "video"]}, "stands alone", id="a movie beside it"),
            pytest.param({"weights": {"video": 1}}, "no loss term 'video'", id="weights"),
        ],
    )
    def test_refuses_what_a_free_code_cannot_have(
        self, tiny_stores: Path, options: dict[str, Any], message: str
    ):
        with pytest.raises(ConfigError, match=message):
            resolve("brain-compressor", tiny_stores, options=options)

    def test_split_stimulus_is_no_key_of_a_movie_model(self, tiny_stores: Path):
        with pytest.raises(ConfigError, match="split_stimulus is for a compressor"):
            resolve("conv-voxels", tiny_stores, options={"split_stimulus": "video"})

    def test_is_judged_beside_as_many_components(self, tiny_stores: Path, tmp_path: Path):
        run = stage_one(tiny_stores, tmp_path / "run")
        document = evaluate(run, draws=10, null_draws=20)
        predictors = {row["predictor"] for row in document["rows"]}
        assert {"model", "mean", "pca", "time-index"} <= predictors
        assert "delayed-ridge" not in predictors
        assert f"pca: {CODE} principal components of" in " ".join(document["notes"])
        assert {row["target"] for row in document["rows"]} == {"brain"}
        data, test = run.data, Side.of(run.data, "test")
        train = Side.of(data, "train")
        rows = np.concatenate([train.measured(s, train.of_subject(s)) for s in train.subjects])
        centred = rows - rows.mean(axis=0)
        axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)[2][:CODE]
        runs, r = data.brains.run.numpy(), []
        for subject in test.subjects:
            trs = test.of_subject(subject)
            measured = test.measured(subject, trs)
            told = (measured - rows.mean(axis=0)) @ axes.T @ axes + rows.mean(axis=0)
            known = data.signal[subject]
            r.append(nan_mean(pearson_by_run(told, measured, runs[trs])[known]))
        assert value(document, "pca", "r") == pytest.approx(np.mean(r), abs=1e-3)


class TestStageTwo:
    def test_the_target_is_stage_1s_code_of_the_measured_brain(
        self, tiny_stores: Path, compressor: Path, coded: MovieBrainData
    ):
        model = load(compressor).model
        voxels = load_data(resolve("conv-voxels", tiny_stores, options=QUICK))
        trs = np.flatnonzero(voxels.valid[1])
        with torch.no_grad():
            code = model.compress(torch.from_numpy(voxels.brain_matrix(1)[trs])).numpy()
        np.testing.assert_allclose(coded.brains.raw[1, trs].numpy(), code, rtol=1e-4, atol=1e-5)
        assert coded.sizes.brain == (CODE,)
        assert list(coded.unit_names) == [str(unit) for unit in range(CODE)]

    def test_codes_are_standardised_on_training_trs(self, coded: MovieBrainData):
        train = coded.split.train + coded.lag_trs
        here = train[coded.valid[0][train]]
        rows = coded.brain_matrix(0)[here]
        np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-3)

    def test_restoring_undoes_the_standardisation(self, coded: MovieBrainData):
        trs = torch.arange(coded.clock.volumes)
        subject = torch.full_like(trs, 2)
        back = coded.brains.restore(subject, trs, coded.brains.rows(subject, trs)[0])
        seen = coded.brains.mean[2].abs().sum(dim=1)[coded.brains.run] > 0
        torch.testing.assert_close(back[seen], coded.brains.raw[2][seen], rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            pytest.param({"fold": 2}, r"fitted on \d+ brain TRs \(\d+ to \d+", id="another fold"),
            pytest.param({"split": "random"}, r"--split random .*=video,audio", id="kind"),
            pytest.param({"split": "subject"}, r"the subjects sub-01", id="subjects"),
        ],
    )
    def test_a_code_fitted_on_held_out_trs_is_refused(
        self, tiny_stores: Path, compressor: Path, options: dict[str, Any], message: str
    ):
        with pytest.raises(StoreError, match=message) as refused:
            load_data(stage_two(tiny_stores, compressor, **options))
        assert refused.value.where == str(compressor)

    def test_a_compressor_trained_with_room_for_the_delays_is_taken(
        self, tiny_stores: Path, tmp_path: Path
    ):
        one = stage_one(tiny_stores, tmp_path / "one", context_trs=4, steps=1, validate_every=1)
        data = load_data(stage_two(tiny_stores, one.path, delays=[0, 1, 2, 3, 4]))
        assert one.config.fitted_on["trs"] == ranges(data.split.train + data.lag_trs)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            pytest.param({"brain": "parcels"}, "compresses 'voxels', not 'parcels'", id="store"),
            pytest.param({"compressor": "nowhere"}, "no config.yaml there", id="no run"),
        ],
    )
    def test_what_is_no_stage_1_of_these_voxels_is_refused(
        self, tiny_stores: Path, compressor: Path, options: dict[str, Any], message: str
    ):
        with pytest.raises(ConfigError, match=message):
            stage_two(tiny_stores, compressor, **options)

    def test_a_run_that_compresses_nothing_is_refused(self, tiny_stores: Path, tmp_path: Path):
        config = resolve("conv-parcels", tiny_stores, options={**QUICK, "steps": 1})
        other = fit(config, tmp_path / "run", device="cpu")
        with pytest.raises(ConfigError, match="a run of 'conv-parcels', which compresses no brain"):
            stage_two(tiny_stores, other.path)

    def test_other_weights_are_refused(self, tiny_stores: Path, compressor: Path, tmp_path: Path):
        shutil.copytree(compressor, tmp_path / "one")
        config = stage_two(tiny_stores, tmp_path / "one")
        assert config.compressor.weights == weights_hash(load(compressor).model)
        fit(config, tmp_path / "two", device="cpu")
        shutil.rmtree(tmp_path / "one")
        stage_one(tiny_stores, tmp_path / "one", seed=1)
        with pytest.raises(ConfigError, match="not the one this run was configured with"):
            load_data(load(tmp_path / "two").config)
        with pytest.raises(ConfigError, match="restore that one, or train stage 2 again"):
            evaluate(load(tmp_path / "two"))

    def test_resuming_ends_where_an_uninterrupted_run_ends(
        self, tiny_stores: Path, compressor: Path, tmp_path: Path
    ):
        whole = fit(stage_two(tiny_stores, compressor, keep=9), tmp_path / "whole", device="cpu")
        shutil.copytree(whole.path, tmp_path / "cut")
        folder = tmp_path / "cut" / "checkpoints"
        index = json.loads((folder / "index.json").read_text()) | {"last": 2, "best": 2}
        (folder / "index.json").write_text(json.dumps(index))
        shutil.rmtree(folder / "step-4")
        (tmp_path / "cut" / "state.json").unlink()
        again = fit(load(tmp_path / "cut").config, tmp_path / "cut", resume=True, device="cpu")
        assert checkpoint.read_index(folder).last == 4
        one, two = whole.model_at("last").state_dict(), again.model_at("last").state_dict()
        assert all(torch.equal(one[name], two[name]) for name in one)


class TestNothingHeldOutIsSeen:
    @pytest.fixture
    def data(self, make_stores: Callable[..., Path], tmp_path: Path) -> Path:
        return make_stores(tmp_path)

    def perturb(self, data: Path, trs: np.ndarray) -> None:
        store = xr.open_zarr(data / "voxels.zarr").load()
        store.bold.values[:, trs] = store.bold.values[:, trs] * -3 + 7
        for variable in store.variables.values():
            variable.encoding = {}
        store.to_zarr(data / "voxels.zarr", mode="r+", zarr_format=3, consolidated=False)

    def fitted(self, config: RunConfig) -> dict[str, torch.Tensor]:
        with parallel.world("cpu") as world:
            trainer = Trainer(config, load_data(config), world)
            trainer.step(0)
            return {**trainer.fitted(), **trainer.model.state_dict()}

    def test_by_either_stage(self, data: Path, tmp_path: Path):
        one = stage_one(data, tmp_path / "one")
        first, second = one.config, stage_two(data, one.path, stimulus="audio")
        before = [self.fitted(first), self.fitted(second)]
        loaded = load_data(second)
        held = np.setdiff1d(np.arange(loaded.clock.volumes), loaded.split.train + loaded.lag_trs)
        self.perturb(data, held)
        after = [self.fitted(first), self.fitted(second)]
        changed = load_data(second)
        assert not torch.equal(changed.brains.raw, loaded.brains.raw), "the perturbation is seen"
        for was, now in zip(before, after, strict=True):
            assert was.keys() == now.keys()
            for name in was:
                torch.testing.assert_close(now[name], was[name], rtol=0, atol=0, msg=name)


def test_end_to_end_from_the_command_line(tiny_stores: Path, tmp_path: Path):
    def run(command: Any, *words: object) -> dict[str, Any]:
        found = CliRunner().invoke(command, [*map(str, words), "--json"], catch_exceptions=False)
        assert found.exit_code == 0, found.stderr
        return json.loads(found.stdout)

    one, two = tmp_path / "one", tmp_path / "two"
    size = ("--steps", 2, "--batch-size", 16, "--set", "width=0.01")
    data = ("--data", tiny_stores)
    first = run(train_cli, "brain-compressor", *data, "--out", one, *size, "--set", f"code={CODE}")
    assert list(first["validation"]) == ["loss", "brain"]
    coded = ("--set", f"compressor={one}", "--set", "stimulus=audio")
    run(train_cli, "dense-compressed", *data, "--out", two, *size, *coded)
    document = run(models_cli, "evaluate", two)
    assert {"brain", "code", "audio"} == {row["target"] for row in document["rows"]}
    page = run(models_cli, "report", two)["page"]
    assert "judged in" in Path(page).read_text()


def test_no_refusal_is_more_than_a_line(tiny_stores: Path, compressor: Path):
    with pytest.raises(SherlockError) as refused:
        load_data(stage_two(tiny_stores, compressor, fold=1))
    assert "\n" not in str(refused.value)
