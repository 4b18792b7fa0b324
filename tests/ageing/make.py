"""Write `version-N.zip`: stores and a run as this version makes them, for later ones to open.

    python -m tests.ageing.make

The commands that are run, on the raw files of `tests/corpus/example.py`:

    sherlock-data build lab voxels parcels pca stimulus annotations --catalog raw/catalog.yaml ...
    sherlock-train toy --data stores/lab --steps 2 --batch-size 8 ...

To be run once for each schema version, by the last release that writes it; never again after.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sherlock_data
import sherlock_models
from sherlock_data.contract import SCHEMA_VERSION
from tests.corpus import example

HERE = Path(__file__).parent
#: stands for the folder that the run was made in
FOLDER = "/FOLDER"
STORES = ("voxels", "parcels", "pca", "stimulus", "annotations")
#: of a run, what names the machine that made it and is not read
LEFT_OUT = ("events.out.", ".lock")


def values_of(folder: Path) -> dict[str, Any]:
    """Return what must come out again, of every store and of the run's model."""
    stores = {
        name: {
            str(key): float(np.nansum(variable.values.astype(np.float64)))
            for key, variable in sherlock_data.open(folder / f"stores/lab/{name}.zarr").items()
            if variable.dtype.kind in "biuf"
        }
        for name in STORES
    }
    run = sherlock_models.load(folder / "runs/toy")
    weights = {name: float(w.double().sum()) for name, w in run.model.state_dict().items()}
    subjects = [str(name) for name in run.data.subjects]
    return {
        "stores": stores,
        "metrics": run.metrics(),
        "weights": weights,
        "subjects": subjects,
        "train_trs": [int(tr) for tr in run.data.split.train],
    }


def make(target: Path) -> None:
    """Write the archive."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        example.make(folder, STORES)
        (folder / "expected.json").write_text(json.dumps(values_of(folder)))
        config = folder / "runs/toy/config.yaml"
        config.write_text(config.read_text().replace(str(folder.resolve()), FOLDER))
        state = folder / "runs/toy/state.json"
        state.write_text(json.dumps(json.loads(state.read_text()) | {"host": "elsewhere"}))
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(folder.rglob("*")):
                name = path.relative_to(folder).as_posix()
                left_out = name.startswith("raw/") or any(w in path.name for w in LEFT_OUT)
                if path.is_file() and not left_out:
                    archive.write(path, name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    make(HERE / f"version-{SCHEMA_VERSION}.zip")
