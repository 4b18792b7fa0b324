"""Every entry of the zoo on the demo data: held-out scores, parameters, time, in one table.

Each entry is trained on the same subjects, fold and batches, and judged on the same held-out TRs,
beside the mean, delayed ridge and the time index as the canary. Two cores are no place for a
billion parameters: what is narrowed is (`--set width=`), and every row says by how much; voxels,
parcels, components and pictures never are. `dense-compressed` is there twice: held to PCA, and to
the code of the `brain-compressor` above it.

    python benchmarks/zoo.py --page docs/zoo.md                  makes the demo data first
    python benchmarks/zoo.py --entries conv-voxels temporal-features --steps 50
    python benchmarks/zoo.py --size tiny --width 0.02 --steps 5  to see it work

Trainings and data are kept in `--folder`: what is finished there with the same settings is not
done again, and what was interrupted goes on.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import zoo_page
from demo_data import Scores, demo_stores
from rich.console import Console

from sherlock_data import store
from sherlock_data.catalog import load_catalog
from sherlock_data.errors import SherlockError
from sherlock_models.config import RunConfig
from sherlock_models.planning import machines
from sherlock_models.planning.plan import plan
from sherlock_models.resolve import resolve, versions
from sherlock_models.run import CONFIG, Run
from sherlock_models.scoring.evaluate import evaluate, is_current, load_evaluation
from sherlock_models.sizes import BRAIN, WAVEFORM, Sizes
from sherlock_models.training.train import fit
from sherlock_models.zoo import count_parameters

#: stores that the entries of the catalogue read
STORES = ("volumes", "voxels", "grey", "coarse", "parcels", "pca", "stimulus", "features", "frames")
#: the variable of the demo's `features` that stands in for the pretrained ones
PLANTED = "planted"
#: predictors beside the models, and what they are called where they predict pictures
BASELINES = {
    "mean": "mean-frame",
    "time-index": None,
    "delayed-ridge": None,
    "other-subjects": None,
    "pca": None,
    "previous-tr": "previous-frame",
}
#: targets of the decoder, by what a reader looks for
PICTURES, SOUNDS = ("video", "frame"), ("audio", WAVEFORM)
#: draws of the intervals and of the null
DRAWS = 200
STAGE_ONE, STAGE_TWO = "brain-compressor", "dense-compressed"
note = Console(stderr=True)


@dataclass(frozen=True)
class Trial:
    """One training of the table.

    Attributes
    ----------
    entry : str
    width : float
        Factor on every hidden layer.
    steps : int
    options : mapping
        Further settings, as `--set` takes them.
    code_of : str or None
        Name of the trial whose code the brain layer is held to.
    """

    entry: str
    width: float = 0.1
    steps: int = 150
    options: Mapping[str, Any] = field(default_factory=dict)
    code_of: str | None = None


#: for dense layers from every pixel: at the common rate they forget the movie for good
SLOWER = {"learning_rate": 3e-4}
#: widths and steps that two cores do in half an hour together; any other entry is taken as above
TRIALS = {
    "conv-voxels": Trial("conv-voxels", 0.25, 150),
    "conv-parcels": Trial("conv-parcels", 0.25, 150),
    "conv-pca": Trial("conv-pca", 0.25, 150),
    "conv-coarse": Trial("conv-coarse", 0.25, 150),
    "conv-grey": Trial("conv-grey", 0.25, 150),
    "dense-voxels": Trial("dense-voxels", 0.1, 300, SLOWER),
    "dense-voxels-slim": Trial("dense-voxels-slim", 0.2, 300, SLOWER),
    "dense-features": Trial("dense-features", 1.0, 150, {"stimulus": PLANTED}),
    STAGE_ONE: Trial(STAGE_ONE, 0.05, 150),
    STAGE_TWO: Trial(STAGE_TWO, 0.02, 200, {"learning_rate": 1e-3}),
    f"{STAGE_TWO}, stage 1's code": Trial(
        STAGE_TWO, 0.02, 200, {"learning_rate": 1e-3}, code_of=STAGE_ONE
    ),
    "spatial-grid": Trial("spatial-grid", 0.02, 80),
    "spatial-seeded": Trial("spatial-seeded", 0.5, 150, {"learning_rate": 1e-3}),
    "conv-frames": Trial("conv-frames", 0.25, 80),
    "temporal-features": Trial(
        "temporal-features", 0.25, 300, {"stimulus": PLANTED, "delays": "0..11"}
    ),
}
#: of an entry that looks back: the tiny data's runs are too short for its own
TINY_DELAYS = "0..11"
COMMON = {"batch_size": 64, "learning_rate": 3e-3, "seed": 0}


def trials(args: argparse.Namespace, components: int) -> dict[str, Trial]:
    """Trainings to be done, in the catalogue's order, stage 1 before its stage 2."""
    entries = list(load_catalog().models)
    known = {name: Trial(name) for name in entries} | TRIALS
    known = dict(sorted(known.items(), key=lambda item: entries.index(item[1].entry)))
    unknown = sorted(set(args.entries or ()) - {trial.entry for trial in known.values()})
    if unknown:
        raise SystemExit(
            f"no entry {', '.join(unknown)}; there are {', '.join(load_catalog().models)}"
        )
    found = {}
    for name, trial in known.items():
        if args.entries and trial.entry not in args.entries:
            continue
        if trial.code_of and args.entries and trial.code_of not in args.entries:
            note.print(f"{name}: left out, it reads the code of {trial.code_of}")
            continue
        if trial.entry == STAGE_ONE:
            trial = replace(trial, options={**trial.options, "code": components})
        if args.size == "tiny" and len(load_catalog().model(trial.entry).delays) > 1:
            trial = replace(trial, options={**trial.options, "delays": TINY_DELAYS})
        given = {"steps": args.steps, "width": args.width}
        found[name] = replace(trial, **{key: value for key, value in given.items() if value})
    return found


