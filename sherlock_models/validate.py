"""The whole way on made-up data whose answer is known: what was planted is found, and no more.

One seed is one dataset: synthesised, built, trained on, evaluated, lesioned, and compared with its
truth. Bounds are those of the design at `demo`; `tiny` has too few blocks of held-out time for any
lesion to be significant, so it is asked for less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sherlock_data.build import build
from sherlock_data.catalog import load_catalog
from sherlock_data.errors import ConfigError, did_you_mean
from sherlock_data.scan import resolve as resolve_scan
from sherlock_data.synthetic import synth
from sherlock_models.lesions.lesion import lesion
from sherlock_models.lesions.lesion_store import load_lesions, save
from sherlock_models.lesions.planted_lesions import AUDIO, VIDEO, recovery
from sherlock_models.resolve import resolve
from sherlock_models.run import Run
from sherlock_models.scoring.evaluate import evaluate, load_evaluation
from sherlock_models.scoring.heldout import PREDICTED, Reader, Side
from sherlock_models.scoring.planted import load_truth
from sherlock_models.scoring.planted_encoder import lag_found_s, weight_correlation
from sherlock_models.training.train import fit

ENTRY = "conv-parcels"
DATASET = "synth"
STORES = ("parcels", "stimulus")
#: narrow, and at the learning rate that suits: what `make demo` trains
OPTIONS = {"batch_size": 32, "width": 0.25, "learning_rate": 0.003}

#: told the seed, its number among all, and what is being done
Say = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Size:
    """How much one seed of a size takes, and what is asked of it.

    Attributes
    ----------
    steps : int
        Of training.
    minutes, megabytes : float
        Of one seed on two cores; room on the disk while it runs.
    auc, power, ceiling_error, false_positives : float
        Bounds; `auc` and `power` 0 where the size cannot tell.
    """

    steps: int
    minutes: float
    megabytes: float
    auc: float
    power: float
    ceiling_error: float
    false_positives: float = 0.05


SIZES = {
    "tiny": Size(150, 2, 60, auc=0.0, power=0.0, ceiling_error=0.12),
    "demo": Size(400, 6, 700, auc=0.95, power=0.5, ceiling_error=0.03),
}


@dataclass(frozen=True)
class Outcome:
    """What one seed came to.

    Attributes
    ----------
    seed : int
    auc : float
        How well the lesions' effects tell video from audio parcels.
    weights : float
        Correlation of the planted weights with what the encoder learned.
    lag_s, lag_planted_s : float
    false_positives : dict of (int, int)
        By target: `none` parcels found at q = .05, and all there are.
    other_target : dict of (int, int)
        By target: the same of the parcels of the other modality.
    found : dict of (int, int)
        By target: of its parcels with a ceiling of .3 or more, those found on it, and all.
    dissociation, dissociation_p : float
        Signed interaction of video and audio parcels, and targets.
    ceiling_error : float
        Median over parcels of the absolute difference from the planted noise ceiling.
    brain_r : float
        Held-out r of the predicted brain, the mean over parcels.
    seconds : float
    """

    seed: int
    auc: float
    weights: float
    lag_s: float
    lag_planted_s: float
    false_positives: dict[str, tuple[int, int]]
    other_target: dict[str, tuple[int, int]]
    found: dict[str, tuple[int, int]]
    dissociation: float
    dissociation_p: float
    ceiling_error: float
    brain_r: float
    seconds: float


@dataclass(frozen=True)
class Bound:
    """One thing that is asked for, over all seeds.

    Attributes
    ----------
    what, wanted : str
    value : float
        The worst over seeds; rates are over the parcels of all seeds.
    met : bool
    """

    what: str
    wanted: str
    value: float
    met: bool


def size_named(name: str) -> Size:
    """Return the size called ``name``.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in SIZES:
        raise ConfigError(f"no size '{name}'", where="--size", remedy=did_you_mean(name, SIZES))
    return SIZES[name]


def validate(
    folder: Path, seeds: Sequence[int], size: str = "demo", say: Say = lambda seed, of, what: None
) -> list[Outcome]:
    """Go the whole way once for every seed.

    Parameters
    ----------
    folder : Path
        Gets `seed-N/` with `raw`, `stores` and `run`; none of them may be there.
    seeds : sequence of int
    size : {"tiny", "demo"}
    say : callable
        Told what is being done.

    Raises
    ------
    ConfigError
        If the size is unknown, or a seed's folder is there already.
    """
    chosen = size_named(size)
    for seed in seeds:
        if (folder / f"seed-{seed}").exists():
            raise ConfigError(
                "is there", where=folder / f"seed-{seed}", remedy="name another --out"
            )
    return [
        _one(folder / f"seed-{seed}", seed, size, chosen, partial(say, seed, number))
        for number, seed in enumerate(seeds)
    ]


