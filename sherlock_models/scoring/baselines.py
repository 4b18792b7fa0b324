"""What a model must beat: predictions from next to nothing, and from a linear map.

Legend: T = TRs of the scan, t = held-out TRs, U = units, F = stimulus features, L = delays.
Every baseline is fitted on the training TRs it is given and says so in ``fitted_on``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from himalaya.backend import set_backend
from himalaya.kernel_ridge import KernelRidgeCV, MultipleKernelRidgeCV
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import KFold

from sherlock_data.decomposition import Rows, back, choose, decompose, project
from sherlock_data.timing import Clock, shifted_index
from sherlock_models.scoring.scores import FloatArray, IntArray

#: TRs of stimulus behind the lag that the ridge sees, one filter tap each
DELAYS = (0, 1, 2, 3, 4)
#: ridge penalties tried, over a kernel whose mean diagonal is 1
ALPHAS = np.logspace(-4, 4, 17)
FOLDS = 5
#: random mixtures of the stimuli that banded ridge tries
MIXTURES = 20
#: principal components of every stimulus that pca-ridge keeps
COMPONENTS = 20
#: bytes a compressor's principal components may take
_PCA_BYTES = 4e9


@dataclass(frozen=True)
class Prediction:
    """A baseline's held-out prediction.

    Attributes
    ----------
    name : str
        The ``predictor`` of the table.
    values : ndarray of float32, shape (t, U)
    fitted_on : str
        One line for the notes: on what it was fitted.
    """

    name: str
    values: NDArray[np.float32]
    fitted_on: str


def training_mean(name: str, train: ArrayLike, n_test: int) -> Prediction:
    """Predict the mean of the training TRs at every held-out TR.

    Parameters
    ----------
    name : str
        ``"mean"``, or ``"mean-frame"`` for pictures.
    train : array_like, shape (T_train, U)
    n_test : int
    """
    train = np.asarray(train)
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    values = np.broadcast_to(mean, (n_test, *mean.shape))
    return Prediction(name, values, f"the mean of {len(train)} training TRs")


def time_index(
    series: ArrayLike, train: ArrayLike, test: ArrayLike, run_of_tr: ArrayLike
) -> Prediction:
    """Interpolate in time from the training TRs of the same run: the canary.

    A model that knows nothing but which TR it is can do this. If it does well, the split is
    leaking, not the model understanding.

    Parameters
    ----------
    series : array_like, shape (T, U)
        One subject's BOLD; only its ``train`` rows are read.
    train, test : array_like of int
        TRs of the scan.
    run_of_tr : array_like of int, shape (T,)

    Returns
    -------
    Prediction
        Linear between training TRs, constant beyond the run's last (as ``numpy.interp``); the
        training mean in a run without any.
    """
    series, run_of_tr = np.asarray(series), np.asarray(run_of_tr)
    train, test = np.unique(np.asarray(train)), np.asarray(test)
    values = np.empty((len(test), series.shape[1]), dtype=np.float32)
    for run in np.unique(run_of_tr[test]):
        mine = run_of_tr[test] == run
        known = train[run_of_tr[train] == run]
        if len(known):
            values[mine] = _interpolate(series, known, test[mine])
        else:
            values[mine] = series[train].mean(axis=0, dtype=np.float64)
    return Prediction("time-index", values, f"interpolated in time between {len(train)} TRs")


def _interpolate(series: NDArray[np.floating], known: IntArray, at: IntArray) -> FloatArray:
    """``numpy.interp`` along axis 0 for all units at once."""
    place = np.interp(at, known, np.arange(len(known)))
    left = np.floor(place).astype(np.int64)
    right = np.minimum(left + 1, len(known) - 1)
    share = (place - left)[:, None]
    return np.asarray(series[known[left]] * (1 - share) + series[known[right]] * share)


def previous_tr(
    name: str,
    values: ArrayLike,
    test: ArrayLike,
    present: ArrayLike,
    clock: Clock,
    fallback: ArrayLike,
) -> Prediction:
    """Repeat the true stimulus of one TR earlier in the same run: hard to beat, and needs no brain.

    Parameters
    ----------
    name : str
        ``"previous-frame"`` or ``"previous-tr"``.
    values : array_like, shape (T, F)
        True stimulus.
    test : array_like of int, shape (t,)
    present : array_like of bool, shape (T,)
        Where there is a stimulus.
    clock : Clock
    fallback : array_like, shape (F,)
        For a TR with none before it: the training mean.
    """
    values, test = np.asarray(values), np.asarray(test, dtype=np.int64)
    before = shifted_index(clock, -1)[test]
    known = (before >= 0) & np.asarray(present)[before]
    found = np.where(_column(known, values.ndim), values[before], np.asarray(fallback))
    return Prediction(
        name, found.astype(np.float32), "the true stimulus one TR earlier; nothing is fitted"
    )


def _column(flags: NDArray[np.bool_], ndim: int) -> NDArray[np.bool_]:
    return flags.reshape((-1,) + (1,) * (ndim - 1))


class DelayedRidge:
    """Ridge regression from stimulus features at several delays to every unit.

    Features outnumber TRs by far, so the regression is solved in the kernel (T x T): the kernel of
    delayed features is the sum of the kernel shifted by each delay, and the long matrix of delayed
    features is never made. The penalty of each unit is chosen by cross-validation over contiguous
    blocks of *training* TRs (himalaya; Dupré la Tour et al. 2022, NeuroImage 264).

    Parameters
    ----------
    clock : Clock
    delays : sequence of int
        TRs into the stimulus's past, counted from the TR that the lag pairs with the brain's.
    """

    name = "delayed-ridge"

    def __init__(self, clock: Clock, delays: Sequence[int] = DELAYS) -> None:
        self.clock, self.delays = clock, tuple(delays)

    def fit(
        self, features: Iterable[ArrayLike], present: ArrayLike, train: ArrayLike, brain: ArrayLike
    ) -> DelayedRidge:
        """Fit on training TRs.

        Parameters
        ----------
        features : iterable of array_like, each (T, F)
            Stimulus spaces; each is scaled to the same total variance over the training TRs.
        present : array_like of bool, shape (T,)
            Where there is a stimulus; elsewhere the features count as their training mean.
        train : array_like of int, shape (n,)
            Stimulus TRs.
        brain : array_like, shape (n, U)
            Brain at those TRs plus the lag.
        """
        self.train = np.asarray(train, dtype=np.int64)
        brain = np.asarray(brain, dtype=np.float32)
        self.kernel = self._kernel(list(features), np.asarray(present, dtype=bool))
        self.mean = brain.mean(axis=0, dtype=np.float64).astype(np.float32)
        set_backend("numpy")
        folds = KFold(min(FOLDS, len(self.train)), shuffle=False)
        self.ridge = KernelRidgeCV(alphas=ALPHAS, kernel="precomputed", cv=folds)
        square = np.ix_(self.train, self.train)
        self.ridge.fit(self.kernel[square], brain - self.mean)
        self.alphas: NDArray[np.float32] = np.asarray(self.ridge.best_alphas_)
        return self

    def predict(self, test: ArrayLike) -> Prediction:
        """Predict the brain at stimulus TRs ``test`` (plus the lag): values (t, U)."""
        rows = self.kernel[np.ix_(np.asarray(test, dtype=np.int64), self.train)]
        values = np.asarray(self.ridge.predict(rows) + self.mean, dtype=np.float32)
        delays = f"delays {self.delays[0]} to {self.delays[-1]} TRs"
        fitted_on = (
            f"{len(self.train)} training TRs, {delays}, the penalty of each unit (median "
            f"{np.median(self.alphas):.2g}) by {FOLDS}-fold cross-validation over blocks of them"
        )
        return Prediction(self.name, values, fitted_on)

    def _kernel(self, features: list[ArrayLike], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Kernel of the delayed features, mean diagonal 1 over the training TRs: (T, T)."""
        plain = np.zeros((self.clock.volumes,) * 2, dtype=np.float32)
        for values in features:
            centred = np.asarray(values, dtype=np.float32).reshape(len(present), -1)
            centred = centred - centred[self.train].mean(axis=0)
            centred[~present] = 0.0
            kernel = centred @ centred.T
            plain += kernel / max(float(np.diag(kernel)[self.train].mean()), 1e-12)
        delayed = np.zeros_like(plain)
        for delay in self.delays:
            source = shifted_index(self.clock, -delay)
            there = np.flatnonzero(source >= 0)
            delayed[np.ix_(there, there)] += plain[np.ix_(source[there], source[there])]
        return delayed / max(float(np.diag(delayed)[self.train].mean()), 1e-12)


