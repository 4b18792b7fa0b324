"""Sharded checkpoints: which a run has, and reading them; `saving` writes them.

`RUN/checkpoints/step-N/` is a torch distributed checkpoint in safetensors: every rank writes its
shards, any number of ranks reads them. torch's stock reader unpickles a `.metadata` file, which
whoever made the folder could have filled with code; nothing here ever unpickles a file.
`step.json` beside the shards holds a CRC-32C of each, compared before anything is read;
`index.json` beside the checkpoints says which is `best` and which is `last`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import google_crc32c
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_shards

from sherlock_data.errors import SherlockError
from sherlock_models.parallel import World

INDEX, STEP = "index.json", "step.json"
#: bytes that are read at once for a checksum
_PIECE = 16 * 2**20
_READABLE = (".safetensors", ".json")
#: what says that a checkpoint cannot be read or written. torch gathers what went wrong on a rank in
#: the first; a RuntimeError beside it is a collective's: a rank was lost, and is started again
FAILURES = (CheckpointException, SafetensorError, ValueError, KeyError, OSError)


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
        index = Index(**json.loads(path.read_text(encoding="utf-8")))
        if not all(step is None or type(step) is int for step in (index.last, index.best)):
            raise ValueError("steps are whole numbers")  # they name folders
        return index
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


def load(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: dict[str, Tensor],
    world: World,
) -> int:
    """Read a checkpoint in place, whatever the number of ranks that wrote it.

    Parameters
    ----------
    path : Path
        `RUN/checkpoints/step-N`.
    model, optimizer
        Sharded or not, without DDP's wrapper.
    extra : dict of Tensor
        Further state, written into.
    world : World
        Every rank must ask for it.

    Returns
    -------
    int
        Steps done.

    Raises
    ------
    CheckpointError
        If it is damaged, of another model, or holds a file that would have to be unpickled.
    """
    state = tensors(model, optimizer, extra)
    done = _read(path, state, world)
    nested = get_optimizer_state_dict(model, optimizer)
    for name, values in _moments(nested).items():
        for key in values:
            values[key] = state[f"optimizer.{name}.{key}"]
    set_optimizer_state_dict(model, optimizer, nested)
    return done


def load_model(path: Path, model: nn.Module) -> None:
    """Read the model's weights alone, in one process, from a checkpoint of any number of ranks."""
    _read(path, _model_state(model), None)


def tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Tensor]
) -> dict[str, Any]:
    """Everything that is a tensor, flat; the rest follows from the configuration and the step."""
    state = _model_state(model)
    for name, values in _moments(get_optimizer_state_dict(model, optimizer)).items():
        for key, value in values.items():
            state[f"optimizer.{name}.{key}"] = value
    return state | {f"extra.{name}": value for name, value in extra.items()}


def _moments(nested: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return AdamW's state by the parameter's name: `step`, `exp_avg`, `exp_avg_sq`."""
    return cast("dict[str, dict[str, Any]]", nested["state"])


def _model_state(model: nn.Module) -> dict[str, Any]:
    return {f"model.{name}": value for name, value in model.state_dict().items()}


def checksum(path: Path) -> int:
    """CRC-32C of a file."""
    whole = google_crc32c.Checksum()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            whole.update(piece)
    return int.from_bytes(whole.digest(), "big")


def _read(path: Path, state: dict[str, Any], world: World | None) -> int:
    """Read into `state` what has been found whole; returns the steps done."""
    document = _document(path)
    problem = _problem(path, document, world)
    # one rank's finding is every rank's: nobody goes on to wait for the others
    problems = [problem] if world is None else world.agree(problem)
    if any(problems):
        raise CheckpointError(
            str(next(filter(None, problems))),
            where=path,
            remedy="use another checkpoint that sherlock-train wrote",
        )
    try:
        reader = HuggingFaceStorageReader(str(path))
        with _one_process_is_fine():
            load_shards(state, storage_reader=reader, no_dist=world is None)
    except FAILURES as error:
        raise CheckpointError(
            f"does not fit this model or is damaged ({first_line(error)})",
            where=path,
            remedy="use the configuration it was trained with, or an earlier checkpoint",
        ) from error
    return int(document["step"])


def _document(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((path / STEP).read_text(encoding="utf-8"))
        return {"step": int(document["step"]), "crc32c": dict(document["crc32c"])}
    except (ValueError, TypeError, KeyError, OSError):
        raise CheckpointError(
            f"no {STEP} that can be read", where=path, remedy="use another checkpoint"
        ) from None


def _problem(path: Path, document: dict[str, Any], world: World | None) -> str | None:
    """Compare what is there with what was written; the ranks share the files among them."""
    there = {file.name for file in path.iterdir()}
    written: dict[str, int] = document["crc32c"]
    strange = sorted(name for name in there if Path(name).suffix not in _READABLE)
    if strange:
        return f"holds {', '.join(strange)}, which is no safetensors and is never unpickled"
    if lacking := sorted(set(written) - there):
        return f"is damaged: lacks {', '.join(lacking)}"
    if added := sorted(there - set(written) - {STEP}):
        return f"is damaged: {', '.join(added)} was not written with it"
    first, every = (world.rank, world.size) if world else (0, 1)
    for name in sorted(written)[first::every]:
        if checksum(path / name) != written[name]:
            return f"is damaged: the bytes of {name} are not those that were written"
    return None


def first_line(error: BaseException) -> str:
    """Return what went wrong, of the first rank where several failed."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _one_process_is_fine() -> Iterator[None]:
    """Silence torch, which warns every time of reading in one process; here it is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
