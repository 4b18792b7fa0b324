"""The whole way on a tiny dataset, in this process or as commands, and what it leaves as values.

Two subjects of 96 volumes with a movie become every kind of store but frames; a dense model of a
few units is trained, evaluated, lesioned and decoded. All of it has one right result on one
machine: every value must be that of an undisturbed way, bit by bit.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml
from damage_stores import make_raw
from numpy.typing import NDArray

import sherlock_data as sd
from sherlock_data.build import Options, build
from sherlock_data.catalog import load_catalog
from sherlock_data.errors import SherlockError, StoreError
from sherlock_data.scan import resolve
from sherlock_data.verify import verify

DATASET, ENTRY = "tiny", "toy"
NAMES = ("volumes", "voxels", "grey", "coarse", "parcels", "pca")
NAMES += ("stimulus", "annotations", "features")
VOLUMES = 96
STEPS, EVERY, BATCH = 24, 6, 8
STAGES = ("build", "verify", "train", "resume", "evaluate", "lesion", "decode")
MODELS = {
    ENTRY: {
        "architecture": "dense",
        "brain": "voxels",
        "stimulus": ["video", "audio"],
        "hidden": [12],
    }
}
EVALUATION, EFFECTS, FILM = ("evaluation.json", "evaluation.zarr"), "lesions.zarr", "film.mp4"

Values = dict[str, NDArray[Any]]


class WrongError(Exception):
    """A stage did not do what it is for."""


def prepare(raw: Path) -> None:
    """Write the raw files, and a catalogue with a zoo entry of a few units."""
    document = make_raw(raw, VOLUMES)
    (raw / "catalog.yaml").write_text(yaml.safe_dump({**document, "models": MODELS}))


@dataclass(frozen=True)
class Way:
    """Where one round's files are.

    Attributes
    ----------
    raw : Path
        Raw files, the same for every round.
    folder : Path
        Everything that the round makes.
    """

    raw: Path
    folder: Path

    @property
    def stores(self) -> Path:
        """Folder of the dataset's stores."""
        return self.folder / "stores" / DATASET

    @property
    def run(self) -> Path:
        """Folder of the training."""
        return self.folder / "run"

    def words(self, stage: str, ranks: int = 1) -> list[str]:
        """Return the command of a stage, as it is typed."""
        catalog = ["--catalog", str(self.raw / "catalog.yaml")]
        run, processes = str(self.run), ["--processes", str(ranks)]
        training = ["--steps", str(STEPS), "--batch-size", str(BATCH)]
        training += ["--set", f"validate_every={EVERY}", *catalog]
        train = ["--data", str(self.stores), "--out", run, *training, *processes]
        film = [str(self.raw / "movie.mkv"), str(self.folder / FILM), "--overwrite"]
        out = ["--out", str(self.folder / "stores"), "--workers", "2"]
        return {
            "build": ["sherlock-data", "build", DATASET, *NAMES, *catalog, *out],
            "verify": ["sherlock-data", "verify", str(self.stores)],
            "train": ["sherlock-train", ENTRY, *train],
            "resume": ["sherlock-train", "--resume", run, *processes],
            "evaluate": ["sherlock-models", "evaluate", run],
            "lesion": ["sherlock-models", "lesion", run],
            "decode": ["sherlock-models", "decode", run, *film],
        }[stage]

    def remove(self) -> None:
        """Remove everything that the round made."""
        shutil.rmtree(self.folder)


class Interrupted(Exception):  # noqa: N818 - what a notebook's stop button does, no error
    """Ends a training between two steps."""


class Interrupter:
    """Watches a training, and ends it after a step."""

    def __init__(self, at: int, by_signal: bool) -> None:
        self.at, self.by_signal = at, by_signal

    def started(self, cost: object, done: int) -> None:
        """Before the first step."""

    def validated(self, step: int, values: dict[str, float], best: bool) -> None:
        """After every validation."""

    def step(self, step: int, values: dict[str, float], steps_per_s: float) -> None:
        """End it by SIGTERM, which is answered with a checkpoint, or at once."""
        if step == self.at and self.by_signal:
            os.kill(os.getpid(), signal.SIGTERM)
        elif step == self.at:
            raise Interrupted


def in_process(way: Way, stage: str, at: int, by_signal: bool) -> None:
    """Do one stage through the Python API.

    Parameters
    ----------
    way : Way
    stage : str
    at : int
        Step after which the training is interrupted, to be resumed.
    by_signal : bool
        By a SIGTERM to this process, or by an exception.

    Raises
    ------
    WrongError
        If `verify` finds anything, or the training does not end as it was told to.
    """
    from sherlock_models.film.decoded_movie import decode
    from sherlock_models.lesions import lesion_store
    from sherlock_models.lesions.lesion import lesion
    from sherlock_models.run import load
    from sherlock_models.scoring.evaluate import evaluate

    if stage == "build":
        catalog = load_catalog(way.raw / "catalog.yaml")
        scan = resolve(DATASET, catalog.dataset(DATASET), way.raw)
        build(scan, catalog, way.folder / "stores", NAMES, Options(workers=2))
    elif stage == "verify":
        _whole(verify(way.stores))
    elif stage == "train":
        _train(way, at, by_signal)
    elif stage == "resume":
        _resume(way)
    elif stage == "evaluate":
        evaluate(load(way.run))
    elif stage == "lesion":
        opened = load(way.run)
        lesion_store.save(opened, lesion(opened, "parcels"))
    else:
        decode(load(way.run), way.folder / FILM, way.raw / "movie.mkv", overwrite=True)


