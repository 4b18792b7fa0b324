"""Compiled loops are kept on disk; a disk that is full or damaged costs time and nothing else."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core import caching

LOOP = """
from sherlock_models.compiled import compiled

@compiled
def inner(x):
    return 2 * x

@compiled
def doubled(values):
    for n in range(values.size):
        values[n] = inner(values[n])
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where loops are kept."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    (tmp_path / "loop.py").write_text(LOOP)
    return tmp_path / "kept"


def double_in_a_new_process(kept: Path) -> dict[object, int]:
    """As a new process would: the module is read anew. Return what was found on disk."""
    spec = importlib.util.spec_from_file_location("loop", kept.parent / "loop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = np.arange(3.0)
    module.doubled(values)
    assert values.tolist() == [0, 2, 4]
    hits: dict[object, int] = module.doubled.stats.cache_hits
    return hits


def test_what_was_compiled_is_kept(kept: Path) -> None:
    assert not double_in_a_new_process(kept)
    assert sum(double_in_a_new_process(kept).values()) == 1


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize("damage", [emptied, cut])
@pytest.mark.parametrize("kind", ["*.nbi", "*.nbc"])
def test_damaged_files_are_compiled_anew(
    kept: Path, damage: Callable[[Path], None], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    double_in_a_new_process(kept)
    for path in kept.rglob(kind):
        damage(path)
    assert not double_in_a_new_process(kept)
    assert "compiled anew" in caplog.text
    assert sum(double_in_a_new_process(kept).values()) == 1


def test_a_full_disk_keeps_nothing(
    kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_index", full)
    caplog.set_level(logging.WARNING)
    assert not double_in_a_new_process(kept)
    assert "not kept ([Errno 28] No space left on device)" in caplog.text


def test_where_nothing_may_be_written_nothing_is_kept(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert not double_in_a_new_process(kept)
    assert not kept.exists()
