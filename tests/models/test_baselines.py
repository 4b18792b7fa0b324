"""Baselines against plain numpy, and blind to what is held out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from sherlock_data.timing import Clock, Run
from sherlock_models.scoring import baselines

CLOCK = Clock(1.5, (Run("run-1", 60), Run("run-2", 60)))
RUN_OF_TR = np.repeat([0, 1], 60)
TRAIN = np.concatenate([np.arange(0, 25), np.arange(70, 120)])
TEST = np.arange(36, 58)
PRESENT = np.ones(120, dtype=bool)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def delayed(features: np.ndarray, delays: tuple[int, ...]) -> np.ndarray:
    """Features of this and earlier TRs side by side, zero before a run begins."""
    parts = []
    for delay in delays:
        shifted = np.zeros_like(features)
        for start in (0, 60):
            shifted[start + delay : start + 60] = features[start : start + 60 - delay]
        parts.append(shifted)
    return np.concatenate(parts, axis=1)


class TestTimeIndex:
    def test_is_numpy_interp_within_each_run(self, rng: np.random.Generator) -> None:
        series = rng.standard_normal((120, 3))
        test = np.setdiff1d(np.arange(120), TRAIN)
        found = baselines.time_index(series, TRAIN, test, RUN_OF_TR).values
        for run in (0, 1):
            known, mine = TRAIN[RUN_OF_TR[TRAIN] == run], RUN_OF_TR[test] == run
            for unit in range(3):
                expected = np.interp(test[mine], known, series[known, unit])
                np.testing.assert_allclose(found[mine, unit], expected, atol=1e-6)

    def test_run_without_training_gets_the_training_mean(self, rng: np.random.Generator) -> None:
        series = rng.standard_normal((120, 2))
        train = np.arange(60)
        found = baselines.time_index(series, train, [80, 90], RUN_OF_TR).values
        np.testing.assert_allclose(found, np.tile(series[:60].mean(axis=0), (2, 1)), atol=1e-6)


class TestPreviousTr:
    def test_never_looks_into_another_run_or_where_there_is_no_movie(self) -> None:
        values = np.arange(120.0)[:, None]
        present = PRESENT.copy()
        present[40] = False
        found = baselines.previous_tr(
            "previous-frame", values, [5, 41, 60], present, CLOCK, fallback=[-1.0]
        )
        assert found.values[:, 0].tolist() == [4.0, -1.0, -1.0]


class TestDelayedRidge:
    def test_kernel_form_equals_ridge_on_delayed_features(self, rng: np.random.Generator) -> None:
        features = rng.standard_normal((120, 7))
        brain = rng.standard_normal((120, 4))
        delays = (0, 1, 2)
        model = baselines.DelayedRidge(CLOCK, delays).fit([features], PRESENT, TRAIN, brain[TRAIN])
        found = model.predict(TEST).values
        centred = features - features[TRAIN].mean(axis=0)
        total = np.square(centred[TRAIN]).sum(axis=1).mean()
        wide = delayed(centred / np.sqrt(total), delays)
        wide /= np.sqrt(np.square(wide[TRAIN]).sum(axis=1).mean())
        for unit in range(4):
            ridge = Ridge(alpha=float(model.alphas[unit]), fit_intercept=False)
            mean = brain[TRAIN, unit].mean()
            expected = ridge.fit(wide[TRAIN], brain[TRAIN, unit] - mean).predict(wide[TEST]) + mean
            np.testing.assert_allclose(found[:, unit], expected, atol=1e-4)

    def test_finds_a_planted_delayed_response(self, rng: np.random.Generator) -> None:
        features = rng.standard_normal((120, 3))
        brain = delayed(features, (2,)) @ rng.standard_normal((3, 5))
        brain += 0.3 * rng.standard_normal(brain.shape)
        model = baselines.DelayedRidge(CLOCK).fit([features], PRESENT, TRAIN, brain[TRAIN])
        found = model.predict(TEST).values
        r = [np.corrcoef(found[:, u], brain[TEST, u])[0, 1] for u in range(5)]
        assert min(r) > 0.8

    def test_a_small_stimulus_beside_a_large_one_still_counts(
        self, rng: np.random.Generator
    ) -> None:
        video, audio = 50 * rng.standard_normal((120, 900)), rng.standard_normal((120, 2))
        brain = audio @ rng.standard_normal((2, 3))
        model = baselines.DelayedRidge(CLOCK, (0,)).fit(
            [video, audio], PRESENT, TRAIN, brain[TRAIN]
        )
        found = model.predict(TEST).values
        r = [np.corrcoef(found[:, u], brain[TEST, u])[0, 1] for u in range(3)]
        assert min(r) > 0.9


class TestBandedRidge:
    def test_a_stimulus_that_says_nothing_is_penalised_away(self, rng: np.random.Generator) -> None:
        told, noise = rng.standard_normal((120, 4)), rng.standard_normal((120, 300))
        brain = told @ rng.standard_normal((4, 3)) + 0.3 * rng.standard_normal((120, 3))
        fitted = [
            kind(CLOCK, (0,)).fit([told, noise], PRESENT, TRAIN, brain[TRAIN])
            for kind in (baselines.DelayedRidge, baselines.BandedRidge)
        ]
        plain, banded = (
            np.square(model.predict(TEST).values - brain[TEST]).mean() for model in fitted
        )
        assert banded < 0.85 * plain
        assert (fitted[1].shares[0] > fitted[1].shares[1]).all()

    def test_with_one_stimulus_it_is_the_plain_ridge(self, rng: np.random.Generator) -> None:
        features, brain = rng.standard_normal((120, 6)), rng.standard_normal((120, 4))
        plain, banded = (
            kind(CLOCK).fit([features], PRESENT, TRAIN, brain[TRAIN]).predict(TEST).values
            for kind in (baselines.DelayedRidge, baselines.BandedRidge)
        )
        np.testing.assert_allclose(banded, plain, atol=1e-4)


class TestPcaRidge:
    def test_components_are_scikit_learns_up_to_their_sign(self, rng: np.random.Generator) -> None:
        values = rng.standard_normal((120, 40)) @ rng.standard_normal((40, 40))
        found = baselines._components(values, TRAIN)
        expected = PCA(baselines.COMPONENTS, svd_solver="full").fit(values[TRAIN]).transform(values)
        np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)

    def test_all_components_are_the_plain_ridge(self, rng: np.random.Generator) -> None:
        features, brain = rng.standard_normal((120, 6)), rng.standard_normal((120, 4))
        plain, reduced = (
            kind(CLOCK).fit([features], PRESENT, TRAIN, brain[TRAIN]).predict(TEST).values
            for kind in (baselines.DelayedRidge, baselines.PcaRidge)
        )
        np.testing.assert_allclose(reduced, plain, atol=1e-4)


@pytest.mark.parametrize(
    "predict",
    [
        pytest.param(
            lambda f, b: baselines.training_mean("mean", b[TRAIN], len(TEST)).values, id="mean"
        ),
        pytest.param(
            lambda f, b: baselines.time_index(b, TRAIN, TEST, RUN_OF_TR).values, id="time index"
        ),
        pytest.param(
            lambda f, b: (
                baselines.DelayedRidge(CLOCK).fit([f], PRESENT, TRAIN, b[TRAIN]).ridge.dual_coef_
            ),
            id="delayed ridge",
        ),
        pytest.param(
            lambda f, b: (
                baselines.BandedRidge(CLOCK)
                .fit([f[:, :3], f[:, 3:]], PRESENT, TRAIN, b[TRAIN])
                .ridge.dual_coef_
            ),
            id="banded ridge",
        ),
        pytest.param(
            lambda f, b: (
                baselines.PcaRidge(CLOCK).fit([f], PRESENT, TRAIN, b[TRAIN]).ridge.dual_coef_
            ),
            id="PCA ridge",
        ),
    ],
)
def test_held_out_data_do_not_change_what_is_fitted(
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray], rng: np.random.Generator
) -> None:
    features, brain = rng.standard_normal((120, 6)), rng.standard_normal((120, 4))
    before = predict(features, brain).copy()
    held = TEST  # the gaps around it belong to nobody, and the delays may look into them
    features[held] += 100
    brain[held] -= 100
    np.testing.assert_array_equal(predict(features, brain), before)
    brain[24] += 10  # the last training TR before the gap
    assert not np.array_equal(predict(features, brain), before)
