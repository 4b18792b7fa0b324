"""What a run writes as it goes: `metrics.jsonl`, `state.json`, and what trackers are told.

Only the main rank writes. Times never enter `metrics.jsonl`, so that two runs of one configuration
write the same bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from sherlock_models.config import RunConfig
from sherlock_models.run import METRICS, write_state
from sherlock_models.training.trackers import trackers

#: seconds between two signs of life
_BEAT_S = 2.0


class Journal:
    """Writer of a run's lines.

    Parameters
    ----------
    path : Path
        The run's folder.
    done : int
        Steps of the checkpoint the run goes on from; later lines are cut off.
    config : RunConfig
        With `steps` settled.
    """

    def __init__(self, path: Path, done: int, config: RunConfig) -> None:
        self._path, self._steps, self._batch_size = path, config.steps or 1, config.batch_size
        self._first, self._step = done, done
        self._began = self._beat = time.monotonic()
        truncate(path / METRICS, done)
        self._trackers = trackers(config, path, done)
        self._lines: IO[str] = (path / METRICS).open("a", encoding="utf-8")
        self._state("running")

    @property
    def steps_per_s(self) -> float:
        """Rate since this process began, validations included."""
        return (self._step - self._first) / max(time.monotonic() - self._began, 1e-9)

    @property
    def eta_s(self) -> float | None:
        """Seconds left at that rate."""
        rate = self.steps_per_s
        return (self._steps - self._step) / rate if rate else None

    def line(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Write one line of metrics."""
        self._lines.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        self._lines.flush()
        for tracker in self._trackers:
            tracker.line(step, split, values)
        self._step = step
        if time.monotonic() - self._beat > _BEAT_S:
            self._beat = time.monotonic()
            self._state("running")

    def close(self, state: str, reason: str | None = None) -> None:
        """Write the last state (`finished` or `stopped`) and close the files."""
        self._lines.close()
        self._state(state, reason)
        for tracker in self._trackers:
            tracker.close()

    def _state(self, state: str, reason: str | None = None) -> None:
        write_state(
            self._path,
            state=state,
            step=self._step,
            steps=self._steps,
            steps_per_s=self.steps_per_s,
            samples_per_s=self.steps_per_s * self._batch_size,
            reason=reason,
        )


def truncate(path: Path, step: int) -> None:
    """Cut a `metrics.jsonl` off after `step`, and a line that was being written with it."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("}\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)
