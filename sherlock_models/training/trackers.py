"""Who else is told of a run's lines: TensorBoard always, `wandb` or `trackio` where asked for.

Neither is a dependency. A run that goes on is the same run to them: its key lies in its folder.
Steps that are done again after a restart are told again, and are the same numbers.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sherlock_data.errors import ConfigError
from sherlock_models.config import RunConfig

#: file of a run's folder with what a tracker knows the run by
KEY = "tracker.txt"
#: what trackers call all runs of this program together; `WANDB_PROJECT` says otherwise
PROJECT = "sherlock-zoo"


class Tracker(Protocol):
    """Told of every line of a run by the main rank."""

    def line(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Take the values of a step, by name."""

    def close(self) -> None:
        """Write what is still to be written."""


class TensorBoard:
    """Events in the run's folder; those after the `done` steps of a checkpoint are hidden."""

    def __init__(self, path: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(path), purge_step=done + 1 if done else None)

    def line(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Add a point to every curve."""
        for name, value in values.items():
            self._writer.add_scalar(f"{name}/{split}", value, step)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class Hosted:
    """A run of `wandb` or `trackio`, whose functions have the same names.

    Raises
    ------
    ConfigError
        If it is not installed, or cannot begin (not logged in, no network).
    """

    def __init__(self, config: RunConfig, path: Path) -> None:
        name, key = config.tracker, _key(path)
        tracker = package(name)
        own = {"id": key, "dir": str(path)} if name == "wandb" else {}
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for what `--json` prints
                self._run = tracker.init(
                    project=os.environ.get(f"{name.upper()}_PROJECT", PROJECT),
                    name=f"{path.resolve().name}-{key}",
                    config=config.model_dump(mode="json"),
                    resume="allow",
                    **own,
                )
        except Exception as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            remedy = f"mend it, or go on without: --resume {path} --set tracker=none"
            raise ConfigError(f"cannot begin ({line})", where=name, remedy=remedy) from error

    def line(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Log the values of a step, under `split/name`."""
        self._run.log({f"{split}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """Wait until all is sent."""
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()


def trackers(config: RunConfig, path: Path, done: int) -> list[Tracker]:
    """Begin, or go on, to tell whoever is to be told."""
    hosted = [Hosted(config, path)] if config.tracker != "none" else []
    return [*hosted, TensorBoard(path, done)]


def package(name: str) -> Any:
    """Import a tracker.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ConfigError(
            f"{name} is not installed", where="tracker", remedy=f"pip install {name}"
        ) from None


def _key(path: Path) -> str:
    """Return what trackers know this run by; made the first time."""
    file = path / KEY
    if not file.is_file():
        file.write_text(uuid.uuid4().hex, encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()
