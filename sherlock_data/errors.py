"""Failures a user can cause and mend: one line that says what is wrong, where, and what to do.

Everything the commands report with exit code 1 is a :class:`SherlockError`; anything else that
escapes is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
    """Return up to ``n`` of ``known`` that look most like ``name``, best first."""
    return difflib.get_close_matches(name, list(known), n=n, cutoff=0.5)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Phrase the remedy for an unknown ``name``: the nearest known one, or all of them."""
    known = sorted(known)
    close = nearest(name, known)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + (", ".join(known) if known else "none")
