"""What a build keeps of each finished part: its small results, and what it wrote.

While a store is being built they lie beside it, so that a resumed build repeats no finished part.
When it is complete they move into it, so that a repair repeats none but the damaged.
"""

from __future__ import annotations

import io
import logging
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from zarr.abc.store import Store

from sherlock_data.objects import Sum, build_place, read_bytes, write_bytes, writing_part, written
from sherlock_data.plan import Part, Results

_LOG = logging.getLogger(__name__)

#: where a complete store keeps its parts' records
KEPT = ".parts/"
_KEYS, _SUMS = "written/keys", "written/sums"


def run_part(path: str | Path, part: Part, report: Callable[[float], None]) -> Results:
    """Do one part, and record that it is done."""
    started = time.perf_counter()
    with writing_part(str(path), part.name):
        results = part.run(str(path), report)
    save_part(path, part.name, results)
    _LOG.debug("%s: part %s in %.2f s", path, part.name, time.perf_counter() - started)
    return results


def save_part(path: str | Path, name: str, results: Results) -> None:
    """Record that a part is done: its small results, and what was written meanwhile."""
    fresh = written.pop((str(path), name), {})
    keys = sorted(fresh)
    record = {
        **{key: np.asarray(value) for key, value in results.items()},
        _KEYS: np.array(keys, dtype=str),
        _SUMS: np.array([fresh[key] for key in keys], dtype=np.int64).reshape(-1, 2),
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **record)
    write_bytes(build_place(path), f"{name}.npz", buffer.getvalue())


def load_part(path: str | Path, name: str) -> Results | None:
    """Small results of a finished part; None when it has not finished."""
    return decode(read_bytes(build_place(path, read_only=True), f"{name}.npz"))


def read_kept(store: Store, name: str) -> tuple[bytes, dict[str, Sum]] | None:
    """Return a part's record as a complete store keeps it, with what the part wrote.

    None where there is no record, or a damaged one (the archive has checksums of its own).
    """
    data = read_bytes(store, kept_key(name))
    record = decode(data)
    return None if data is None or record is None else (data, sums_of(record))


def kept_key(name: str) -> str:
    """Key of a part's record in a complete store."""
    return f"{KEPT}{name}.npz"


def sums_of(record: Results) -> dict[str, Sum]:
    """Return what a part wrote: key to size and CRC-32C."""
    sums = [(size, crc) for size, crc in record[_SUMS].tolist()]
    return dict(zip(record[_KEYS].tolist(), sums, strict=True))


def decode(data: bytes | None) -> Results | None:
    """Content of a part's record; None where it is missing or damaged."""
    if data is None:
        return None
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            record = {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError, NotImplementedError):
        return None
    return record if _KEYS in record and _SUMS in record else None