class BandedRidge(DelayedRidge):
    """The same with a penalty of its own for every stimulus, unit by unit.

    Random mixtures of the stimuli's kernels are tried, each with every penalty, by cross-validation
    over contiguous blocks of *training* TRs (Nunez-Elizalde, Huth & Gallant 2019, NeuroImage 197;
    himalaya's random search). For two stimuli or more.
    """

    name = "banded-ridge"

    def fit(
        self, features: Iterable[ArrayLike], present: ArrayLike, train: ArrayLike, brain: ArrayLike
    ) -> BandedRidge:
        """Fit on training TRs; the parameters are those of :meth:`DelayedRidge.fit`."""
        self.train = np.asarray(train, dtype=np.int64)
        brain = np.asarray(brain, dtype=np.float32)
        there = np.asarray(present, dtype=bool)
        self.kernel = np.stack([self._kernel([values], there) for values in features])
        self.mean = brain.mean(axis=0, dtype=np.float64).astype(np.float32)
        set_backend("numpy")
        self.ridge = MultipleKernelRidgeCV(
            kernels="precomputed",
            solver="random_search",
            solver_params={"n_iter": MIXTURES, "alphas": ALPHAS, "progress_bar": False},
            cv=KFold(min(FOLDS, len(self.train)), shuffle=False),
            random_state=0,
        )
        self.ridge.fit(self.kernel[:, self.train][:, :, self.train], brain - self.mean)
        self.shares: NDArray[np.float64] = _softmax(np.asarray(self.ridge.deltas_))
        return self

    def predict(self, test: ArrayLike) -> Prediction:
        """Predict the brain at stimulus TRs ``test`` (plus the lag): values (t, U)."""
        rows = self.kernel[:, np.asarray(test, dtype=np.int64)][:, :, self.train]
        values = np.asarray(self.ridge.predict(rows) + self.mean, dtype=np.float32)
        fitted_on = (
            f"{len(self.train)} training TRs, a penalty for each of {len(self.kernel)} stimuli and "
            f"unit by {FOLDS}-fold cross-validation over blocks of them ({MIXTURES} mixtures)"
        )
        return Prediction(self.name, values, fitted_on)


