"""Which TRs train, which choose the checkpoint, which judge: pure functions of the time axis.

A sample is (subject, stimulus TR ``t``); its brain TR is ``t + lag``. BOLD is autocorrelated over
many seconds, so that a random split lets a model that knows nothing but the time do well: `block`
holds out contiguous stretches with a gap on either side instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sherlock_data.errors import ConfigError, did_you_mean
from sherlock_data.timing import Clock

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

KINDS = ("block", "run", "subject", "random")
#: shares of validation and test; the rest, less the gaps, trains
VALIDATION, TEST = 0.1, 0.2
#: TRs between a training TR and a held-out one, whatever the model's context
GAP_TRS = 10
#: a held-out stretch is cut in several only while each keeps this many TRs
LONGEST_BLOCK_TRS = 60

#: BOLD is standardised by the training TRs of its run: with fewer than these the run trains nobody
LEAST_TRAINING_TRS = 10

RANDOM_WARNING = (
    "a random split lets a model that sees only the time index do well, since neighbouring TRs "
    "resemble each other: its scores say nothing about the stimulus; use --split block"
)

_FREE, _GAP, _VALIDATION, _TEST = range(4)


@dataclass(frozen=True)
class Split:
    """Stimulus TRs of each side, the same for all subjects.

    Attributes
    ----------
    kind : str
    fold, folds : int
    train, validation, test, gap : ndarray of int64
        Sorted 0-based TRs of the stimulus, over all runs. Gap TRs are used by nobody.
    gap_trs : int
        Least distance in TRs, within a run, between a training and a held-out TR.
    train_subjects, test_subjects : tuple of str
        The same subjects, unless whole subjects are held out.
    warning : str or None
    """

    kind: str
    fold: int
    folds: int
    train: IntArray
    validation: IntArray
    test: IntArray
    gap: IntArray
    gap_trs: int
    train_subjects: tuple[str, ...] = ()
    test_subjects: tuple[str, ...] = ()
    warning: str | None = field(default=None)

    def trs(self, side: str) -> IntArray:
        """Stimulus TRs of ``"train"``, ``"validation"`` or ``"test"``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[side]

    def subjects(self, side: str) -> tuple[str, ...]:
        """Subjects of a side; validation uses the training subjects."""
        return self.test_subjects if side == "test" else self.train_subjects


def make_split(
    kind: str,
    clock: Clock,
    usable: BoolArray,
    subjects: Sequence[str],
    *,
    fold: int = 0,
    folds: int | None = None,
    context_trs: int = 0,
    lag_trs: int = 0,
    repeats: Sequence[tuple[int, Mapping[str, int]]] = (),
    seed: int = 0,
) -> Split:
    """Share out the usable TRs.

    Parameters
    ----------
    kind : {"block", "run", "subject", "random"}
    clock : Clock
    usable : ndarray of bool, shape (time,)
        Stimulus TRs that a model could use (stimulus and its context there, brain TR in the run).
    subjects : sequence of str
    fold, folds : int
        Fold ``fold`` of ``folds`` (default: 5, or the number of runs for `run`) is held out.
    context_trs, lag_trs : int
        How far a sample reaches into the past of the stimulus and the future of the brain.
    repeats : sequence of (volumes, {run: first TR of the run})
        Stretches shown more than once; each TR of them is on one side with its copies.
    seed : int
        Only for `random`.

    Raises
    ------
    ConfigError
        If the kind is unknown, the fold does not exist, or a side would be empty.
    """
    if kind not in KINDS:
        raise ConfigError(f"no split '{kind}'", where="--split", remedy=did_you_mean(kind, KINDS))
    runs = _runs_with_stimulus(clock, usable)
    folds = len(runs) if kind == "run" and runs else folds or round(1 / TEST)
    if not 0 <= fold < folds:
        raise ConfigError(
            f"fold {fold} of {folds}", where="--fold", remedy=f"folds are 0 to {folds - 1}"
        )
    gap_trs = 0 if kind == "random" else max(GAP_TRS, context_trs + abs(lag_trs))
    if kind == "random":
        side = _random(usable, fold, folds, seed)
    elif kind == "run":
        side = _whole_runs(clock, runs, usable, fold)
    else:
        side = _blocks(usable, fold, folds, gap_trs)
    _widen_gaps(side, clock, gap_trs)
    _keep_copies_together(side, clock, repeats, gap_trs)
    _drop_stubs(side, clock, usable)
    train, validation, test, gap = (
        np.flatnonzero((side == code) & usable) for code in (_FREE, _VALIDATION, _TEST, _GAP)
    )
    train_subjects, test_subjects = _subjects(kind, tuple(subjects), fold, folds)
    split = Split(
        kind=kind,
        fold=fold,
        folds=folds,
        train=train,
        validation=validation,
        test=test,
        gap=gap,
        gap_trs=gap_trs,
        train_subjects=train_subjects,
        test_subjects=test_subjects,
        warning=RANDOM_WARNING if kind == "random" else None,
    )
    _check(split, int(usable.sum()))
    return split


def _runs_with_stimulus(clock: Clock, usable: BoolArray) -> list[str]:
    return [run.name for run in clock.runs if usable[clock.run_slice(run.name)].any()]


