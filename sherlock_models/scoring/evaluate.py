"""Is a run to be believed? Every score on held-out TRs, beside its baselines: evaluation.json.

The test side of the split alone is scored; the model is the best checkpoint by validation. Arrays
behind the numbers (r of every unit, ceilings, q-values, decoded pictures) go to evaluation.zarr.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sherlock_data.errors import ConfigError
from sherlock_data.splits import make_split
from sherlock_models.feeding.stimuli import feature_groups
from sherlock_models.run import CHECKPOINTS
from sherlock_models.scoring import baselines
from sherlock_models.scoring.brain_scores import BrainScores, brain_scores
from sherlock_models.scoring.ceiling import Ceiling
from sherlock_models.scoring.error_parts import MOST_FEATURES
from sherlock_models.scoring.evaluation_store import ARRAYS, gather, write
from sherlock_models.scoring.heldout import PREDICTED, Reader, Side, make_blocks
from sherlock_models.scoring.heldout import run_index as run_of_tr
from sherlock_models.scoring.scores import DRAWS, Score, nan_mean, pearson_by_run
from sherlock_models.scoring.significance import FDR, NULL_DRAWS
from sherlock_models.scoring.space import Space, UnitSpace, space_of
from sherlock_models.scoring.stimulus_scores import Table, smuggled, stimulus_scores
from sherlock_models.sizes import BRAIN
from sherlock_models.training import checkpoint
from sherlock_models.writing import whole

if TYPE_CHECKING:
    from sherlock_models.feeding.dataset import MovieBrainData
    from sherlock_models.run import Run

JSON = "evaluation.json"
CANARY_SPLITS = ("block", "random")
#: target of the scores in the units of a code; `brain` is in voxels then
CODE = "code"

Say = Callable[[str], None]


def evaluate(
    run: Run,
    *,
    draws: int = DRAWS,
    null_draws: int = NULL_DRAWS,
    seed: int = 0,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Score a run on its held-out TRs and write `evaluation.json` and `evaluation.zarr`.

    Parameters
    ----------
    run : Run
    draws : int
        Block-bootstrap draws of the intervals.
    null_draws : int
        Phase-randomised draws of the null.
    seed : int
        Of every draw.
    say : callable
        Told in a few words what is being done.

    Returns
    -------
    dict
        `run`, `split`, `rows` (`predictor`, `target`, `metric`, `value`, `low`, `high`, `n`) as
        the contract has them; beside these `step` (of the judged checkpoint), `held_out`,
        `ceiling`, `canary`, `smuggled`, `bands` (r over time of every band of a sound) and `notes`.
        Undefined is None.
    """
    say("reading the data and the best checkpoint")
    train, test = Side.of(run.data, "train"), Side.of(run.data, "test")
    blocks = make_blocks(test, draws, seed)
    reader, space = Reader(run, test, seed), space_of(run)
    brain, ceiling, brain_notes = brain_scores(
        reader, train, blocks, space=space, null_draws=null_draws, seed=seed, say=say
    )
    code: dict[str, BrainScores] = {}
    if run.config.voxel_store is not None:
        code, _, _ = brain_scores(reader, train, blocks, null_draws=null_draws, seed=seed, say=say)
    movie, movie_notes = stimulus_scores(reader, train, blocks, say)
    say("time-index canary over the folds")
    repeats = [(r.volumes, r.at) for r in run.config.repeats]
    canaries = canary(run.data, repeats=repeats, space=space)
    document = {
        "run": str(run.path),
        "split": run.config.split,
        "step": _judged_step(run),
        "rows": _rows(brain, code, movie),
        "held_out": _held_out(run, test, space),
        "ceiling": _ceiling(ceiling),
        "canary": canaries,
        "smuggled": smuggled(movie),
        "bands": _bands(run, movie),
        "notes": grouped([*_notes(run, test, draws, null_draws), *brain_notes, *movie_notes]),
    }
    document = _plain(document)
    arrays = gather(run, test, brain, ceiling, movie, space.names)
    write(run.path / ARRAYS, arrays)
    _write_json(run.path / JSON, document)
    return dict(document)


