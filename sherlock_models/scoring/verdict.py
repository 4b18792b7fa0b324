"""Is it believable? A few plain sentences, each computed from the numbers it cites."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sherlock_models.scoring.heldout import MEASURED, PREDICTED, SHUFFLED

#: r of the time index, over the folds, from which a split counts as leaking
LEAKING_R = 0.1
#: share of the predicted R² that a measured brain must tell; below it the question stays open,
#: since a measured brain is noisier than any prediction
HONEST_SHARE = 0.5

#: r from which a comparison with ridge says anything
LEAST_R = 0.02
#: R² from which a decoded stimulus counts as better than the mean
LEAST_R2 = 0.01

PASSED, FAILED, OPEN = "passed", "failed", "open"


@dataclass(frozen=True)
class Verdict:
    """One question and its answer.

    Attributes
    ----------
    question, answer : str
    state : {"passed", "failed", "open"}
        Open where the numbers do not decide.
    """

    question: str
    answer: str
    state: str


class Table:
    """Rows of an evaluation by predictor, target and metric."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = {(r["predictor"], r["target"], r["metric"]): r for r in rows}

    def value(self, predictor: str, target: str, metric: str) -> float | None:
        """Value, None where undefined or absent."""
        return self._rows.get((predictor, target, metric), {}).get("value")

    def row(self, predictor: str, target: str, metric: str) -> dict[str, Any]:
        """Whole row; empty where absent."""
        return self._rows.get((predictor, target, metric), {})

    def targets(self) -> list[str]:
        """`brain`, then the stimuli."""
        return list(dict.fromkeys(target for _, target, _ in self._rows))


def number(value: float | None, digits: int = 2) -> str:
    """Write a number for people; a dash where undefined."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    return f"{round(value, digits) + 0.0:.{digits}f}"  # adding zero takes the sign off -0.00


def significant(value: float | None, digits: int = 3) -> str:
    """Write a number that may be tiny: so many digits that tell, as a power of ten below 0.001."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.{digits - 1}e}"
    return f"{value:#.{digits}g}".rstrip(".")


def with_interval(row: dict[str, Any], digits: int = 2) -> str:
    """Value and its interval, as far as there is one."""
    text = number(row.get("value"), digits)
    if row.get("low") is None:
        return text
    return f"{text} [{number(row['low'], digits)}, {number(row['high'], digits)}]"


def verdicts(document: dict[str, Any]) -> list[Verdict]:
    """Answer the questions a reader has before any other.

    Parameters
    ----------
    document : dict
        `evaluation.json`.
    """
    table = Table(document["rows"])
    found = [_brain(table, document["split"]), _ridge(table), _canary(document)]
    for target in table.targets():
        if target not in ("brain", "code"):
            found.append(_movie(table, target))
            found.append(_smuggling(table, target))
    return found


def _judge(passed: bool | None) -> str:
    return OPEN if passed is None else PASSED if passed else FAILED


def _brain(table: Table, split: str) -> Verdict:
    row, share = table.row(PREDICTED, "brain", "r"), table.row(PREDICTED, "brain", "significant")
    low, found = row.get("low"), share.get("value")
    passed = None if low is None or found is None else low > 0 and found > 0
    significant = (
        ""
        if found is None
        else (f"; {found:.0%} of {share['n']} units are above a phase-randomised null (FDR 0.05)")
    )
    return Verdict(
        f"Does it predict {'people' if split == 'subject' else 'moments'} it has not seen?",
        f"Held-out r over time is {with_interval(row)} on average over {row.get('n', 0)} units"
        f"{significant}. The mean brain predicts no change at all.",
        _judge(passed),
    )


def _ridge(table: Table) -> Verdict:
    model, ridge = (table.row(name, "brain", "r") for name in (PREDICTED, "delayed-ridge"))
    ours, theirs, low = model.get("value"), ridge.get("value"), ridge.get("low")
    passed = None
    if ours is not None and theirs is not None and max(ours, theirs) >= LEAST_R:
        passed = ours >= (theirs if low is None else low)
    return Verdict(
        "Does it keep up with a linear map?",
        f"Delayed ridge regression from the same stimulus reaches r {with_interval(ridge)}, the "
        f"model {number(ours)}.",
        _judge(passed),
    )


def _canary(document: dict[str, Any]) -> Verdict:
    canary, kind = document["canary"], document["split"]
    block, random = canary.get("block"), canary.get("random")
    leaking = kind == "random" or (block is not None and abs(block) >= LEAKING_R)
    honest = "can only predict a constant" if block is None else f"reaches r {number(block)}"
    return Verdict(
        "Is the split honest?",
        f"This run holds out TRs by '{kind}'. A model that knows nothing but the time {honest} "
        f"over the folds of 'block' (it must stay below {LEAKING_R}), and r {number(random)} under "
        "'random', where neighbouring TRs lie on both sides.",
        _judge(not leaking),
    )


def _movie(table: Table, target: str) -> Verdict:
    r2 = table.row(PREDICTED, target, "r2")
    low = r2.get("low") if r2.get("low") is not None else r2.get("value")
    state = OPEN
    if low is not None:
        state = PASSED if low > LEAST_R2 else FAILED if r2["value"] <= 0 else OPEN
    answer = (
        f"Decoded from the predicted brain, R² is {with_interval(r2)} (the training mean scores 0)"
    )
    names = (PREDICTED, "mean-frame", "previous-frame")
    ours, mean, before = (number(table.value(name, target, "psnr"), 1) for name in names)
    if table.row(PREDICTED, target, "psnr"):
        answer += f"; PSNR {ours} dB, the mean frame {mean} dB, the frame before {before} dB"
    return Verdict(
        f"Does it decode {_named(target)} better than the mean?",
        f"{answer}.",
        state,
    )


def _smuggling(table: Table, target: str) -> Verdict:
    predicted, measured, shuffled = (
        table.value(name, target, "r2") for name in (PREDICTED, MEASURED, SHUFFLED)
    )
    state = OPEN
    if predicted is not None and measured is not None and predicted > LEAST_R2:
        if measured <= max(shuffled or 0.0, 0.0):
            state = FAILED
        elif measured >= HONEST_SHARE * predicted:
            state = PASSED
    return Verdict(
        f"Does a measured brain tell {_named(target)} too?",
        f"R² is {number(predicted)} from the predicted brain, {number(measured)} from a measured "
        f"one and {number(shuffled)} from a measured one shuffled in time. "
        + (
            "There is nothing to smuggle yet."
            if state == OPEN and (predicted is None or predicted <= LEAST_R2)
            else "What only the predicted brain tells is smuggled past the brain."
        ),
        state,
    )


def _named(target: str) -> str:
    return {"video": "the picture", "audio": "the sound"}.get(target, f"'{target}'")
