"""Scores against their definitions, their known values, and what chance gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, pearsonr

from sherlock_models.scoring import scores
from sherlock_models.scoring.ceiling import Ceiling, noise_ceiling
from sherlock_models.scoring.picture_scores import psnr_score, spatial_r_score, ssim
from sherlock_models.scoring.scores import TimeBlocks
from sherlock_models.scoring.significance import PhaseNull, cross_spectrum, fdr

RUN_OF_TR = np.repeat([0, 1], [100, 80])


def ar1(rng: np.random.Generator, shape: tuple[int, ...], a: float = 0.5) -> np.ndarray:
    x = rng.standard_normal(shape)
    for t in range(1, len(x)):
        x[t] = a * x[t - 1] + np.sqrt(1 - a * a) * x[t]
    return x


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class TestPearson:
    def test_is_scipys_for_every_unit(self, rng: np.random.Generator) -> None:
        x, y = rng.standard_normal((2, 40, 5))
        expected = [pearsonr(x[:, u], y[:, u])[0] for u in range(5)]
        np.testing.assert_allclose(scores.pearson(x, y), expected, atol=1e-12)

    @pytest.mark.parametrize(
        ("x", "y"),
        [
            pytest.param([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], id="constant prediction"),
            pytest.param([1.0, 2.0, 3.0], [7.0, 7.0, 7.0], id="constant truth"),
            pytest.param([1e4, 1e4 + 1e-3, 1e4], [1.0, 2.0, 3.0], id="rounding of a constant"),
            pytest.param([1.0, np.nan, 3.0], [1.0, 2.0, 3.0], id="missing value"),
            pytest.param([1.0], [2.0], id="one TR"),
        ],
    )
    def test_undefined_is_nan(self, x: list[float], y: list[float]) -> None:
        assert np.isnan(scores.pearson(np.array(x)[:, None], np.array(y)[:, None])).all()

    def test_runs_are_correlated_apart_and_weighted_by_their_trs(self) -> None:
        x = np.concatenate([np.arange(30.0), 100 + np.arange(10.0)])[:, None]
        y = np.concatenate([np.arange(30.0), -np.arange(10.0)])[:, None]
        r = scores.pearson_by_run(x, y, np.repeat([0, 1], [30, 10]))
        assert r[0] == pytest.approx((30 * 1 + 10 * -1) / 40)

    @given(scale=st.floats(0.1, 100), shift=st.floats(-1e3, 1e3), seed=st.integers(0, 99))
    @settings(max_examples=25, deadline=None)
    def test_units_of_measurement_do_not_matter(
        self, scale: float, shift: float, seed: int
    ) -> None:
        x, y = np.random.default_rng(seed).standard_normal((2, 20, 3))
        np.testing.assert_allclose(
            scores.pearson(x * scale + shift, y), scores.pearson(x, y), atol=1e-6
        )


class TestTimeBlocks:
    def test_no_block_crosses_a_gap_or_a_run(self) -> None:
        trs = np.concatenate([np.arange(20, 45), np.arange(90, 124)])
        blocks = TimeBlocks.make(trs, RUN_OF_TR)
        for name in np.unique(blocks.block):
            mine = blocks.trs[blocks.block == name]
            assert np.ptp(mine) == len(mine) - 1
            assert len(set(RUN_OF_TR[mine])) == 1

    def test_first_row_is_the_data_and_draws_stay_within_runs(self) -> None:
        blocks = TimeBlocks.make(np.arange(180), RUN_OF_TR, draws=50)
        assert (blocks.counts[0] == 1).all()
        for run in (0, 1):
            here = blocks.run == run
            assert (blocks.counts[:, here].sum(axis=1) == here.sum()).all()

    def test_resampled_r_equals_correlating_the_resampled_series(
        self, rng: np.random.Generator
    ) -> None:
        trs = np.arange(60)
        blocks = TimeBlocks.make(trs, RUN_OF_TR, draws=3)
        x, y = rng.standard_normal((2, 60, 4)) + 5
        _, score, _ = scores.correlation_score(blocks, trs, x, y)
        for draw in range(3):
            counts = blocks.counts[1 + draw].astype(int)
            rows = np.concatenate(
                [np.tile(trs[blocks.block == k], counts[k]) for k in range(len(counts))]
            )
            expected = scores.pearson(x[rows], y[rows]).mean()
            assert score.draws[draw] == pytest.approx(expected, abs=1e-10)

    def test_interval_covers_the_true_r(self) -> None:
        hits = 0
        for seed in range(60):
            rng = np.random.default_rng(seed)
            x = ar1(rng, (100, 1))
            y = 0.6 * x + 0.8 * ar1(rng, (100, 1))
            blocks = TimeBlocks.make(np.arange(100), RUN_OF_TR, draws=200, seed=seed)
            low, high = scores.correlation_score(blocks, np.arange(100), x, y)[1].interval()
            hits += low <= 0.6 <= high
        assert hits >= 48  # 95 % of 60 is 57; ten blocks are few


def test_r2_of_the_training_mean_is_zero(rng: np.random.Generator) -> None:
    y = rng.standard_normal((40, 6)) + 0.3
    blocks = TimeBlocks.make(np.arange(40), RUN_OF_TR)
    assert scores.r2_score(blocks, np.arange(40), np.zeros_like(y), y).value == 0
    assert scores.r2_score(blocks, np.arange(40), y, y).value == 1
    expected = 1 - np.sum((y - 0.1) ** 2) / np.sum(y**2)
    shifted = scores.r2_score(blocks, np.arange(40), np.full_like(y, 0.1), y).value
    assert shifted == pytest.approx(expected, abs=1e-6)


def test_r_over_ceiling_counts_only_units_with_a_ceiling(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((2, 40, 3))
    blocks = TimeBlocks.make(np.arange(40), RUN_OF_TR)
    ceiling = np.array([0.5, np.nan, 0.25])
    r, _, over = scores.correlation_score(blocks, np.arange(40), x, y, ceiling)
    assert over.n == 2
    assert over.value == pytest.approx((r[0] / 0.5 + r[2] / 0.25) / 2)


class TestIdentification:
    def test_perfect_chance_and_undefined(self, rng: np.random.Generator) -> None:
        trs = np.arange(100)
        blocks = TimeBlocks.make(trs, RUN_OF_TR)
        y = rng.standard_normal((100, 20))
        assert scores.identification_score(blocks, trs, y, y).value == 1
        constant = scores.identification_score(blocks, trs, np.full_like(y, 0.5), y)
        assert np.isnan(constant.value)
        assert constant.n == 10
        found = [
            scores.identification_score(blocks, trs, rng.standard_normal(y.shape), y).value
            for _ in range(200)
        ]
        assert np.mean(found) == pytest.approx(1 / 10, abs=0.03)


class TestCeiling:
    def test_is_what_the_planted_correlation_promises(self, rng: np.random.Generator) -> None:
        """rho / sqrt(rho + (1 - rho) / (N - 1)) for a pairwise correlation rho."""
        subjects, rho = 6, 0.3
        shared = rng.standard_normal((4000, 3))
        noise = rng.standard_normal((subjects, 4000, 3))
        brains = np.sqrt(rho) * shared + np.sqrt(1 - rho) * noise
        valid = np.ones(4000, dtype=bool)
        ceiling = noise_ceiling(lambda s: (brains[s], valid), subjects, np.zeros(4000))
        expected = rho / np.sqrt(rho + (1 - rho) / (subjects - 1))
        np.testing.assert_allclose(ceiling.lower, expected, atol=0.03)
        assert (ceiling.upper > ceiling.lower).all()

    def test_invalid_volumes_and_missing_signal_are_not_counted(
        self, rng: np.random.Generator
    ) -> None:
        shared = rng.standard_normal((200, 2))
        brains = np.stack([shared + 0.1 * rng.standard_normal((200, 2)) for _ in range(3)])
        valid = np.ones((3, 200), dtype=bool)
        brains[1, 150:], valid[1, 150:] = 1e3, False
        brains[2, :, 1] = np.nan
        ceiling = noise_ceiling(lambda s: (brains[s], valid[s]), 3, np.zeros(200))
        assert (ceiling.lower > 0.97).all()

    def test_one_subject_has_none(self, rng: np.random.Generator) -> None:
        brain, valid = rng.standard_normal((50, 2)), np.ones(50, dtype=bool)
        assert np.isnan(noise_ceiling(lambda s: (brain, valid), 1, np.zeros(50)).lower).all()


class TestPhaseNull:
    def test_spectrum_adds_up_to_r(self, rng: np.random.Generator) -> None:
        run = np.repeat([0, 1], [31, 24])
        x, y = rng.standard_normal((2, 55, 4))
        total = cross_spectrum(x, y, run).real.sum(axis=0)
        np.testing.assert_allclose(total, scores.pearson_by_run(x, y, run), atol=1e-12)

    def test_p_values_of_noise_are_uniform_or_conservative(self) -> None:
        rng = np.random.default_rng(3)
        run = np.zeros(120)
        p = []
        for seed in range(40):  # units share one prediction's phases, so many datasets
            null = PhaseNull(run, 5)
            null.add(ar1(rng, (120, 5), 0.7), ar1(rng, (120, 5), 0.5))
            p.append(null.test(draws=400, seed=seed)[1])
        assert kstest(np.concatenate(p), "uniform").pvalue > 0.01

    def test_what_is_there_is_found(self, rng: np.random.Generator) -> None:
        x = ar1(rng, (120, 20))
        null = PhaseNull(np.zeros(120), 20)
        for _ in range(3):
            y = rng.standard_normal((120, 20))
            y[:, :10] += x[:, :10]
            null.add(x, y)
        _, significant = fdr(null.test(seed=1)[1])
        assert significant[:10].all()
        assert significant[10:].sum() <= 1

    def test_undefined_units_are_not_tested(self) -> None:
        p = np.array([0.001, np.nan, 0.9])
        q, significant = fdr(p)
        np.testing.assert_allclose(q, [0.002, np.nan, 0.9])
        assert significant.tolist() == [True, False, False]


class TestPictures:
    @pytest.mark.parametrize(
        ("pair", "expected"),
        [  # scikit-image 0.25: gaussian_weights, sigma 1.5, population covariance, range 255
            pytest.param("noisy", 0.8802266893600811, id="noise"),
            pytest.param("flipped", -0.028624482569716225, id="flipped noise"),
            pytest.param("brighter", 0.9821093859041247, id="ramp 20 levels brighter"),
            pytest.param("black", 0.00033427400166566415, id="ramp against black"),
        ],
    )
    def test_ssim_is_scikit_images(self, pair: str, expected: float) -> None:
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, (24, 32, 3)).astype(float)
        noisy = np.clip(noise + rng.normal(0, 40, noise.shape), 0, 255)
        ramp = np.add.outer(np.arange(24), np.arange(32))[..., None] * 4.0 * np.ones(3)
        x, y = {
            "noisy": (noise, noisy),
            "flipped": (noise, noise[::-1]),
            "brighter": (ramp, ramp + 20),
            "black": (ramp, np.zeros_like(ramp)),
        }[pair]
        assert ssim(x[None], y[None])[0] == pytest.approx(expected, abs=1e-9)

    def test_psnr_of_ten_levels_and_of_no_error(self) -> None:
        x = np.full((12, 4, 5, 3), 100.0)
        blocks = TimeBlocks.make(np.arange(12), RUN_OF_TR)
        off = psnr_score(blocks, np.arange(12), x + 10, x)
        assert off.value == pytest.approx(20 * np.log10(255 / 10))
        assert np.isnan(psnr_score(blocks, np.arange(12), x, x).value)

    def test_spatial_r_flatters_the_mean_frame_where_r_over_time_is_undefined(
        self, rng: np.random.Generator
    ) -> None:
        scene = rng.uniform(0, 255, (6, 8, 3))
        movie = scene + rng.normal(0, 10, (20, 6, 8, 3))
        mean = np.broadcast_to(scene, movie.shape)
        trs = np.arange(20)
        blocks = TimeBlocks.make(trs, RUN_OF_TR)
        assert spatial_r_score(blocks, trs, mean, movie).value > 0.9
        flat = (mean.reshape(20, -1), movie.reshape(20, -1))
        _, over_time, _ = scores.correlation_score(blocks, trs, *flat)
        assert np.isnan(over_time.value)
        assert over_time.n == 0


@pytest.mark.realdata
class TestThePublishedSeries:
    """Four regions, 17 subjects, TRs 0 to 1924, each run z-scored."""

    @pytest.fixture
    def brains(self, real: Path) -> np.ndarray:
        series = np.load(real / "sherlock" / "roi_timeseries.npz", allow_pickle=False)
        regions = ("early_visual", "aud_early", "ddmn_mpfc", "bilateral_hipp")
        brains = np.stack([series[name] for name in regions], axis=2).transpose(1, 0, 2)[:, :1925]
        run = np.repeat([0, 1], [946, 979])
        brains = brains.astype(np.float64)
        for name in (0, 1):
            part = brains[:, run == name]
            brains[:, run == name] = (part - part.mean(1, keepdims=True)) / part.std(
                1, keepdims=True
            )
        return brains

    @pytest.fixture
    def ceiling(self, brains: np.ndarray) -> Ceiling:
        valid = np.ones(1925, dtype=bool)
        return noise_ceiling(lambda s: (brains[s], valid), 17, np.zeros(1925))

    def test_inter_subject_correlation_is_the_published(self, ceiling: Ceiling) -> None:
        np.testing.assert_allclose(ceiling.lower, [0.66, 0.66, 0.32, 0.27], atol=0.006)

    def test_it_is_every_subject_against_the_mean_of_the_others(
        self, brains: np.ndarray, ceiling: Ceiling
    ) -> None:
        left_out = [
            [np.corrcoef(brains[s, :, u], np.delete(brains, s, 0)[:, :, u].mean(0))[0, 1]]
            for u in range(4)
            for s in range(17)
        ]
        by_region = np.reshape(left_out, (4, 17)).mean(axis=1)
        np.testing.assert_allclose(ceiling.lower, by_region, atol=1e-6)

    def test_it_is_brainiaks(self, brains: np.ndarray, ceiling: Ceiling) -> None:
        isc = pytest.importorskip("brainiak.isc", reason="brainiak is not installed")
        theirs = isc.isc(brains.transpose(1, 2, 0), pairwise=False).mean(axis=0)
        np.testing.assert_allclose(ceiling.lower, theirs, atol=1e-6)