def _whole(rows: list[dict[str, Any]]) -> None:
    if rows:
        raise WrongError(f"verify found {len(rows)} damaged objects, as {rows[0]}")


def _train(way: Way, at: int, by_signal: bool) -> None:
    """Train until it is interrupted."""
    from sherlock_models.resolve import resolve as settled
    from sherlock_models.training.train import StoppedError, fit

    options = {"steps": STEPS, "batch_size": BATCH, "validate_every": EVERY}
    config = settled(ENTRY, way.stores, catalog=way.raw / "catalog.yaml", options=options)
    try:
        fit(config, way.run, device="cpu", progress=Interrupter(at, by_signal))
    except (StoppedError, Interrupted):
        return
    raise WrongError(f"a training that was interrupted after step {at} went on to its end")


def _resume(way: Way) -> None:
    from sherlock_models.run import load
    from sherlock_models.training.train import fit

    state = fit(load(way.run).config, way.run, resume=True, device="cpu").state
    if state != "finished":
        raise WrongError(f"a resumed training is {state}")


def values_of(way: Way) -> Values:
    """Read everything that a whole way leaves, by name."""
    found: Values = {}
    for name in NAMES:
        found |= store_values(way, name)
    return found | run_values(way) | results(way)


def store_values(way: Way, name: str) -> Values:
    """Read every variable of a store; nothing where it does not open."""
    try:
        with sd.open(way.stores / f"{name}.zarr") as opened:
            return _of_dataset(f"store/{name}", opened)
    except StoreError:
        return {}


def _of_dataset(prefix: str, data: xr.Dataset) -> Values:
    return {f"{prefix}/{name}": _plain(v.values) for name, v in data.variables.items()}


def _plain(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    return array.astype(object).astype(str) if array.dtype.kind in "OT" else array


def run_values(way: Way) -> Values:
    """Read the weights of the best and the last checkpoint, and every step's loss and terms."""
    from sherlock_models.run import load

    opened, found = load(way.run), {}
    for which in ("best", "last"):
        state = opened.model_at(which).state_dict()
        found |= {f"weights/{which}/{name}": value.numpy() for name, value in state.items()}
    for split in ("train", "validation"):
        lines = [line for line in opened.metrics() if line["split"] == split]
        names = sorted({key for line in lines for key in line} - {"split"})
        for name in names:
            found[f"metrics/{split}/{name}"] = np.array([line.get(name) for line in lines], float)
    return found


def half_written(way: Way, wanted: Values) -> list[str]:
    """Name what a killed command left under its final name that is not whole.

    A store opens only when it is whole, a checkpoint that the index names can be read, and what
    evaluate, lesion and decode write is there with all its values or not at all.
    """
    from sherlock_models.run import CHECKPOINTS, Run
    from sherlock_models.training import checkpoint

    found: Values = {}
    for name in NAMES:
        found |= store_values(way, name)
    found |= results(way)
    groups = {_group(name) for name in found}
    expected = {name: value for name, value in wanted.items() if _group(name) in groups}
    half = sorted({_group(name) for name in differing(found, expected)})
    folder = way.run / CHECKPOINTS
    if folder.is_dir() and checkpoint.read_index(folder).last is not None:
        for which in ("best", "last"):
            try:
                Run(way.run).model_at(which)
            except SherlockError as error:
                half.append(f"checkpoint {which}: {error}")
    return half


def _group(name: str) -> str:
    """Name the store, file or folder that a value is of."""
    first, second = name.split("/")[:2]
    return f"{first}/{second}" if first == "store" else first


def results(way: Way) -> Values:
    """Read what evaluate, lesion and decode wrote, whatever is there of it."""
    found: Values = {}
    if (way.run / EVALUATION[0]).exists():
        document = json.loads((way.run / EVALUATION[0]).read_text())
        document.pop("run")
        found["evaluation/json"] = np.array(json.dumps(document, sort_keys=True))
    for name in (EVALUATION[1], EFFECTS):
        if (way.run / name).exists():
            with xr.open_zarr(way.run / name) as opened:
                found |= _of_dataset(name, opened)
    if (way.folder / FILM).exists():
        digest = sha256((way.folder / FILM).read_bytes()).hexdigest()
        found["film/sha256"] = np.array(digest)
    return found


def differing(found: Values, wanted: Values) -> list[str]:
    """Name every value that is missing, is not wanted, or is not the same bit by bit."""
    return sorted(
        name
        for name in found.keys() | wanted.keys()
        if name not in found or name not in wanted or not _same(found[name], wanted[name])
    )


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))


def files_of(way: Way) -> set[str]:
    """Name every file of a way; checkpoints of any step, and logs of any process, by one name."""
    found = (path.relative_to(way.folder) for path in way.folder.rglob("*") if path.is_file())
    return {"/".join(_without_number(part) for part in path.parts) for path in found}


def _without_number(part: str) -> str:
    for start in ("step-", "events.out.tfevents."):
        if part.startswith(start):
            return f"{start}N"
    return part