def load_evaluation(folder: Path) -> tuple[dict[str, Any], xr.Dataset]:
    """Read `evaluation.json` and `evaluation.zarr` of a run's folder.

    Raises
    ------
    ConfigError
        If the run has not been evaluated, or what was written is damaged.
    """
    if not (folder / JSON).is_file() or not (folder / ARRAYS).is_dir():
        raise ConfigError(
            "not evaluated", where=folder, remedy=f"run sherlock-models evaluate {folder}"
        )
    document = _read_json(folder / JSON)
    try:
        return document, xr.open_zarr(folder / ARRAYS)
    except (OSError, ValueError, KeyError, TypeError):
        raise _damaged(folder / ARRAYS) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise _damaged(path) from None
    if not isinstance(document, dict):
        raise _damaged(path)
    return document


def _damaged(path: Path) -> ConfigError:
    remedy = f"run sherlock-models evaluate {path.parent}"
    return ConfigError("is damaged", where=path, remedy=remedy)


def is_current(run: Run) -> bool:
    """Whether the run's evaluation is there and of its present best checkpoint."""
    if not (run.path / JSON).is_file() or not (run.path / ARRAYS).is_dir():
        return False
    return bool(_read_json(run.path / JSON).get("step") == _judged_step(run))


def _judged_step(run: Run) -> int | None:
    return checkpoint.read_index(run.path / CHECKPOINTS).best


def canary(
    data: MovieBrainData,
    kinds: Sequence[str] = CANARY_SPLITS,
    *,
    folds: int | None = None,
    repeats: Sequence[tuple[int, Mapping[str, int]]] = (),
    space: Space | None = None,
) -> dict[str, float]:
    """R of the time-index model, the mean over folds, subjects and units, under each split.

    It knows nothing of the stimulus: about 0 where a split is honest, high where neighbouring TRs
    lie on both sides.

    Parameters
    ----------
    data : MovieBrainData
    kinds : sequence of str
    folds : int, optional
        Of each split; its own default.
    repeats : sequence of (volumes, {run: first TR})
    space : Space, optional
        Units of the brains; those of the brain layer by default.
    """
    space = space or UnitSpace(data)
    splits = {kind: _folds(data, kind, folds, repeats) for kind in kinds}
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    runs = run_of_tr(data)
    for subject, valid in enumerate(data.valid):
        brain = space.matrix(subject)[:, space.signal[subject]]
        for kind, sides in splits.items():
            for train, test in sides:
                train, test = train[valid[train]], test[valid[test]]
                if len(train) and len(test):
                    predicted = baselines.time_index(brain, train, test, runs).values
                    r = pearson_by_run(predicted, brain[test], runs[test])
                    found[kind].append(float(nan_mean(r)))
    return {kind: float(nan_mean(np.array(values))) for kind, values in found.items()}


def _folds(
    data: MovieBrainData,
    kind: str,
    folds: int | None,
    repeats: Sequence[tuple[int, Mapping[str, int]]],
) -> list[tuple[Any, Any]]:
    """Brain TRs of train and test in every fold."""
    sides, fold, number = [], 0, 1
    while fold < number:
        split = make_split(
            kind,
            data.clock,
            data.usable,
            data.subjects,
            fold=fold,
            folds=folds,
            context_trs=max(data.delays),
            lag_trs=data.lag_trs,
            repeats=repeats,
        )
        sides.append((split.train + data.lag_trs, split.test + data.lag_trs))
        fold, number = fold + 1, split.folds
    return sides


def _rows(
    brain: Mapping[str, BrainScores], code: Mapping[str, BrainScores], movie: Table
) -> list[dict[str, Any]]:
    rows = [
        _row(name, target, metric, score)
        for target, predictors in ((BRAIN, brain), (CODE, code))
        for name, scores in predictors.items()
        for metric, score in scores.rows()
    ]
    rows += [
        _row(predictor, name, metric, score)
        for name, predictors in movie.items()
        for predictor, scores in predictors.items()
        for metric, score in scores.rows()
    ]
    return rows + _chance(rows)


