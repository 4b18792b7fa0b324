"""One self-contained page about a run: what it is, whether to believe it, what it looks like."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined

from sherlock_data.contract import created_by
from sherlock_models.brain_map import brain_store, to_image
from sherlock_models.lesions.lesion_store import dissociations
from sherlock_models.page import pictures
from sherlock_models.page.pictures import Picture
from sherlock_models.page.report_lesions import (
    effect_maps,
    lesion_tables,
    matrix,
    read_lesions,
)
from sherlock_models.page.report_regions import find_regions, stills, volumes
from sherlock_models.page.reproduce import UNKNOWN_CATALOG, commands
from sherlock_models.scoring import planted
from sherlock_models.scoring.evaluate import load_evaluation
from sherlock_models.scoring.heldout import PREDICTED
from sherlock_models.scoring.verdict import (
    Table,
    number,
    significant,
    verdicts,
    with_interval,
)
from sherlock_models.training.history import curves
from sherlock_models.writing import whole

if TYPE_CHECKING:
    from sherlock_models.config import RunConfig
    from sherlock_models.run import Run

PAGE = "report.html"

#: metrics in the order of the table's columns: title, digits, what it is
METRICS = {
    "r": ("r", 2, "Pearson correlation over time, the mean over units"),
    "r_over_ceiling": (
        "r / ceiling",
        2,
        "r over the lower bound of the noise ceiling, where that is at least 0.1: may exceed 1",
    ),
    "significant": ("above null", 2, "share of units above a phase-randomised null, FDR 0.05"),
    "r2": ("R²", 2, "1 - SSE / SST around the training mean"),
    "identification": ("identified", 2, "share of segments told apart from all others"),
    "psnr": ("PSNR, dB", 1, "peak signal-to-noise ratio, peak 255"),
    "ssim": ("SSIM", 2, "structural similarity (Wang et al. 2004)"),
    "r_spatial": ("r spatial", 2, "correlation across pixels per TR: flatters the mean frame"),
}
#: parcels or voxels named in the page
STRONGEST = 10


@dataclass(frozen=True)
class ScoreTable:
    """One target's rows for the page: cells are text."""

    target: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[str]]]


