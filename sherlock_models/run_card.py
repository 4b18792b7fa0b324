"""What a run shows of itself, in a line and in a notebook."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sherlock_data.errors import ConfigError, SherlockError
from sherlock_models.notebook import card, element, plainly, table

if TYPE_CHECKING:
    from sherlock_models.run import Run

#: scores shown of what the model predicts and decodes, and how they are called
SCORES = {"r": "r", "r2": "R²", "identification": "identification"}
EVALUATION = "evaluation.json"


def run_line(run: Run) -> str:
    """Say in one line what a run is and how far; of one that cannot be read, why."""
    try:
        config, progress, state = run.config, run.progress, run.state
    except SherlockError as error:
        return f"Run('{run.path}': {error})"
    evaluated = ", evaluated" if (run.path / EVALUATION).is_file() else ""
    steps = progress.get("steps", config.steps)
    return (
        f"Run('{run.path}': {config.entry} on {name_of(config.data)}, {state}, "
        f"step {progress['step']} of {steps}{evaluated})"
    )


def run_card(run: Run) -> str:
    """HTML of a run: entry, dataset, state, steps, size, and scores where it was evaluated."""
    try:
        shown = card(str(run.path), facts(run))
    except SherlockError as error:
        return card(str(run.path), {"cannot be read": str(error)})
    try:
        found = scores(run)
    except SherlockError:
        return shown + element("div", f"{EVALUATION} is damaged")
    if found is None:
        return shown
    note, rows = found
    return shown + table((note, *SCORES.values()), rows)


def scores(run: Run) -> tuple[str, list[tuple[str, ...]]] | None:
    """Scores of the model itself, as text: what they are of, and a row for every target.

    None where the run was not evaluated.

    Raises
    ------
    ConfigError
        If `evaluation.json` is damaged.
    """
    path = run.path / EVALUATION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"on held-out TRs, of step {found['step']}", _rows(found["rows"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        raise ConfigError(
            "is damaged", where=path, remedy="run sherlock-models evaluate again"
        ) from None


def facts(run: Run) -> dict[str, str]:
    """Say by name what a run is, how far it came and how large it is."""
    from sherlock_models.zoo import count_parameters

    config, progress = run.config, run.progress
    left = "" if run.eta_s is None else f", {run.eta_s / 60:,.0f} min left"
    steps = progress.get("steps", config.steps)
    parameters = count_parameters(config.model_entry, config.model_sizes, config.model_options)
    on_disk = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    return {
        "entry": config.entry,
        "dataset": f"{name_of(config.data)} ({config.data})",
        "state": f"{run.state}, step {progress['step']} of {steps}{left}",
        "brain layer": f"{config.brain}, {config.model_sizes.units:,} units",
        "split": f"{config.split}, fold {config.fold}",
        "parameters": plainly(parameters),
        "on disk": f"{on_disk / 1e6:,.1f} MB",
    }


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Row of scores for every target of the model itself."""
    own = {(r["target"], r["metric"]): r["value"] for r in rows if r["predictor"] == "model"}
    targets = dict.fromkeys(target for target, _ in own)
    return [(t, *(_score(own.get((t, metric))) for metric in SCORES)) for t in targets]


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def name_of(data: str) -> str:
    """Return the name of the dataset whose stores lie in a folder."""
    return data.rstrip("/").rpartition("/")[2]