def announce(found: Mapping[str, Trial], data: Path) -> None:
    """Say what the trainings take at the least: traced, at this processor's measured speed."""
    cpu, total = machines.here(try_out=True), 0.0
    for name, trial in found.items():
        options = {**COMMON, **trial.options, "width": trial.width}
        [row] = plan([cpu], entries=[trial.entry], data=data, options=options)
        seconds = trial.steps * row["machines"][0]["step_s"]
        total += seconds
        note.print(
            f"{name}: {row['parameters']:,} parameters, width {trial.width:g}, {trial.steps} "
            f"steps: at least {seconds:.0f} s, {row['host']['training'] / 1e9:.1f} GB",
            highlight=False,
        )
    note.print(f"{len(found)} trainings: at least {total / 60:.0f} min, and the evaluations")


def done(name: str, trial: Trial, data: Path, runs: Path) -> Run:
    """Train and evaluate, unless that is there already."""
    path = runs / name.replace("'", "").replace(", ", "-").replace(" ", "-")
    options = {**COMMON, **trial.options, "width": trial.width, "steps": trial.steps}
    if trial.code_of:
        options["compressor"] = str(runs / trial.code_of)
    config = resolve(trial.entry, data, options=options)
    run = Run(path)
    begun = (path / CONFIG).exists()
    if begun and _settings(run.config, options) != _settings(config, options):
        remedy = "remove it, or name another --folder"
        raise SherlockError("was made with other settings", where=path, remedy=remedy)
    if not (begun and run.state == "finished"):
        run = fit(config, path, resume=begun, device="cpu")
    if not is_current(run):
        evaluate(run, draws=DRAWS, null_draws=DRAWS)
    return run