def _blocks(usable: BoolArray, fold: int, folds: int, gap_trs: int) -> IntArray:
    """Cut the usable TRs, run after run, into segments and give every ``folds``-th to the test.

    Validation takes the stretch behind each test segment (before it at the very end), with a gap
    between them, so that the two share one gap.
    """
    side = np.full(len(usable), _FREE)
    order = np.flatnonzero(usable)
    cycles = max(1, len(order) // (folds * LONGEST_BLOCK_TRS))
    edges = np.linspace(0, len(order), cycles * folds + 1).round().astype(int)
    n_validation = max(1, round(VALIDATION * len(order) / cycles))
    for segment in range(fold, cycles * folds, folds):
        start, stop = edges[segment], edges[segment + 1]
        side[order[start:stop]] = _TEST
        behind = slice(stop + gap_trs, stop + gap_trs + n_validation)
        before = slice(max(0, start - gap_trs - n_validation), max(0, start - gap_trs))
        chosen = order[behind if behind.stop <= len(order) else before]
        side[chosen[side[chosen] == _FREE]] = _VALIDATION
    return side


def _whole_runs(clock: Clock, runs: list[str], usable: BoolArray, fold: int) -> IntArray:
    if len(runs) < 2:
        raise ConfigError(
            f"leaving one run out needs two runs with a stimulus, there is {len(runs)}",
            where="--split run",
            remedy="use --split block",
        )
    side = np.full(len(usable), _FREE)
    side[clock.run_slice(runs[fold])] = _TEST
    after = clock.run_slice(runs[(fold + 1) % len(runs)])
    trs = np.arange(after.start, after.stop)[usable[after]]
    side[trs[-max(1, round(VALIDATION * usable.sum())) :]] = _VALIDATION
    return side


def _random(usable: BoolArray, fold: int, folds: int, seed: int) -> IntArray:
    side = np.full(len(usable), _FREE)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(usable))
    edges = np.linspace(0, len(order), folds + 1).round().astype(int)
    side[order[edges[fold] : edges[fold + 1]]] = _TEST
    rest = np.concatenate([order[: edges[fold]], order[edges[fold + 1] :]])
    side[rest[: max(1, round(VALIDATION * len(order)))]] = _VALIDATION
    return side


def _widen_gaps(side: IntArray, clock: Clock, gap_trs: int) -> None:
    """Take away what lies within the gap of a held-out TR of the same run; test wins."""
    for run in clock.runs:
        part = side[clock.run_slice(run.name)]
        near_test = _near(part == _TEST, gap_trs)
        part[near_test & (part == _VALIDATION)] = _GAP
        near = near_test | _near(part == _VALIDATION, gap_trs)
        part[near & (part == _FREE)] = _GAP


def _near(held: BoolArray, gap_trs: int) -> BoolArray:
    window = np.ones(2 * gap_trs + 1)
    centred = np.convolve(held, window)[gap_trs : gap_trs + len(held)]
    return np.asarray(centred > 0)


def _keep_copies_together(
    side: IntArray,
    clock: Clock,
    repeats: Sequence[tuple[int, Mapping[str, int]]],
    gap_trs: int,
) -> None:
    """Give every copy of a repeated TR to one side, or to nobody where copies disagree.

    The gaps travel too, within the copies and beyond them: a training TR beside the copy of a
    held-out one is as close to it as a neighbour, and its delays would read the copy.
    """
    for volumes, at in repeats:
        first = {run: clock.run_slice(run).start + start for run, start in at.items()}
        copies = np.array([*first.values()])[:, None] + np.arange(volumes)
        found = side[copies]
        for code in (_TEST, _VALIDATION):
            held = (found == code).any(axis=0)
            found[:, held] = np.where(found[:, held] == code, code, _GAP)
            for run, start in first.items():
                trs, part = clock.tr()[clock.run_slice(run)], side[clock.run_slice(run)]
                near = _near(np.isin(trs, start + np.flatnonzero(held)), gap_trs)
                part[near & (part == _FREE)] = _GAP
        found[:, (found == _GAP).any(axis=0) & (found == _FREE).any(axis=0)] = _GAP
        side[copies] = found


def _drop_stubs(side: IntArray, clock: Clock, usable: BoolArray) -> None:
    """Give a run's last few training TRs to nobody: mean and standard deviation need more.

    The run then counts as wholly held out. Where no run has enough, each keeps what it has.
    """
    training = {
        run.name: (side[clock.run_slice(run.name)] == _FREE) & usable[clock.run_slice(run.name)]
        for run in clock.runs
    }
    if all(trs.sum() < LEAST_TRAINING_TRS for trs in training.values()):
        return
    for name, trs in training.items():
        if trs.sum() < LEAST_TRAINING_TRS:
            side[clock.run_slice(name)][trs] = _GAP


def _subjects(
    kind: str, subjects: tuple[str, ...], fold: int, folds: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if kind != "subject":
        return subjects, subjects
    if len(subjects) < 2:
        raise ConfigError(
            f"leaving subjects out needs two, there is {len(subjects)}",
            where="--split subject",
            remedy="use --split block",
        )
    held = {i for i in range(len(subjects)) if i % folds == fold % min(folds, len(subjects))}
    return (
        tuple(s for i, s in enumerate(subjects) if i not in held),
        tuple(s for i, s in enumerate(subjects) if i in held),
    )


def _check(split: Split, usable: int) -> None:
    sizes = {name: len(split.trs(name)) for name in ("train", "validation", "test")}
    empty = [name for name, n in sizes.items() if n == 0]
    if empty:
        raise ConfigError(
            f"no TR left for {' and '.join(empty)}: {usable} usable TRs, gap {split.gap_trs} TRs "
            f"({', '.join(f'{k} {v}' for k, v in sizes.items())})",
            where=f"--split {split.kind}",
            remedy="use a longer run, a shorter temporal context or another fold",
        )
