"""``features``: pretrained features of the movie, one variable per extractor.

``<extractor> (time, <extractor>_feature)`` float32, NaN where there is none, with
``has_<extractor> (time)``; ``has_stimulus (time)`` is True where any extractor has a value. Each
variable says which network gave it, the SHA-256 of its weights, the layer and the sampling. One
part per extractor, so that a build that was stopped repeats no finished one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sherlock_data.catalog import Catalog
from sherlock_data.contract import SHARD_TRS, strings, time_coords
from sherlock_data.errors import ConfigError, UnavailableError
from sherlock_data.extractors import ExtractorEntry
from sherlock_data.plan import ArraySpec, Part, Results, StorePlan
from sherlock_data.provenance import describe_file, scan_attrs, sha256_of
from sherlock_data.recipes import FeaturesRecipe
from sherlock_data.scan import Scan
from sherlock_data.stimulus.arrays import TrArray, read_array
from sherlock_data.stimulus.sampling import TrMean, average, sampled_frames, sound_patches
from sherlock_data.stimulus.stimulus_store import RunMovie, name_of, problems, run_movies
from sherlock_data.stimulus.texts import Texts, read_texts, text_means
from sherlock_data.stimulus.video import is_covered
from sherlock_data.stimulus.weights import Weights, locate
from sherlock_data.store import open_array
from sherlock_data.timing import Clock

#: what torch, a batch and its activations hold, beside the weights
WORKING_BYTES = 1 << 30
#: work of one picture, patch or text, in pictures
WORK = {"image": 1.0, "audio": 1.0, "text": 0.1}
COVERED_KEY = "covered"


@dataclass(frozen=True)
class NetworkPart:
    """One pretrained network over all runs."""

    name: str
    entry: ExtractorEntry
    weights: Weights
    clock: Clock
    runs: tuple[RunMovie, ...]
    texts: Texts | None

    @property
    def weight(self) -> float:
        """Pictures, patches or texts to read."""
        if self.texts is not None:
            return len(self.texts.distinct) * WORK["text"]
        seconds = sum(float(run.edges[-1] - run.edges[0]) for run in self.runs)
        return seconds * sampling_rate(self.entry, self.runs) * WORK[str(self.entry.modality)]

    def run(self, path: str, report: Callable[[float], None]) -> Results:
        """Write the variable; return ``covered`` (time,)."""
        from sherlock_data.stimulus import pretrained

        network = pretrained.load(self.name, self.entry, self.weights)
        if self.texts is not None:
            values, covered = text_means(self.texts, network, self.clock, report)
        else:
            shape = (self.clock.volumes, int(self.entry.features or 0))
            values, covered = np.full(shape, np.nan, np.float32), np.zeros(shape[0], bool)
            for done, run in enumerate(self.runs):
                place = slice(run.first_tr, run.first_tr + len(run.edges) - 1)
                share = partial(_of_run, report, done, len(self.runs))
                values[place], covered[place] = _run_means(self.entry, network, run, share)
        open_array(path, self.name)[:] = values
        report(1.0)
        return {COVERED_KEY: covered}


@dataclass(frozen=True)
class ArrayPart:
    """One array that the user brings."""

    name: str
    array: TrArray
    volumes: int
    weight: float = 1.0

    def run(self, path: str, report: Callable[[float], None]) -> Results:
        """Write the variable; return ``covered`` (time,)."""
        values = self.array.values(self.volumes)
        open_array(path, self.name)[:] = values
        report(1.0)
        return {COVERED_KEY: np.asarray(np.isfinite(values).all(axis=1))}


def _of_run(report: Callable[[float], None], done: int, runs: int, fraction: float) -> None:
    report((done + fraction) / runs)


def _run_means(
    entry: ExtractorEntry, network: Any, run: RunMovie, report: Callable[[float], None]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mean features (TR, feature) of a run's movie, and which TRs it covers."""
    start_s, end_s = float(run.edges[0]), float(run.edges[-1])
    if entry.modality == "image":
        pieces = sampled_frames(run.movie, entry.frames_per_s, start_s, end_s)
    else:
        pieces = sound_patches(
            run.movie, network.sample_rate, network.window, network.hop, start_s, end_s
        )
    mean = TrMean(run.edges, network.features)
    average(pieces, network, mean, report)
    # the stimulus store's rule of when a movie shows a TR
    covered = [is_covered(s, run.tr_s, run.movie.frame_rate) for s in mean.covered]
    values, some = mean.mean(0.0)
    values[~np.array(covered)] = np.nan
    return values, np.asarray(some & covered, dtype=np.bool_)


