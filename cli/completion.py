"""What a shell offers after Tab: names of the catalogue, stores, runs, settings, units, subjects.

Whoever presses Tab waits: the catalogue is read without being checked, and nothing here loads torch
or xarray. What cannot be read is not offered and not reported either: a shell shows no errors here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from glob import escape
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

#: ends the name of a store's folder, and the file whose appearance completes it: as in
#: `sherlock_data.contract` and `sherlock_data.objects`, which take a second to import
ENDING, COMPLETE = ".zarr", "zarr.json"
CONFIG = "config.yaml"
#: ways to name all units of a kind, as in `sherlock_models.lesions.units`
UNITS = ("parcels", "networks", "components")
#: folders that are looked at for one Tab
MOST_FOLDERS = 2000

Offer = list[CompletionItem]


def entries(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Zoo entries."""
    return _matching(_catalog(context)["models"], typed)


def datasets(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Datasets of the catalogue."""
    return _matching(_catalog(context)["datasets"], typed)


def datasets_or_files(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Datasets where nothing was named yet, then files."""
    named = () if _given(context, "targets") else _catalog(context)["datasets"]
    return _matching(named, typed) or [CompletionItem(typed, type="file")]


def stores(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Recipes of the dataset that is named before, but for those named already."""
    catalog = _catalog(context)
    dataset = catalog["datasets"].get(_given(context, "dataset") or "")
    own = dataset.get("stores") if isinstance(dataset, dict) else None
    known = dict.fromkeys([*catalog["stores"], *(own if isinstance(own, dict) else ())])
    given = _given(context, "stores") or ()
    return _matching([name for name in known if name not in given], typed)


def runs(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Folders that `sherlock-train` made."""
    return _folders(typed, lambda folder: (folder / CONFIG).is_file())


def dataset_folders(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Folders of stores."""
    return _folders(typed, _holds_stores)


def store_folders(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Stores."""
    return _folders(typed, _is_store)


def stores_or_datasets(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Stores, and folders of stores."""
    return _folders(typed, lambda folder: _is_store(folder) or _holds_stores(folder))


def folders(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Any folder."""
    return [CompletionItem(typed, type="dir")]


def machines(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Accelerators that `plan` knows."""
    from sherlock_models.planning.machines import CPU, MACHINES

    return _matching([*MACHINES, CPU], typed)


def settings(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Settings with their default, or with each of their values; then the entry's own."""
    from sherlock_models.config import RESOLVED, RunConfig

    offered = []
    for name, field in RunConfig.model_fields.items():
        if name not in RESOLVED:
            values = _choices(field.annotation) or [_plain(field.get_default())]
            offered += [f"{name}={value}" for value in values]
    own = _catalog(context)["models"].get(_given(context, "entry") or "")
    for key, value in own.items() if isinstance(own, dict) else ():
        if key not in RunConfig.model_fields and key not in ("claimed", "sizes"):
            offered.append(f"{key}={_plain(value)}")
    return _matching(offered, typed)


def units(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Kinds of units, then the parcels and networks of the run; the last of several with commas."""
    before, comma, last = typed.rpartition(",")
    kinds = () if comma or option.name != "units" else UNITS
    known = [*kinds, *_labels(context, "parcels", "network"), *_labels(context, "parcels")]
    found = [f"{before}{comma}{name}" for name in known if name.startswith(last)]
    return _matching(found, typed) or [CompletionItem(typed, type="file")]


def subjects(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Subjects of the store that is named, or of the run's brain."""
    store = _given(context, "store")
    if store is not None:
        return _matching(_values(Path(store) / "subject"), typed)
    return _matching(_labels(context, None, "subject"), typed)


def scan_runs(context: click.Context, option: click.Parameter, typed: str) -> Offer:
    """Runs of the store that is named."""
    store = _given(context, "store")
    return _matching(_values(Path(store) / "run") if store is not None else (), typed)


def _given(context: click.Context, name: str) -> Any:
    """Value of a parameter that was typed before; None where it was not.

    Where the value of an option is asked for, click has put no argument into its place yet.
    """
    if context.params.get(name):
        return context.params[name]
    places = [p.name for p in context.command.params if isinstance(p, click.Argument)]
    at = places.index(name) if name in places else len(context.args)
    return context.args[at] if at < len(context.args) else None


def _matching(names: Iterable[object], typed: str) -> Offer:
    # a number for a name is refused by the command, not by a Tab
    found = dict.fromkeys(n for n in names if isinstance(n, str) and n.startswith(typed))
    return [CompletionItem(name) for name in found]


def _catalog(context: click.Context) -> dict[str, dict[str, Any]]:
    """Sections of the packaged catalogue, with those of `--catalog` laid over."""
    document = _mapping((resources.files("sherlock_data") / "catalog.yaml").read_text("utf-8"))
    overlay = _read(_given(context, "catalog"))
    sections = ("datasets", "stores", "models")
    return {key: {**_section(document, key), **_section(overlay, key)} for key in sections}


def _section(document: dict[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _read(path: str | Path | None) -> dict[str, Any]:
    """Read a YAML file; nothing of one that is not there, or cannot be read."""
    try:
        if path is None or not Path(path).is_file():  # a pipe would be waited for
            return {}
        return _mapping(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _mapping(text: str) -> dict[str, Any]:
    from sherlock_data.plain_yaml import read_yaml

    found = read_yaml(text)
    return found if isinstance(found, dict) else {}


def _folders(typed: str, wanted: Callable[[Path], bool]) -> Offer:
    """Folders at what is typed or one below that are wanted; any, where there is none."""
    if "://" in typed:
        return []
    before = typed[: typed.rfind("/") + 1]
    try:
        found = [f"{before}{at}" for at in _below(Path(before), typed[len(before) :], wanted)]
    except OSError:
        found = []
    return [CompletionItem(name) for name in found] or [CompletionItem(typed, type="dir")]


def _below(start: Path, name: str, wanted: Callable[[Path], bool]) -> Iterator[str]:
    like = f"{escape(name)}*"
    looked_at = itertools.chain(start.glob(like), start.glob(f"{like}/*"))
    for folder in sorted(itertools.islice(looked_at, MOST_FOLDERS)):
        if folder.is_dir() and wanted(folder):
            yield folder.relative_to(start).as_posix()


def _is_store(folder: Path) -> bool:
    return folder.suffix == ENDING and (folder / COMPLETE).is_file()


def _holds_stores(folder: Path) -> bool:
    return any(folder.glob(f"*{ENDING}/{COMPLETE}"))


def _labels(context: click.Context, store: str | None, name: str = "parcel") -> list[str]:
    """Labels of a store beside a run's brain, or of its brain (store None)."""
    run = _given(context, "run")
    config = _read(Path(run) / CONFIG) if run is not None else {}
    folder = Path(str(config.get("data", ""))) / f"{store or config.get('brain')}{ENDING}"
    return _values(folder / name)


def _values(path: Path) -> list[str]:
    """Different values of a small array of text, in order; none where it cannot be read."""
    try:
        if not (path / COMPLETE).is_file():
            return []
        import zarr

        return list(dict.fromkeys(str(v) for v in zarr.open_array(path, mode="r")[:]))
    except Exception:  # noqa: BLE001 - of a damaged store nothing is offered
        return []


def _choices(annotation: Any) -> list[str]:
    """Return the values of a setting that has but a few."""
    if annotation is bool:
        return ["true", "false"]
    return list(get_args(annotation)) if get_origin(annotation) is Literal else []


def _plain(value: Any) -> str:
    """Return a value as `--set` reads it back; nothing where it has none."""
    if isinstance(value, list | tuple):
        return ",".join(_plain(item) for item in value)
    return "" if value is None or not isinstance(value, str | int | float) else str(value)
