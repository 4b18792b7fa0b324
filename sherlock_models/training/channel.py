"""The noisy brain channel: what the decoder reads while a model is trained.

A wide brain layer can carry the movie in residuals far below the brain's noise. During training
the decoder therefore reads the predicted brain plus noise of the size of what the prediction leaves
unexplained and, with a stated probability, the measured brain itself.

Legend: G = samples of the global batch, B = this rank's share, U = units of the brain layer. Every
draw is keyed on (seed, step, position in the global batch), so any number of ranks draws the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sherlock_models.feeding.batch import Batch
from sherlock_models.parallel import World

IntArray = NDArray[np.int64]

#: TRs within which two volumes of a run share their noise and their movie
NEAR_TRS = 10
#: share of the old value in the running unexplained variance
DECAY = 0.95
_PARTNERS, _FORCING, _NOISE = range(3)


@dataclass(frozen=True)
class GlobalBatch:
    """Whose brain and when, for every sample of the global batch; each array is int64, (G,)."""

    subject: IntArray
    tr: IntArray
    run: IntArray


@dataclass
class NoisyBrain:
    """Noise and forcing of the brain layer.

    Attributes
    ----------
    noise : {"residual", "independent", "0"}
        `residual` adds another sample's residual, which keeps the noise's covariance; `independent`
        draws normal noise of the running unexplained variance of each unit; `0` adds none.
    forcing : float
        Probability that a sample's decoder reads the measured brain.
    seed : int
    world : World
    variance : Tensor of float32, (U,)
        Running unexplained variance, in units of the standardised BOLD; starts at 1, which is what
        the mean leaves unexplained. Part of a checkpoint.
    """

    noise: str
    forcing: float
    seed: int
    world: World
    variance: Tensor
    unpartnered: float = field(default=0.0, init=False)
    _seen: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def at(
        self, step: int, whole: GlobalBatch, batch: Batch, everyone: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """Return the channel of one step: predicted brain (B, U) to what the decoder reads.

        Parameters
        ----------
        step : int
            0-based.
        whole : GlobalBatch
        batch : Batch
            This rank's share of it, or a part of its share.
        everyone : Tensor, (G, U), optional
            Residuals of the global batch; gathered where they are not given, which takes the rank's
            whole share at once.
        """

        def channel(predicted: Tensor) -> Tensor:
            clean = predicted.float()
            left = residual(clean, batch)
            added = self._noise(step, whole, batch, left, everyone)
            if self.noise == "independent":
                self._seen.append(torch.stack([left.square().sum(0), batch.signal.sum(0).float()]))
            forced = self._forced(step, len(whole.tr))[batch.position.cpu()]
            rows = forced.nonzero().flatten().to(clean.device)
            added[rows] = batch.brain[rows]
            # one pass forward and one back, where a sum and a choice between rows take four
            kept = forced.logical_not().to(clean)[:, None]
            return added.addcmul_(clean, kept).to(predicted.dtype)

        return channel

    def settle(self) -> None:
        """Move the running unexplained variance, over all samples of a step; behind every step."""
        if not self._seen:
            return
        square, count = self.world.sum(torch.stack(self._seen).sum(0))
        self._seen.clear()
        now = torch.where(count > 0, square / count.clamp(min=1), self.variance)
        self.variance.mul_(DECAY).add_(now, alpha=1 - DECAY)

    def _noise(
        self,
        step: int,
        whole: GlobalBatch,
        batch: Batch,
        residual: Tensor,
        everyone: Tensor | None,
    ) -> Tensor:
        if self.noise == "residual":
            partner = self.partners(step, whole)
            self.unpartnered = float((partner < 0).mean())
            if everyone is None:
                everyone = self.world.gather(residual, len(whole.tr))
            mine = torch.from_numpy(partner[batch.position.cpu().numpy()]).to(residual.device)
            noise = everyone.index_select(0, mine.clamp(min=0))
            return noise * (mine >= 0)[:, None] if self.unpartnered else noise
        if self.noise == "independent":
            draws = torch.empty(residual.shape)
            for row, position in enumerate(batch.position.tolist()):
                seed = int(_key(self.seed, step, _NOISE, position).integers(2**62))
                torch.randn(draws.shape[1:], generator=_torch(seed), out=draws[row])
            return draws.to(residual.device) * self.variance.sqrt()
        return torch.zeros_like(residual)

    def partners(self, step: int, whole: GlobalBatch) -> IntArray:
        """Choose whose residual each sample gets.

        Never one within `NEAR_TRS` in the same run; the same subject's where there is one.

        Returns
        -------
        ndarray of int64, (G,)
            Position in the global batch, -1 where there is no such sample.
        """
        same_run = whole.run[:, None] == whole.run
        near = same_run & (np.abs(whole.tr[:, None] - whole.tr) <= NEAR_TRS)
        same_subject = whole.subject[:, None] == whole.subject
        draw = _key(self.seed, step, _PARTNERS).random(near.shape)
        rank = np.where(near, -1.0, draw + same_subject)  # the same subject before any other
        best = rank.argmax(axis=1)
        return np.where(rank[np.arange(len(best)), best] < 0, -1, best).astype(np.int64)

    def _forced(self, step: int, samples: int) -> Tensor:
        return torch.from_numpy(_key(self.seed, step, _FORCING).random(samples) < self.forcing)


def residual(predicted: Tensor, batch: Batch) -> Tensor:
    """Return what a predicted brain leaves unexplained, (B, U); 0 where there is no signal."""
    left = batch.brain - predicted.detach().float()
    return left if batch.everywhere else left.masked_fill_(batch.signal.logical_not(), 0.0)


def _key(seed: int, step: int, *what: int) -> np.random.Generator:
    return np.random.default_rng([seed, step, *what])


def _torch(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
