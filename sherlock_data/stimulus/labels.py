"""What the columns of an annotation sheet say: numbers, shares of categories, or text.

A column is recognised by what it holds. Several raters of one thing become their mean; ``yes`` and
``no`` become 1 and 0, ``+`` and ``-`` +1 and -1; other text is kept, and its frequent categories
become variables of their own (one-hot; a cell may name several, separated by commas).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from sherlock_data.errors import InputError
from sherlock_data.recipes import RESERVED
from sherlock_data.timing import FloatArray

#: a category is frequent that at least this share of the segments names
FREQUENT = 0.02
#: more distinct categories than this are no categories but prose
CATEGORIES = 400
#: a column with longer text than this on average is prose
PROSE_LENGTH = 40
WORDS = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0, "+": 1.0, "-": -1.0}
ROW_NUMBERS = ("segment_number", "segment", "index")
#: variables that every annotations store has
TAKEN = (*RESERVED, "has_stimulus")
#: columns of the published Sherlock sheet (Chen et al. 2017) whose own names are long
NAMES = {
    "scene_segments": "scene",
    "scene_details_a_level": "description",
    "space_in_outdoor": "space",
    "music_presence": "music",
}
#: columns that name a thing only where it begins
HELD = ("scene",)
#: a column whose cells are empty where nothing of the kind happens: its presence as a number
PRESENCE = {"name_speaking": "speaking", "words_on_screen": "words_on_screen"}
#: a category that has a name of its own
SHARES = {"space_indoor": "indoor", "space_outdoor": "outdoor"}
NOBODY = ("", "nobody", "none")


@dataclass(frozen=True)
class Label:
    """One label of every segment.

    Attributes
    ----------
    name : str
    encoding : str
        ``"numeric"``, ``"one-hot"`` or ``"text"``.
    values : ndarray, shape (segment,)
        float64 (NaN: not rated), or str objects.
    attrs : dict
    """

    name: str
    encoding: str
    values: FloatArray | np.ndarray[tuple[int], np.dtype[np.object_]]
    attrs: dict[str, str] = field(default_factory=dict)


def slug(text: str) -> str:
    """Name of a variable: lower case, words joined by underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def labels_of(table: pd.DataFrame) -> list[Label]:
    """Turn the columns of a sheet into labels.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per segment; no time columns.

    Returns
    -------
    list of Label
        In the order of the columns, names unique.

    Raises
    ------
    InputError
        If two columns give one name, or one a name that the store has itself.
    """
    found: dict[str, Label] = {}
    raters: dict[str, list[FloatArray]] = {}
    columns: dict[str, str] = {}
    for column in table.columns:
        rated = re.match(r"(.+?)[ _-]+rater[ _-]*\d+$", str(column).strip(), re.IGNORECASE)
        name = slug(rated.group(1) if rated else str(column))
        name = NAMES.get(name, name)
        if name in ROW_NUMBERS or table[column].isna().all():
            continue
        _check_name(name, str(column), None if rated else columns.get(name))
        columns[name] = str(column)
        numbers = _numbers(table[column])
        if rated and numbers is not None:
            raters.setdefault(name, []).append(numbers)
        elif numbers is not None:
            found[name] = Label(name, "numeric", numbers, {"column": str(column)})
        else:
            for label in _text_labels(name, table[column], str(column)):
                found[label.name] = label
    for name, values in raters.items():
        found[name] = Label(name, "numeric", _mean(values), {"raters": str(len(values))})
    return list(found.values())


def _check_name(name: str, column: str, other: str | None) -> None:
    """Refuse a column that would take the place of another, or of the store's own variables."""
    if other is not None or name in TAKEN:
        of = f"as column '{other}' does" if other is not None else "which the store has itself"
        raise InputError(
            f"column '{column}' gives a label '{name}', {of}", remedy="give it another name"
        )


def _numbers(column: pd.Series) -> FloatArray | None:
    """Column as float64, NaN where empty; None if it holds other things than numbers."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return _float(column)
    words = column.astype("string").str.lower().map(WORDS, na_action="ignore")
    if words.notna().sum() == column.notna().sum():
        return _float(words)
    return None


def _float(column: pd.Series) -> FloatArray:
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


def _mean(raters: list[FloatArray]) -> FloatArray:
    """Mean over the raters that gave a value; NaN where none did."""
    stacked = np.stack(raters)
    given = np.isfinite(stacked)
    total = np.where(given, stacked, 0.0).sum(axis=0)
    count = given.sum(axis=0)
    mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return np.asarray(mean, dtype=np.float64)


def _text_labels(name: str, column: pd.Series, title: str) -> list[Label]:
    text = column.astype("string")
    if name in HELD:
        text = text.ffill()
    text = text.fillna("")
    kept = "words" if name == "words_on_screen" else name
    labels = [Label(kept, "text", text.to_numpy(dtype=object), {"column": title})]
    if name in PRESENCE:
        present = ~text.str.lower().isin(NOBODY)
        attrs = {"column": title, "comment": "1 where the cell names something"}
        labels.append(Label(PRESENCE[name], "numeric", _float(present), attrs))
    prose = name in HELD or name in ("words_on_screen", "description")
    if prose or text.nunique() > CATEGORIES or text.str.len().mean() > PROSE_LENGTH:
        return labels
    named = [{part.strip() for part in cell.split(",")} - {""} for cell in text]
    every = pd.Series([part for parts in named for part in sorted(parts)], dtype="string")
    counts = every.value_counts()
    for category in sorted(counts[counts >= FREQUENT * len(text)].index):
        variable = f"{name}_{slug(category)}"
        share = SHARES.get(variable, variable)
        values = np.array([float(category in parts) for parts in named])
        attrs = {"column": title, "category": str(category)}
        labels.append(Label(share, "numeric" if share != variable else "one-hot", values, attrs))
    return labels
