"""Which stores a dataset gets, in what order, and who plans each kind of store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sherlock_data.catalog import Catalog
from sherlock_data.contract import SUFFIX
from sherlock_data.errors import UnavailableError
from sherlock_data.outcomes import Outcome
from sherlock_data.plan import StorePlan
from sherlock_data.recipes import Recipe
from sherlock_data.scan import Scan

#: stores that others are derived from come first
ORDER = ("volumes", "voxels", "parcels", "pca", "stimulus", "annotations", "features", "frames")
#: kinds that read the movies
OF_MOVIES = ("stimulus", "features", "frames")


def wanted_recipes(scan: Scan, catalog: Catalog, names: Sequence[str]) -> dict[str, Recipe]:
    """Recipes to build, in order; what a named store derives from comes along.

    Returns
    -------
    dict of Recipe
        By name; without ``names``: all that are built without being named.
    """
    if names:
        recipes = {name: catalog.recipe(scan.dataset, name) for name in names}
    else:
        every = catalog.recipes(scan.dataset)
        recipes = {name: recipe for name, recipe in every.items() if recipe.by_default}
    todo = list(recipes.values())
    while todo:
        for source in todo.pop().sources:
            if source not in recipes:
                recipes[source] = catalog.recipe(scan.dataset, source)
                todo.append(recipes[source])
    return dict(sorted(recipes.items(), key=lambda item: ORDER.index(item[1].kind)))


def plan_all(
    recipes: Mapping[str, Recipe],
    named: Sequence[str],
    plan: Callable[[str], StorePlan],
    outcomes: dict[str, Outcome],
) -> dict[str, StorePlan]:
    """Plan every store before anything is written; note in ``outcomes`` what cannot be built.

    Raises
    ------
    UnavailableError
        If a store that is named cannot be built from this dataset.
    """
    plans = {}
    for name, recipe in recipes.items():
        try:
            _check_sources(recipe, outcomes)
            plans[name] = plan(name)
        except UnavailableError as error:
            if name in named:
                raise
            outcomes[name] = Outcome(name, "skipped", str(error))
    return plans


def _check_sources(recipe: Recipe, outcomes: Mapping[str, Outcome]) -> None:
    """Refuse a store whose source cannot be built."""
    for source in recipe.sources:
        if source in outcomes and outcomes[source].status == "skipped":
            raise UnavailableError(f"derives from '{source}': {outcomes[source].detail}")


def waits(name: str, recipes: dict[str, Recipe], outcomes: dict[str, Outcome]) -> bool:
    """Whether a store derives from one that is itself still to be built."""
    return any(outcomes[source].status == "planned" for source in recipes[name].sources)


def plan_store(name: str, recipe: Recipe, scan: Scan, folder: Path, catalog: Catalog) -> StorePlan:
    """Plan one store of a dataset's folder.

    Raises
    ------
    UnavailableError
        If it cannot be built from this dataset.
    """
    plan = _planners()[recipe.kind](scan, recipe, folder / f"{name}{SUFFIX}", catalog)
    plan.attrs["runs"] = _runs(scan, with_movies=recipe.kind in OF_MOVIES)
    return plan


def _runs(scan: Scan, with_movies: bool) -> list[dict[str, Any]]:
    """Return what of the clock a store depends on; a new movie leaves BOLD as it was."""
    return [
        {"name": run.name, "volumes": run.volumes}
        | ({"movie": run.movie, "movie_start_s": run.movie_start_s} if with_movies else {})
        for run in scan.clock.runs
    ]


def _planners() -> dict[str, Callable[..., StorePlan]]:
    """Planner of every kind of store; imported late, since nilearn and librosa take seconds."""
    from sherlock_data.representations import parcels, pca, volumes, voxels
    from sherlock_data.stimulus import annotations, features, frames, stimulus_store

    return {
        "volumes": volumes.plan,
        "voxels": voxels.plan,
        "parcels": parcels.plan,
        "pca": pca.plan,
        "stimulus": stimulus_store.plan,
        "annotations": annotations.plan,
        "features": features.plan,
        "frames": frames.plan,
    }