def sampling_rate(entry: ExtractorEntry, runs: tuple[RunMovie, ...]) -> float:
    """Vectors per second of movie: no more frames than the movie has."""
    if entry.modality == "audio":
        return 1 / entry.window_s
    return min([entry.frames_per_s, *(float(run.movie.frame_rate) for run in runs)])


def plan(scan: Scan, recipe: FeaturesRecipe, path: Path, catalog: Catalog) -> StorePlan:
    """Plan a features store: find the weights, movies, texts and arrays; load no network.

    Parameters
    ----------
    scan : Scan
    recipe : FeaturesRecipe
    path : Path
        The store.
    catalog : Catalog

    Returns
    -------
    StorePlan

    Raises
    ------
    UnavailableError
        If a network's package or weights, a movie, the annotations or an array are not there.
    InputError
        If one of them is damaged, or an array's clock is not the scan's.
    """
    if not recipe.names:
        raise UnavailableError("no extractor is named", where=f"{scan.dataset}: {path.stem}")
    entries = {name: _entry(name, recipe, catalog) for name in recipe.names}
    plans = {name: _plan_one(name, entry, recipe, scan) for name, entry in entries.items()}
    attrs = scan_attrs(scan, recipe, path)
    attrs["recipe"]["settings"] = {name: one.settings for name, one in plans.items()}
    coords = xr.Dataset(coords=time_coords(scan.clock))
    inputs: dict[str, dict[str, Any]] = {}
    for name, one in plans.items():
        inputs |= {item["name"]: item for item in one.inputs}
        if one.names is not None:
            coords[f"{name}_feature"] = strings(f"{name}_feature", one.names)
            coords = coords.set_coords(f"{name}_feature")
    found = {(p["code"], p["where"]): p for one in plans.values() for p in one.problems}
    heaviest = max(one.memory_bytes for one in plans.values())
    return StorePlan(
        path=path,
        attrs=attrs,
        inputs=list(inputs.values()),
        coords=coords,
        arrays={name: one.spec for name, one in plans.items()},
        parts=[one.part for one in plans.values()],
        finish=_finish,
        memory_bytes=heaviest,
        problems=list(found.values()),
    )


@dataclass(frozen=True)
class _One:
    """What the plan of one variable comes to."""

    part: Part
    spec: ArraySpec
    inputs: list[dict[str, Any]]
    settings: dict[str, Any]
    names: tuple[str, ...] | None
    memory_bytes: int
    problems: list[dict[str, str]]


def _entry(name: str, recipe: FeaturesRecipe, catalog: Catalog) -> ExtractorEntry:
    if name not in recipe.extractors:
        return ExtractorEntry(source="array")
    entry = catalog.extractor(name)
    if name in recipe.files and entry.source != "array":
        raise ConfigError(
            f"extractor {name} is a network ({entry.source}), not an array",
            where="files",
            remedy="give the array a name of its own",
        )
    return entry


def _plan_one(name: str, entry: ExtractorEntry, recipe: FeaturesRecipe, scan: Scan) -> _One:
    if entry.source == "array":
        return _plan_array(name, entry, recipe, scan)
    return _plan_network(name, entry, scan)


