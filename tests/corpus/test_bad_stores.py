"""Stores that are cut, changed, unfinished, from another time, or no stores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import zarr

from tests.corpus.case import Case, assert_reads, nothing, snapshot, table
from tests.corpus.damage import (
    Damage,
    changed_json,
    cut,
    flipped,
    folder,
    removed,
    together,
    written,
)
from tests.corpus.example import CATALOG, call

VOXELS, ROOT = "stores/lab/voxels.zarr", "stores/lab/voxels.zarr/zarr.json"
INFO = f"sherlock-data info {VOXELS}"
EXPORT = f"sherlock-data export {VOXELS} out.nii.gz --subject sub-01"
TRAIN = "sherlock-train toy --data stores/lab --catalog raw/catalog.yaml --out runs/new --steps 1"
UNREADABLE = f"{VOXELS}: its metadata cannot be read; run sherlock-data verify"


def attribute(name: str, value: Any, store: str = VOXELS) -> Damage:
    """Change an attribute of a store."""
    return changed_json(f"{store}/zarr.json", lambda d: d["attributes"].update({name: value}))


def lacks(name: str, store: str = VOXELS) -> Damage:
    """Take an attribute out of a store."""
    return changed_json(f"{store}/zarr.json", lambda d: d["attributes"].pop(name) and None)


def member(name: str, **keys: Any) -> Damage:
    """Change the consolidated metadata of one array."""

    def change(document: dict[str, Any]) -> None:
        document["consolidated_metadata"]["metadata"][name].update(keys)

    return changed_json(ROOT, change)


def of_zarr_2(desk: Path) -> None:
    """Put a store of Zarr's former format in place."""
    shutil.rmtree(desk / VOXELS)
    zarr.create_group(desk / VOXELS, zarr_format=2).create_array("bold", shape=(2,), dtype="f4")


def unfinished(desk: Path) -> None:
    """Leave what a killed build leaves."""
    (desk / ROOT).unlink()
    (desk / f"{VOXELS}.build").mkdir()
    (desk / f"{VOXELS}.build/plan.json").write_text("{}")


