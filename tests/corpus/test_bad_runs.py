"""Runs that were cut, changed, moved away from their stores, or that are none."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.corpus.case import Case, nothing, table
from tests.corpus.damage import (
    changed_json,
    cut,
    ended,
    flipped,
    folder,
    removed,
    swapped,
    together,
    written,
)

RUN, CONFIG = "runs/toy", "runs/toy/config.yaml"
STEP = "runs/toy/checkpoints/step-2"
SHARD = f"{STEP}/shard-00001-model-00001-of-00001.safetensors"
SHOW, EVALUATE = f"sherlock-models show {RUN}", f"sherlock-models evaluate {RUN}"
RESUME, LESION = f"sherlock-train --resume {RUN}", f"sherlock-models lesion {RUN}"
REPORT = f"sherlock-models report {RUN}"

CASES = [
    Case(
        "no-run",
        nothing,
        "sherlock-models show runs/gone",
        "runs/gone: no config.yaml there; name a folder that sherlock-train made",
    ),
    Case(
        "a-file-for-a-run",
        nothing,
        "sherlock-models evaluate raw/film.mp4",
        "raw/film.mp4: no config.yaml there",
    ),
    Case("config-gone", removed(CONFIG), RESUME, RUN + ": no config.yaml there"),
    Case(
        "config-cut",
        ended(CONFIG, "\nstores:"),
        SHOW,
        CONFIG + ": is not complete: lacks ... restore it, or train again",
    ),
    Case(
        "config-of-a-list",
        written(CONFIG, "[]"),
        SHOW,
        CONFIG + ": not a mapping ... ; restore it, or train again",
    ),
    Case(
        "config-not-utf-8",
        written(CONFIG, b"\xff"),
        SHOW,
        CONFIG + ": not valid YAML ... ; restore it, or train again",
    ),
    Case(
        "config-of-a-date-that-is-none",
        written(CONFIG, "entry: 2026-13-45"),
        SHOW,
        CONFIG + ": not valid YAML ... ; restore it, or train again",
    ),
    Case(
        "config-that-makes-objects",
        written(CONFIG, "a: !!python/object/apply:os.mkdir [new]"),
        SHOW,
        CONFIG + ": not valid YAML ... ; restore it, or train again",
    ),
    Case(
        "config-of-a-newer-version",
        swapped(CONFIG, "schema_version: 1", "schema_version: 2"),
        SHOW,
        CONFIG + ": schema version 2, this package reads up to 1; upgrade sherlock-zoo",
    ),
    Case(
        "config-of-a-version-in-words",
        swapped(CONFIG, "schema_version: 1", "schema_version: new"),
        RESUME,
        CONFIG + ": schema version 'new', this package reads up to 1",
    ),
    Case(
        "config-of-another-time",
        swapped(CONFIG, "precision:", "presicion:"),
        SHOW,
        CONFIG + ": presicion: unknown key ... did you mean 'precision'?",
    ),
    Case(
        "config-without-a-step",
        swapped(CONFIG, "batch_size: 8", "batch_size: 0"),
        SHOW,
        CONFIG + ": batch_size: ... (found 0)",
    ),
    Case(
        "config-of-no-architecture",
        swapped(CONFIG, "architecture: dense", "architecture: dens"),
        EVALUATE,
        "dens ... ; did you mean 'dense'?",
    ),
    Case(
        "metrics-cut",
        swapped("runs/toy/metrics.jsonl", '{"step": 1', '{"step": }'),
        SHOW,
        "runs/toy/metrics.jsonl: is damaged; restore it",
    ),
    Case(
        "metrics-of-a-list",
        written("runs/toy/metrics.jsonl", "[{}]\n[]}\n"),
        SHOW,
        "runs/toy/metrics.jsonl: is damaged",
    ),
    Case(
        "metrics-of-other-things",
        written("runs/toy/metrics.jsonl", '{"a": 1}\n'),
        SHOW,
        "runs/toy/metrics.jsonl: is damaged",
    ),
    Case(
        "state-cut", cut("runs/toy/state.json"), SHOW, "runs/toy/state.json: is damaged; restore it"
    ),
    Case(
        "state-of-a-list",
        written("runs/toy/state.json", "[]"),
        SHOW,
        "runs/toy/state.json: is damaged",
    ),
    Case(
        "state-of-a-process-in-words",
        changed_json("runs/toy/state.json", lambda d: d.update(state="running", pid="seven")),
        SHOW,
        "runs/toy/state.json: is damaged",
    ),
    Case(
        "fitted-gone",
        removed("runs/toy/fitted.safetensors"),
        f"sherlock-models decode {RUN} raw/film.mp4 out.mp4",
        "runs/toy/fitted.safetensors: no fitted statistics",
    ),
    Case(
        "fitted-cut",
        cut("runs/toy/fitted.safetensors"),
        f"sherlock-models decode {RUN} raw/film.mp4 out.mp4",
        "runs/toy/fitted.safetensors: ",
    ),
    Case(
        "no-checkpoint",
        removed("runs/toy/checkpoints"),
        EVALUATE,
        "runs/toy/checkpoints: no checkpoint yet",
    ),
    Case("checkpoint-gone", removed(STEP), EVALUATE, STEP + ": is gone; train again"),
    Case(
        "index-cut",
        cut("runs/toy/checkpoints/index.json"),
        EVALUATE,
        "runs/toy/checkpoints/index.json: cannot be read; restore it",
    ),
    Case(
        "index-of-words",
        written("runs/toy/checkpoints/index.json", '{"best": "two", "last": "two"}'),
        EVALUATE,
        "runs/toy/checkpoints ... /index.json: cannot be read; restore it",
    ),
    Case(
        "index-that-leaves-the-folder",
        written("runs/toy/checkpoints/index.json", '{"best": "2/../../../../raw", "last": 2}'),
        EVALUATE,
        "runs/toy/checkpoints ... /index.json: cannot be read; restore it",
    ),
    Case("shard-cut", cut(SHARD), EVALUATE, STEP + ": is damaged: the bytes of shard"),
    Case("shard-flipped", flipped(SHARD), EVALUATE, STEP + ": is damaged: the bytes of shard"),
    Case("shard-gone", removed(SHARD), EVALUATE, STEP + ": is damaged: lacks shard"),
    Case(
        "step-file-gone",
        removed(f"{STEP}/step.json"),
        EVALUATE,
        STEP + ": no step.json that can be read; use another checkpoint",
    ),
    Case(
        "step-file-of-a-list",
        written(f"{STEP}/step.json", "[]"),
        EVALUATE,
        STEP + ": no step.json that can be read",
    ),
    Case(
        "a-pickle-beside-the-shards",
        written(f"{STEP}/.metadata", b"cos\nmkdir\n(S'hacked'\ntR."),
        EVALUATE,
        STEP + ": holds .metadata, which is no safetensors and is never unpickled",
    ),
    Case(
        "a-folder-beside-the-shards",
        folder(f"{STEP}/more"),
        EVALUATE,
        STEP + ": holds more ... ; use another checkpoint",
    ),
    Case(
        "stores-gone",
        removed("stores"),
        EVALUATE,
        "stores/lab: no complete store 'parcels' (built: none); run sherlock-data build",
    ),
    Case(
        "stores-built-again",
        changed_json(
            "stores/lab/parcels.zarr/zarr.json", lambda d: d["attributes"].update(title="other")
        ),
        EVALUATE,
        "parcels ... .zarr: not the store this run was configured with ... build it with",
    ),
    Case(
        "resume-nothing",
        nothing,
        "sherlock-train --resume runs/gone",
        "runs/gone: no config.yaml there",
    ),
    Case(
        "resume-otherwise",
        nothing,
        RESUME + " --set parallel=fdsp",
        RUN + ": parallel: ... (found 'fdsp')",
    ),
    Case(
        "evaluation-cut",
        together(written("runs/toy/evaluation.json", "{"), folder("runs/toy/evaluation.zarr")),
        REPORT,
        "runs/toy/evaluation.json: ",
    ),
    Case(
        "evaluation-of-a-list",
        together(written("runs/toy/evaluation.json", "[]"), folder("runs/toy/evaluation.zarr")),
        REPORT,
        "runs/toy/evaluation.json: ",
    ),
    Case(
        "evaluation-without-arrays",
        together(
            written("runs/toy/evaluation.json", '{"step": 2}'), folder("runs/toy/evaluation.zarr")
        ),
        REPORT,
        "runs/toy/evaluation ... .zarr: is damaged; run sherlock-models evaluate",
    ),
    Case(
        "unknown-unit",
        nothing,
        LESION + " --units Net7",
        "--units: no unit 'Net7'; did you mean 'Net",
    ),
    Case(
        "unit-twice",
        nothing,
        LESION + " --units Net0,Net0",
        "--units: 'Net0' is there twice; name it once",
    ),
    Case("unit-of-nothing", nothing, LESION + " --units ''", "--units: no unit ''"),
    Case(
        "components-of-parcels",
        nothing,
        LESION + " --units components",
        "--units: the brain layer 'parcels' has no components",
    ),
    Case(
        "region-that-is-no-image",
        written("v1.nii.gz", "x"),
        LESION + " --units v1.nii.gz",
        "v1.nii.gz: not a readable image ... give a 3-D NIfTI file",
    ),
    Case(
        "region-of-a-flipped-bit",
        together(
            lambda desk: shutil.copy(desk / "raw/s1.nii.gz", desk / "v1.nii.gz"),
            flipped("v1.nii.gz", 400),
        ),
        LESION + " --units v1.nii.gz",
        "v1.nii.gz: not a readable image ... give a 3-D NIfTI file",
    ),
    Case("region-of-a-series", nothing, LESION + " --units raw/s1.nii.gz", "raw/s1.nii.gz: "),
]


@table(CASES)
def test_a_bad_run_is_one_line_and_nothing_is_written(case: Case, desk: Path) -> None:
    case.check(desk)
