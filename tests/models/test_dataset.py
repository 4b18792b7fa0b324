"""Pairs of stimulus and brain: which samples there are, and in what units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sherlock_data.errors import ConfigError, StoreError
from sherlock_models.config import (
    RunConfig,
    load_config,
)
from sherlock_models.feeding.dataset import SIDES
from sherlock_models.feeding.loading import load_data
from sherlock_models.feeding.stimuli import feature_names
from sherlock_models.resolve import resolve
from sherlock_models.settings import parse_settings
from sherlock_models.sources import sizes_of

Configure = Callable[..., RunConfig]
RUN_2 = 80  # first TR of run-2
NO_MOVIE, INVALID = 155, 140  # from there on: no movie; invalid volumes of sub-03


def bold(stores: Path) -> np.ndarray:
    return xr.open_zarr(stores / "parcels.zarr").bold.values


class TestSamples:
    def test_every_sample_has_stimulus_context_and_a_valid_volume(self, configure: Configure):
        data = load_data(configure(delays=[0, 2]))
        for side in SIDES:
            samples = data.samples(side)
            assert set(samples.tr) <= set(data.split.trs(side))
            assert (samples.tr < NO_MOVIE).all()
            assert data.valid[samples.subject, samples.tr + data.lag_trs].all()
            assert not set(samples.tr) & {0, 1, RUN_2, RUN_2 + 1}, "no delayed TR of another run"

    def test_an_invalid_tail_is_never_used(self, configure: Configure):
        data = load_data(configure())
        sides = [data.samples(side) for side in SIDES]
        assert max(s.tr[s.subject == 2].max() for s in sides) < INVALID
        assert max(s.tr[s.subject == 0].max() for s in sides) >= INVALID

    def test_lag_moves_the_brain_and_never_the_stimulus(
        self, make_stores: Callable[..., Path], configure: Configure, tmp_path: Path
    ):
        stores = make_stores(tmp_path, lag_s=3.0)
        data = load_data(configure(data=stores))
        assert data.lag_trs == 2
        samples = data.samples("train")
        assert not set(samples.tr) & {78, 79}, "their brain TRs would lie in run-2"
        batch = data.batch(samples, np.array([5]))
        there = data.brain_matrix(samples.subject[5])[samples.tr[5] + 2]
        np.testing.assert_array_equal(batch.brain[0], there)
        now = data.stimulus_target("audio", samples.tr[[5]])
        np.testing.assert_array_equal(batch.target["audio"], now)

    def test_a_lag_between_two_trs_is_refused(
        self, make_stores: Callable[..., Path], configure: Configure, tmp_path: Path
    ):
        with pytest.raises(ConfigError, match=r"2\.0 s is 1\.33 TRs of 1\.5 s; use a whole number"):
            load_data(configure(data=make_stores(tmp_path, lag_s=2.0)))


class TestBatch:
    def test_shapes(self, configure: Configure):
        data = load_data(configure(delays=[0, 1, 3]))
        batch = data.batch(data.samples("train"), np.arange(7), first=14)
        assert batch.stimulus["video"].shape == (7, 3, 3, 18, 32)
        assert batch.stimulus["audio"].shape == (7, 3, 8)
        assert batch.target["video"].shape == (7, 3, 18, 32)
        assert batch.brain.shape == batch.signal.shape == (7, 12)
        assert batch.position.tolist() == list(range(14, 21))
        assert data.sizes.stimulus == {"video": (18, 32, 3), "audio": (8,)}

    def test_delays_look_into_the_past(self, configure: Configure):
        data = load_data(configure(delays=[1, 0, 3]))
        samples = data.samples("train")
        batch = data.batch(samples, np.array([11]))
        for place, delay in enumerate((1, 0, 3)):
            then = data.stimulus_target("video", samples.tr[[11]] - delay)
            np.testing.assert_array_equal(batch.stimulus["video"][:, place], then)
        np.testing.assert_array_equal(batch.target["video"], batch.stimulus["video"][:, 1])

    def test_the_target_is_the_current_tr_even_when_the_encoder_does_not_see_it(
        self, configure: Configure
    ):
        data = load_data(configure(delays=[2, 3]))
        samples = data.samples("train")
        batch = data.batch(samples, np.arange(5))
        now = data.stimulus_target("audio", samples.tr[:5])
        np.testing.assert_array_equal(batch.target["audio"], now)

    def test_no_signal_is_zero_and_masked(self, configure: Configure):
        data = load_data(configure())
        samples = data.samples("train")
        batch = data.batch(samples, np.arange(len(samples)))
        assert not batch.signal[:, 11].any(), "the empty parcel"
        assert not batch.signal[batch.subject == 1, 3].any(), "sub-02 has none in parcel 3"
        assert batch.signal[batch.subject != 1, 3].all()
        assert (batch.brain[~batch.signal] == 0).all()
        assert batch.brain.isfinite().all()


class TestStandardisation:
    def test_training_trs_of_every_subject_and_run_have_mean_0_and_variance_1(
        self, configure: Configure
    ):
        data = load_data(configure())
        train = data.split.train
        for subject in range(3):
            for run in (slice(0, RUN_2), slice(RUN_2, 160)):
                here = train[(train >= run.start) & (train < run.stop)]
                here = here[data.valid[subject, here]]
                values = data.brain_matrix(subject)[here][:, data.signal[subject]]
                np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
                np.testing.assert_allclose(values.std(0), 1, atol=1e-5)

    @pytest.mark.parametrize("subject", ["none", "mean"])
    def test_held_out_data_change_nothing_that_is_fitted(
        self,
        make_stores: Callable[..., Path],
        configure: Configure,
        tmp_path: Path,
        subject: str,
    ):
        stores = make_stores(tmp_path)
        config = configure(data=stores, subject=subject)
        before = load_data(config)
        held = np.setdiff1d(np.arange(160), before.split.train)
        for name, variables in {"parcels": ("bold",), "stimulus": ("video", "audio_bands")}.items():
            store = xr.open_zarr(stores / f"{name}.zarr").load()
            for variable in variables:
                axis = store[variable].dims.index("time")
                np.moveaxis(store[variable].values, axis, 0)[held] += 50
            for variable in store.variables.values():
                variable.encoding = {}
            store.to_zarr(stores / f"{name}.zarr", mode="r+", zarr_format=3, consolidated=False)
        after = load_data(config)
        assert not np.allclose(before.brain_matrix(0)[held], after.brain_matrix(0)[held])
        torch.testing.assert_close(before.brains.mean, after.brains.mean, rtol=0, atol=0)
        torch.testing.assert_close(
            before.brains.inverse_std, after.brains.inverse_std, rtol=0, atol=0
        )
        for name, scale in before.normaliser.scales.items():
            other = after.normaliser.scales[name]
            torch.testing.assert_close(scale.mean, other.mean, rtol=0, atol=0)
            torch.testing.assert_close(scale.scale, other.scale, rtol=0, atol=0)

    def test_a_run_wholly_held_out_uses_its_own_and_says_so(self, configure: Configure):
        data = load_data(configure(split="run", fold=1))
        values = data.brain_matrix(0)[RUN_2:]
        np.testing.assert_allclose(values[:, :11].std(0), 1, atol=1e-5)
        assert any("run-2 is wholly held out" in note for note in data.notes)

    def test_the_mean_brain_averages_those_who_are_valid(self, configure: Configure):
        each, mean = load_data(configure()), load_data(configure(subject="mean"))
        assert mean.subjects == ("mean",)
        brains = np.stack([each.brain_matrix(s) for s in range(3)])
        expected = brains[:, :, 0].mean(0)
        expected[INVALID:] = brains[:2, INVALID:, 0].mean(0)
        train = mean.split.train
        run_1 = train[train < RUN_2]
        expected = (expected - expected[run_1].mean()) / expected[run_1].std()
        np.testing.assert_allclose(mean.brain_matrix(0)[:RUN_2, 0], expected[:RUN_2], atol=1e-4)

    def test_unseen_subjects_are_told_apart(self, configure: Configure):
        data = load_data(configure(split="subject", subject="embedding"))
        test = data.samples("test")
        assert (data.batch(test, np.arange(3)).embedding == -1).all()
        assert data.sizes.subjects == len(data.split.train_subjects) == 2
        assert any("unseen" in note for note in data.notes)

    def test_normaliser_there_and_back(self, configure: Configure):
        data = load_data(configure())
        values = data.tables["video"].values[:4]
        back = data.normaliser.inverse("video", data.normaliser.forward("video", values))
        torch.testing.assert_close(back, values.float(), atol=1e-3, rtol=0)


class TestStimuli:
    @pytest.mark.parametrize(
        ("name", "size"),
        [
            pytest.param("video", (18, 32, 3), id="video"),
            pytest.param("audio", (8,), id="audio is the bands flattened"),
            pytest.param("audio_mfcc", (6,), id="by the variable's name"),
            pytest.param("annotations", (3,), id="every numeric annotation"),
            pytest.param("valence", (1,), id="one annotation"),
        ],
    )
    def test_sizes_come_from_the_store(
        self, stores: Path, configure: Configure, name: str, size: tuple[int, ...]
    ):
        assert sizes_of(stores, "voxels", [name]).stimulus == {name: size}
        data = load_data(configure(stimulus=name))
        assert data.tables[name].size == size
        if name != "video":
            assert len(feature_names(str(stores), name)) == size[0]

    def test_a_tr_with_a_missing_annotation_has_no_stimulus(self, configure: Configure):
        usable = load_data(configure(stimulus="annotations")).usable
        assert not usable[10:12].any()
        assert usable[12:].all(), "annotations go on where there is no movie"

    @pytest.mark.parametrize(
        ("options", "error", "says"),
        [
            pytest.param(
                {"stimulus": "vidoe"}, ConfigError, "did you mean 'video'", id="typing error"
            ),
            pytest.param({"stimulus": "audio_mel"}, ConfigError, "no sound", id="no sound"),
            pytest.param({"brain": "grid"}, StoreError, "no complete store 'volumes'", id="store"),
        ],
    )
    def test_what_is_missing_is_named(
        self, configure: Configure, options: dict[str, str], error: type[Exception], says: str
    ):
        with pytest.raises(error, match=says):
            configure(**options)

    def test_stores_on_other_clocks_are_refused(
        self, make_stores: Callable[..., Path], configure: Configure, tmp_path: Path
    ):
        stores = make_stores(tmp_path)
        short = xr.open_zarr(stores / "stimulus.zarr").load().isel(time=slice(0, 150))
        for variable in short.variables.values():
            variable.encoding = {}
        with pytest.warns(UserWarning, match="Consolidated"):
            short.to_zarr(stores / "stimulus.zarr", mode="w", zarr_format=3, consolidated=True)
        with pytest.raises(StoreError, match=r"its TRs \(150 of 1\.5 s\) are not those of"):
            load_data(configure(data=stores))

    def test_a_store_built_anew_is_not_the_runs_own(
        self, make_stores: Callable[..., Path], configure: Configure, tmp_path: Path
    ):
        config = configure(data=make_stores(tmp_path))
        make_stores(tmp_path, lag_s=1.5)
        with pytest.raises(StoreError, match="not the store this run was configured with"):
            load_data(config)


class TestConfig:
    def test_yaml_there_and_back(self, configure: Configure, tmp_path: Path):
        config = configure(delays=[0, 1], weights={"video": 2}, brain_noise=0)
        config.save(tmp_path / "config.yaml")
        assert load_config(tmp_path / "config.yaml") == config
        assert config.model_entry.architecture == "dense"
        assert config.stores["parcels"].recipe == {"kind": "parcels"}

    @pytest.mark.parametrize(
        ("text", "key", "value"),
        [
            pytest.param("learning_rate=1e-4", "learning_rate", 1e-4, id="exponent"),
            pytest.param("delays=0,1,2", "delays", [0, 1, 2], id="list"),
            pytest.param("stimulus=annotations", "stimulus", "annotations", id="text"),
            pytest.param("weights.video=2", "weights", {"video": 2}, id="member"),
            pytest.param("patience=null", "patience", None, id="null"),
        ],
    )
    def test_settings_are_parsed(self, text: str, key: str, value: object):
        assert parse_settings([text]) == {key: value}

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            pytest.param(["wdith=.5"], "unknown key 'wdith'; did you mean 'width'", id="unknown"),
            pytest.param(["hiden=3"], "did you mean 'hidden'", id="unknown architecture option"),
            pytest.param(["width"], "no setting; write --set key=value", id="no value"),
            pytest.param(["brain_noise=loud"], "brain_noise", id="choice"),
            pytest.param(["brain_forcing=2"], "brain_forcing.*less than or equal", id="range"),
            pytest.param(["delays=-1"], "delays are TRs of the past", id="future"),
            pytest.param(["weights.vido=2"], "no loss term 'vido'", id="term"),
            pytest.param(["subject=mean", "split=subject"], "mean brain has no", id="no fit"),
        ],
    )
    def test_wrong_settings_are_one_clear_line(
        self, stores: Path, catalog: Path, settings: list[str], says: str
    ):
        with pytest.raises(ConfigError, match=says) as caught:
            resolve("toy", stores, catalog=catalog, options=parse_settings(settings))
        assert "\n" not in str(caught.value)
