"""The training loop: one path for one process and for many.

Every validation writes a checkpoint; a SIGTERM writes one and ends the run; whatever else ends it,
the run goes on from the last one as if nothing had been.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from sherlock_data import locks
from sherlock_data.errors import ConfigError, SherlockError
from sherlock_models import parallel
from sherlock_models.config import RunConfig, load_config
from sherlock_models.feeding.dataset import MovieBrainData
from sherlock_models.feeding.loading import load_data
from sherlock_models.feeding.sampler import GlobalBatches
from sherlock_models.run import CHECKPOINTS, CONFIG, FITTED, Run
from sherlock_models.spread import Spread, without_spread
from sherlock_models.training import checkpoint
from sherlock_models.training.journal import Journal
from sherlock_models.training.sharding import BYTES_PER_PARAMETER
from sherlock_models.training.trackers import package
from sherlock_models.training.trainer import DivergedError, Trainer

#: passes over the training samples of a run that names neither steps nor epochs
DEFAULT_EPOCHS = 20.0
#: validations of a run that does not say how often
VALIDATIONS = 10


class StoppedError(SherlockError):
    """A SIGTERM was answered with a checkpoint; the command exits with 143."""


@dataclass(frozen=True)
class Cost:
    """What a run is about to take.

    Attributes
    ----------
    parameters, samples, steps : int
    epochs : float
    ranks : int
    memory_bytes : int
        Weights, gradients and optimiser state of one rank, and the data; activations come on top.
    device : str
    notes : tuple of str
        What a reader of the results must know.
    placement : str
        Where the data lie, and why.
    sharding : str
        How the model lies on the ranks, and why.
    batch_size : int
        Of the global batch.
    """

    parameters: int
    samples: int
    steps: int
    epochs: float
    ranks: int
    memory_bytes: int
    device: str
    notes: tuple[str, ...]
    placement: str = ""
    sharding: str = ""
    batch_size: int = 1


class Progress(Protocol):
    """Who watches a run; told by the main rank only."""

    def started(self, cost: Cost, done: int) -> None:
        """Before the first step; `done` steps were done earlier."""

    def step(self, step: int, values: dict[str, float], steps_per_s: float) -> None:
        """After every step: loss and terms."""

    def validated(self, step: int, values: dict[str, float], best: bool) -> None:
        """After every validation."""


class Silent:
    """Watches and says nothing."""

    def started(self, cost: Cost, done: int) -> None:
        """Before the first step."""

    def step(self, step: int, values: dict[str, float], steps_per_s: float) -> None:
        """After every step."""

    def validated(self, step: int, values: dict[str, float], best: bool) -> None:
        """After every validation."""


def fit(
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool = False,
    again: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Run:
    """Train, or go on training.

    Parameters
    ----------
    config : RunConfig
    out : path
        The run's folder; new, unless resuming.
    resume : bool
        Go on from the last checkpoint (from the start where there is none); metrics after it are
        cut off and written again. A finished run is left as it is.
    again : bool
        This process takes the place of one that died: go on with what it left of this very run,
        or begin where it had not begun.
    device : {"auto", "cpu", "cuda"}
    progress : Progress, optional

    Returns
    -------
    Run

    Raises
    ------
    ConfigError, StoreError
        Before anything is written; also if another process trains this run, or (`again`) the
        folder holds another one.
    DivergedError
        If a loss is not finite.
    StoppedError
        After a SIGTERM, once the checkpoint is written.
    """
    path = Path(out)
    if again and not resume and (path / CONFIG).is_file():
        config, resume = _same(config, path), True
    if resume and Run(path).state == "finished":
        return Run(path)
    if resume and Run(path).is_exported:
        remedy = "go on with the run that it came from"
        raise ConfigError("is exported: the model without its training", where=path, remedy=remedy)
    with parallel.world(device) as world, _alone(path, world, again):
        data = load_data(config, world)
        if resume:
            _check_order(config, data)
        config = settle(config, data)
        if world.main and config.tracker != "none":
            package(config.tracker)
        if not resume and world.main:
            check_new(path)
            _sweep(path)
        with closing(Trainer(config, data, world)) as trainer:
            done = _begin(trainer, path, resume)
            _Loop(trainer, path, done, progress or Silent()).run()
    return Run(path)


def _same(config: RunConfig, path: Path) -> RunConfig:
    """Return the configuration in the folder, spread as this one says, if it is this very one."""
    saved = load_config(path / CONFIG)
    found, wanted = (without_spread(one.model_dump(mode="json")) for one in (saved, config))
    told = {key: value for key, value in wanted.items() if value is not None}
    if told["placement"] == "auto":
        told["placement"] = found["placement"]
    other = [key for key, value in told.items() if found[key] != value]
    if other:
        raise ConfigError(
            f"holds another run: {', '.join(other)}", where=path, remedy="name another --out"
        )
    return saved.model_copy(update={key: getattr(config, key) for key in Spread.model_fields})


def _left(path: Path) -> list[Path]:
    """Find what a training that died before it wrote its configuration left in its folder."""
    folder = path / CHECKPOINTS
    empty = [folder] if folder.is_dir() and not any(folder.iterdir()) else []
    return [*path.glob(FITTED), *path.glob(f".{CONFIG}.*"), *empty]


def _sweep(path: Path) -> None:
    for left in _left(path):
        left.rmdir() if left.is_dir() else left.unlink()


def _check_order(config: RunConfig, data: MovieBrainData) -> None:
    """Refuse to go on in another order: streamed samples have one of their own."""
    if data.placement.kind == "stream" and config.placement != "stream":
        raise ConfigError(
            f"this run's data were in memory and are too large for it here ({data.placement.why})",
            where="placement",
            remedy="free memory, or go on where there is more",
        )


def _alone(path: Path, world: parallel.World, again: bool) -> AbstractContextManager[object]:
    """Hold the run's folder: two processes that write one would mix their steps.

    The main rank that died may have been on another machine, where only silence shows its death.
    """
    wait_s = locks.STALE_S + locks.HEARTBEAT_S if again else 0.0
    return locks.held(path, "is being trained", wait_s) if world.main else nullcontext()


def settle(config: RunConfig, data: MovieBrainData) -> RunConfig:
    """Fill in what only the data can tell: steps, sizes of the layers, what is fitted on what."""
    data.samples("validation")
    batches = GlobalBatches(len(data.samples("train")), config.batch_size, config.seed)
    steps = config.steps
    if steps is None:
        epochs = DEFAULT_EPOCHS if config.epochs is None else config.epochs
        steps = max(1, round(epochs * batches.steps_per_epoch))
    found: dict[str, object] = {"steps": steps, "fitted_on": dict(data.fitted_on)}
    if data.placement.kind == "stream":
        found["placement"] = "stream"  # it decides the order of the samples
    return config.model_copy(update=found).with_sizes(data.sizes)


def check_new(path: Path) -> None:
    """Refuse to write a run over something else than the beginnings of one that died at once."""
    if path.exists() and not (path.is_dir() and set(path.iterdir()) <= set(_left(path))):
        remedy = "go on with --resume, or name another --out"
        raise ConfigError("is there already and not empty", where=path, remedy=remedy)


def _begin(trainer: Trainer, path: Path, resume: bool) -> int:
    """Make the folder or read the last checkpoint; returns the steps done."""
    from safetensors.torch import save_file

    folder = path / CHECKPOINTS
    if trainer.world.main and not resume:
        folder.mkdir(parents=True)
        save_file(trainer.fitted(), path / FITTED)
        trainer.config.save(path / CONFIG)
    trainer.world.barrier()
    if resume and checkpoint.read_index(folder).last is not None:
        return trainer.restore(checkpoint.find(folder, "last"))
    return 0


class _Loop:
    """From the steps done to the end, or to whatever stops it."""

    def __init__(self, trainer: Trainer, path: Path, done: int, progress: Progress) -> None:
        self.trainer, self.path, self.done, self.progress = trainer, path, done, progress
        self.folder = path / CHECKPOINTS
        self.every = trainer.config.validate_every or max(1, trainer.steps // VALIDATIONS)
        self.best = checkpoint.read_index(self.folder).best_loss
        self.waited = _waited(path, done, self.best)
        self.journal: Journal | None = None
        if trainer.world.main:
            self.journal = Journal(path, done, trainer.config)

    def run(self) -> None:
        """Train to the end; the journal says how it ended."""
        state, reason = "stopped", None
        if self.journal:
            self.progress.started(_cost(self.trainer), self.done)
        try:
            with _terminated() as asked:
                reason = self._steps(asked)
                self.trainer.saver.wait()
            state = "finished"
        except DivergedError as error:
            self.trainer.saver.close()  # the last good checkpoint may still be on its way
            reason = str(self._with_remedy(error))
            raise self._with_remedy(error) from None
        except SherlockError as error:
            reason = str(error)
            raise
        finally:
            if self.journal:
                self.journal.close(state, reason)

    def _steps(self, asked: threading.Event) -> str | None:
        """Return why it ended early, None where it did not."""
        steps, patience = self.trainer.steps, self.trainer.config.patience
        for step in range(self.done, steps):
            unwell = self.trainer.saver.failed
            values, stop = self.trainer.step(step, asked.is_set() or unwell)
            done = step + 1
            if self.journal:
                self.journal.line(done, "train", values)
                self.progress.step(done, values, self.journal.steps_per_s)
            due = done % self.every == 0 or done == steps
            if due:
                self._validate(done)
            if stop and done < steps:
                self._stop(done, saved=due)
            if patience and self.waited >= patience:
                return f"no better validation in {self.waited}, after step {done}"
        return None

    def _validate(self, done: int) -> None:
        """Judge, remember the best, write a checkpoint: one decision from reduced numbers."""
        found = self.trainer.validate(done)
        loss = found["loss"]
        better = self.best is None or loss < self.best
        self.best, self.waited = (loss, 0) if better else (self.best, self.waited + 1)
        if self.journal:
            self.journal.line(done, "validation", found)
            self.progress.validated(done, found, better)
        self.trainer.save(self.folder, done, loss if better else None)

    def _stop(self, done: int, saved: bool) -> None:
        """End on every rank alike: a checkpoint failed, or a SIGTERM came."""
        self.trainer.saver.wait()
        if not saved:
            self.trainer.save(self.folder, done, None)
            self.trainer.saver.wait()
        raise StoppedError(
            f"stopped by SIGTERM after step {done}, checkpoint written",
            where=self.path,
            remedy=f"go on with sherlock-train --resume {self.path}",
        )

    def _with_remedy(self, error: DivergedError) -> DivergedError:
        last = checkpoint.read_index(self.folder).last
        there = "no checkpoint yet"
        if last is not None:
            there = f"the last good checkpoint is {checkpoint.step_folder(self.folder, last)}"
        remedy = f"{there}; lower --set learning_rate= or mend the data"
        return DivergedError(error.what, where=self.path, remedy=remedy)


def _waited(path: Path, done: int, best: float | None) -> int:
    """Count validations since the best one, read back from the lines up to the checkpoint."""
    lines = [m for m in Run(path).metrics() if m["split"] == "validation" and m["step"] <= done]
    losses = [line["loss"] for line in lines]
    return len(losses) - 1 - losses.index(best) if best in losses else 0


def _cost(trainer: Trainer) -> Cost:
    data, world = trainer.data, trainer.world
    warning = (data.split.warning,) if data.split.warning else ()
    return Cost(
        parameters=trainer.parameters,
        samples=len(trainer.samples),
        steps=trainer.steps,
        epochs=trainer.steps / trainer.batches.steps_per_epoch,
        ranks=world.size,
        memory_bytes=trainer.parameters * BYTES_PER_PARAMETER // trainer.sharding.shards
        + _held(trainer),
        device=str(world.device),
        notes=(*warning, *data.notes),
        placement=str(data.placement),
        sharding=str(trainer.sharding),
        batch_size=trainer.config.batch_size,
    )


def _held(trainer: Trainer) -> int:
    """Bytes of data per rank: its part of what a machine's ranks share, or all of its own."""
    data, placement = trainer.data, trainer.data.placement
    ranks = placement.ranks if placement.kind == "shared" else 1
    return data.nbytes // ranks + trainer.feed.nbytes


@contextmanager
def _terminated() -> Iterator[threading.Event]:
    """Note a SIGTERM instead of dying of it; only the main thread may listen."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
