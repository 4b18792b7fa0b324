"""One rank's part of a training: a step, a validation, a checkpoint.

Legend: a step is 0-based here; G = samples of the global batch, B = this rank's share of it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sherlock_data.errors import SherlockError
from sherlock_models.architectures.autoencoder import BrainAutoencoder
from sherlock_models.config import RunConfig
from sherlock_models.feeding.batch import Batch, SampleTable
from sherlock_models.feeding.dataset import MovieBrainData
from sherlock_models.feeding.feed import Feed, order
from sherlock_models.feeding.sampler import rank_share
from sherlock_models.output import Output
from sherlock_models.parallel import World
from sherlock_models.training import checkpoint, sharding
from sherlock_models.training.channel import GlobalBatch, NoisyBrain, residual
from sherlock_models.training.gradient_norms import DenseNorms
from sherlock_models.training.objective import fit_objective
from sherlock_models.training.saving import Saver
from sherlock_models.zoo import build_model

IntArray = NDArray[np.int64]

#: samples named when a batch is blamed
_NAMED = 8


class DivergedError(SherlockError):
    """The loss became NaN or infinite."""


def learning_rate(step: int, steps: int, base: float, warmup: float) -> float:
    """Linear warm-up, then a cosine to zero, both counted in steps.

    Parameters
    ----------
    step : int
        0-based.
    steps : int
        Of the whole run.
    base : float
        Peak.
    warmup : float
        Share of the steps that warm up.

    Notes
    -----
    With ``w = round(warmup * steps)``: ``base * (step + 1) / w`` for ``step < w``, then
    ``base / 2 * (1 + cos(pi * (step - w) / (steps - w)))`` (Loshchilov & Hutter 2017, no restarts).
    """
    rising = round(warmup * steps)
    if step < rising:
        return base * (step + 1) / rising
    return base / 2 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class Trainer:
    """Model, optimiser, order of samples, objective and channel of one rank.

    Parameters
    ----------
    config : RunConfig
        With `steps` settled.
    data : MovieBrainData
    world : World
    """

    def __init__(self, config: RunConfig, data: MovieBrainData, world: World) -> None:
        self.config, self.data, self.world = config, data, world
        self.steps = config.steps or 1
        with torch.device("meta"):
            self.parameters = self._build().count_parameters()
        self.sharding = sharding.choose(config, self.parameters, world)
        self._call = sharding.place(self._build, self.parameters, config, self.sharding, world)
        self.model: nn.Module = sharding.bare(self._call)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        whole = self.sharding.kind == "alone" and config.accumulate == 1
        self.norms = DenseNorms(self.model if whole and world.device.type == "cpu" else nn.Module())
        self.samples = data.samples("train")
        self.batches = order(data, self.samples, config.batch_size, config.seed)
        self.feed = Feed(data, self.samples, self.batches, world)
        self.saver = Saver(world, config.keep)
        self.objective = fit_objective(data, config.weights)
        self.channel = NoisyBrain(
            noise=config.brain_noise,
            forcing=config.brain_forcing,
            seed=config.seed,
            world=world,
            variance=torch.ones(data.brains.signal.shape[1], device=world.device),
        )

    def _build(self) -> BrainAutoencoder:
        config = self.config
        torch.manual_seed(config.seed)
        return build_model(config.model_entry, self.data.sizes, config.model_options)

    def step(self, step: int, stop: bool = False) -> tuple[dict[str, float], bool]:
        """Take one step over the global batch.

        Parameters
        ----------
        step : int
            0-based.
        stop : bool
            Whether this rank was asked to stop.

        Returns
        -------
        values : dict
            `loss`, a key per term, `lr`, `grad_norm` (before clipping) and `unpartnered` (share of
            the samples that no residual could be given): the same on every rank.
        stop : bool
            Whether any rank was asked to stop.

        Raises
        ------
        DivergedError
            If the loss is not finite; the model is as it was.
        """
        chosen = self.batches.at(step)
        batch = self.feed.at(step)
        torch.manual_seed(int(np.random.default_rng([self.config.seed, step]).integers(2**62)))
        self.model.train()
        counts = self.objective.counts(batch)
        ended = counts.new_full((1,), float(stop))
        told = self.world.sum(torch.cat([counts, ended]))
        count = told[:-1].clamp(min=1)
        terms = self.world.sum(self._backward(batch, step, chosen, count)) / count
        loss = float(self.objective.combine(terms))
        if not math.isfinite(loss):
            raise DivergedError(self._blame(step, chosen, loss))
        self.channel.settle()
        extra = {**self._update(step), "unpartnered": self.channel.unpartnered}
        return {**self._named(loss, terms), **extra}, bool(told[-1] > 0)

    def _backward(self, batch: Batch, step: int, chosen: IntArray, count: Tensor) -> Tensor:
        """Gather the gradient of this rank's share, micro-batch by micro-batch.

        Returns
        -------
        Tensor of float64, (terms,)
            Sum of every term over the share.
        """
        micro, everyone = self.config.accumulate, None
        shares = [rank_share(len(batch), number, micro) for number in range(micro)]
        parts = [batch.part(share) for share in shares] if micro > 1 else [batch]
        if micro > 1 and self.channel.noise == "residual" and not self.config.is_compressor:
            everyone = self._residuals(parts, len(chosen))
        total = torch.zeros_like(count)
        for number, part in enumerate(parts):
            with sharding.micro_batch(self._call, last=number == micro - 1):
                sums = self.objective.sums(self._forward(part, step, chosen, everyone), part)
                # gradients are averaged over the ranks, and this is one part of a sum
                mine = sums / count.float() * self.world.size
                torch.autograd.backward(self.objective.combine(mine))
            total += sums.detach().double()
        return total

    @torch.no_grad()
    def _residuals(self, parts: list[Batch], samples: int) -> Tensor:
        """Residuals of the global batch, which the noise of its first micro-batch may want."""
        mine = [residual(self._encoded(part), part) for part in parts]
        return self.world.gather(torch.cat(mine), samples)

    @torch.no_grad()
    def validate(self, done: int) -> dict[str, float]:
        """Loss and terms on the validation side, the decoder reading the predicted brain.

        Raises
        ------
        DivergedError
            If the loss is not finite.
        """
        samples = self.data.samples("validation")
        self.model.eval()
        total = torch.zeros(2, len(self.objective.terms), dtype=torch.float64)
        total = total.to(self.world.device)
        for start in range(0, len(samples), self.config.batch_size):
            stop = min(start + self.config.batch_size, len(samples))
            batch = self._share(samples, np.arange(start, stop))
            sums = self.objective.sums(self._forward(batch), batch)
            total += torch.stack([sums.double(), self.objective.counts(batch)])
        sums, counts = self.world.sum(total)
        terms = sums / counts.clamp(min=1)
        loss = float(self.objective.combine(terms))
        if not math.isfinite(loss):
            raise DivergedError(f"the validation loss after step {done} is {loss}")
        return self._named(loss, terms)

    def save(self, folder: Path, done: int, better: float | None) -> None:
        """Begin to write the checkpoint after `done` steps; `better`: its loss, if the best."""
        extra = self._extra()
        self.saver.save(folder, done, self.model, self.optimizer, extra, better=better)

    def close(self) -> None:
        """Stop reading data ahead, and let a checkpoint that is being written be written."""
        self.norms.close()
        self.feed.close()
        self.saver.close()

    def restore(self, path: Path) -> int:
        """Read a checkpoint; returns the steps done."""
        return checkpoint.load(path, self.model, self.optimizer, self._extra(), self.world)

    def fitted(self) -> dict[str, Tensor]:
        """Everything fitted on training TRs, by name."""
        brains = self.data.brains
        variance = {
            f"objective.{name}.variance": torch.tensor(value, dtype=torch.float64)
            for name, value in self.objective.variance.items()
        }
        return {
            **self.data.normaliser.tensors(),
            **variance,
            "brain.mean": brains.mean.contiguous(),
            "brain.inverse_std": brains.inverse_std.contiguous(),
        }

    def _share(self, samples: SampleTable, chosen: IntArray) -> Batch:
        share = self.world.share(len(chosen))
        return self.data.batch(samples, chosen[share], share.start).to(self.world.device)

    def _encoded(self, batch: Batch) -> Tensor:
        predicted: Tensor = self.model.encode(batch.stimulus, self._subject(batch))  # type: ignore[operator]
        return predicted

    def _subject(self, batch: Batch) -> Tensor | None:
        return batch.embedding if self.config.subject == "embedding" else None

    def _forward(
        self,
        batch: Batch,
        step: int | None = None,
        chosen: IntArray | None = None,
        everyone: Tensor | None = None,
    ) -> Output:
        """Run the model; through the noisy channel where a step is named.

        A compressor's code is free: there is no measured one to leave a residual, and no channel.
        """
        channel = None
        if step is not None and chosen is not None and not self.config.is_compressor:
            part = self.samples.take(chosen)
            runs = self.data.brains.run.numpy()[part.tr]
            whole = GlobalBatch(part.subject, part.tr, runs)
            channel = self.channel.at(step, whole, batch, everyone)
        output: Output = self._call(
            batch.stimulus,
            subject=self._subject(batch),
            signal=batch.signal,
            channel=channel,
        )
        return output

    def _update(self, step: int) -> dict[str, float]:
        config = self.config
        norm = sharding.clip(self.model, self.optimizer, config.clip, self.norms.squares())
        rate = learning_rate(step, self.steps, config.learning_rate, config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"lr": rate, "grad_norm": norm}

    def _extra(self) -> dict[str, Tensor]:
        """State beside model and optimiser; seeds and step give everything else."""
        return {"brain_variance": self.channel.variance}

    def _named(self, loss: float, terms: Tensor) -> dict[str, float]:
        return {"loss": loss, **dict(zip(self.objective.terms, terms.tolist(), strict=True))}

    def _blame(self, step: int, chosen: IntArray, loss: float) -> str:
        part = self.samples.take(chosen[:_NAMED])
        shown = [
            f"{self.data.subjects[s]} TR {t}" for s, t in zip(part.subject, part.tr, strict=True)
        ]
        more = f" and {len(chosen) - _NAMED} more" if len(chosen) > _NAMED else ""
        epoch = self.batches.epoch(step) + 1
        return (
            f"the loss of step {step + 1} (epoch {epoch}) is {loss}; its batch is "
            f"{', '.join(shown)}{more}"
        )
