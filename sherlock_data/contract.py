"""What every store promises: names of dims and attributes, codecs, and the time axis.

The design's tables in one place, so that a reader and a writer cannot disagree.
"""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

import numpy as np
import xarray as xr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec

from sherlock_data.timing import Clock

SCHEMA_VERSION = 1
CONVENTIONS = "CF-1.11"
SUFFIX = ".zarr"

#: TRs of one chunk, the smallest piece that is read and inflated at once.
CHUNK_TRS = 8
#: TRs of one shard, the smallest piece that is written at once; whole chunks.
SHARD_TRS = 128

#: attributes every store carries
ATTRIBUTES = (
    "schema_version",
    "dataset",
    "store",
    "recipe",
    "created_by",
    "inputs",
    "space",
    "repetition_time_s",
    "lag_s",
    "Conventions",
)


def created_by() -> str:
    """Return the name and version that a store or a run was written by."""
    return f"sherlock-zoo {metadata.version('sherlock-zoo')}"


def subject_label(text: str) -> str:
    """Turn the text of ``{subject}`` in a file name into a label: ``1`` or ``01`` to ``sub-01``."""
    text = text.removeprefix("sub-")
    return f"sub-{int(text):02d}" if re.fullmatch(r"\d+", text) else f"sub-{text}"


def compressors(typesize: int) -> list[BytesBytesCodec]:
    """Codec chain of every large array: blosc (LZ4, byte shuffle), then a CRC-32C of the result.

    Parameters
    ----------
    typesize : int
        Bytes of one element, for the shuffle.
    """
    return [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=typesize), Crc32cCodec()]


def time_coords(clock: Clock) -> dict[str, xr.Variable]:
    """Coordinates of the ``time`` dim of every store of a dataset.

    Parameters
    ----------
    clock : Clock

    Returns
    -------
    dict
        ``time`` (float64, s, TR starts on the scan clock), ``run`` (str), ``run_time`` (float64, s
        from the run's first kept volume) and ``tr`` (int64, 0-based), each of dim ``time``.
    """
    seconds = {"units": "s"}
    return {
        "time": xr.Variable(
            "time",
            clock.time(),
            {**seconds, "long_name": "TR start on the scan clock", "axis": "T"},
        ),
        "run": strings("time", clock.run_of_tr(), long_name="run"),
        "run_time": xr.Variable(
            "time", clock.run_time(), {**seconds, "long_name": "time from the run's first volume"}
        ),
        "tr": xr.Variable("time", clock.tr(), {"long_name": "0-based TR over all runs"}),
    }


def strings(dim: str | tuple[str, ...], values: Any, **attrs: Any) -> xr.Variable:
    """Variable of text of variable length, which Zarr v3 stores as ``string`` without a warning."""
    array = np.asarray(values, dtype=object).astype(np.dtypes.StringDType())
    return xr.Variable(dim, array, attrs)


def store_attrs(
    *,
    dataset: str,
    store: str,
    recipe: dict[str, Any],
    space: str,
    repetition_time_s: float,
    lag_s: float,
) -> dict[str, Any]:
    """Attributes known before a store is built; ``inputs`` is added when it is complete."""
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset,
        "store": store,
        "recipe": recipe,
        "created_by": created_by(),
        "space": space,
        "repetition_time_s": float(repetition_time_s),
        "lag_s": float(lag_s),
        "Conventions": CONVENTIONS,
    }