CASES = [
    Case("no-store", removed(VOXELS), INFO, VOXELS + ": no store there; run sherlock-data build"),
    Case("unfinished", unfinished, INFO, VOXELS + ": unfinished; run sherlock-data build"),
    Case(
        "no-stores-in-a-folder",
        folder("stores/empty"),
        "sherlock-data info stores/empty",
        "stores/empty: no complete store in this folder; run sherlock-data build",
    ),
    Case(
        "a-file-for-a-store",
        together(removed(VOXELS), written(VOXELS, "x")),
        INFO,
        VOXELS + ": no store there",
    ),
    Case("of-zarr-2", of_zarr_2, INFO, VOXELS + ": no store there"),
    Case("root-cut", cut(ROOT), INFO, UNREADABLE),
    Case("root-of-a-list", written(ROOT, "[]"), INFO, UNREADABLE),
    Case("root-not-utf-8", written(ROOT, b"\xff\xfe{"), INFO, UNREADABLE),
    Case(
        "root-of-an-array",
        written(
            ROOT,
            json.dumps(
                {"zarr_format": 3, "node_type": "array", "attributes": {"schema_version": 1}}
            ),
        ),
        INFO,
        UNREADABLE,
    ),
    Case("root-nested-too-deep", written(ROOT, "[" * 100_000), INFO, UNREADABLE),
    Case(
        "newer",
        attribute("schema_version", 99),
        INFO,
        VOXELS + ": schema version 99, this package reads up to 1; upgrade sherlock-zoo",
    ),
    Case(
        "newer-for-training",
        attribute("schema_version", 99, "stores/lab/parcels.zarr"),
        TRAIN,
        "parcels.zarr: schema version 99, this package reads up to 1; upgrade sherlock-zoo",
    ),
    Case(
        "version-in-words",
        attribute("schema_version", "1.0"),
        INFO,
        VOXELS + ": schema version '1.0', this package reads up to 1",
    ),
    Case(
        "version-zero",
        attribute("schema_version", 0),
        INFO,
        VOXELS + ": schema version 0, this package reads",
    ),
    Case(
        "version-true",
        attribute("schema_version", True),
        INFO,
        VOXELS + ": schema version True, this package reads",
    ),
    Case(
        "no-version",
        lacks("schema_version"),
        INFO,
        VOXELS + ": schema version None, this package reads up to 1",
    ),
    Case(
        "no-attributes",
        changed_json(ROOT, lambda d: d.pop("attributes") and None),
        INFO,
        UNREADABLE,
    ),
    Case("objects-in-an-array", member("bold", data_type="object"), INFO, UNREADABLE),
    Case("a-pickle-for-a-codec", member("bold", codecs=[{"name": "pickle"}]), INFO, UNREADABLE),
    Case("a-shape-of-words", member("bold", shape=["many"]), INFO, UNREADABLE),
    Case("a-shape-below-nothing", member("bold", shape=[2, -120, 24]), INFO, UNREADABLE),
    Case("dims-that-do-not-fit", member("bold", dimension_names=["subject"]), INFO, UNREADABLE),
    Case(
        "no-tr-to-export",
        lacks("repetition_time_s"),
        EXPORT,
        f"{VOXELS}: its attribute 'repetition_time_s' is None; run sherlock-data verify",
    ),
    Case(
        "tr-in-words-to-export",
        attribute("repetition_time_s", "soon"),
        EXPORT,
        f"{VOXELS}: its attribute 'repetition_time_s' is 'soon'; run sherlock-data verify",
    ),
    Case(
        "no-grid-to-export",
        changed_json(ROOT, lambda d: d["consolidated_metadata"]["metadata"].pop("grid") and None),
        EXPORT,
        "grid ... so nothing says where it lies",
    ),
    Case(
        "flipped-chunk-to-export",
        flipped(VOXELS + "/bold/c/0/0/0", 40),
        EXPORT,
        VOXELS + " ... is damaged: a checksum differs; run sherlock-data verify",
    ),
    Case(
        "chunk-gone-to-export",
        removed(VOXELS + "/bold/c/0/0/0"),
        EXPORT,
        VOXELS + " ... 1 objects are missing, the first is bold/c/0/0/0; run sherlock-data verify",
    ),
    Case(
        "cut-chunk-to-export",
        cut(VOXELS + "/bold/c/0/0/0"),
        EXPORT,
        VOXELS + " ... is damaged: a checksum differs; run sherlock-data verify",
    ),
    Case(
        "flipped-coordinate",
        flipped(VOXELS + "/time/c/0", 12),
        INFO,
        VOXELS + " ... its metadata cannot be read; run sherlock-data verify",
    ),
    Case(
        "export-of-a-film",
        nothing,
        "sherlock-data export stores/lab/stimulus.zarr out.nii.gz",
        "stores/lab/stimulus.zarr: holds no BOLD; export volumes, voxels or parcels",
    ),
    Case(
        "export-of-components",
        nothing,
        "sherlock-data export stores/lab/pca.zarr out.nii.gz --subject sub-01",
        "no spatial dims ... ; an image needs x, y, z",
    ),
    Case(
        "export-of-which-subject",
        nothing,
        f"sherlock-data export {VOXELS} out.nii.gz",
        "the store has 2 subjects; choose one, e.g. --subject sub-01",
    ),
    Case(
        "export-of-nobody",
        nothing,
        f"sherlock-data export {VOXELS} out.nii.gz --subject sub-03",
        "no subject 'sub-03'; did you mean 'sub-0",
    ),
    Case(
        "export-of-no-run", nothing, EXPORT + " --run run-9", "no run 'run-9'; did you mean 'run-"
    ),
    Case(
        "export-of-no-time",
        nothing,
        EXPORT + " --time 900:999",
        "no volume lies in 900.0 to 999.0 s; the scan clock goes from 0 to 178.5 s",
    ),
    Case(
        "export-of-a-time-in-words",
        nothing,
        EXPORT + " --time soon",
        "--time: 'soon' is not a range of seconds; write A:B",
    ),
    Case(
        "export-of-time-nan",
        nothing,
        EXPORT + " --time nan:9",
        "no volume lies in nan ... ; the scan clock goes from 0",
    ),
    Case(
        "export-to-a-table",
        nothing,
        f"sherlock-data export {VOXELS} out.csv --subject sub-01",
        "out.csv: not a NIfTI name; end it in .nii.gz or .nii",
    ),
    Case(
        "export-into-a-folder",
        folder("out.nii"),
        f"sherlock-data export {VOXELS} out.nii --subject sub-01",
        "out.nii: is a folder; name a file",
    ),
    Case(
        "export-through-a-file",
        nothing,
        f"sherlock-data export {VOXELS} raw/atlas.tsv/out.nii --subject sub-01",
        "raw/atlas.tsv/out.nii: File exists; check the path",
    ),
    Case(
        "verify-nothing",
        nothing,
        "sherlock-data verify nowhere",
        "nowhere: ... run sherlock-data build",
    ),
    Case(
        "of-another-recipe",
        written("raw/other.yaml", CATALOG.replace("components: 4", "components: 3")),
        "sherlock-data build lab pca --catalog raw/other.yaml --out stores",
        "stores/lab/pca.zarr: complete, with ... build with --overwrite to replace it",
    ),
    Case(
        "a-file-for-the-stores",
        written("new", "x"),
        "sherlock-data build lab voxels --catalog raw/catalog.yaml --out new",
        "new ... Not a directory; check the path",
    ),
    Case(
        "a-file-for-the-dataset",
        written("new/lab", "x"),
        "sherlock-data build lab voxels --catalog raw/catalog.yaml --out new",
        "new/lab ... File exists; check the path",
    ),
    Case(
        "train-on-nothing",
        nothing,
        TRAIN.replace("stores/lab", "nowhere"),
        "nowhere/stimulus.zarr: not built; run sherlock-data build",
    ),
    Case(
        "train-on-a-store",
        nothing,
        TRAIN.replace("stores/lab", VOXELS),
        "voxels.zarr/stimulus.zarr: not built; run sherlock-data build",
    ),
    Case(
        "train-without-a-film",
        removed("stores/lab/stimulus.zarr"),
        TRAIN,
        "stores/lab/stimulus.zarr: not built; run sherlock-data build",
    ),
    Case(
        "train-on-a-cut-root",
        cut("stores/lab/parcels.zarr/zarr.json"),
        TRAIN,
        "parcels.zarr: its metadata cannot be read",
    ),
    Case(
        "train-on-no-bold",
        together(
            removed("stores/lab/parcels.zarr"),
            lambda desk: shutil.copytree(
                desk / "stores/lab/annotations.zarr", desk / "stores/lab/parcels.zarr"
            ),
        ),
        TRAIN,
        "'parcels' holds no BOLD; name a store of brains",
    ),
    Case(
        "train-on-a-flipped-chunk",
        flipped("stores/lab/parcels.zarr/bold/c/0/0/0", 40),
        TRAIN,
        "stores/lab: is damaged: a checksum differs; run sherlock-data verify",
    ),
    Case(
        "train-on-a-chunk-gone",
        removed("stores/lab/parcels.zarr/bold/c/0/0/0"),
        TRAIN,
        "parcels.zarr: is damaged: 1 objects are missing, the first is bold/c/0/0/0; run",
    ),
    Case(
        "train-without-a-tr",
        lacks("repetition_time_s", "stores/lab/parcels.zarr"),
        TRAIN,
        "parcels ... .zarr: its attribute 'repetition_time_s' is None; run sherlock-data verify",
    ),
    Case(
        "train-without-a-dataset",
        lacks("dataset", "stores/lab/parcels.zarr"),
        TRAIN,
        "parcels ... .zarr: its attribute 'dataset' is None; run sherlock-data verify",
    ),
]


@table(CASES)
def test_a_bad_store_is_one_line_and_nothing_is_written(case: Case, desk: Path) -> None:
    case.check(desk)


DAMAGED = [
    Case("flipped", flipped(VOXELS + "/bold/c/0/0/0", 40), "", "checksum differs"),
    Case("gone", removed(VOXELS + "/bold/c/0/0/0"), "", "missing"),
    Case("cut", cut(VOXELS + "/bold/c/0/0/0"), "", "bytes"),
    Case("foreign", written(VOXELS + "/notes.txt", "mine"), "", "foreign"),
    Case("manifest", flipped(VOXELS + "/manifest.json", 40), "", "damaged"),
    Case("root", cut(ROOT), "", "bytes"),
]


@table(DAMAGED)
def test_verify_lists_the_damage_mends_nothing_and_exits_with_1(case: Case, desk: Path) -> None:
    case.damage(desk)
    before = snapshot(desk)
    outcome = call("sherlock-data", "verify", VOXELS, "--json")
    assert outcome.exit_code == 1, outcome.output
    problems = [row["problem"] for row in json.loads(outcome.stdout)["rows"]]
    assert_reads(" ".join(problems), case.says)
    assert snapshot(desk) == before
