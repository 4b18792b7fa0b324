"""`sherlock-models validate`: planted truth, end to end."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from sherlock_cli import completion, console, options
from sherlock_cli.progress import stages

if TYPE_CHECKING:
    from sherlock_models.validate import Bound, Outcome


@click.command()
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    metavar="N",
    help="Datasets that are made.  [default: 1 of size tiny, 3 of size demo]",
)
@click.option(
    "--size",
    type=click.Choice(["tiny", "demo"]),
    default="tiny",
    show_default=True,
    help="tiny only tries the way; demo asks for everything that is planted.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    shell_complete=completion.folders,
    help="Keep raw files, stores and runs there.  [default: nothing is kept]",
)
@options.as_json("size, rows, one for each seed, bounds, met")
@console.handled
def validate(seeds: int | None, size: str, out: Path | None, as_json: bool) -> None:
    """Find what was planted, from raw files to lesions.

    Once per seed: synth, build, train, evaluate and lesion. Rates are over the parcels of all
    seeds. Where a bound is missed, the exit code is 1.

    \b
    Examples:
      sherlock-models validate                 a few minutes
      sherlock-models validate --size demo     a night
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_models import validate as planted

    chosen = planted.size_named(size)
    count = seeds or {"tiny": 1, "demo": 3}[size]
    console.say(
        f"{count} {'dataset' if count == 1 else 'datasets'} of size {size}: about "
        f"{console.seconds(60 * chosen.minutes * count)} on two cores, "
        f"{console.size(1e6 * chosen.megabytes * count)} on the disk"
    )
    with tempfile.TemporaryDirectory() as scratch, stages() as say:
        outcomes = planted.validate(
            out or Path(scratch),
            range(count),
            size,
            say=lambda seed, number, what: say(f"seed {seed} ({number + 1} of {count}): {what}"),
        )
    judged = planted.bounds(outcomes, size)
    if as_json:
        console.print_json(planted.document(outcomes, judged, size))
    else:
        _print(outcomes, judged)
    raise SystemExit(0 if all(bound.met for bound in judged) else 1)


def _print(outcomes: list[Outcome], judged: list[Bound]) -> None:
    rows = [
        ("AUC, video from audio parcels", *(f"{o.auc:.3f}" for o in outcomes)),
        ("weights: planted and learned, r", *(f"{o.weights:.3f}" for o in outcomes)),
        ("lag found (planted), s", *(f"{o.lag_s:g} ({o.lag_planted_s:g})" for o in outcomes)),
        *(
            (label.format(target=target), *(_of(getattr(o, name)[target]) for o in outcomes))
            for label, name in (
                ("{target} parcels found on it", "found"),
                ("'none' parcels found on {target}", "false_positives"),
                ("the other's parcels found on {target}", "other_target"),
            )
            for target in outcomes[0].found
        ),
        ("dissociation (p)", *(f"{o.dissociation:.3f} ({o.dissociation_p:.3f})" for o in outcomes)),
        ("ceiling error, median", *(f"{o.ceiling_error:.3f}" for o in outcomes)),
        ("brain r, model", *(f"{o.brain_r:.3f}" for o in outcomes)),
        ("time", *(console.seconds(o.seconds) for o in outcomes)),
    ]
    columns = ("", *(f"seed {o.seed}" for o in outcomes))
    console.print_table("What was found", columns, rows, numeric=range(1, len(columns)))
    console.print_table(
        "What is asked for: rates over the parcels of all seeds, else the worst seed",
        ("", "bound", "value", ""),
        [(b.what, b.wanted, f"{b.value:.3f}", "met" if b.met else "MISSED") for b in judged],
        numeric=(2,),
    )


def _of(counts: tuple[int, int]) -> str:
    return f"{counts[0]} of {counts[1]}"
