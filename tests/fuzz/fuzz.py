"""Fuzz what people and other programs write: catalogues, NIfTI headers, metadata of stores.

A stated failure (:class:`SherlockError`) or success; any other exception is a defect, is shrunk to
its smallest example and shown.

    python -m tests.fuzz.fuzz --minutes 5
    python -m tests.fuzz.fuzz --minutes 5 nifti
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import nibabel
import numpy as np
import yaml

from sherlock_data.catalog import load_catalog
from sherlock_data.errors import SherlockError
from sherlock_data.inspect import inspect_files
from sherlock_data.listing import describe_path
from sherlock_data.nifti import stream
from sherlock_data.scan import resolve
from tests.corpus.example import AFFINE, CATALOG, SHAPE, write_image

#: examples between two looks at the clock's end, each round with a seed of its own
ROUND = 500
NIFTI_BYTES = 352
#: pieces of YAML that mean something
TOKENS = [
    *"{}[]:,-?|>&*!%@`\"'#~\t\n ",
    *["&a ", "*a", "<<: *a", "!!int x", "!!binary x", "!!set", "!!python/none", "? ", "- ", "---"],
    *[
        "2026-13-45",
        "0b",
        "0x",
        "1:99",
        ".inf",
        ".nan",
        "1e999",
        "null",
        "yes",
        "\0",
        "\ud7ff",
        "=",
    ],
    *["lab", "volumes", "subjects: ", "runs: ", "{subject}", "../", "1" * 5000, "[" * 500],
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 200),
    st.sampled_from([2**31, 2**63, -(2**63), 10**30]),
    st.floats(),
    st.sampled_from(["", "0", "lab", "voxels", "../x", "s{subject}.nii.gz", "{run}", "nan", "é"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
#: what an edit does: where (an index among all places, modulo their number), how, with what
EDITS = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.sampled_from(["replace", "delete", "rename", "copy"]),
        VALUES,
        st.text(max_size=6),
    ),
    min_size=1,
    max_size=3,
)


@dataclass(frozen=True)
class Fuzzer:
    """Examples, and what is done with one; `check` raises for a defect."""

    examples: st.SearchStrategy[Any]
    check: Callable[[Any], None]


def edited(document: Any, edits: list[tuple[int, str, Any, str]]) -> Any:
    """Change a nested document in a few places."""
    document = json.loads(json.dumps(document))
    for index, how, value, name in edits:
        places = list(_places(document))
        if not places:
            break
        parent, key = places[index % len(places)]
        if how == "delete":
            del parent[key]
        elif how == "rename" and isinstance(parent, dict):
            parent[name] = parent.pop(key)
        elif how == "copy":
            other, source = places[(index * 7 + 1) % len(places)]
            parent[key] = json.loads(json.dumps(other[source]))
        else:
            parent[key] = value
    return document


def _places(document: Any) -> Any:
    items: Any = ()
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    for key, value in items:
        yield document, key
        yield from _places(value)


def catalogue(folder: Path) -> Fuzzer:
    """Mutate the text and the structure of a good catalogue, and look for its files."""
    raw = folder / "raw"
    raw.mkdir()
    for subject in (1, 2):
        write_image(raw / f"s{subject}.nii.gz", np.zeros((*SHAPE, 120), np.int16))
    cuts = st.tuples(st.integers(0, len(CATALOG)), st.integers(0, 30), st.sampled_from(TOKENS))
    structure = yaml.safe_load(CATALOG)

    def check(example: tuple[str, Any]) -> None:
        kind, edits = example
        text = CATALOG
        if kind == "text":
            for start, length, token in edits:
                text = text[:start] + token + text[start + length :]
        else:
            text = yaml.safe_dump(edited(structure, edits), allow_unicode=True)
        (raw / "catalog.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
        with suppress(SherlockError):
            catalog = load_catalog(raw / "catalog.yaml")
            for name, entry in catalog.datasets.items():
                with suppress(SherlockError):
                    catalog.recipes(name)
                    resolve(name, entry, raw, strict=False)
                with suppress(SherlockError):
                    resolve(name, entry, raw)

    texts = st.lists(cuts, min_size=1, max_size=4)
    return Fuzzer(
        st.one_of(st.tuples(st.just("text"), texts), st.tuples(st.just("keys"), EDITS)), check
    )


def nifti(folder: Path) -> Fuzzer:
    """Mutate the header of a real small file, byte by byte and field by field."""
    path = folder / "scan.nii"
    write_image(path, np.arange(24 * 5, dtype=np.int16).reshape(*SHAPE, 5))
    good = path.read_bytes()
    fields = nibabel.Nifti1Header.template_dtype.fields
    shorts = st.integers(-(2**15), 2**15 - 1).map(lambda n: struct.pack("<h", n))
    floats = st.floats(width=32).map(lambda x: struct.pack("<f", x))
    changes = st.lists(
        st.one_of(
            st.tuples(st.integers(0, NIFTI_BYTES - 1), st.binary(min_size=1, max_size=4)),
            st.tuples(st.sampled_from([spot[1] for spot in fields.values()]), shorts | floats),
            st.tuples(st.sampled_from(range(40, 56, 2)), shorts),
            st.tuples(st.sampled_from(range(76, 120, 4)), floats),
        ),
        min_size=1,
        max_size=6,
    )

    def check(example: tuple[list[tuple[int, bytes]], int]) -> None:
        changed, length = example
        data = bytearray(good)
        for at, new in changed:
            data[at : at + len(new)] = new
        path.write_bytes(data[:length])
        with suppress(SherlockError), stream(path) as blocks:
            deque(blocks, maxlen=0)
        with suppress(SherlockError):
            inspect_files([path])

    lengths = st.just(len(good)) | st.integers(0, len(good))
    return Fuzzer(st.tuples(changes, lengths), check)


def store(folder: Path) -> Fuzzer:
    """Mutate the root metadata of a built store, as text and as a document."""
    path = folder / "voxels.zarr"
    _build(folder)
    good = (path / "zarr.json").read_text()
    document = json.loads(good)
    cuts = st.tuples(st.integers(0, len(good)), st.integers(0, 30), st.text(max_size=6))

    def check(example: tuple[str, Any]) -> None:
        kind, edits = example
        text = good
        if kind == "text":
            for start, length, new in edits:
                text = text[:start] + new + text[start + length :]
        else:
            text = json.dumps(edited(document, edits))
        (path / "zarr.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        with suppress(SherlockError):
            describe_path(str(path))

    texts = st.lists(cuts, min_size=1, max_size=3)
    return Fuzzer(
        st.one_of(st.tuples(st.just("text"), texts), st.tuples(st.just("keys"), EDITS)), check
    )


def _build(folder: Path) -> None:
    """Build `voxels.zarr` of one small scan."""
    from sherlock_data.build import build

    raw = folder / "raw"
    raw.mkdir()
    values = np.random.default_rng(0).normal(1000, 30, size=(*SHAPE, 12)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), raw / "s1.nii.gz")
    entry = {"bold": "s{subject}.nii.gz", "repetition_time_s": 1.5, "space": "native"}
    (raw / "catalog.yaml").write_text(yaml.safe_dump({"datasets": {"lab": entry}}))
    catalog = load_catalog(raw / "catalog.yaml")
    build(resolve("lab", catalog.dataset("lab"), raw), catalog, folder / "stores", ["voxels"])
    shutil.move(folder / "stores/lab/voxels.zarr", folder / "voxels.zarr")


FUZZERS = {"catalogue": catalogue, "nifti": nifti, "store": store}


def fuzz(name: str, folder: Path, *, seconds: float, examples: int = ROUND) -> int:
    """Run one fuzzer for some seconds, at least one round of `examples`; returns executions."""
    fuzzer, executions = FUZZERS[name](folder), 0
    end = time.monotonic() + seconds

    def check(example: Any) -> None:
        nonlocal executions
        executions += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fuzzer.check(example)

    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    number = 0
    while number == 0 or time.monotonic() < end:
        hypothesis.seed(number)(settings(hypothesis.given(fuzzer.examples)(check)))()
        number += 1
    return executions


def main() -> None:
    """Print minutes and executions of every fuzzer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(FUZZERS), help=", ".join(FUZZERS))
    parser.add_argument("--minutes", type=float, default=5, help="of each")
    given = parser.parse_args()
    for name in given.names:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            executions = fuzz(name, Path(folder), seconds=60 * given.minutes)
        minutes = (time.monotonic() - start) / 60
        print(f"{name}: {minutes:.1f} minutes, {executions:,} executions, stated failures only")


if __name__ == "__main__":
    main()
