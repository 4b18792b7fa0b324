"""Principal components of a matrix out of memory: as scikit-learn's, within the memory given."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from sherlock_data import decomposition_method
from sherlock_data.decomposition import back, choose, decompose, project
from sherlock_data.errors import ConfigError, UnavailableError


class InMemory:
    """Rows of an array; remembers the largest block that was asked for."""

    def __init__(self, values):
        self.values, self.largest = np.asarray(values, dtype=np.float32), 0

    @property
    def shape(self):
        return self.values.shape

    def read(self, start, stop):
        self.largest = max(self.largest, stop - start)
        return self.values[start:stop].copy()


def falling(rows, columns, seed=0, decay=15.0, mean=0.3):
    """A matrix whose singular values fall, so that its components are well apart."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((rows, columns)) * np.exp(-np.arange(columns) / decay)
    turn, _ = np.linalg.qr(rng.standard_normal((columns, columns)))
    return (factors @ turn + mean).astype(np.float32)


@pytest.mark.parametrize("solver", ["gram", "subspace"])
@pytest.mark.parametrize(
    ("rows", "columns", "components"),
    [
        pytest.param(60, 200, 20, id="wide: products of rows"),
        pytest.param(300, 120, 30, id="tall: products of columns"),
        pytest.param(40, 90, 39, id="as many as the rank"),
    ],
)
def test_components_are_those_of_scikit_learn(reference_pca, solver, rows, columns, components):
    values = falling(rows, columns, decay=1e9 if components == 39 else 15.0)
    wanted, known = reference_pca(values, components)
    method = choose(values.shape, components, 1e9, solver)
    found = decompose(InMemory(values), components, method, tolerance=1e-9)
    np.testing.assert_allclose(found.loadings, wanted, atol=1e-4)
    ratio = found.variance / found.total
    np.testing.assert_allclose(ratio, known.explained_variance_ratio_, atol=1e-4 * ratio[0])
    np.testing.assert_allclose(found.mean, known.mean_, atol=1e-5)
    np.testing.assert_allclose(
        project(values, found.loadings, found.mean), (values - known.mean_) @ wanted.T, atol=1e-3
    )


@pytest.mark.parametrize(
    "shape", [pytest.param((300, 420), id="of rows"), pytest.param((420, 300), id="of columns")]
)
def test_iterated_eigenvectors_are_lapacks(shape, monkeypatch):
    values = falling(*shape)
    exact = decompose(InMemory(values), 10, choose(shape, 10, 1e9, "gram"))
    monkeypatch.setattr(decomposition_method, "LAPACK_ALWAYS", 0)
    method = choose(shape, 10, 1e9, "gram")
    assert not method.lapack
    found = decompose(InMemory(values), 10, method, tolerance=1e-9)
    np.testing.assert_allclose(found.loadings, exact.loadings, atol=1e-4)
    np.testing.assert_allclose(found.variance, exact.variance, rtol=1e-4)


@pytest.mark.parametrize("solver", ["gram", "subspace"])
def test_the_same_seed_gives_the_same_bytes(solver):
    values = falling(150, 400)
    method = choose(values.shape, 20, 1e8, solver)
    first, again = (decompose(InMemory(values), 20, method, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.loadings, again.loadings)


@pytest.mark.parametrize("solver", ["gram", "subspace"])
@pytest.mark.parametrize(
    ("shape", "megabytes"),
    [
        pytest.param((1500, 3000), 13, id="rows"),
        pytest.param((3000, 1500), 16, id="columns"),
        pytest.param((1500, 3000), 18, id="more rows at once"),
    ],
)
def test_memory_stays_within_the_setting(solver, shape, megabytes, monkeypatch):
    monkeypatch.setattr(decomposition_method, "LAPACK_ALWAYS", 100)
    rows = InMemory(falling(shape[0], 200) @ falling(200, shape[1], 1, 1e9, 0))
    method = choose(shape, 20, megabytes * 1e6, solver)
    tracemalloc.start()
    decompose(rows, 20, method)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert method.memory_bytes <= megabytes * 1e6
    assert peak < 1.1 * megabytes * 1e6
    assert rows.largest < shape[0]


def test_too_little_memory_says_how_much_is_needed():
    with pytest.raises(ConfigError, match=r"memory_gb: .* need at least 0\.\d+ GB"):
        choose((16_000, 8_300), 500, 1e6)


@pytest.mark.parametrize(
    ("shape", "components", "chosen"),
    [
        pytest.param((16_000, 83_000), 5_000, "gram", id="many components"),
        pytest.param((23_000, 83_000), 50, "subspace", id="few components"),
        pytest.param((23_000, 400), 50, "gram", id="few columns"),
    ],
)
def test_the_cheaper_solver_is_chosen(shape, components, chosen):
    assert choose(shape, components, 8e9).solver == chosen


@pytest.mark.parametrize("solver", ["gram", "subspace"])
def test_data_of_lower_rank_are_refused_with_their_rank(solver):
    values = falling(50, 7, decay=1e9, mean=0) @ falling(7, 80, 1, decay=1e9, mean=0)
    with pytest.raises(UnavailableError, match=r"10 components .* 7 \(their rank\)"):
        decompose(InMemory(values), 10, choose(values.shape, 10, 1e9, solver))


def test_rows_come_back_from_all_components():
    values = falling(30, 12, decay=1e9)
    found = decompose(InMemory(values), 12, choose(values.shape, 12, 1e9))
    scores = project(values, found.loadings, found.mean)
    np.testing.assert_allclose(back(scores, found.loadings, found.mean), values, atol=1e-4)
