"""What a run's decoder makes of brains, TR by TR: predicted for any movie, or measured.

Legend: n = TRs at a time, D = delays, L = units of the brain layer, H, W = height and width of a
picture, F = features of a vector stimulus.

One vector per TR cannot be turned back into speech: decoded sound stays a spectrum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data.errors import ConfigError, did_you_mean
from sherlock_data.stimulus.movie import MovieProbe
from sherlock_data.timing import Clock, FloatArray, shifted_index
from sherlock_data.timing import Run as ScanRun
from sherlock_models.film.movie_stimulus import Extraction, Values, stimuli_of
from sherlock_models.lesions.replaced_unit import ReplacedUnit
from sherlock_models.scoring.space import UnitSpace

if TYPE_CHECKING:
    from sherlock_models.feeding.dataset import MovieBrainData
    from sherlock_models.run import Run

IntArray = NDArray[np.int64]
#: one TR by stimulus, as it is shown
Told = dict[str, NDArray[np.float32]]

#: bytes of what the encoder sees at a time, about
BLOCK_BYTES = 1 << 25
#: TRs at a time, at most
BLOCK_TRS = 32

#: what a TR was to the training
HELD_OUT, TRAINED, CHOSE, UNUSED = "held out", "trained on", "chose the checkpoint", "in no side"


@dataclass(frozen=True)
class ToldTr:
    """One TR of a film.

    Attributes
    ----------
    tr : int
        0-based in the film.
    start_s, end_s : float
        Film seconds.
    side : str
        What it was to the training; "" for a movie the run never saw.
    original, decoded, changed : dict of ndarray, or None
        By stimulus: pictures (H, W, 3) in grey levels, float32 0 to 255; vectors (F,) float32 in
        standard deviations from the training mean. None where there is none.
    """

    tr: int
    start_s: float
    end_s: float
    side: str = ""
    original: Told | None = None
    decoded: Told | None = None
    changed: Told | None = None


@dataclass
class Teller:
    """Asks a run's decoder.

    Attributes
    ----------
    run : Run
    unit : ReplacedUnit, optional
        Also decode without it, or it alone.
    """

    run: Run
    unit: ReplacedUnit | None = None
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.names = self.run.config.stimulus

    @torch.inference_mode()
    def tell(self, read: Tensor, subject: int, trs: IntArray) -> Iterator[tuple[Told, Told | None]]:
        """Decode brains (n, L): what each says whole, and with the unit replaced or None."""
        whole = self._shown(self.run.model.decode(read))
        if self.unit is None:
            yield from ((one, None) for one in whole)
            return
        changed = self._shown(self.run.model.decode(self.unit(read, subject, trs)))
        yield from zip(whole, changed, strict=True)

    def _shown(self, told: dict[str, Tensor]) -> list[Told]:
        arrays = {name: self._levels(name, told[name].float()) for name in self.names}
        return [dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)]

    def _levels(self, name: str, values: Tensor) -> NDArray[np.float32]:
        """Turn pictures (n, 3, H, W) into grey levels; vectors stay in standard deviations."""
        if values.ndim == 4:
            raw = self.run.normaliser.inverse(name, values)
            values = raw.movedim(1, -1).clamp(0, 255)
        return np.ascontiguousarray(values.numpy())

    def original(self, values: Values) -> Told:
        """Turn one TR's raw stimuli into what is shown."""
        seen = {n: self.run.normaliser.forward(n, torch.from_numpy(v)) for n, v in values.items()}
        return {name: self._levels(name, value[None].float())[0] for name, value in seen.items()}


def movie_edges(movie: MovieProbe, how: Extraction) -> FloatArray:
    """Edges of the TRs of a movie in movie seconds, (TR + 1,); those of its scan where it had one.

    The last TR may end after the movie.
    """
    known = how.shown.get(movie.sha256)
    start_s = known.start_s if known is not None else 0.0
    count = max(1, int(np.ceil((movie.video_seconds - start_s) / how.tr_s - 1e-6)))
    one = ScanRun("film", count, movie_start_s=start_s)
    return Clock(how.tr_s, (one,)).tr_edges(one.name)


