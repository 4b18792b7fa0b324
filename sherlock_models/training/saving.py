"""Writing checkpoints beside the steps: whole or absent, whatever ends the run meanwhile.

A save copies the tensors and returns; the copies are written by a thread with a process group of
its own. Where memory has no room for a copy, the steps wait instead. The folder gets its name when
every rank has written its shards, and `index.json` after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.state_dict_saver import save as save_shards
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future as TorchFuture

from sherlock_models.memory import free_memory
from sherlock_models.parallel import World
from sherlock_models.training.checkpoint import (
    FAILURES,
    INDEX,
    STEP,
    CheckpointError,
    Index,
    checksum,
    first_line,
    read_index,
    step_folder,
    tensors,
)

#: bytes of a file that holds more than one tensor; writing takes twice as much memory, or twice the
#: largest tensor
FILE_BYTES = 256 * 2**20
#: share of the free memory that the copies may take
COPY_SHARE = 0.5


class Saver:
    """Writer of a run's checkpoints; every rank must make the same calls.

    Parameters
    ----------
    world : World
    keep : int
        How many to keep beside `best` and `last`.
    """

    def __init__(self, world: World, keep: int = 1) -> None:
        self._world, self._keep = world, keep
        # collectives of a thread must not meet those of the steps
        self._group = world.side_group()
        self._writing: tuple[Path, Future[Any]] | None = None

    def save(
        self,
        folder: Path,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        extra: dict[str, Tensor],
        *,
        better: float | None = None,
    ) -> None:
        """Begin to write a checkpoint; one that is still being written is waited for.

        Parameters
        ----------
        folder : Path
            `RUN/checkpoints`.
        step : int
            Steps done.
        model, optimizer
            Sharded or not, without DDP's wrapper; may change as soon as this returns.
        extra : dict of Tensor
            Further state, the same on every rank.
        better : float, optional
            Validation loss, when this is the best so far.

        Raises
        ------
        CheckpointError
            If it, or the one before, cannot be written; those that are there stay as they were.
        """
        self.wait()
        target, temporary = step_folder(folder, step), folder / f".writing-{step}"
        problems = self._world.agree(self._cleared(temporary))
        if problems:
            raise _cannot(target, problems[0])
        state = tensors(model, optimizer, extra)

        def commit(sums: dict[str, int]) -> None:
            _commit(temporary, target, step, sums)
            _record(folder, step, better, self._keep)

        writer = _Writer(temporary, _files(state), commit)
        begin = self._beside if self._roomy(state) else self._between
        self._writing = target, begin(state, writer)

    def _cleared(self, temporary: Path) -> str | None:
        if not self._world.main:
            return None
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
        except OSError as error:
            return str(error)
        return None

    def _roomy(self, state: dict[str, Any]) -> bool:
        """Whether every rank has memory for a copy of its shards."""
        local = [getattr(value, "to_local", lambda v=value: v)() for value in state.values()]
        size = sum(value.numel() * value.element_size() for value in local)
        tight = size > free_memory() // self._world.local * COPY_SHARE
        return not self._world.agree("tight" if tight else None)

    def _between(self, state: dict[str, Any], writer: _Writer) -> Future[Any]:
        """Write while the steps wait."""
        done: Future[Any] = Future()
        try:
            save_shards(state, storage_writer=writer, process_group=self._group)
            done.set_result(None)
        except FAILURES as error:
            done.set_exception(error)
        return done

    def _beside(self, state: dict[str, Any], writer: _Writer) -> Future[Any]:
        """Copy, and write while the steps go on."""
        stager = DefaultStager(StagingOptions(False, False, False, False))
        try:
            # the writer would stage by itself, and share memory that the next step overwrites
            begun = async_save(
                state,
                storage_writer=writer,
                process_group=self._group,
                async_stager=stager,
            )
        finally:
            stager.close()
        return cast("Future[Any]", begun)

    @property
    def failed(self) -> bool:
        """Whether the checkpoint that is being written is known to have failed."""
        return bool(
            self._writing and self._writing[1].done() and self._writing[1].exception() is not None
        )

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises
        ------
        CheckpointError
            If it cannot be written; on every rank.
        """
        if self._writing is None:
            return
        (target, future), self._writing = self._writing, None
        try:
            future.result()
        except FAILURES as error:
            if self._world.main:
                shutil.rmtree(target.parent / f".writing-{target.name[5:]}", ignore_errors=True)
            raise _cannot(target, first_line(error)) from error

    def close(self) -> None:
        """Wait, where something else has already ended the run."""
        with contextlib.suppress(CheckpointError, RuntimeError):  # or the ranks are lost as well
            self.wait()


def _cannot(target: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"cannot be written ({why})",
        where=target,
        remedy="make room, then --resume: the checkpoints before it are whole",
    )


@dataclass(frozen=True)
class _Written:
    """A file of a rank, as it is told to the rank that completes the checkpoint."""

    name: str
    crc32c: int


class _Writer(HuggingFaceStorageWriter):
    """Takes a checksum of every file; completes the checkpoint when all ranks have written."""

    def __init__(
        self, folder: Path, files: dict[str, int], commit: Callable[[dict[str, int]], None]
    ) -> None:
        super().__init__(str(folder), fqn_to_index_mapping=files, save_distributed=True)
        self._folder, self._commit = folder, commit

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> TorchFuture[list[WriteResult]]:
        """Write this rank's shards."""
        results = super().write_data(plan, planner).wait()
        names = {result.storage_data.relative_path for result in results}
        written = {name: _Written(name, checksum(self._folder / name)) for name in names}
        told: TorchFuture[list[WriteResult]] = TorchFuture()
        told.set_result(
            [replace(r, storage_data=written[r.storage_data.relative_path]) for r in results]
        )
        return told

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Complete it: on one rank, when every other has written."""
        files = {result.storage_data for rank in results for result in rank}
        self._commit({file.name: file.crc32c for file in files})


def _commit(temporary: Path, target: Path, step: int, sums: dict[str, int]) -> None:
    """Give a checkpoint its name; what had it before is of the same step."""
    document = json.dumps({"step": step, "crc32c": dict(sorted(sums.items()))})
    _write(temporary / STEP, document)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    _sync(target.parent)


def _record(folder: Path, step: int, better: float | None, keep: int) -> None:
    index = read_index(folder)
    index.last = step
    if better is not None:
        index.best, index.best_loss = step, better
    temporary = folder / f"{INDEX}.tmp"
    _write(temporary, json.dumps(asdict(index)))
    temporary.replace(folder / INDEX)
    _thin(folder, index, keep)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Let a rename survive a loss of power."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


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


def _thin(folder: Path, index: Index, keep: int) -> None:
    """Delete what is neither `best` nor `last` nor among the `keep` newest others."""
    steps = sorted((int(p.name.removeprefix("step-")) for p in folder.glob("step-*")), reverse=True)
    others = [step for step in steps if step not in (index.best, index.last)]
    for step in others[keep:]:
        shutil.rmtree(step_folder(folder, step))
    for left in folder.glob(".writing-*"):
        shutil.rmtree(left, ignore_errors=True)
