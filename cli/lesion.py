"""`sherlock-models lesion`: what the movie loses without a part of the brain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from sherlock_cli import console
from sherlock_cli.progress import Bar

if TYPE_CHECKING:
    import xarray as xr

    from sherlock_models.lesions.study import Cost
    from sherlock_models.run import Run

#: units shown for every target
STRONGEST = 8


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
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--units",
    default="parcels",
    show_default=True,
    help="parcels, networks, components, a NIfTI image of a region, or names with commas between.",
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
@click.option("--retrain", metavar="UNIT", help="Also train again without UNIT, as a control.")
@click.option("--seed", default=0, show_default=True, help="Of every draw.")
@console.json_option
@console.handled
def lesion(
    run: Path,
    units: str,
    mode: str,
    replace: str,
    brain: str,
    retrain: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Lesion RUN's brain layer unit by unit, and see what is decoded worse.

    \b
    effect  increase of the held-out squared error, as a share of the target's training variance;
            with --mode isolate what the unit alone explains
    q       sign flips over blocks of held-out time, of the effect and of what the unit's measured
            activity tells (both must hold), FDR over units
    z       against random units of the same size, as compact
    \b
    sherlock-models lesion runs/conv-parcels
    sherlock-models lesion runs/conv-parcels --units networks --mode isolate
    sherlock-models lesion runs/conv-parcels --units v1.nii.gz --retrain v1.nii.gz
    """  # noqa: D301 - click's mark for text that keeps its lines
    from sherlock_models.lesions import lesion as lesions
    from sherlock_models.lesions import lesion_store
    from sherlock_models.run import load

    opened = load(run)
    with _Watch("decoding") as watch:
        found = lesions.lesion(
            opened, units, mode=mode, replace=replace, brain=brain, seed=seed, watcher=watch
        )
    path = lesion_store.save(opened, found)
    control = _retrain(opened, retrain, seed) if retrain is not None else None
    if as_json:
        console.print_json(_document(run, path, found, control))
        return
    _print(found)
    if control is not None:
        _print_control(control)
    console.tell(f"everything: {path}")


def _retrain(run: Run, unit: str, seed: int) -> dict[str, Any]:
    from sherlock_models.lesions.retrain import retrain

    with console.notes.status("") as status:
        return retrain(run, unit, seed=seed, say=lambda line: status.update(f"{line} ..."))


def _document(
    run: Path, path: Path, found: xr.Dataset, control: dict[str, Any] | None
) -> dict[str, Any]:
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
    document["dissociations"] = _dissociations(found)
    if control is not None:
        document["retrained"] = control
    return document


def _dissociations(found: xr.Dataset) -> list[dict[str, Any]]:
    from sherlock_models.lesions.block_tests import strongest_dissociation

    targets = [str(target) for target in found["target"].values]
    whole = targets[: targets.index("loss")]
    units = found["unit"].values
    if len(units) < 2:
        return []
    rows = []
    judged, seed = found["judged_increase"].values, found.attrs["seed"]
    gain = found["measured_gain"].values if found.attrs["brain"] == "predicted" else None
    for x, first in enumerate(whole):
        for y in range(x + 1, len(whole)):
            pair = strongest_dissociation(judged, x, y, seed, gain)
            rows.append(
                {
                    "targets": [first, whole[y]],
                    "units": [str(units[pair.a]), str(units[pair.b])],
                    "interaction": pair.value,
                    "p": pair.p,
                }
            )
    return rows


def _print(found: xr.Dataset) -> None:
    import numpy as np

    from sherlock_models.scoring.significance import FDR

    targets = [str(target) for target in found["target"].values]
    for column, target in enumerate(targets[: targets.index("loss")]):
        effect, q, z = (found[name].values[:, column] for name in ("effect", "q", "z"))
        order = np.argsort(-effect, kind="stable")[:STRONGEST]
        rows = [
            (
                str(found["unit"].values[row]),
                str(found["network"].values[row]),
                f"{effect[row]:.4f}",
                "-" if not np.isfinite(z[row]) else f"{z[row]:.1f}",
                f"{q[row]:.3f}",
            )
            for row in order
        ]
        console.print_table(
            f"{target}: {int((q <= FDR).sum())} of {len(q)} units at q {FDR}",
            ("unit", "network", "effect", "z", "q"),
            rows,
            numeric=(2, 3, 4),
        )
    for row in _dissociations(found):
        (a, b), (x, y) = row["units"], row["targets"]
        console.tell(
            f"double dissociation: {a} for {x}, {b} for {y}: interaction {row['interaction']:.4f}, "
            f"p {row['p']:.3f} over all pairs",
        )
    for note in _notes(found):
        console.say(f"note: {note}")


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
    rows = [
        (target, *(f"{control[kind][target]:.4f}" for kind in ("whole", "lesioned", "retrained")))
        for target in control["whole"]
    ]
    console.print_table(
        f"R² with {control['unit']}, with it replaced, and trained without it",
        ("target", "whole", "lesioned", "retrained without"),
        rows,
        numeric=(1, 2, 3),
    )