@dataclass
class MovieBrain:
    """The brain that a run predicts for a movie.

    Attributes
    ----------
    teller : Teller
    movie : MovieProbe
    how : Extraction
    subject : str, optional
        Whose brain, where the run knows the subjects apart; else the mean embedding.
    """

    teller: Teller
    movie: MovieProbe
    how: Extraction
    subject: str | None = None

    def __post_init__(self) -> None:
        data = self.teller.run.data
        if self.subject is None:
            signal, self._statistics = data.signal.any(axis=0), _first_subject(data)
        else:
            self._statistics = find_subject(data, self.subject)
            signal = data.signal[self._statistics]
        self._signal = torch.from_numpy(signal)
        known = data.split.train_subjects
        self._row = known.index(self.subject) if self.subject in known else -1

    def __iter__(self) -> Iterator[ToldTr]:
        """Yield every TR in order, to the end of the movie.

        The first TRs, whose delays reach before the movie, and a last one that the movie does not
        fill have nothing decoded.
        """
        run, edges = self.teller.run, movie_edges(self.movie, self.how)
        sides, reach = self._sides(), max(run.config.delays)
        past: list[Values | None] = [None] * reach
        incoming, first = stimuli_of(self.movie, edges, self.how), 0
        with closing(incoming):
            while block := list(islice(incoming, _block_trs(run))):
                window = past + block
                told = self._tell(window)
                for k, values in enumerate(block):
                    decoded, changed = told.get(k, (None, None))
                    yield ToldTr(
                        tr=first + k,
                        start_s=float(edges[first + k]),
                        end_s=float(edges[first + k + 1]),
                        side=sides[first + k] if first + k < len(sides) else "",
                        original=None if values is None else self.teller.original(values),
                        decoded=decoded,
                        changed=changed,
                    )
                first, past = first + len(block), window[len(block) :]

    def _tell(self, window: Sequence[Values | None]) -> dict[int, tuple[Told, Told | None]]:
        """Decode the TRs after the first ``reach`` of a window, those that have every delay."""
        run = self.teller.run
        delays, reach = run.config.delays, max(run.config.delays)
        steps: dict[int, list[Values]] = {}
        for now in range(reach, len(window)):
            seen = [values for d in delays if (values := window[now - d]) is not None]
            if len(seen) == len(delays) and window[now] is not None:
                steps[now - reach] = seen
        if not steps:
            return {}
        read = self._encode(list(steps.values()))
        trs = np.full(len(steps), run.data.split.train[0])
        return dict(zip(steps, self.teller.tell(read, self._statistics, trs), strict=True))

    @torch.inference_mode()
    def _encode(self, steps: Sequence[Sequence[Values]]) -> Tensor:
        run = self.teller.run
        inputs = {}
        for name in self.teller.names:
            raw = np.stack([np.stack([values[name] for values in step]) for step in steps])
            inputs[name] = run.normaliser.forward(name, torch.from_numpy(raw))
        rows = torch.full((len(steps),), self._row)
        return torch.where(self._signal, run.model.encode(inputs, rows).float(), 0.0)

    def _sides(self) -> Sequence[str]:
        """Say what every TR was to the training, where the movie is one of the run's own."""
        known = self.how.shown.get(self.movie.sha256)
        if known is None:
            return ()
        data = self.teller.run.data
        where = data.clock.run_slice(known.run)
        return side_of_trs(data, self.subject)[where]


@dataclass
class MeasuredBrain:
    """A subject's measured brain, over all runs or one.

    Attributes
    ----------
    teller : Teller
    subject : str
    scan_run : str, optional
        Only this run.
    start_s : float
        Film seconds of its first TR.
    """

    teller: Teller
    subject: str
    scan_run: str | None = None
    start_s: float = 0.0

    @property
    def trs(self) -> IntArray:
        """TRs of the scan that the film shows, in order."""
        clock = self.teller.run.data.clock
        return clock.tr() if self.scan_run is None else clock.tr()[clock.run_slice(self.scan_run)]

    def __iter__(self) -> Iterator[ToldTr]:
        """Yield every TR; nothing is decoded where the volume is missing or constant."""
        data, trs = self.teller.run.data, self.trs
        who, tr_s = find_subject(data, self.subject), data.clock.repetition_time_s
        sides = side_of_trs(data, self.subject)
        volume = shifted_index(data.clock, data.lag_trs)
        there = (volume >= 0) & data.valid[who, np.maximum(volume, 0)]
        for first in range(0, len(trs), BLOCK_TRS):
            block = trs[first : first + BLOCK_TRS]
            known = block[there[block]]
            read = torch.from_numpy(UnitSpace(data).measured(who, known))
            told = dict(zip(known.tolist(), self.teller.tell(read, who, known), strict=True))
            for k, tr in enumerate(block.tolist()):
                decoded, changed = told.get(tr, (None, None))
                start_s = self.start_s + (first + k) * tr_s
                yield ToldTr(
                    tr=tr,
                    start_s=start_s,
                    end_s=start_s + tr_s,
                    side=sides[tr],
                    original=self._original(tr),
                    decoded=decoded,
                    changed=changed,
                )

    def _original(self, tr: int) -> Told | None:
        tables = self.teller.run.data.tables
        if not all(table.present[tr] for table in tables.values()):
            return None
        return self.teller.original({n: t.values[tr].numpy() for n, t in tables.items()})


def side_of_trs(data: MovieBrainData, subject: str | None) -> list[str]:
    """Say what every stimulus TR of the scan was to the training, for a subject or for all.

    A TR is only ``held out`` as evaluations have it: of a split by subjects, with a subject that
    was held out too.
    """
    sides = [UNUSED] * data.clock.volumes
    for side, name in (("train", TRAINED), ("validation", CHOSE), ("test", HELD_OUT)):
        if subject is None or subject in data.split.subjects(side):
            for tr in data.split.trs(side).tolist():
                sides[tr] = name
    return sides


def find_subject(data: MovieBrainData, subject: str) -> int:
    """Index of a subject.

    Raises
    ------
    ConfigError
        If the run knows nobody of that name.
    """
    if subject not in data.subjects:
        raise ConfigError(
            f"no subject '{subject}'",
            where="--subject or --bold",
            remedy=did_you_mean(subject, data.subjects),
        )
    return data.subjects.index(subject)


def _first_subject(data: MovieBrainData) -> int:
    return data.subjects.index(data.split.train_subjects[0])


def _block_trs(run: Run) -> int:
    """TRs at a time: what the encoder sees of them stays within ``BLOCK_BYTES``."""
    sizes = run.model.sizes
    return max(1, min(BLOCK_TRS, BLOCK_BYTES // (4 * sizes.features * len(sizes.delays))))