def _one(folder: Path, seed: int, name: str, size: Size, say: Callable[[str], None]) -> Outcome:
    begun = time.perf_counter()
    raw = folder / "raw"
    say("synthesising")
    synth(raw, size=name, seed=seed)
    catalog = load_catalog(raw / "catalog.yaml")
    say("building")
    build(resolve_scan(DATASET, catalog.dataset(DATASET), raw), catalog, folder / "stores", STORES)
    say("training")
    options = {**OPTIONS, "steps": size.steps, "seed": seed}
    stores = folder / "stores" / DATASET
    config = resolve(ENTRY, stores, catalog=raw / "catalog.yaml", options=options)
    run = fit(config, folder / "run")
    evaluate(run, seed=seed, say=lambda line: say(f"evaluating: {line}"))
    say("lesioning")
    save(run, lesion(run, "parcels", null_draws=0, mapped=0, seed=seed))
    say("comparing with the truth")
    return compare(run, raw, seed, begun)


def compare(run: Run, raw: Path, seed: int = 0, begun: float | None = None) -> Outcome:
    """Compare an evaluated and lesioned run on synthetic data with what was planted.

    Parameters
    ----------
    run : Run
    raw : Path
        What `sherlock-data synth` wrote.
    seed : int
    begun : float, optional
        `time.perf_counter` when the work began.
    """
    truth = load_truth(raw / "truth.zarr")
    _, arrays = load_evaluation(run.path)
    found = recovery(load_lesions(run).load(), truth)
    place = [str(name) for name in arrays["unit"].values]
    ceiling = truth["ceiling"].sel(parcel=place).values
    reader = Reader(run, Side.of(run.data, "test"))
    return Outcome(
        seed=seed,
        auc=found.auc,
        weights=weight_correlation(reader, truth, raw / "features.npy"),
        lag_s=lag_found_s(run.data),
        lag_planted_s=float(truth["lag_s"]),
        false_positives=found.false_positives,
        other_target=found.other_target,
        found=found.found,
        dissociation=found.dissociation,
        dissociation_p=found.dissociation_p,
        ceiling_error=float(np.nanmedian(np.abs(arrays["ceiling_lower"].values - ceiling))),
        brain_r=float(np.nanmean(arrays["r"].sel(predictor=PREDICTED).values)),
        seconds=0.0 if begun is None else time.perf_counter() - begun,
    )


def bounds(outcomes: Sequence[Outcome], size: str) -> list[Bound]:
    """Hold outcomes against what is asked for at a size."""
    asked = size_named(size)
    wrong = [one.lag_s - one.lag_planted_s for one in outcomes]
    found = [
        _least("lag found less lag planted, s", "0", wrong, [abs(w) < 1e-9 for w in wrong]),
        *_rates(outcomes, asked),
        _most(
            "ceiling error, median over parcels",
            asked.ceiling_error,
            [one.ceiling_error for one in outcomes],
        ),
    ]
    if asked.auc:
        auc = [one.auc for one in outcomes]
        met = [value >= asked.auc for value in auc]
        found.insert(0, _least("AUC, video from audio parcels", f">= {asked.auc:g}", auc, met))
        sign = [one.dissociation for one in outcomes]
        found.append(_least("dissociation", "> 0", sign, [value > 0 for value in sign]))
    return found


def _rates(outcomes: Sequence[Outcome], asked: Size) -> list[Bound]:
    rows = []
    for target in (VIDEO, AUDIO):
        wrong = _share([one.false_positives[target] for one in outcomes])
        most = asked.false_positives
        rows.append(_most(f"'none' parcels found on {target}", most, [wrong]))
        if asked.power:
            power = _share([one.found[target] for one in outcomes])
            wanted = f">= {asked.power:g}"
            rows.append(Bound(f"{target} parcels found on it", wanted, power, power >= asked.power))
    return rows


def _share(counts: Sequence[tuple[int, int]]) -> float:
    some, everything = np.sum(counts, axis=0)
    return float(some / everything) if everything else float("nan")


def _least(what: str, wanted: str, values: Sequence[float], met: Sequence[bool]) -> Bound:
    worst = int(np.argmin(met)) if not all(met) else int(np.argmin(values))
    return Bound(what, wanted, float(values[worst]), all(met))


def _most(what: str, bound: float, values: Sequence[float]) -> Bound:
    worst = max(values)
    return Bound(what, f"<= {bound:g}", worst, bool(worst <= bound))


def document(outcomes: Sequence[Outcome], judged: Sequence[Bound], size: str) -> dict[str, Any]:
    """Return everything as JSON knows it: `size`, `rows`, `bounds`, `met`."""
    return {
        "size": size,
        "rows": [asdict(one) for one in outcomes],
        "bounds": [asdict(one) for one in judged],
        "met": all(one.met for one in judged),
    }
