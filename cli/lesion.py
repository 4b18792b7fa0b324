"""`sherlock-models lesion`: what the movie loses without a part of the brain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from sherlock_cli import completion, console, options
from sherlock_cli.progress import Bar, stages

from sherlock_data.errors import ConfigError

if TYPE_CHECKING:
    import xarray as xr

    from sherlock_models.lesions.study import Cost
    from sherlock_models.run import Run

#: units shown for every target
STRONGEST = 8
#: of them, units whose parts are shown side by side
MOST_COLUMNS = 4


class _Watch(Bar):
    """Says what it will cost, then how far it is."""

    def started(self, cost: Cost) -> None:
        """Print the cost before anything is computed."""
        way = "from the first layer's output" if cost.fast else "the decoder whole for every unit"
        console.say(
            f"{cost.units} units and {cost.null_units} random ones: {cost.samples:,} brains to "
            f"decode, {way}; about {console.seconds(cost.seconds)}",
        )
        self.begin(cost.samples)


@click.command()
@options.run
@click.option(
    "--units",
    default="parcels",
    show_default=True,
    metavar="UNITS",
    shell_complete=completion.units,
    help="parcels, networks, components (of a pca or a code), a NIfTI image of a region, or names "
    "with commas between.",
)
@click.option(
    "--mode",
    type=click.Choice(["lesion", "isolate"]),
    default="lesion",
    show_default=True,
    help="Replace the unit, or everything but the unit.",
)
@click.option(
    "--replace",
    type=click.Choice(["zero", "mean", "shuffle"]),
    default="zero",
    show_default=True,
    help="By 0 of the standardised BOLD (its mean), by the training mean of the brain that is "
    "read, or by the unit's own value at another TR.",
)
@click.option(
    "--brain",
    type=click.Choice(["predicted", "measured"]),
    default="predicted",
    show_default=True,
    help="Which brain the decoder reads.",
)
@click.option(
    "--retrain",
    metavar="UNIT",
    shell_complete=completion.units,
    help="Also train again without UNIT, as a control; takes as long as the training did.",
)
@options.seed("Of every draw of the statistics.")
@click.option(
    "--parts", is_flag=True, help="Also print parts: quadrants of a picture, octaves, bands."
)
@options.as_json(
    "run, path, rows of unit, network, target, effect, z, p, q, ..., dissociations, and how"
)
@console.handled
@console.stoppable()
def lesion(
    run: Path,
    units: str,
    mode: str,
    replace: str,
    brain: str,
    retrain: str | None,
    seed: int,
    parts: bool,
    as_json: bool,
) -> None:
    """Lesion RUN's brain layer unit by unit, and see what is lost.

    Every unit in turn is replaced, and the held-out movie decoded again. Printed for each target:

    \b
      effect  by how much the squared error grows, as a share of the target's
              training variance; with --mode isolate, what the unit alone tells
      q       how likely by chance, FDR over units: sign flips over blocks of
              time, of the effect and of what the unit's measured activity tells
      z       beside random units that are as large and as compact

    \b
    Examples:
      sherlock-models lesion runs/conv-parcels
      sherlock-models lesion runs/conv-parcels --units networks --mode isolate
      sherlock-models lesion runs/conv-voxels --units v1.nii.gz
      sherlock-models lesion runs/conv-parcels --retrain Vis
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_models.lesions import lesion as lesions
    from sherlock_models.lesions import lesion_store
    from sherlock_models.run import load

    opened = load(run)
    if retrain is not None:
        _check_unit(opened, retrain)
    with _Watch("decoding") as watch:
        found = lesions.lesion(
            opened, units, mode=mode, replace=replace, brain=brain, seed=seed, watcher=watch
        )
    path = lesion_store.save(opened, found)
    control = _retrain(opened, retrain, seed) if retrain is not None else None
    if as_json:
        console.print_json(_document(run, path, found, control))
        return
    _print(found, parts)
    if control is not None:
        _print_control(control)
    console.tell(f"everything: {path}")


def _check_unit(run: Run, unit: str) -> None:
    """Refuse an unknown unit of the control before the lesions are computed, not after."""
    from sherlock_models.lesions.study import Study

    try:
        Study.of(run, [unit])
    except ConfigError as error:
        where = "--retrain" if error.where == "--units" else error.where
        raise ConfigError(error.what, where=where, remedy=error.remedy) from None


