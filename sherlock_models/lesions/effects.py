"""How much worse a movie is decoded without a unit of the brain: computed once, not once per unit.

The plain way runs the decoder again for every unit. The fast way adds the unit's change to the
first layer's output, many units in one batch. Where a stimulus is the output of a dense layer, the
change of its squared error follows from that layer's input alone (`scoring.linear_errors`), so that
the picture is never made; where it comes out of convolutions, the TRs of one unit lie side by side
until their errors are summed. Threads share the units, each on a decoder of its own with the same
weights. A test holds the two ways equal to 1e-5.

Legend: t = held-out TRs of a reading, n = some of them, g = units in a batch, L = units of the
brain layer, H = outputs of the first layer, R = targets (the parts of all stimuli).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sherlock_models.lesions.brain import Reading
from sherlock_models.lesions.first_layer import CutDecoder
from sherlock_models.lesions.lanes import LANES
from sherlock_models.lesions.side_by_side import beside
from sherlock_models.scoring.error_parts import ErrorParts, PictureParts
from sherlock_models.scoring.linear_errors import LinearErrors
from sherlock_models.scoring.scores import FloatArray, IntArray

#: columns of the brain layer that change, and by how much, (n, c)
Change = tuple[Tensor, Tensor]

#: samples of the decoder at a time; of one that is run whole fewer, since it keeps all it makes
BATCH, PLAIN_BATCH = 128, 64
#: of these, TRs; the others are units
TRS = LANES
#: threads that share the units at most: each takes a batch's memory
MOST_THREADS = 8


@dataclass
class Decoding:
    """A decoder, what it should have told, and how its errors are summed.

    Attributes
    ----------
    cut : CutDecoder
    parts : dict of ErrorParts
        By stimulus, in the order of the targets.
    target : dict of Tensor
        By stimulus, (TRs of the scan that are held out, ...), in normalised units.
    trs : ndarray of int64
        Rows of `target`.
    fast : bool
        Whether to use the cuts; else the decoder is run whole for every unit.
    linear : dict of LinearErrors
        Of the stimuli whose dense last layer is not computed.
    pictures : dict of PictureParts
        Of the stimuli whose errors are summed row by row, as convolutions make them.
    """

    cut: CutDecoder
    parts: Mapping[str, ErrorParts]
    target: Mapping[str, Tensor]
    trs: IntArray
    fast: bool = True
    linear: dict[str, LinearErrors] = field(init=False, default_factory=dict, repr=False)
    pictures: dict[str, PictureParts] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.fast = self.fast and self.cut.first is not None
        if not self.fast:
            return
        with torch.inference_mode():
            for name, parts in self.parts.items():
                if name in self.cut.last and LinearErrors.pays(parts, self.last_weight(name)):
                    self.linear[name] = LinearErrors(parts, self.last_weight(name))
                elif name in self.cut.pictures and isinstance(parts, PictureParts):
                    self.pictures[name] = parts

    @property
    def names(self) -> tuple[str, ...]:
        """The R targets."""
        return tuple(name for parts in self.parts.values() for name in parts.names)

    @property
    def first_weight(self) -> Tensor:
        """Weight of the first layer, (H, L)."""
        if self.cut.first is None:
            raise ValueError("this decoder has no dense first layer")
        return self.cut.first.weight.detach()

    def rows_of(self, name: str, inputs: Tensor) -> Tensor:
        """Compute one stimulus from a skipped last layer's input: (B, inputs) to (B, numbers)."""
        layer, columns = self.cut.last[name]
        bias = None if layer.bias is None else layer.bias[columns]
        return nn.functional.linear(inputs, layer.weight[columns], bias)

    def last_weight(self, name: str) -> Tensor:
        """Weight of a stimulus's dense last layer, (numbers, inputs)."""
        layer, columns = self.cut.last[name]
        return layer.weight.detach()[columns]

    @property
    def threads(self) -> int:
        """How many share the units; what is run whole shares its own work."""
        return min(torch.get_num_threads(), MOST_THREADS) if self.fast else 1

    @property
    def group(self) -> int:
        """Units at a time."""
        return (BATCH if self.fast else PLAIN_BATCH) // TRS

    @property
    def unmade(self) -> set[str]:
        """Stimuli whose last layers are not computed."""
        return {*self.linear, *self.pictures}

    def truth(self, trs: IntArray) -> dict[str, Tensor]:
        """Return what was on the screen at `trs`, by stimulus."""
        rows = torch.from_numpy(np.searchsorted(self.trs, trs))
        return {name: values[rows] for name, values in self.target.items()}

    def error_sums(
        self, decoded: Mapping[str, Tensor], truth: Mapping[str, Tensor], names: Sequence[str]
    ) -> list[Tensor]:
        """Sum the squares of the parts of some stimuli, (g, n, parts) each.

        Parameters
        ----------
        decoded : dict of Tensor, (g x n, ...)
        truth : dict of Tensor, (n, ...)
        names : sequence of str
        """
        sums = []
        for name in names:
            true = truth[name]
            error = decoded[name].reshape(-1, *true.shape) - true
            sums.append(
                self.parts[name]
                .of(error.flatten(0, 1))
                .view(-1, len(true), len(self.parts[name].names))
            )
        return sums