def _settings(config: RunConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides whether a run is the one that is asked for."""
    known = {**dict(config), **config.options}
    return {key: known[key] for key in (*options, "stores", "compressor")}


def row_of(name: str, trial: Trial, run: Run, real: int | None) -> dict[str, Any]:
    """Gather what the table shows of a run, from its folder alone."""
    document, _ = load_evaluation(run.path)
    scores, progress, config = Scores(document), run.progress, run.config
    over = scores.value("model", "brain", "r_over_ceiling")
    return {
        "name": name,
        "entry": trial.entry,
        "stimulus": list(config.stimulus),
        "judged_in": document["held_out"]["store"],
        "units": document["held_out"]["units"],
        "test_trs": document["held_out"]["test_trs"],
        "subjects": len(document["held_out"]["subjects"]),
        "parameters": run.model.count_parameters(),
        "parameters_real": real,
        "width": trial.width,
        "options": dict(trial.options),
        "code_of": trial.code_of,
        "steps": progress["steps"],
        "best_step": document["step"],
        "batch_size": config.batch_size,
        "seconds": progress["step"] / progress["steps_per_s"],
        "ceiling": document["ceiling"],
        "canary": document["canary"],
        **scores.brain("model"),
        "r_over_ceiling": over,
        **movie(scores, config.stimulus, "model", "model"),
        "baselines": {
            key: {**scores.brain(key), **movie(scores, config.stimulus, pictured or key, key)}
            for key, pictured in BASELINES.items()
            if any(predictor in (key, pictured) for predictor, _, _ in scores.rows)
        },
    }


def movie(
    scores: Scores, stimulus: tuple[str, ...], of_pictures: str, other: str
) -> dict[str, float | None]:
    """Scores of the decoded movie, whatever its parts are called."""
    found: dict[str, float | None] = {}
    for target in stimulus:
        if target in PICTURES:
            found["picture_r2"] = scores.value(of_pictures, target, "r2")
            found["picture_psnr"] = scores.value(of_pictures, target, "psnr")
        elif target in SOUNDS:
            found["sound_r"] = scores.value(other, target, "r")
            found["sound_r2"] = scores.value(other, target, "r2")
        elif target != BRAIN:
            found["features_r2"] = scores.value(other, target, "r2")
    return found


def real_parameters(entry: str) -> int | None:
    """Count at the catalogue's sizes, an extractor's features among them; None: from the store."""
    catalog = load_catalog()
    model = catalog.model(entry)
    if model.sizes:
        return count_parameters(model)
    brains = {m.brain: m.sizes["brain"] for m in catalog.models.values() if "brain" in m.sizes}
    known = {key: size for m in catalog.models.values() for key, size in m.sizes.items()}
    known |= {name: (e.features,) for name, e in catalog.extractors.items() if e.features}
    brain = brains.get(model.brain)
    if brain is None or any(name not in known for name in model.stimulus):
        return None
    stimulus = {name: known[name] for name in model.stimulus}
    return count_parameters(model, Sizes(stimulus, brain, model.delays))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train and judge everything; the document that `--json` writes."""
    args.folder.mkdir(parents=True, exist_ok=True)
    with note.status("the demo data ..."):
        data = args.data or demo_stores(args.folder, *STORES, size=args.size)
    found = trials(args, store.open_store(data / "pca.zarr").sizes["component"])
    announce(found, data)
    rows = []
    for name, trial in found.items():
        began = time.perf_counter()
        run = done(name, trial, data, args.folder / "runs")
        rows.append(row_of(name, trial, run, real_parameters(trial.entry)))
        r = rows[-1]["r"]
        note.print(
            f"{name}: brain r {'undefined' if r is None else f'{r:.3f}'}; "
            f"{time.perf_counter() - began:.0f} s",
            highlight=False,
        )
        del run
        gc.collect()
    return {
        "size": args.size,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[2],
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
        "draws": DRAWS,
        "rows": rows,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/zoo"), help="data and runs")
    parser.add_argument("--data", type=Path, help="dataset folder with all of the stores")
    parser.add_argument("--size", default="demo", choices=("tiny", "demo"), help="of the data made")
    parser.add_argument("--entries", nargs="+", metavar="ENTRY", help="default: all")
    parser.add_argument("--steps", type=int, help="for every entry")
    parser.add_argument("--width", type=float, help="for every entry")
    parser.add_argument("--page", type=Path, metavar="OUT", help="write the docs page too")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    try:
        document = measure(args)
    except SherlockError as error:
        raise SystemExit(str(error)) from None
    zoo_page.show(document)
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=2), encoding="utf-8")
    if args.page is not None:
        args.page.write_text(zoo_page.page(document), encoding="utf-8")


if __name__ == "__main__":
    main()
