"""Data that the whole suite shares: a tiny synthetic dataset, raw and built once."""

from __future__ import annotations

from pathlib import Path

import pytest

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real() -> Path:
    """Folder of the real data; the test is skipped where it is absent."""
    if not REAL.is_dir():
        pytest.skip(f"no real data beside the checkout ({REAL.name}/ of the workplace)")
    return REAL


@pytest.fixture(scope="session")
def tiny_raw(tmp_path_factory) -> Path:
    """Raw files of ``synth --size tiny``: scans, movies, atlas, catalog.yaml, truth.zarr."""
    from sherlock_data.synthetic import synth

    out = tmp_path_factory.mktemp("synth") / "raw"
    synth(out, size="tiny", seed=0)
    return out


@pytest.fixture(scope="session")
def tiny_stores(tiny_raw, tmp_path_factory) -> Path:
    """Folder of every default store of the tiny dataset; tests must not write to it."""
    from sherlock_data.build import build
    from sherlock_data.catalog import load_catalog
    from sherlock_data.scan import resolve

    out = tmp_path_factory.mktemp("stores")
    catalog = load_catalog(tiny_raw / "catalog.yaml")
    build(resolve("synth", catalog.dataset("synth"), tiny_raw), catalog, out)
    return out / "synth"
