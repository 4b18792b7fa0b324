"""`sherlock-models plan`: what an entry takes before it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from sherlock_cli import completion, console, options

if TYPE_CHECKING:
    from sherlock_models.planning.machines import Machine


@click.command("plan")
@options.entry
@options.data(", whose sizes are taken.  [default: the first analysis's sizes]")
@options.catalog
@click.option(
    "--gpus",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Cards that train together.",
)
@click.option(
    "--gpu",
    "names",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.machines,
    help="a6000, a100, a100-40, h100, h200, rtx3060, rtx3090, rtx4090, or cpu (this machine); "
    "may be repeated.  [default: a6000, a100 and h100; of all entries at once a6000]",
)
@click.option(
    "--flops",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Of a card of your own: floating-point operations a second.",
)
@click.option(
    "--bandwidth",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Of a card of your own: bytes a second of its memory.",
)
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Of a card of your own: bytes of memory.",
)
@click.option(
    "--measure", is_flag=True, help="With --gpu cpu: time this machine for a second or two."
)
@options.batch_size("cards")
@options.precision
@options.settings("Any setting that sherlock-train takes")
@options.as_json("rows of entry, parameters, claimed, peak, machines, claims, and more")
@console.handled
def plan_command(
    entry: str | None,
    data: str | None,
    catalog: Path | None,
    gpus: int,
    names: tuple[str, ...],
    flops: float | None,
    bandwidth: float | None,
    memory: float | None,
    measure: bool,
    settings: tuple[str, ...],
    as_json: bool,
    **others: Any,
) -> None:
    """Memory, GPUs and time that ENTRY, or every entry, takes.

    Nothing is trained or allocated: a step is traced. Beside it stands what the first analysis
    claimed. Times are the shortest that the hardware allows.

    \b
    Examples:
      sherlock-models plan
      sherlock-models plan dense-voxels --gpu a6000 --gpus 8
      sherlock-models plan conv-parcels --data stores/sherlock --gpu cpu
      sherlock-models plan --gpu mine --flops 9e13 --bandwidth 1e12 --memory 3e10
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_models.planning.machines import USUAL, machine
    from sherlock_models.planning.plan import plan
    from sherlock_models.settings import parse_settings

    given = {key: value for key, value in others.items() if value is not None}
    shown = names or (USUAL if as_json or entry else USUAL[:1])
    machines = [
        machine(name, flops=flops, bandwidth=bandwidth, memory=memory, try_out=measure)
        for name in shown
    ]
    with console.bars.status("tracing a step of every entry ..."):
        rows = plan(
            machines,
            entries=[entry] if entry else None,
            catalog=catalog,
            data=data,
            gpus=gpus,
            options={**parse_settings(settings), **given},
        )
    if as_json:
        console.print_json({"rows": rows})
    elif entry and rows[0]["parameters"] is not None:
        _print_entry(rows[0])
    else:
        for index, chosen in enumerate(machines):
            _print_all(rows, index, chosen, gpus)


def _print_all(rows: Sequence[dict[str, Any]], index: int, machine: Machine, gpus: int) -> None:
    """One line per entry, on one kind of machine."""
    cells = []
    for row in rows:
        if row["parameters"] is None:
            cells.append((row["entry"], "from store", row["claimed"], "", "", ""))
            continue
        here = row["machines"][index]
        cells.append(
            (
                row["entry"],
                f"{row['parameters']:,}",
                row["claimed"],
                console.size(here["peak"]),
                _needed(here),
                _time(here["step_s"]),
            )
        )
    known = [row for row in rows if row["parameters"] is not None]
    batch = f", batch {known[0]['batch_size']}, {known[0]['precision']}" if known else ""
    title = f"{gpus} x {machine.name} ({machine.memory / 2**30:.0f} GiB){batch}"
    columns = ("entry", "parameters", "claimed", "memory", "GPUs", "step >=")
    console.print_table(title, columns, cells, numeric=(1, 3, 5))
    for row in rows:
        if row.get("unknown"):
            console.say(f"note: {row['entry']}: {row['unknown']}")