def _plan_array(name: str, entry: ExtractorEntry, recipe: FeaturesRecipe, scan: Scan) -> _One:
    file = scan.raw / recipe.files[name] if name in recipe.files else entry.file
    if file is None:
        raise UnavailableError(
            "no file is named",
            where=f"extractor {name}",
            remedy="give `file`, or the store's `files`",
        )
    array, volumes = read_array(file, scan.clock), scan.clock.volumes
    hashes = {path: sha256_of(path) for path in (array.file, array.clock_file)}
    attrs = {
        "long_name": f"{file.name}, brought by the user",
        "units": array.units,
        "source": "array",
        "file": file.name,
        "sha256": hashes[file],
    }
    return _One(
        ArrayPart(name, array, volumes),
        _spec(name, volumes, array.features, attrs),
        [
            {**describe_file(path, f"{name}/{path.name}"), "sha256": digest}
            for path, digest in hashes.items()
        ],
        {"source": "array", "sha256": hashes[file]},
        array.names,
        2 * volumes * array.features * 4,
        [],
    )


def _plan_network(name: str, entry: ExtractorEntry, scan: Scan) -> _One:
    weights = locate(name, entry, scan.raw)
    texts = read_texts(entry, scan) if entry.modality == "text" else None
    runs = () if texts is not None else run_movies(scan)
    found = problems(runs)
    if entry.modality == "audio":
        runs = tuple(run for run in runs if run.movie.has_audio)
        if not runs:
            raise UnavailableError(f"extractor {name} hears nothing: no movie has sound")
    inputs = [
        {**describe_file(file, f"{name}/{file.name}"), "sha256": weights.sha256[file.name]}
        for file in weights.files
    ]
    inputs += [
        {**describe_file(run.movie.path, name_of(scan, run.movie.path)), "sha256": run.movie.sha256}
        for run in runs
    ]
    if texts is not None:
        inputs.append(
            {**describe_file(texts.file, texts.file.name), "sha256": sha256_of(texts.file)}
        )
    volumes, features = scan.clock.volumes, int(entry.features or 0)
    size = sum(file.stat().st_size for file in weights.files)
    return _One(
        NetworkPart(name, entry, weights, scan.clock, runs, texts),
        _spec(name, volumes, features, _attrs(entry, weights, runs)),
        inputs,
        # an unfinished build is resumed only on the very same weights
        {**entry.settings(), "weights_sha256": weights.describe()},
        None,
        2 * size + 4 * volumes * features * 8 + WORKING_BYTES,
        found,
    )


def _attrs(entry: ExtractorEntry, weights: Weights, runs: tuple[RunMovie, ...]) -> dict[str, Any]:
    """Say where a variable's numbers come from."""
    attrs: dict[str, Any] = {
        "long_name": f"{entry.modality} features of {entry.model}",
        "units": "1",
        "source": entry.source,
        "model": entry.model,
        "layer": "last" if entry.layer is None else entry.layer,
        "weights_sha256": weights.describe(),
        "cell_methods": "time: mean",
    }
    if entry.revision:
        attrs["revision"] = entry.revision
    if entry.source == "transformers":
        attrs |= {"pooling": entry.pooling, "normalised": int(entry.normalise)}
    if entry.modality == "text":
        return attrs | {"label": entry.label, "sampling": "one vector per annotated segment"}
    rate = sampling_rate(entry, runs)
    return attrs | {"sampling_rate_hz": rate, "sampling": _SAMPLING[str(entry.modality)]}


_SAMPLING = {
    "image": "the frame shown in the middle of every step",
    "audio": "one vector per patch, mono",
}


def _spec(name: str, volumes: int, features: int, attrs: dict[str, Any]) -> ArraySpec:
    return ArraySpec(
        dims=("time", f"{name}_feature"),
        shape=(volumes, features),
        dtype="float32",
        chunks=(min(SHARD_TRS, volumes), features),
        fill_value=float("nan"),
        attrs=attrs,
    )


def _finish(results: dict[str, Results]) -> xr.Dataset:
    covered = {name: part[COVERED_KEY].astype(bool) for name, part in results.items()}
    found = xr.Dataset()
    for name, there in covered.items():
        found[f"has_{name}"] = ("time", there, {"long_name": f"{name} has values"})
    title = {"long_name": "some extractor has values"}
    found["has_stimulus"] = ("time", np.any(list(covered.values()), axis=0), title)
    return found