class _Plain:
    """Run the whole decoder for every unit."""

    def __init__(
        self, decoding: Decoding, start: Tensor, truth: dict[str, Tensor], cut: CutDecoder
    ) -> None:
        self.decoding, self.start, self.truth = decoding, start, truth
        self.names = list(decoding.parts)
        self.before = decoding.error_sums(cut(start), truth, self.names)

    def increase(self, changes: Sequence[Change], cut: CutDecoder) -> Tensor:
        """Increase of every target's summed squared error, (g, n, R)."""
        brains = self.start.repeat(len(changes), 1, 1)
        for brain, (columns, change) in zip(brains, changes, strict=True):
            brain[:, columns] += change
        decoded = cut(brains.flatten(0, 1))
        after = self.decoding.error_sums(decoded, self.truth, self.names)
        return torch.cat([a - b for a, b in zip(after, self.before, strict=True)], dim=2)


class _Fast:
    """Start from the first layer's output, and end before linear last layers."""

    def __init__(
        self, decoding: Decoding, start: Tensor, truth: dict[str, Tensor], cut: CutDecoder
    ) -> None:
        self.decoding, self.truth, linear = decoding, truth, decoding.linear
        self.weight = decoding.first_weight
        self.hidden = cut.first_output(start)
        self.beside = {name: beside(truth[name]) for name in decoding.pictures}
        decoded = cut.rest(self.hidden) if linear else {}
        self.slope = {
            name: errors.slope((decoded[name] - truth[name]).flatten(1))
            for name, errors in linear.items()
        }
        # as the units will be: a layer that is skipped gives nothing but its input
        decoded, self.inputs = cut.before_last(self.hidden, decoding.unmade)
        self.before = {
            name: self._sums(name, decoded, self.inputs, cut)
            for name in decoding.parts
            if name not in linear
        }

    def increase(self, changes: Sequence[Change], cut: CutDecoder) -> Tensor:
        """Increase of every target's summed squared error, (g, n, R)."""
        pushed = [change @ self.weight[:, columns].T for columns, change in changes]
        hidden = (self.hidden + torch.stack(pushed)).flatten(0, 1)
        decoded, unfinished = cut.before_last(hidden, self.decoding.unmade)
        found = []
        for name in self.decoding.parts:
            if name in self.slope:
                inputs = unfinished[name].view(len(changes), len(self.hidden), -1)
                moved, errors = inputs - self.inputs[name], self.decoding.linear[name]
                found.append(errors.change(moved, self.slope[name]))
            else:
                after = self._sums(name, decoded, unfinished, cut)
                found.append(after - self.before[name])
        return torch.cat(found, dim=2)

    def _sums(
        self,
        name: str,
        decoded: dict[str, Tensor],
        unfinished: Mapping[str, Tensor],
        cut: CutDecoder,
    ) -> Tensor:
        """Sum the squares of a stimulus's parts, (g, n, parts)."""
        if name in self.beside:
            some = torch.split(unfinished[name], len(self.hidden))
            return torch.stack([self._of_pictures(name, grid, cut) for grid in some])
        if name in unfinished:
            decoded[name] = self.decoding.rows_of(name, unfinished[name])
        return self.decoding.error_sums(decoded, self.truth, [name])[0]

    def _of_pictures(self, name: str, grid: Tensor, cut: CutDecoder) -> Tensor:
        """Take what convolutions were given (n, K, h, w) to the sums of the parts, (n, parts)."""
        parts = self.decoding.pictures[name]
        error, power = cut.pictures[name].errors(grid, self.beside[name], parts.half[0])
        return parts.of_halves(power, error)[: len(grid)]