def _needed(here: dict[str, Any]) -> str:
    """Say how many GPUs it needs."""
    for key, how in (("gpus_needed", ""), ("gpus_needed_sharded", " sharded")):
        if here[key] is not None:
            return f"{here[key]}{how}"
    return "too big"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _print_entry(row: dict[str, Any]) -> None:
    """Print one entry by its parts."""
    claimed = f", claimed {row['claimed']}" if row["claimed"] else ""
    console.tell(
        f"{row['entry']}: {row['parameters']:,} parameters{claimed}; batch {row['batch_size']}, "
        f"{row['precision']}, {row['flops'] / 1e9:,.3g} GFLOP a step",
    )
    layers = [
        (name, f"{parameters:,}", f"{flops / 1e9:,.3g}", console.size(kept))
        for name, parameters, flops, kept in _folded(row["layers"])
    ]
    columns = ("layer", "parameters", "GFLOP", "kept")
    console.print_table("Forward pass", columns, layers, numeric=(1, 2, 3))
    parts = [(part, f"{numbers:,}") for part, numbers in row["parts"].items()]
    console.print_table("", ("part", "parameters"), parts, numeric=(1,))
    kinds = {
        "weights": "weights",
        "gradients": "gradients",
        "optimizer": "AdamW's moments",
        "activations": "batch and activations, at most",
        "peak": "of these at one time, at most",
        "data": "all brains and stimuli",
        "checkpoint": "a checkpoint on disk",
        "disk": "checkpoints on disk, at most",
    }
    sizes = [(what, console.size(row[key])) for key, what in kinds.items()]
    sizes += [(f"resident on a CPU, {what}", console.size(n)) for what, n in row["host"].items()]
    console.print_table("", ("what", "bytes"), sizes, numeric=(1,))
    _print_machines(row)
    claims = [(c["what"], c["claimed"], c["computed"], c["why"]) for c in row["claims"]]
    if claims:
        console.print_table("", ("", "first analysis", "computed", "why"), claims)


def _folded(layers: Sequence[dict[str, Any]]) -> list[tuple[str, int, int, int]]:
    """Layers with parameters; what others keep for the backward pass goes to the one before."""
    lines: list[tuple[str, int, int, int]] = []
    between = 0
    for layer in layers:
        if layer["parameters"]:
            name = layer["name"]
            lines.append((name, layer["parameters"], layer["flops"], layer["activations"]))
        elif lines:
            name, parameters, flops, kept = lines[-1]
            lines[-1] = (name, parameters, flops, kept + layer["activations"])
        else:
            between += layer["activations"]
    return [*lines, ("joins, channel and loss", 0, 0, between)]


def _print_machines(row: dict[str, Any]) -> None:
    """Print machines as asked, then the usual groups of them."""
    machines = [
        (
            f"{here['gpus']} x {here['machine']}",
            console.size(here["peak"]),
            _needed(here),
            _time(here["step_s"]),
            "?" if here["hours"] is None else console.seconds(here["hours"] * 3600),
        )
        for here in row["machines"]
    ]
    columns = ("machine", "memory of each", "needs", "step >=", "100 epochs >=")
    console.print_table("", columns, machines, numeric=(1, 3, 4))
    groups = [
        (
            f"{here['gpus']} x {here['machine']} {here['parallel']}",
            console.size(here["peak"]) + ("" if here["fits"] else " !"),
            console.size(here["sent"]),
            _time(here["compute_s"]),
            _time(here["communication_s"]),
            _times(here["speed_up"]),
            _times(here["speed_up_larger_batch"]),
        )
        for machine in row["machines"]
        for here in machine["scaling"]
    ]
    columns = ("spread over", "each", "sent", "sums", "links", "faster", "larger batch")
    title = "At best: times of a step, and how much faster than one"
    console.print_table(title, columns, groups, numeric=range(1, 7))
    if any(not here["fits"] for machine in row["machines"] for here in machine["scaling"]):
        console.tell("! more than the card has")


def _times(factor: float | None) -> str:
    return "?" if factor is None else f"{factor:.2g} x"
