"""File patterns with ``{subject}`` and ``{run}``: from a catalogue's words to files on disk."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sherlock_data.errors import CatalogError, InputError, did_you_mean, nearest, or_beside

PLACEHOLDERS = ("subject", "run")
#: what a placeholder stands for: a BIDS label, or several joined by hyphens
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"


@dataclass(frozen=True)
class Match:
    """A file and what its placeholders stood for; None where the pattern has none."""

    path: Path
    subject: str | None
    run: str | None


def find(pattern: str, raw: Path) -> list[Match]:
    """Find the files below ``raw`` that a pattern describes.

    Parameters
    ----------
    pattern : str
        Relative to ``raw``; may lead through folders. A placeholder may occur twice (BIDS names
        have ``{subject}`` in folder and file) and then stands for the same text. All else is
        literal.
    raw : Path

    Returns
    -------
    list of Match
        At least one, in natural order of subject, then run (2 before 10).

    Raises
    ------
    CatalogError
        If a placeholder is unknown, or the pattern is an absolute path or no file's name.
    InputError
        If no file matches; the remedy shows the nearest names where the search ended.
    """
    if Path(pattern).is_absolute():
        raise CatalogError(
            "is not relative to the raw folder",
            where=f"bold: {pattern}",
            remedy="give the folder to --raw and the rest as the pattern",
        )
    if not Path(pattern).name:
        raise CatalogError(
            "names no file", where=f"bold: '{pattern}'", remedy="write it as s{subject}.nii.gz"
        )
    expression = _expression(pattern)
    wild = glob.escape(pattern)
    for name in PLACEHOLDERS:
        wild = wild.replace(f"{{{name}}}", "*")
    found = []
    for path in raw.glob(wild):
        match = expression.fullmatch(path.relative_to(raw).as_posix())
        if match and path.is_file():
            groups = match.groupdict()
            found.append(Match(path, groups.get("subject"), groups.get("run")))
    if not found:
        raise _nothing(pattern, raw)
    return sorted(found, key=lambda match: (natural(match.subject), natural(match.run)))


def natural(text: str | None) -> tuple[tuple[int, int, str], ...]:
    """Sorting key that orders numbers by value and puts them before words."""
    pieces = re.findall(r"\d+|\D+", text or "")
    return tuple((0, int(p), p) if p.isdecimal() else (1, 0, p) for p in pieces)


def has(pattern: str, placeholder: str) -> bool:
    """Whether the pattern holds ``{placeholder}``."""
    return f"{{{placeholder}}}" in pattern


def _expression(pattern: str) -> re.Pattern[str]:
    """Compile a pattern; a placeholder's second occurrence refers to its first."""
    out, seen = "", set()
    for piece in re.split(r"(\{[^{}]*\})", pattern):
        name = piece[1:-1]
        if not piece.startswith("{"):
            out += re.escape(piece)
        elif name not in PLACEHOLDERS:
            raise CatalogError(
                f"unknown placeholder '{piece}'",
                where=f"bold: {pattern}",
                remedy=did_you_mean(name, PLACEHOLDERS),
            )
        else:
            out += f"(?P={name})" if name in seen else f"(?P<{name}>{_LABEL})"
            seen.add(name)
    return re.compile(out)


def _nothing(pattern: str, raw: Path) -> InputError:
    """Complain where the pattern stops leading anywhere, with what is there instead."""
    if not raw.is_dir():
        return InputError("no such folder", where=raw, remedy=or_beside(raw, "check --raw"))
    folder, wanted = raw, pattern
    for part in Path(pattern).parts:
        wanted = part
        if re.search(r"\{\w+\}", part):
            expression = _expression(part)
            fitting = sorted(p for p in folder.iterdir() if expression.fullmatch(p.name))
        else:
            fitting = [folder / part] if (folder / part).exists() else []
        if not fitting or not fitting[0].is_dir():
            break
        folder = fitting[0]
    names = sorted(path.name for path in folder.iterdir())
    return InputError(
        f"no file matches '{pattern}'", where=folder, remedy=_what_is_there(wanted, names)
    )


def _what_is_there(wanted: str, names: Iterable[str]) -> str:
    names = list(names)
    shown = nearest(wanted, names, 3) or names[:3]
    if not shown:
        return "the folder is empty: check --raw"
    return f"nearest names there: {', '.join(shown)}"