def _softmax(logarithms: FloatArray) -> FloatArray:
    """Weights of the kernels, (spaces, U), as himalaya's deltas have them, made to add up to 1."""
    weight = np.exp(logarithms - logarithms.max(axis=0))
    return np.asarray(weight / weight.sum(axis=0))


class PcaRidge(DelayedRidge):
    """The same on the first principal components of every stimulus over the *training* TRs."""

    name = "pca-ridge"

    def fit(
        self, features: Iterable[ArrayLike], present: ArrayLike, train: ArrayLike, brain: ArrayLike
    ) -> PcaRidge:
        """Fit on training TRs; the parameters are those of :meth:`DelayedRidge.fit`."""
        reduced = [_components(values, np.asarray(train, dtype=np.int64)) for values in features]
        self.components = [values.shape[1] for values in reduced]
        super().fit(reduced, present, train, brain)
        return self

    def predict(self, test: ArrayLike) -> Prediction:
        """Predict the brain at stimulus TRs ``test`` (plus the lag): values (t, U)."""
        found = super().predict(test)
        kept = " and ".join(str(number) for number in self.components)
        fitted_on = f"{kept} principal components of the stimuli; {found.fitted_on}"
        return Prediction(self.name, found.values, fitted_on)


def _components(values: ArrayLike, train: IntArray) -> NDArray[np.float32]:
    """Scores (T, k) on the principal components of the rows ``train`` of a stimulus (T, ...)."""
    flat = np.asarray(values, dtype=np.float32).reshape(len(np.asarray(values)), -1)
    known = flat[train]
    mean = known.mean(axis=0)
    most = min(COMPONENTS, *known.shape)
    power, axes = np.linalg.eigh(((known - mean) @ (known - mean).T).astype(np.float64))
    power, axes = power[::-1][:most], axes[:, ::-1][:, :most]
    kept = power > 1e-9 * power[0]
    loadings = (known - mean).T @ (axes[:, kept] / np.sqrt(power[kept])).astype(np.float32)
    scores: NDArray[np.float32] = (flat - mean) @ loadings
    return scores


class TrainingRows(Rows, Protocol):
    """Rows of standardised brains that know how many dimensions they span at most."""

    @property
    def rank(self) -> int:
        """Most components they can have."""
        ...


class Reconstruction:
    """A brain through as many principal components as a compressor's code has units, and back.

    Parameters
    ----------
    rows : TrainingRows
        Standardised training brains.
    components : int
        As many as the rows can span, if that is fewer.
    """

    def __init__(self, rows: TrainingRows, components: int) -> None:
        fewer = min(components, rows.rank)
        method = choose(rows.shape, fewer, _PCA_BYTES)
        self.components = decompose(rows, fewer, method)
        self.fitted_on = f"{fewer} principal components of {rows.shape[0]} training samples"
        if fewer < components:
            self.fitted_on += f" (which span no {components})"

    def predict(self, measured: ArrayLike) -> Prediction:
        """Reconstruct standardised brains (n, U)."""
        found, values = self.components, np.asarray(measured, dtype=np.float32)
        scores = project(values, found.loadings, found.mean)
        return Prediction("pca", back(scores, found.loadings, found.mean), self.fitted_on)
