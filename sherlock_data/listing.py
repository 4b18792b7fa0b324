"""What is there: the catalogue's datasets and their stores, and one store's labels and origin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr
from rich.console import Console
from rich.table import Table

from sherlock_data import store as stores
from sherlock_data.catalog import Catalog, DatasetEntry
from sherlock_data.contract import SUFFIX
from sherlock_data.errors import SherlockError, StoreError
from sherlock_data.planners import OF_MOVIES
from sherlock_data.recipes import FeaturesRecipe, ParcelsRecipe, Recipe
from sherlock_data.scan import resolve


def list_datasets(catalog: Catalog, out: str, raw: Path) -> list[dict[str, Any]]:
    """One row per dataset and store of the catalogue.

    Returns
    -------
    list of dict
        ``dataset``, ``title``, ``store``, ``kind``, ``state`` (absent, resumable, complete;
        ``damaged``: its manifest cannot be read; ``n/a``: this dataset cannot have it), ``why`` it
        cannot (None: it can), ``bytes`` on disk (None unless complete), ``files`` (whether the raw
        files are in ``raw``).
    """
    rows = []
    for dataset, entry in catalog.datasets.items():
        files = _has_files(dataset, catalog, raw)
        recipes = catalog.recipes(dataset)
        for name, recipe in recipes.items():
            path = f"{out.rstrip('/')}/{dataset}/{name}{SUFFIX}"
            why = _cannot(recipe, entry, recipes)
            rows.append(
                {
                    "dataset": dataset,
                    "title": entry.title,
                    "store": name,
                    "kind": recipe.kind,
                    **_state(path, why),
                    "why": why,
                    "files": files,
                }
            )
    return rows


def _state(path: str, why: str | None) -> dict[str, Any]:
    state = stores.state(path)
    if state == "absent" and why is not None:
        state = "n/a"
    if state != "complete":
        return {"state": state, "bytes": None}
    try:
        return {"state": state, "bytes": stores.bytes_on_disk(path)}
    except StoreError:
        return {"state": "damaged", "bytes": None}


def _cannot(recipe: Recipe, entry: DatasetEntry, recipes: Mapping[str, Recipe]) -> str | None:
    """Why the catalogue's word alone rules a store out; the data may still rule out more."""
    mask = getattr(recipe, "mask", None)
    if recipe.kind in OF_MOVIES and not any(run.movie for run in entry.runs):
        # features may also be of the annotations' text, or arrays of the user's own
        if isinstance(recipe, FeaturesRecipe) and (recipe.files or entry.annotations):
            return None
        return "no run has a movie"
    if recipe.kind == "annotations" and entry.annotations is None:
        return "no annotations"
    if isinstance(recipe, ParcelsRecipe) and (recipe.atlas or entry.atlas) is None:
        return "no atlas"
    if mask is not None and mask.grey_matter is not None and entry.space != "MNI152":
        return f"the space is {entry.space}, the grey-matter map is in MNI152"
    for source in recipe.sources:
        if source in recipes and (why := _cannot(recipes[source], entry, recipes)):
            return f"derives from {source}: {why}"
    return None


def _has_files(dataset: str, catalog: Catalog, raw: Path) -> bool:
    try:
        resolve(dataset, catalog.dataset(dataset), raw)
    except SherlockError:
        return False
    return True


def describe_path(path: str) -> list[dict[str, Any]]:
    """Describe one store, or every complete store of a folder.

    Returns
    -------
    list of dict
        ``store``, ``path``, ``bytes``, ``dims``, ``coords``, ``variables`` (dims, dtype, chunks,
        bytes before compression) and ``attrs``.
    """
    opened = stores.open_path(path)
    if isinstance(opened, xr.Dataset):
        return [_describe(path, opened)]
    return [_describe(p, stores.open_store(p)) for p in stores.list_stores(path).values()]


def _describe(path: str, dataset: xr.Dataset) -> dict[str, Any]:
    def variables(names: Any) -> dict[str, Any]:
        return {
            str(name): {
                "dims": list(dataset[name].dims),
                "dtype": str(dataset[name].dtype),
                "chunks": dataset[name].encoding.get("chunks"),
                "bytes": int(dataset[name].nbytes),
            }
            for name in names
        }

    return {
        "store": Path(path).name.removesuffix(SUFFIX),
        "path": path,
        "bytes": stores.bytes_on_disk(path),
        "dims": {str(dim): int(n) for dim, n in dataset.sizes.items()},
        "coords": variables(dataset.coords),
        "variables": variables(dataset.data_vars),
        "attrs": dataset.attrs,
    }


def render_path(documents: list[dict[str, Any]], console: Console) -> None:
    """Print the description of each store for people."""
    for document in documents:
        attrs = document["attrs"]
        console.print(f"{document['store']}  {document['path']}", style="bold", soft_wrap=True)
        dims = ", ".join(f"{dim} {n:,}" for dim, n in document["dims"].items())
        console.print(f"  dims: {dims}; {document['bytes'] / 1e6:,.1f} MB on disk")
        table = Table(box=None, padding=(0, 2))
        for column in ("name", "dims", "dtype", "MB"):
            number = column == "MB"
            table.add_column(column, justify="right" if number else "left", overflow="fold")
        for group in ("variables", "coords"):
            for name, variable in document[group].items():
                cells = [name, ", ".join(variable["dims"]), variable["dtype"]]
                table.add_row(*cells, f"{variable['bytes'] / 1e6:,.2f}")
        console.print(table)
        console.print(f"  recipe: {attrs.get('recipe')}", markup=False)
        for item in attrs.get("inputs", []):
            console.print(
                f"  from {item['name']} ({item['bytes']:,} bytes, sha256 {item['sha256']})",
                markup=False,
                soft_wrap=True,
            )
        for problem in attrs.get("problems", []):
            console.print(f"  note: {problem['where']}: {problem['message']}", markup=False)
