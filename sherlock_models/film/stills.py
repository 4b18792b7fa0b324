"""A strip of stills from a film, for papers: a row for each column of the film, TRs across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sherlock_data.errors import ConfigError
from sherlock_models.film.decode import HELD_OUT, ToldTr

if TYPE_CHECKING:
    from sherlock_models.film.panels import Film, Pixels

#: stills where no times are named, and dots per inch
STILLS, DPI = 6, 300
#: kept while a film runs, at most; every second one is dropped when there are more
KEPT = 4 * STILLS
#: letters of a row's title before it is broken
LINE = 14


@dataclass
class Stills:
    """Keeps some TRs of a film that is being written.

    Attributes
    ----------
    film : Film
    at : tuple of float
        Film seconds; none: spread over what is held out, or over all that is decoded.
    """

    film: Film
    at: tuple[float, ...] = ()
    _all: list[ToldTr] = field(default_factory=list, repr=False)
    _held_out: list[ToldTr] = field(default_factory=list, repr=False)
    _step: dict[bool, tuple[int, int]] = field(default_factory=dict, repr=False)

    def see(self, told: ToldTr) -> None:
        """Keep a TR if it is wanted."""
        if self.at:
            if any(told.start_s <= second < told.end_s for second in self.at):
                self._all.append(told)
        elif told.decoded is not None:
            self._keep(told, self._all, False)
            if told.side == HELD_OUT:
                self._keep(told, self._held_out, True)

    def _keep(self, told: ToldTr, kept: list[ToldTr], which: bool) -> None:
        """Keep every k-th, with k doubled whenever there are too many."""
        seen, step = self._step.get(which, (0, 1))
        if seen % step == 0:
            kept.append(told)
        if len(kept) > KEPT:
            del kept[1::2]
            step *= 2
        self._step[which] = (seen + 1, step)

    @property
    def chosen(self) -> Sequence[ToldTr]:
        """TRs of the strip, in order."""
        if self.at:
            return self._all
        kept = self._held_out or self._all
        count = min(STILLS, len(kept))
        return [kept[i] for i in np.linspace(0, len(kept) - 1, count).round().astype(int)]

    def write(self, path: Path) -> None:
        """Draw the strip.

        Raises
        ------
        ConfigError
            If the film has no picture at the times named.
        """
        from matplotlib.figure import Figure

        chosen = self.chosen
        if not chosen or self.film.picture is None:
            raise ConfigError(
                "no picture to show", where="--stills", remedy="name times within the film by --at"
            )
        rows = (*self.film.titles, self.film.difference)
        width, height = 1.35, 1.35 / self.film.aspect
        size = (1.5 + len(chosen) * width, 0.3 + len(rows) * (height + 0.06))
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)  # type: ignore[union-attr, call-arg]
        axes = figure.subplots(len(rows), len(chosen), squeeze=False)
        for column, told in enumerate(chosen):
            pictures = self._pictures(told)
            for row, picture in enumerate(pictures):
                axis = axes[row][column]
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                if picture is not None:
                    axis.imshow(picture, aspect="auto", interpolation="bicubic")
                if row == 0:
                    axis.set_title(f"{told.start_s:g} s", fontsize=7, pad=2)
                if column == 0:
                    axis.set_ylabel(
                        _broken(rows[row]), rotation=0, ha="right", va="center", fontsize=7
                    )
        figure.savefig(path, dpi=DPI, format="png")

    def _pictures(self, told: ToldTr) -> list[Pixels | None]:
        from sherlock_models.film.panels import bytes_of, coloured, columns

        shown = columns(told, len(self.film.titles))
        name = str(self.film.picture)
        found: list[Pixels | None] = [None if one is None else bytes_of(one[name]) for one in shown]
        if shown[-1] is not None:
            found[-1] = coloured(shown[-1][name], self.film.levels)
        return found


def _broken(title: str) -> str:
    """Break a title into short lines."""
    lines = [""]
    for word in title.split():
        if lines[-1] and len(lines[-1]) + len(word) > LINE:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