#: does something with a decoder, in some thread
Work = Callable[[CutDecoder], Any]


#: threads of the process before each lesion that is under way
_before: list[int] = []
_changing = threading.Lock()


@contextmanager
def sharing(decoding: Decoding) -> Iterator[Callable[[Sequence[Work]], list[Any]]]:
    """Do pieces of work side by side, each thread on a decoder of its own."""
    threads, workers = torch.get_num_threads(), decoding.threads
    own, twins = threading.local(), [decoding.cut.twin() for _ in range(workers)]

    def begin() -> None:
        torch.set_num_threads(threads // workers)
        own.cut = twins.pop()

    @torch.inference_mode()
    def one(work: Work) -> Any:
        return work(own.cut)

    with _threads_put_back(threads):
        pool = ThreadPoolExecutor(workers, "lesion", initializer=begin)
        try:
            yield lambda pieces: list(pool.map(one, pieces))
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _threads_put_back(threads: int) -> Iterator[None]:
    """Put back what `torch.set_num_threads` sets for the process, once no lesion is under way.

    MKL's threads, and those that torch has in threads to come; two lesions at once must not take
    each other's number for the process's. Set by a thread, since a caller's own number stayed.
    """
    with _changing:
        _before.append(_before[0] if _before else threads)
    try:
        yield
    finally:
        with _changing:
            threads = _before.pop()
            if not _before:
                another = threading.Thread(target=torch.set_num_threads, args=(threads,))
                another.start()
                another.join()


@torch.inference_mode()
def increases(
    decoding: Decoding,
    reading: Reading,
    changes: Sequence[Callable[[slice], Change]],
    start: Tensor,
    report: Callable[[int], None] = lambda samples: None,
) -> FloatArray:
    """Increase of the summed squared error that each change of a brain makes.

    Parameters
    ----------
    decoding : Decoding
    reading : Reading
    changes : sequence of callable
        Each takes a slice of the TRs to a change of `start` there.
    start : Tensor, (t, L)
        The brain before.
    report : callable
        Told how many samples were decoded.

    Returns
    -------
    ndarray of float64, (units, t, R)
    """
    found = np.zeros((len(changes), len(reading.trs), len(decoding.names)))
    group = decoding.group
    way = _Fast if decoding.fast else _Plain
    with sharing(decoding) as share:
        for begin in range(0, len(reading.trs), TRS):
            rows = slice(begin, min(begin + TRS, len(reading.trs)))
            # by such a thread too: a sum depends on how many share it
            (here,) = share(
                [partial(way, decoding, start[rows], decoding.truth(reading.trs[rows]))]
            )

            def some(first: int, cut: CutDecoder, rows: slice = rows, here: Any = here) -> None:
                units = slice(first, first + group)
                changed = [change(rows) for change in changes[units]]
                found[units, rows] = here.increase(changed, cut).double().numpy()
                for unit, (_, change) in zip(found[units, rows], changed, strict=True):
                    # rounding has a sign, and many TRs of one sign would pass for an effect
                    unit[~change.any(1).numpy()] = 0
                report(len(changed) * (rows.stop - rows.start))

            share([partial(some, first) for first in range(0, len(changes), group)])
    return found
