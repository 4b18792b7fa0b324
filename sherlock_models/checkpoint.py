"""Sharded checkpoints that are whole or absent, with `best` and `last` as different names.

`RUN/checkpoints/step-N/` is a torch distributed checkpoint in safetensors: every rank writes its
shards, any number of ranks reads them. torch's stock reader unpickles a `.metadata` file, which
whoever made the folder could have filled with code; nothing here ever unpickles a file.
`index.json` beside them says which is `best` and which is `last`.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.distributed.checkpoint.state_dict_saver import save as save_shards

from sherlock_data.errors import SherlockError
from sherlock_models.parallel import World

#: bytes of a file that holds more than one tensor; writing takes twice as much memory, or twice the
#: largest tensor
FILE_BYTES = 256 * 2**20
INDEX, STEP = "index.json", "step.json"
_READABLE = (".safetensors", ".json")
_FAILURES = (CheckpointException, SafetensorError, RuntimeError, ValueError, KeyError, OSError)


class CheckpointError(SherlockError):
    """A checkpoint is missing, damaged, of another model, or cannot be written."""


@dataclass
class Index:
    """Which checkpoints a run has.

    Attributes
    ----------
    last, best : int or None
        Their steps.
    best_loss : float or None
        Validation loss of the best.
    """

    last: int | None = None
    best: int | None = None
    best_loss: float | None = None


def read_index(folder: Path) -> Index:
    """Read `index.json` of a checkpoints folder; empty where there is none."""
    path = folder / INDEX
    if not path.is_file():
        return Index()
    try:
        return Index(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise CheckpointError(
            "cannot be read", where=path, remedy="restore it, naming `last` and `best` steps"
        ) from None


def find(folder: Path, which: str) -> Path:
    """Return the folder of the `best` or `last` checkpoint.

    Raises
    ------
    CheckpointError
        If the run has none yet, or it has gone.
    """
    index = read_index(folder)
    step = {"best": index.best, "last": index.last}[which]
    if step is None and which == "best":
        step = index.last  # stopped before its first validation
    if step is None:
        raise CheckpointError(
            "no checkpoint yet", where=folder, remedy="let the run reach its first validation"
        )
    path = step_folder(folder, step)
    if not path.is_dir():
        raise CheckpointError("is gone", where=path, remedy="train again")
    return path


def step_folder(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint after `step` steps."""
    return folder / f"step-{step}"


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: dict[str, Tensor],
    world: World,
    *,
    better: float | None = None,
    keep: int = 1,
) -> Path:
    """Write a checkpoint under another name, rename it when it is whole, and thin out old ones.

    Parameters
    ----------
    folder : Path
        `RUN/checkpoints`.
    step : int
        Steps done.
    model, optimizer
        Sharded or not.
    extra : dict of Tensor
        Further state, the same on every rank.
    world : World
    better : float, optional
        Validation loss, when this is the best so far.
    keep : int
        How many to keep beside `best` and `last`.

    Raises
    ------
    CheckpointError
        If it cannot be written; the ones before are as they were.
    """
    target, temporary = step_folder(folder, step), folder / f".writing-{step}"
    if world.main:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    world.barrier()
    try:
        state = _state(model, optimizer, extra)
        writer = HuggingFaceStorageWriter(
            str(temporary), fqn_to_index_mapping=_files(state), save_distributed=True
        )
        save_shards(state, storage_writer=writer)
    except _FAILURES as error:
        if world.main:
            shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"cannot be written ({_first_line(error)})",
            where=target,
            remedy="make room, then --resume: the checkpoints before it are whole",
        ) from error
    if world.main:
        (temporary / STEP).write_text(json.dumps({"step": step}), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        index = read_index(folder)
        index.last = step
        if better is not None:
            index.best, index.best_loss = step, better
        _write_index(folder, index)
        _thin(folder, index, keep)
    world.barrier()
    return target


def load(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: dict[str, Tensor],
    alone: bool = False,
) -> int:
    """Read a checkpoint in place, whatever the number of ranks that wrote it.

    Returns
    -------
    int
        Steps done.

    Raises
    ------
    CheckpointError
        If it is damaged, of another model, or holds a file that would have to be unpickled.
    """
    state = _state(model, optimizer, extra)
    _read(path, state, alone)
    nested = get_optimizer_state_dict(model, optimizer)
    for name, values in _moments(nested).items():
        for key in values:
            values[key] = state[f"optimizer.{name}.{key}"]
    set_optimizer_state_dict(model, optimizer, nested)
    try:
        return int(json.loads((path / STEP).read_text(encoding="utf-8"))["step"])
    except (ValueError, KeyError, OSError):
        raise CheckpointError(f"no {STEP}", where=path) from None


def load_model(path: Path, model: nn.Module) -> None:
    """Read the model's weights alone, in one process, from a checkpoint of any number of ranks."""
    _read(path, _model_state(model), alone=True)


def _state(
    model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Tensor]
) -> dict[str, Any]:
    """Everything that is a tensor, flat; the rest follows from the configuration and the step."""
    state = _model_state(model)
    for name, values in _moments(get_optimizer_state_dict(model, optimizer)).items():
        for key, value in values.items():
            state[f"optimizer.{name}.{key}"] = value
    return state | {f"extra.{name}": value for name, value in extra.items()}


def _files(state: Mapping[str, Any]) -> dict[str, int]:
    """Say which file each tensor goes to, from 1: safetensors copies a whole file in memory."""
    files, number, held = {}, 1, 0
    for name, value in state.items():
        size = value.numel() * value.element_size()
        if held and held + size > FILE_BYTES:
            number, held = number + 1, 0
        files[name] = number
        held += size
    return files


def _moments(nested: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return AdamW's state by the parameter's name: `step`, `exp_avg`, `exp_avg_sq`."""
    return cast("dict[str, dict[str, Any]]", nested["state"])


def _model_state(model: nn.Module) -> dict[str, Any]:
    return {f"model.{name}": value for name, value in model.state_dict().items()}


def _read(path: Path, state: dict[str, Any], alone: bool) -> None:
    strange = [f.name for f in path.iterdir() if f.suffix not in _READABLE]
    if strange:
        raise CheckpointError(
            f"holds {', '.join(sorted(strange))}, which is no safetensors and is never unpickled",
            where=path,
            remedy="use a checkpoint that sherlock-train wrote",
        )
    try:
        with _one_process_is_fine():
            load_shards(state, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=alone)
    except _FAILURES as error:
        raise CheckpointError(
            f"does not fit this model or is damaged ({_first_line(error)})",
            where=path,
            remedy="use the configuration it was trained with, or an earlier checkpoint",
        ) from error


def _first_line(error: BaseException) -> str:
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _one_process_is_fine() -> Iterator[None]:
    """Silence torch, which warns every time of reading in one process; here it is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _write_index(folder: Path, index: Index) -> None:
    temporary = folder / f"{INDEX}.tmp"
    temporary.write_text(json.dumps(asdict(index)), encoding="utf-8")
    temporary.replace(folder / INDEX)


def _thin(folder: Path, index: Index, keep: int) -> None:
    """Delete what is neither `best` nor `last` nor among the `keep` newest others."""
    steps = sorted((int(p.name.removeprefix("step-")) for p in folder.glob("step-*")), reverse=True)
    others = [step for step in steps if step not in (index.best, index.last)]
    for step in others[keep:]:
        shutil.rmtree(step_folder(folder, step))
    for left in folder.glob(".writing-*"):
        shutil.rmtree(left, ignore_errors=True)
