"""The example's catalogue: how it is spoilt, what is typed with it, and how its errors begin."""

from __future__ import annotations

from tests.corpus.damage import Damage, swapped

CATALOG = "raw/catalog.yaml"
BUILD = f"sherlock-data build lab --catalog {CATALOG} --out new"
LIST = f"sherlock-data list --catalog {CATALOG}"
NAME = "raw/catalog.yaml: "


def says(words: str, instead: str) -> Damage:
    """Put other words into the catalogue."""
    return swapped(CATALOG, words, instead)