def _retrain(run: Run, unit: str, seed: int) -> dict[str, Any]:
    from sherlock_models.lesions.retrain import retrain

    with stages() as say:
        return retrain(run, unit, seed=seed, say=say)


def _document(
    run: Path, path: Path, found: xr.Dataset, control: dict[str, Any] | None
) -> dict[str, Any]:
    from sherlock_models.lesions.lesion_store import dissociations

    names = ("effect", "null_mean", "null_std", "z", "p_lesion", "p_measured", "p", "q")
    values = {name: found[name].values for name in names}
    rows = [
        {
            "unit": str(unit),
            "network": str(found["network"].values[row]),
            "target": str(target),
            **{name: values[name][row, column] for name in names},
        }
        for row, unit in enumerate(found["unit"].values)
        for column, target in enumerate(found["target"].values)
    ]
    document = {"run": run, "path": path, **found.attrs, "rows": rows}
    document["dissociations"] = dissociations(found)
    if control is not None:
        document["retrained"] = control
    return document


def _print(found: xr.Dataset, parts: bool) -> None:
    import numpy as np

    from sherlock_models.lesions import lesion_store
    from sherlock_models.scoring.significance import FDR
    from sherlock_models.scoring.verdict import number, significant

    for column, target in enumerate(lesion_store.stimuli_of(found)):
        effect, q, z = (found[name].values[:, column] for name in ("effect", "q", "z"))
        order = np.argsort(-effect, kind="stable")[:STRONGEST]
        rows = [
            (
                str(found["unit"].values[row]),
                str(found["network"].values[row]),
                significant(effect[row]),
                number(z[row], 1),
                number(q[row], 3),
            )
            for row in order
        ]
        console.print_table(
            f"{target}: {int((q <= FDR).sum())} of {len(q)} units at q {FDR}",
            ("unit", "network", "effect", "z", "q"),
            rows,
            numeric=(2, 3, 4),
        )
        if parts:
            _print_parts(found, target, order[:MOST_COLUMNS].tolist())
    for row in lesion_store.dissociations(found):
        (a, b), (x, y) = row["units"], row["targets"]
        console.tell(
            f"double dissociation: {a} for {x}, {b} for {y}: interaction "
            f"{significant(row['interaction'])}, p {row['p']:.3f} over all pairs",
        )
    for note in _notes(found):
        console.say(f"note: {note}")


def _print_parts(found: xr.Dataset, target: str, order: Sequence[int]) -> None:
    """Print a row for each part of a stimulus, a column for each of its strongest units."""
    from sherlock_models.lesions.lesion_store import parts_of
    from sherlock_models.scoring.significance import FDR
    from sherlock_models.scoring.verdict import significant

    rows = []
    for part in parts_of(found, target):
        one = found.sel(target=part)
        cells = [
            f"{significant(one['effect'].values[u])}{'*' if one['q'].values[u] <= FDR else ''}"
            for u in order
        ]
        rows.append((part.removeprefix(f"{target}/"), *cells))
    if rows:
        units = [str(found["unit"].values[u]) for u in order]
        title = f"{target}, part by part (* q {FDR} or less)"
        numeric = range(1, 1 + len(units))
        console.print_table(title, ("part", *units), rows, numeric=numeric)


def _notes(found: xr.Dataset) -> list[str]:
    from sherlock_models.scoring.significance import FDR

    attrs = found.attrs
    notes = [
        f"{attrs['test_trs']} held-out TRs in {attrs['blocks']} blocks (autocorrelation "
        f"{attrs['autocorrelation_trs']} TRs): the smallest p is {attrs['smallest_p']:.2g}"
    ]
    if attrs["smallest_p"] > FDR:
        notes.append(f"too few blocks for any q below {FDR}: hold out more TRs")
    if attrs["brain"] == "predicted":
        notes.append(
            "q is the larger of two: that the lesion makes it worse, and that the unit's measured "
            "activity, in the place of its prediction, tells the target too"
        )
    return notes


def _print_control(control: dict[str, Any]) -> None:
    from sherlock_models.scoring.verdict import significant

    rows = [
        (
            target,
            *(significant(control[kind][target]) for kind in ("whole", "lesioned", "retrained")),
        )
        for target in control["whole"]
    ]
    console.print_table(
        f"R² with {control['unit']}, with it replaced, and trained without it",
        ("target", "whole", "lesioned", "retrained without"),
        rows,
        numeric=(1, 2, 3),
    )
