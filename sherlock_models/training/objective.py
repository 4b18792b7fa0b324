"""What training minimises: reconstruction of the stimulus plus match of the brain.

A compressor sees the brain itself: its one term is the brain that comes back, its code has none.

Every term is a squared error over the mean variance of its target over training time, so that
predicting the training mean scores exactly 1 whatever the units; the terms can then be added.

Legend: B = samples of a batch, U = units of the brain layer, n = numbers of a stimulus in one TR.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from sherlock_models.feeding.batch import Batch
from sherlock_models.feeding.dataset import MovieBrainData
from sherlock_models.output import Output
from sherlock_models.sizes import BRAIN

_BLOCK = 256


@dataclass(frozen=True)
class Objective:
    """Loss terms and the variances they are divided by.

    Attributes
    ----------
    variance : dict
        Mean variance of every target, in normalised units, over the training samples (brain,
        where there is signal) or training TRs (stimuli).
    weights : dict
        Weight of every term in the loss.
    """

    variance: dict[str, float]
    weights: dict[str, float]

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms, the brain first; the others carry the names of their stimuli."""
        return tuple(self.variance)

    def sums(self, output: Output, batch: Batch) -> Tensor:
        """Sum of every term over a share of the global batch.

        They add up over ranks, as :meth:`counts` do, so that any way of sharing a batch gives one
        loss.

        Returns
        -------
        Tensor of float32, (terms,)
            With gradient. Brain: over samples and units with signal; stimuli: over samples, of
            the mean over the n numbers of a TR.
        """
        # a compressor gives the brain back as its stimulus; its code has no target
        brain = output.stimulus.get(BRAIN, output.brain)
        sums = [
            _squares(brain, batch.brain, None if batch.everywhere else batch.signal)
            / self.variance[BRAIN]
        ]
        for name, target in batch.target.items():
            error = _squares(output.stimulus[name], target) / target.shape[1:].numel()
            sums.append(error / self.variance[name])
        return torch.stack(sums)

    def counts(self, batch: Batch) -> Tensor:
        """Count what every term is summed over, known before any pass: float64, (terms,)."""
        brain = torch.count_nonzero(batch.signal).double()
        samples = brain.new_full((len(batch.target),), float(len(batch)))
        return torch.cat([brain[None], samples])

    def combine(self, values: Tensor) -> Tensor:
        """Weighted sum of the terms, ()."""
        weights = [self.weights[term] for term in self.terms]
        return (values * torch.tensor(weights, dtype=values.dtype, device=values.device)).sum()


def _squares(found: Tensor, target: Tensor, signal: Tensor | None = None) -> Tensor:
    """Sum of squared errors, (); without signal the target is whatever was found.

    Torch's own loss passes over the numbers once where a difference, its square, its product with
    the signal and their gradients would take seven passes.
    """
    found = found.float()
    if signal is not None:
        target = torch.where(signal, target, found.detach())
    return mse_loss(found, target, reduction="sum")


def fit_objective(data: MovieBrainData, weights: dict[str, float]) -> Objective:
    """Fit the variance of every target on training TRs.

    Parameters
    ----------
    data : MovieBrainData
    weights : dict
        Of the terms; 1 where not named.
    """
    variance = {BRAIN: _brain_variance(data)}
    for name in data.tables:
        variance[name] = _stimulus_variance(data, name)
    return Objective(variance, {term: weights.get(term, 1.0) for term in variance})


def _brain_variance(data: MovieBrainData) -> float:
    samples = data.samples("train")
    volumes = torch.from_numpy(samples.tr) + data.lag_trs
    return _positive(data.brains.mean_square(torch.from_numpy(samples.subject), volumes))


def _stimulus_variance(data: MovieBrainData, name: str) -> float:
    trs, total, count = data.split.train, 0.0, 0
    for start in range(0, len(trs), _BLOCK):
        target = torch.from_numpy(data.stimulus_target(name, trs[start : start + _BLOCK]))
        total += float(target.double().square().sum())
        count += target.numel()
    return _positive(total / count)


def _positive(variance: float) -> float:
    """Divide by something: a target that never varies is matched by its mean."""
    return variance if variance > 0 else 1.0
