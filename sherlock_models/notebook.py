"""What runs, models and the zoo show of themselves in a notebook; every text in it is escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sherlock_data.errors import SherlockError

if TYPE_CHECKING:
    from torch import nn

    from sherlock_models.architectures.autoencoder import BrainAutoencoder
    from sherlock_models.run import Run

#: scores shown of what the model predicts and decodes, and how they are called
SCORES = {"r": "r", "r2": "R²", "identification": "identification"}
EVALUATION = "evaluation.json"


class Entries(list[dict[str, Any]]):
    """Rows of zoo entries, shown as a table."""

    COLUMNS = ("entry", "input", "brain", "parameters", "claimed")

    def __repr__(self) -> str:
        rows = [self.COLUMNS, *self._cells()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.COLUMNS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return table(self.COLUMNS, self._cells())

    def _cells(self) -> list[tuple[str, ...]]:
        return [tuple(_cell(row.get(column)) for column in self.COLUMNS) for row in self]


def run_line(run: Run) -> str:
    """Say in one line what a run is and how far; of one that cannot be read, why."""
    try:
        config, progress, state = run.config, run.progress, run.state
    except SherlockError as error:
        return f"Run('{run.path}': {error})"
    evaluated = ", evaluated" if (run.path / EVALUATION).is_file() else ""
    steps = progress.get("steps", config.steps)
    return (
        f"Run('{run.path}': {config.entry} on {_name(config.data)}, {state}, "
        f"step {progress['step']} of {steps}{evaluated})"
    )


def run_card(run: Run) -> str:
    """HTML of a run: entry, dataset, state, steps, size, and scores where it was evaluated."""
    try:
        facts = _facts(run)
    except SherlockError as error:
        return card(str(run.path), {"cannot be read": str(error)})
    shown = card(str(run.path), facts)
    try:
        found = json.loads((run.path / EVALUATION).read_text(encoding="utf-8"))
        rows = _scores(found["rows"])
        note = f"on held-out TRs, of step {found['step']}"
    except FileNotFoundError:
        return shown
    except (OSError, ValueError, TypeError, KeyError):
        return shown + _element("div", f"{EVALUATION} is damaged")
    return shown + table((note, *SCORES.values()), rows)


def model_card(model: BrainAutoencoder) -> str:
    """HTML of a model: what goes in, the brain layer, parameters by part, bytes."""
    sizes = model.sizes
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    facts = {name: " x ".join(map(str, shape)) for name, shape in sizes.stimulus.items()}
    facts["TRs of the past"] = ", ".join(map(str, sizes.delays))
    facts["brain layer"] = f"{' x '.join(f'{n:,}' for n in sizes.brain)} units"
    facts["parameters"] = f"{model.count_parameters():,} ({held / 1e6:,.1f} MB)"
    parts: dict[str, nn.Module | None] = {
        "encoder, trunk": model.encoder.trunk,
        "encoder, brain head": model.encoder.head,
        "decoder": model.decoder,
    }
    for name, part in parts.items():
        if part is not None:
            facts[name] = f"{sum(p.numel() for p in part.parameters()):,}"
    for name, value in model.options.model_dump(exclude_defaults=True).items():
        facts[name] = str(value)
    return card(type(model).__name__, facts)


def card(title: str, facts: Mapping[str, str]) -> str:
    """HTML of a title and of facts below it."""
    rows = [_element("th", key) + _element("td", value) for key, value in facts.items()]
    head = f'<tr><th colspan="2">{html.escape(title)}</th></tr>'
    return _rows([head, *(f"<tr>{row}</tr>" for row in rows)])


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """HTML of a table."""
    head = "".join(_element("th", column) for column in columns)
    body = ["".join(_element("td", cell) for cell in row) for row in rows]
    return _rows([f"<tr>{row}</tr>" for row in (head, *body)])


def _rows(rows: Iterable[str]) -> str:
    return f"<table>{''.join(rows)}</table>"


def _element(tag: str, text: str) -> str:
    return f'<{tag} style="text-align: left">{html.escape(text)}</{tag}>'


def _facts(run: Run) -> dict[str, str]:
    from sherlock_models.zoo import count_parameters

    config, progress = run.config, run.progress
    left = "" if run.eta_s is None else f", {run.eta_s / 60:,.0f} min left"
    steps = progress.get("steps", config.steps)
    parameters = count_parameters(config.model_entry, config.model_sizes, config.model_options)
    on_disk = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    return {
        "entry": config.entry,
        "dataset": f"{_name(config.data)} ({config.data})",
        "state": f"{run.state}, step {progress['step']} of {steps}{left}",
        "brain layer": f"{config.brain}, {config.model_sizes.units:,} units",
        "split": f"{config.split}, fold {config.fold}",
        "parameters": _cell(parameters),
        "on disk": f"{on_disk / 1e6:,.1f} MB",
    }


def _scores(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Row of scores for every target of the model itself."""
    own = {(r["target"], r["metric"]): r["value"] for r in rows if r["predictor"] == "model"}
    targets = dict.fromkeys(target for target, _ in own)
    return [(t, *(_score(own.get((t, metric))) for metric in SCORES)) for t in targets]


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _name(data: str) -> str:
    return data.rstrip("/").rpartition("/")[2]
