"""A run's folder, read from any shell: what it is, how far it is, and its best model.

`config.yaml` (complete), `metrics.jsonl` (a line per training step and validation),
`fitted.safetensors` (everything fitted on training TRs), `state.json` (how far, how fast),
`checkpoints/step-N/` with `checkpoints/index.json` naming `best` and `last`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from sherlock_data.errors import ConfigError, or_beside
from sherlock_models import run_card
from sherlock_models.config import RunConfig, load_config

if TYPE_CHECKING:
    from sherlock_models.architectures.autoencoder import BrainAutoencoder
    from sherlock_models.feeding.dataset import MovieBrainData
    from sherlock_models.feeding.normaliser import Normaliser

_LOG = logging.getLogger(__name__)

CONFIG, METRICS, FITTED, STATE = "config.yaml", "metrics.jsonl", "fitted.safetensors", "state.json"
CHECKPOINTS = "checkpoints"
#: all weights in one file, of a run that was exported
WEIGHTS = "model.safetensors"

#: seconds without a sign of life after which a run on another machine counts as stopped
_SILENT_S = 300.0


@dataclass(frozen=True, repr=False)
class Run:
    """One training, finished or not.

    Attributes
    ----------
    path : Path
        Its folder.
    """

    path: Path

    def __repr__(self) -> str:
        return run_card.run_line(self)

    def _repr_html_(self) -> str:
        return run_card.run_card(self)

    @cached_property
    def config(self) -> RunConfig:
        """What the run is."""
        return load_config(self.path / CONFIG)

    @cached_property
    def data(self) -> MovieBrainData:
        """The data it was trained on, split and standardised in the same way."""
        from sherlock_models.feeding.loading import load_data

        return load_data(self.config)

    @cached_property
    def normaliser(self) -> Normaliser:
        """Units of its stimuli, from its own folder: needs no store."""
        from sherlock_models.feeding.normaliser import load_normaliser

        return load_normaliser(self.path / FITTED, self.config.stimulus)

    @cached_property
    def model(self) -> BrainAutoencoder:
        """The model of the best checkpoint, in evaluation mode, on the CPU."""
        return self.model_at("best")

    def model_at(self, which: str) -> BrainAutoencoder:
        """Build the model and load a checkpoint.

        Parameters
        ----------
        which : {"best", "last"}

        Raises
        ------
        CheckpointError
            If there is none, or it is damaged or of another model.
        """
        from sherlock_models import export
        from sherlock_models.training import checkpoint
        from sherlock_models.zoo import build_model

        config = self.config
        model = build_model(config.model_entry, config.model_sizes, config.model_options)
        if self.is_exported:
            export.read_weights(self.path / WEIGHTS, model)
            return model.eval()
        found = checkpoint.find(self.path / CHECKPOINTS, which)
        _LOG.info("reading the model of %s", found)
        checkpoint.load_model(found, model)
        return model.eval()

    def metrics(self) -> list[dict[str, Any]]:
        """Lines of `metrics.jsonl` in order: `step`, `split`, `loss` and one key per term."""
        path = self.path / METRICS
        if not path.is_file():
            return []
        with _readable(path):
            lines = path.read_text(encoding="utf-8").splitlines()
            return [_line(line) for line in lines if line.endswith("}")]

    @property
    def progress(self) -> dict[str, Any]:
        """Contents of `state.json`: `state`, `step`, `steps`, `samples_per_s`, `updated`, ..."""
        path = self.path / STATE
        if not path.is_file():
            return {"state": "stopped", "step": 0}
        with _readable(path):
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return {"state": str(found["state"]), "step": int(found["step"]), **found}

    @property
    def is_exported(self) -> bool:
        """Whether it is what `sherlock_models.export` wrote: the model without its training."""
        return (self.path / WEIGHTS).is_file()

    @property
    def state(self) -> str:
        """`running`, `finished`, `stopped` or `exported`; one whose process is gone has stopped."""
        if self.is_exported:
            return "exported"
        progress = self.progress
        state = str(progress["state"])
        with _readable(self.path / STATE):
            return "stopped" if state == "running" and not _alive(progress) else state

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the current rate; None unless it is running."""
        progress = self.progress
        if self.state != "running" or not progress.get("steps_per_s"):
            return None
        return float((progress["steps"] - progress["step"]) / progress["steps_per_s"])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError):
        raise ConfigError(
            "is damaged", where=path, remedy="restore it; the checkpoints do not need it"
        ) from None


def _line(text: str) -> dict[str, Any]:
    """Read a line of `metrics.jsonl`."""
    found: dict[str, Any] = json.loads(text)
    return {"step": int(found["step"]), "split": str(found["split"]), **found}


def _alive(progress: dict[str, Any]) -> bool:
    if progress.get("host") == socket.gethostname():
        return psutil.pid_exists(int(progress["pid"]))
    return time.time() - float(progress["updated"]) < _SILENT_S


def write_state(path: Path, **state: Any) -> None:
    """Write `state.json` of a run's folder whole or not at all."""
    state |= {"pid": os.getpid(), "host": socket.gethostname(), "updated": time.time()}
    temporary = path / f"{STATE}.tmp"
    temporary.write_text(json.dumps(state), encoding="utf-8")
    temporary.replace(path / STATE)


def load(path: str | Path) -> Run:
    """Open a run's folder; nothing heavy is read until it is asked for.

    Raises
    ------
    ConfigError
        If the folder is not a run.
    """
    run = Run(Path(path))
    if not (run.path / CONFIG).is_file():
        raise ConfigError(
            f"no {CONFIG} there",
            where=run.path,
            remedy=or_beside(run.path, "name a folder that sherlock-train made"),
        )
    return run
