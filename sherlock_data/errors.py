"""Failures a user can cause and mend: one line that says what is wrong, where, and what to do.

Everything the commands report with exit code 1 is a :class:`SherlockError`; anything else that
escapes is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

#: names that are equally near and all named
MOST_ALIKE = 3
#: names that are listed where none is near
MOST_SHOWN = 12
#: likeness, 0 to 1, from which on a file beside the one that is not there is what was meant
ALIKE = 0.65


class SherlockError(Exception):
    """A stated failure.

    Parameters
    ----------
    what : str
        What is wrong, with the value found and the value wanted.
    where : object, optional
        The file, key, store or argument the failure is about; it starts the line.
    remedy : str, optional
        What the reader can do about it; it ends the line.
    """

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where is not None else self.what
        line = f"{head}; {self.remedy}" if self.remedy else head
        return " ".join(line.split())

    def __reduce__(self) -> tuple[object, ...]:
        """Keep ``where`` and ``remedy`` when a dask worker sends the failure home."""
        return (_rebuild, (type(self), self.what, self.where, self.remedy))


class CatalogError(SherlockError):
    """The catalogue says something it cannot say."""


class InputError(SherlockError):
    """A raw file (NIfTI, movie, atlas, annotations) is missing, damaged or of the wrong kind."""


class StoreError(SherlockError):
    """A Zarr store is missing, unfinished, damaged, or not the one that was asked for."""


class UnavailableError(SherlockError):
    """A store's recipe asks for what this dataset cannot give.

    ``build`` skips such a store with a line, and fails on it when it was named.
    """


class ConfigError(SherlockError):
    """An option, split or model setting does not fit the data or the machine."""


class NoSpaceError(SherlockError):
    """The disk is full, or would be."""


def _rebuild(
    kind: type[SherlockError], what: str, where: object, remedy: str | None
) -> SherlockError:
    return kind(what, where=where, remedy=remedy)


def nearest(name: str, known: Iterable[str], n: int = 1) -> list[str]:
    """Return up to ``n`` of ``known`` that look most like ``name``, best first, in any case."""
    names: dict[str, list[str]] = {}
    for one in known:
        names.setdefault(one.casefold(), []).append(one)
    close = difflib.get_close_matches(name.casefold(), names, n=n, cutoff=0.5)
    return [one for folded in close for one in names[folded]][:n]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Phrase the remedy for an unknown ``name``: the nearest known one, or what there is.

    Names that are equally near are all named, as long as they are few.
    """
    known = sorted(known)
    close = nearest(name, known, MOST_ALIKE + 1)
    alike = sorted(one for one in close if _likeness(name, one) == _likeness(name, close[0]))
    if 0 < len(alike) <= MOST_ALIKE:
        return "did you mean " + " or ".join(f"'{one}'" for one in alike) + "?"
    more = f", ... ({len(known):,} in all)" if len(known) > MOST_SHOWN else ""
    return "known: " + (", ".join(known[:MOST_SHOWN]) + more if known else "none")


def or_beside(path: str | Path, remedy: str) -> str:
    """Phrase the remedy for a path that is not there: a name beside it that is like it, or this.

    Parameters
    ----------
    path : path or URL
        Of a URL nothing is looked up.
    remedy : str
        What there is to do where no such name is there.
    """
    lacking = Path(path)
    rest: list[str] = []
    while not lacking.parent.is_dir():
        rest.insert(0, lacking.name)
        lacking = lacking.parent
    if "://" in str(path) or lacking.exists():
        return remedy
    try:
        there = sorted(entry.name for entry in lacking.parent.iterdir())
    except OSError:
        return remedy
    # what all the names share, as `.zarr`, makes none of them alike
    there = [one for one in there if "".join(Path(one).suffixes) == "".join(lacking.suffixes)]
    stem = lacking.name.partition(".")[0]
    likest = {one: _likeness(stem, one.partition(".")[0]) for one in there}
    best = max(likest, key=lambda one: likest[one], default=None)
    if best is None or likest[best] < ALIKE:
        return remedy
    return f"did you mean '{lacking.with_name(best).joinpath(*rest)}'? Otherwise {remedy}"


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other.casefold(), name.casefold()).ratio()