def _row(predictor: str, target: str, metric: str, score: Score) -> dict[str, Any]:
    low, high = score.interval()
    return {
        "predictor": predictor,
        "target": target,
        "metric": metric,
        "value": score.value,
        "low": low,
        "high": high,
        "n": score.n,
    }


def _chance(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say what guessing a segment scores, one row per target."""
    segments = {r["target"]: r["n"] for r in rows if r["metric"] == "identification"}
    return [
        _row("chance", target, "identification", Score(1 / n, np.zeros(0), n))
        for target, n in segments.items()
        if n > 1
    ]


def _held_out(run: Run, test: Side, space: Space) -> dict[str, Any]:
    data, split = run.data, run.data.split
    return {
        "fold": split.fold,
        "folds": split.folds,
        "train_trs": len(split.train),
        "validation_trs": len(split.validation),
        "test_trs": len(test.trs),
        "gap_trs": split.gap_trs,
        "subjects": [data.subjects[s] for s in test.subjects],
        "units": int(space.signal.any(axis=0).sum()),
        "store": run.config.voxel_store or run.config.brain,
        "repetition_time_s": data.clock.repetition_time_s,
        "lag_trs": data.lag_trs,
    }


def _ceiling(ceiling: Ceiling) -> dict[str, Any]:
    return {
        "lower": float(nan_mean(ceiling.lower)),
        "upper": float(nan_mean(ceiling.upper)),
        "units": int(np.isfinite(ceiling.usable).sum()),
    }


def _bands(run: Run, movie: Table) -> dict[str, dict[str, dict[str, float]]]:
    """R over time by stimulus, predictor and band (or feature), the mean over channels."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, predictors in movie.items():
        if run.data.tables[name].is_video:
            continue
        size = len(predictors[PREDICTED].unit_r)
        groups = np.array(feature_groups(run.config.data, name, size))
        known = list(dict.fromkeys(groups.tolist()))
        if len(known) <= MOST_FEATURES:
            found[name] = {
                predictor: {
                    group: float(nan_mean(scores.unit_r[groups == group])) for group in known
                }
                for predictor, scores in predictors.items()
            }
    return found


def _notes(run: Run, test: Side, draws: int, null_draws: int) -> list[str]:
    data = run.data
    notes = [
        f"scores are over {len(test.trs)} held-out TRs of {len(test.subjects)} subjects, by "
        "subject and run, then averaged; low and high are a 95 % interval of a block bootstrap "
        f"over time ({draws} draws)",
        f"significant: share of units above a phase-randomised null ({null_draws} draws) at FDR "
        f"{FDR}",
        "r2 is around the training mean, which scores 0; r_spatial runs across pixels and flatters "
        "the mean frame",
        "the noise ceiling is the inter-subject correlation over every valid volume of the scan; "
        "r_over_ceiling is over its lower bound, the mean of the others, who are few and noisy "
        "too: a good model can exceed 1",
        "identification: best of n segments, chance 1/n",
        *data.notes,
    ]
    if run.config.voxel_store is not None:
        notes.append(
            f"brain: scored in the standardised voxels of '{run.config.voxel_store}', decoded from "
            f"the {data.signal.shape[1]} predicted units of the code; {CODE}: the same in "
            "the code's own units, each of variance 1"
        )
    if run.config.is_compressor:
        notes.append(
            "brain: the measured brain, through the code and back; no stimulus is seen, and the "
            "inter-subject ceiling does not bound it"
        )
    if len(data.subjects) < 2:
        notes.append("no noise ceiling: it takes two subjects")
    if data.split.warning:
        notes.append(data.split.warning)
    return notes


def grouped(notes: Sequence[str]) -> list[str]:
    """Say once what is said of several: `a: text` and `b: text` become `a, b: text`."""
    names: dict[str, list[str]] = {}
    for note in notes:
        name, colon, text = note.partition(": ")
        whose = names.setdefault(text if colon else note, [])
        if colon and name not in whose:
            whose.append(name)
    return [f"{', '.join(who)}: {text}" if who else text for text, who in names.items()]


def _plain(value: Any) -> Any:
    """Numbers JSON knows; undefined is None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _write_json(path: Path, document: dict[str, Any]) -> None:
    with whole(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2, allow_nan=False), encoding="utf-8")
