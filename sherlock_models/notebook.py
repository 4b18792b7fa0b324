"""What models and the zoo show of themselves in a notebook; every text in it is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from sherlock_models.architectures.autoencoder import BrainAutoencoder


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
        return [tuple(plainly(row.get(column)) for column in self.COLUMNS) for row in self]


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
    rows = [element("th", key) + element("td", value) for key, value in facts.items()]
    head = f'<tr><th colspan="2">{html.escape(title)}</th></tr>'
    return _rows([head, *(f"<tr>{row}</tr>" for row in rows)])


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """HTML of a table."""
    head = "".join(element("th", column) for column in columns)
    body = ["".join(element("td", cell) for cell in row) for row in rows]
    return _rows([f"<tr>{row}</tr>" for row in (head, *body)])


def _rows(rows: Iterable[str]) -> str:
    return f"<table>{''.join(rows)}</table>"


def element(tag: str, text: str) -> str:
    """HTML of a text."""
    return f'<{tag} style="text-align: left">{html.escape(text)}</{tag}>'


def plainly(value: Any) -> str:
    """Return a value for people; nothing for None."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)
