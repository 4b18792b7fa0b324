"""What the real dataset is like, as the catalogue says it."""

from __future__ import annotations

from sherlock_data.catalog import load_catalog

DATASET = "sherlock"


def _repetition_time_s() -> float:
    found = load_catalog().dataset(DATASET).repetition_time_s
    if found is None:
        raise SystemExit(f"the catalogue gives {DATASET} no repetition_time_s")
    return found


TR_S = _repetition_time_s()