def write_report(run: Run, truth: Path | None = None) -> Path:
    """Write `report.html` into a run's folder.

    Parameters
    ----------
    run : Run
        Evaluated.
    truth : Path, optional
        `truth.zarr` of a synthetic dataset: adds which planted regions were found.

    Returns
    -------
    Path
        The page: nothing from a network, under 10 MB; it reads without its script, too.

    Raises
    ------
    ConfigError
        If the run has not been evaluated.
    InputError
        If the truth is missing or of another dataset.
    """
    document, arrays = load_evaluation(run.path)
    answer = planted.found(arrays, planted.load_truth(truth)) if truth is not None else []
    store = brain_store(run.config)
    lesions = None if run.config.is_compressor else read_lesions(run)
    extra = {} if run.config.is_compressor else _interactive(run, arrays, lesions)
    page = (
        _environment()
        .get_template(PAGE)
        .render(
            run=run,
            config=run.config,
            dataset=str(store.attrs["dataset"]),
            document=document,
            facts=_facts(run, document, store),
            verdicts=verdicts(document),
            tables=score_tables(document["rows"]),
            curve=pictures.learning_curve(
                curves(run.metrics(), run.config.terms), run.config.terms
            ),
            strips=list(_strips(arrays)),
            shown=[int(tr) for tr in arrays["shown_tr"].values] if "shown_tr" in arrays else [],
            heatmaps=list(_heatmaps(arrays, run.config.stimulus)),
            maps=list(_maps(arrays, store)),
            strongest=_strongest(arrays, store),
            planted=answer,
            commands=commands(run, truth, None if lesions is None else lesions.attrs),
            lesions=lesions,
            lesion_tables=[] if lesions is None else lesion_tables(lesions),
            matrix=None if lesions is None else matrix(lesions),
            dissociations=[] if lesions is None else dissociations(lesions),
            unknown_catalog=UNKNOWN_CATALOG,
            lesion_command=f"sherlock-models lesion {shlex.quote(str(run.path.resolve()))}",
            lesion_maps=[] if lesions is None else list(_lesion_maps(run, lesions, store)),
            extra=extra,
            is_compressor=run.config.is_compressor,
            created_by=created_by(),
        )
    )
    path = run.path / PAGE
    with whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _interactive(run: Run, arrays: xr.Dataset, lesions: xr.Dataset | None) -> dict[str, Any]:
    """Gather what the page's script walks through: stills without regions, slices of maps."""
    regions = find_regions(run, lesions)
    trs = arrays["shown_tr"].values if "shown_tr" in arrays else np.zeros(0, dtype=np.int64)
    return {
        "regions": []
        if regions is None
        else [{"name": unit.name, "units": len(unit.index)} for unit in regions.units],
        "stills": None if regions is None else stills(run, regions.units, trs),
        "volumes": volumes(run, arrays, lesions, regions),
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("sherlock_models.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["significant"] = significant
    return environment


def score_tables(rows: Sequence[dict[str, Any]], intervals: bool = True) -> list[ScoreTable]:
    """Lay the rows out as one table per target: predictors down, metrics across."""
    table = Table(list(rows))
    tables = []
    for target in table.targets():
        mine = [row for row in rows if row["target"] == target]
        metrics = [m for m in METRICS if any(row["metric"] == m for row in mine)]
        predictors = sorted({row["predictor"]: None for row in mine}, key=_order)
        cells = [(p, [_cell(table, p, target, m, intervals) for m in metrics]) for p in predictors]
        tables.append(ScoreTable(target, [(METRICS[m][0], METRICS[m][2]) for m in metrics], cells))
    return tables


def _cell(table: Table, predictor: str, target: str, metric: str, interval: bool) -> str:
    row, digits = table.row(predictor, target, metric), METRICS[metric][1]
    return with_interval(row, digits) if interval else number(row.get("value"), digits)


def _order(predictor: str) -> tuple[int, int]:
    """Put the model first, then its other brains; the rest keep their order."""
    return (0, len(predictor)) if predictor.startswith(PREDICTED) else (1, 0)


def _facts(run: Run, document: dict[str, Any], store: xr.Dataset) -> list[tuple[str, str]]:
    """Say what was trained on what, in a few lines."""
    config, held, progress = run.config, document["held_out"], run.progress
    delays = ", ".join(str(d) for d in config.delays)
    return [
        (
            "Dataset",
            f"{store.attrs['dataset']} ({store.sizes['subject']} subjects, space "
            f"{store.attrs['space']}, TR {held['repetition_time_s']:g} s)",
        ),
        ("Brain layer", _brain_layer(config, held)),
        (
            "Stimulus",
            f"{', '.join(config.stimulus)}; delays {delays} TRs; lag {held['lag_trs']} TRs",
        ),
        (
            "Split",
            f"{config.split}, fold {held['fold']} of {held['folds']}: {held['train_trs']} TRs "
            f"train, {held['validation_trs']} choose the checkpoint, {held['test_trs']} judge; gap "
            f"{held['gap_trs']} TRs",
        ),
        (
            "Training",
            f"{progress['step']:,} steps of {config.batch_size}, {run.state}; brain noise "
            f"{config.brain_noise}, brain forcing {config.brain_forcing:g}, subject "
            f"{config.subject}",
        ),
    ]


def _brain_layer(config: RunConfig, held: dict[str, Any]) -> str:
    """Name the brain layer, and the voxels behind a code."""
    if config.is_compressor:
        return f"a free code; judged in {held['units']} units of store '{config.brain}'"
    if config.voxel_store is None:
        return f"{held['units']} units of store '{config.brain}'"
    through = f"store '{config.brain}'"
    if config.compressor is not None:
        through = f"the code of {config.compressor.run}"
    return f"{through}; judged in {held['units']} voxels of store '{config.voxel_store}'"


def _strips(arrays: xr.Dataset) -> Iterator[tuple[str, Picture]]:
    """Pictures of a few held-out TRs: the original, then what each brain was decoded to."""
    if "video" not in arrays:
        return
    trs = ", ".join(str(tr) for tr in arrays["shown_tr"].values)
    for source, frames in zip(arrays["video_source"].values, arrays["video"].values, strict=True):
        yield str(source), pictures.strip(frames, f"{source}: pictures at held-out TRs {trs}")


def _heatmaps(arrays: xr.Dataset, stimulus: Sequence[str]) -> Iterator[tuple[str, Picture]]:
    for name in stimulus:
        if name != "video" and name in arrays:
            values = dict(zip(arrays[f"{name}_source"].values, arrays[name].values, strict=True))
            if PREDICTED in values:
                yield name, pictures.features(values["original"], values[PREDICTED], name)


def _model(arrays: xr.Dataset) -> xr.Dataset:
    names = [str(name) for name in arrays["predictor"].values]
    return arrays.isel(predictor=names.index(PREDICTED))


def _maps(arrays: xr.Dataset, store: xr.Dataset) -> Iterator[tuple[str, Picture]]:
    """Held-out r in the brain; none where the store's units have no place in MNI space."""
    if str(store.attrs["space"]) != "MNI152":
        return
    model = _model(arrays)
    r, significant = model["r"].values, model["significant"].values.astype(bool)
    everywhere = to_image(r, store)
    if everywhere is None:
        return
    top = "" if not np.isfinite(r).any() else f", at most {np.nanmax(r):.2f}"
    yield (
        "Held-out r of every unit",
        pictures.glass_brain(
            everywhere,
            "",
            f"Glass brain from left, behind, right and above: held-out r of every unit{top}.",
        ),
    )
    if significant.any():
        yield (
            f"The {significant.sum()} of {np.isfinite(r).sum()} units above the null (FDR 0.05)",
            pictures.slices(
                to_image(np.where(significant, r, 0), store),
                "",
                f"Axial slices: held-out r of the {significant.sum()} units above the null.",
            ),
        )


def _lesion_maps(run: Run, lesions: xr.Dataset, store: xr.Dataset) -> Iterator[tuple[str, Picture]]:
    """Draw where each stimulus is lost; none where the lesioned units have no place."""
    for title, values in effect_maps(run, lesions).items():
        image = to_image(values, store)
        if image is not None and str(store.attrs["space"]) == "MNI152":
            top = float(np.nanmax(np.abs(values)))
            alt = f"Glass brain: effect of a lesion on {title}, at most {significant(top)} in size."
            yield f"What {title} loses without each unit", pictures.signed_brain(image, alt)


def _strongest(arrays: xr.Dataset, store: xr.Dataset) -> list[dict[str, Any]]:
    """Units the model predicts best, with their ceilings and, where known, their networks."""
    model = _model(arrays)
    r = model["r"].values
    order = np.argsort(np.where(np.isfinite(r), -r, np.inf), kind="stable")[:STRONGEST]
    networks = store["network"].values if "network" in store.coords else None
    return [
        {
            "unit": str(model["unit"].values[u]),
            "network": "" if networks is None else str(networks[u]),
            "r": float(r[u]),
            "ceiling": _finite(model["ceiling_lower"].values[u]),
            "q": _finite(model["q"].values[u]),
        }
        for u in order
        if np.isfinite(r[u])
    ]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
