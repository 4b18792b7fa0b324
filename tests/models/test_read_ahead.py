"""The disk is asked for the bytes that will be read, and for no others."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from sherlock_models.feeding.read_ahead import ReadAhead

TRS, UNITS, CHUNK, SHARD = 40, 50, 4, 16


@pytest.fixture
def array(tmp_path: Path) -> zarr.Array:
    """Two subjects of 40 TRs in shards of 16, uncompressed: a TR is as large as any other."""
    made = zarr.create_array(
        tmp_path / "bold",
        shape=(2, TRS, UNITS),
        chunks=(1, CHUNK, UNITS),
        shards=(1, SHARD, UNITS),
        dtype="float32",
        compressors=None,
    )
    made[:] = np.random.default_rng(0).normal(size=made.shape)
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """File, first byte and number of bytes of every hint."""
    found: list[tuple[str, int, int]] = []

    def note(handle: int, first: int, size: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        found.append(("/".join(path.parts[-4:]), first, size))

    monkeypatch.setattr(os, "posix_fadvise", note)
    return found


@pytest.mark.parametrize(
    ("start", "stop", "shares"),
    [
        pytest.param(0, 16, {0: (0, 1)}, id="a whole shard"),
        pytest.param(4, 8, {0: (0.25, 0.5)}, id="a chunk within"),
        pytest.param(12, 20, {0: (0.75, 1), 1: (0, 0.25)}, id="across two"),
    ],
)
def test_hints_cover_what_will_be_read(
    array: zarr.Array,
    asked: list[tuple[str, int, int]],
    start: int,
    stop: int,
    shares: dict[int, tuple[float, float]],
) -> None:
    ReadAhead(array).expect(1, start, stop)
    assert [name for name, *_ in asked] == [f"c/1/{shard}/0" for shard in shares]
    for (_, first, size), (low, high) in zip(asked, shares.values(), strict=True):
        whole = SHARD * UNITS * 4  # and an index of the chunks
        assert first == pytest.approx(low * whole, abs=0.1 * whole)
        assert size == pytest.approx((high - low) * whole, abs=0.1 * whole)


def test_a_missing_file_is_left_to_the_reader(
    array: zarr.Array, asked: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    (tmp_path / "bold/c/0/0/0").unlink()
    ReadAhead(array).expect(0, 0, SHARD)
    assert asked == []


def test_elsewhere_there_are_no_hints(asked: list[tuple[str, int, int]]) -> None:
    made = zarr.create_array(MemoryStore(), shape=(1, TRS, UNITS), dtype="float32")
    ReadAhead(made).expect(0, 0, TRS)
    assert asked == []
