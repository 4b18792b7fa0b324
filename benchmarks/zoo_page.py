"""The table of `benchmarks/zoo.py`, for a terminal and as a page of the docs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demo_data import number
from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]

PAGE = """\
# The zoo on the demo data

*Made by `python benchmarks/zoo.py --page docs/zoo.md` on {cores} cores (load average {load:.0f} in
its last quarter of an hour), {date}: {versions}. Do not edit: make it again.*

Every entry of the catalogue, trained on the data of `sherlock-data synth --size {size}`
({subjects} subjects, one fold, batches of {batch}) for some minutes at most, and judged on the
{trs} TRs that were held out, in the units it predicts (a code: in the voxels behind it). Two cores
cannot train a billion parameters: `width` says by how much every hidden layer is narrowed; voxels,
parcels, components and pictures never are. "Real sizes" counts the entry as it is, at the sizes
that the catalogue compares entries at, or is left to the store. The table shows that every entry
trains, and what it costs; with so few steps and such narrow layers it does not rank them.

{models}

- **brain r**: Pearson's r over time of each unit, the mean over units and subjects, with the 95 %
  interval of a block bootstrap ({draws} draws). **r/ceiling**: over the inter-subject correlation,
  in units where that is at least 0.1. **R²**: around the training mean, which scores 0.
- **video**, **audio**: the movie decoded from the *predicted* brain (`evaluate` also says what the
  measured one tells). R² above 0 is better than the mean frame. `conv-frames` sees and gives
  back full-resolution frames and the raw sound; entries of pretrained features have the demo's
  planted tracks instead (`--set stimulus=planted`).
- **seconds**: of the training alone, beside whatever else the machine did.
- An entry whose R² is 0 has not left the mean yet: its decoder reads a brain through noise, and has
  little to learn from before the brain is predicted; narrow deep layers and grids take longest.
- **ridge r**: delayed ridge on the same training TRs, judged on the same held-out ones.
- `brain-compressor` sees the measured brain and gives it back, so its r is no prediction and no
  ceiling bounds it; beside it stand as many principal components.

## Without a model

{baselines}

The time index is the canary: it sees no movie, and must stay near 0 over the folds of `block`. The
r of the mean is undefined, for it never changes.
"""


def show(document: Row) -> None:
    """Print the tables."""
    console = Console(width=170)  # whole numbers in a pipe too
    for title, (columns, cells) in (
        (f"the zoo on synth --size {document['size']}, held out", models(document["rows"])),
        ("without a model", baselines(document["rows"])),
    ):
        table = Table(title=title)
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index > 1 else "left")
        for line in cells:
            table.add_row(*line)
        console.print(table)


def page(document: Row) -> str:
    """Return the page, in Markdown."""
    rows = document["rows"]
    trs = sorted({row["test_trs"] for row in rows})
    return PAGE.format(
        cores=document["cores"],
        load=document["load"],
        date=document["date"],
        versions=", ".join(f"{name} {version}" for name, version in document["versions"].items()),
        size=document["size"],
        subjects=max(row["subjects"] for row in rows),
        batch=rows[0]["batch_size"],
        trs=" or ".join(map(str, trs)),
        draws=document["draws"],
        models=_markdown(*models(rows)),
        baselines=_markdown(*baselines(rows)),
    )


def models(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of the trained entries."""
    columns = ["entry", "judged in", "parameters", "real sizes", "width", "set", "steps"]
    columns += ["seconds", "brain r", "95 %", "r/ceiling", "R²", "ridge r"]
    columns += ["video R²", "PSNR dB", "audio r", "features R²"]
    cells = []
    for row in rows:
        real = row["parameters_real"]
        cells.append(
            [
                row["name"],
                _judged_in(row),
                f"{row['parameters']:,}",
                "from the store" if real is None else f"{real:,}",
                f"{row['width']:g}",
                " ".join(f"{key}={value}" for key, value in row["options"].items()),
                f"{row['steps']:,}",
                f"{row['seconds']:.0f}",
                number(row["r"]),
                _interval(row),
                number(row["r_over_ceiling"]),
                number(row["r2"]),
                number(row["baselines"].get("delayed-ridge", {}).get("r")),
                *_movie(row),
            ]
        )
    return columns, cells


def baselines(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of the baselines: once for all entries that are judged alike."""
    columns = ["predictor", "judged in", "sees", "brain r", "95 %", "R²"]
    columns += ["video R²", "PSNR dB", "audio r", "features R²"]
    cells, seen = [], set()
    for row in rows:
        stimulus = " + ".join(row["stimulus"])
        same = (_judged_in(row), stimulus, row["test_trs"])
        if same in seen:
            continue
        seen.add(same)
        for name, scores in row["baselines"].items():
            told = [number(scores["r"]), _interval(scores), number(scores["r2"])]
            sees = {"mean": "", "time-index": "the time", "other-subjects": "their brains"}
            sees |= {"pca": "the measured brain", "previous-tr": "the TR before"}
            cells.append([name, same[0], sees.get(name, stimulus), *told, *_movie(scores)])
        ceiling, canary = row["ceiling"], row["canary"]
        blank = [""] * (len(columns) - 4)
        low, high = number(ceiling["lower"]), number(ceiling["upper"])
        cells.append(["noise ceiling", same[0], "", f"{low} to {high}", *blank])
        for split in ("block", "random"):
            label = f"time-index, the folds of '{split}'"
            cells.append([label, same[0], "the time", number(canary[split]), *blank])
    return columns, cells


def _judged_in(row: Row) -> str:
    return f"{row['judged_in']} ({row['units']:,})"


def _interval(row: Row) -> str:
    if row["r_low"] is None:
        return ""
    return f"{row['r_low']:.3f} to {row['r_high']:.3f}"


def _movie(row: Row) -> list[str]:
    psnr = row.get("picture_psnr")
    return [
        number(row.get("picture_r2")),
        "" if psnr is None else f"{psnr:.1f}",
        number(row.get("sound_r")),
        number(row.get("features_r2")),
    ]


def _markdown(columns: list[str], cells: list[list[str]]) -> str:
    rule = ["---" if index < 2 else "--:" for index in range(len(columns))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *cells))
