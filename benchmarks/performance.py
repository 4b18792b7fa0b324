"""The docs page of measured speed and memory, from the JSON of `benchmarks/gpu.py`.

    python benchmarks/gpu.py --json a6000.json
    python benchmarks/performance.py a6000.json --page docs/performance.md

Several files, of several machines, become one section each.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

COLUMNS = (
    "entry",
    "precision",
    "data",
    "ranks",
    "parameters",
    "step ms",
    "samples/s",
    "MFU",
    "waiting",
    "plan: step >= ms",
    "peak GB",
    "plan: peak GB",
    "off",
)
PAGE = """\
# Measured speed and memory

*Made by `python benchmarks/performance.py` from the JSON of `python benchmarks/gpu.py`. Do not
edit: measure, and make it again.*

{about}

**MFU** is the traced FLOPs of a step over its time and the peak of the card (the maker's; a
processor's is that of a matrix product just timed). **waiting** is the share of the time that a
step waited for its data. **plan** is what `sherlock-models plan` says beforehand: the shortest time
that the stated peaks allow, and the peak of memory. On a processor the measured peak also holds
what the libraries load with the first step, some 0.15 GB.
"""
NO_GPU = """\
No GPU was at hand when this was made: the figures are a processor's, and show that the command
works from end to end, not what a card does."""
SECTION = """
## {title}

{date}, {cores} cores, load average {load:.1f}; {versions}. Batches of {batch_size}, width
{width:g}.

{table}
"""


def cells(rows: Iterable[Row]) -> list[list[str]]:
    """Cells of the table, one line per case."""
    lines = []
    for row in rows:
        ranks = str(row["ranks"]) + (f" {row['parallel']}" if row.get("parallel") else "")
        first = [row["entry"], row["precision"], row["placement"], ranks]
        first.append(f"{row['parameters']:,}")
        if "failed" in row:
            lines.append([*first, row["failed"], *[""] * (len(COLUMNS) - len(first) - 1)])
            continue
        peak, planned = row["peak"], row["planned_peak"]
        lines.append(
            [
                *first,
                _number(row["step_s"], 1e3),
                _number(row["samples_per_s"]),
                _percent(row["mfu"]),
                _percent(row["waiting"]),
                _number(row["planned_step_s"], 1e3),
                _number(peak, 1e-9),
                _number(planned, 1e-9),
                "" if planned is None else f"{planned / peak - 1:+.0%}",
            ]
        )
    return lines


def page(documents: list[Row]) -> str:
    """Return the page, in Markdown."""
    has_gpu = any(document["device"] == "cuda" for document in documents)
    names = ", ".join(d["machine"] for d in documents if d["device"] == "cuda")
    text = PAGE.format(about=f"Cards: {names}." if has_gpu else NO_GPU)
    for document in documents:
        known = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
        keys = {**document, "versions": known, "table": _markdown(cells(document["rows"]))}
        text += SECTION.format(**keys)
    return text


def _number(value: float | None, factor: float = 1.0) -> str:
    if value is None or not math.isfinite(value):
        return ""
    scaled = value * factor
    return f"{scaled:,.0f}" if scaled >= 100 else f"{scaled:.3g}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.3g} %"


def _markdown(lines: list[list[str]]) -> str:
    rule = ["---" if index < 4 else "--:" for index in range(len(COLUMNS))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (COLUMNS, rule, *lines))


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("documents", nargs="+", type=Path, metavar="JSON")
    parser.add_argument("--page", type=Path, required=True, metavar="OUT")
    args = parser.parse_args()
    read = [json.loads(path.read_text(encoding="utf-8")) for path in args.documents]
    args.page.write_text(page(read), encoding="utf-8")


if __name__ == "__main__":
    main()
