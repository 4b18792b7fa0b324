"""Verify finds every flipped byte and every missing, cut or foreign object; repair mends them.

Here every object is damaged and found, and one of each sort is mended;
`benchmarks/damage_stores.py` mends every one.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from sherlock_cli.data import main

import sherlock_data as sd
from sherlock_data import store
from sherlock_data.build import Options, build
from sherlock_data.errors import StoreError
from sherlock_data.verify import verify

HARNESS = Path(__file__).resolve().parents[2] / "benchmarks" / "damage_stores.py"


def _harness() -> ModuleType:
    """Load the harness that does exhaustively what these tests do by samples."""
    sys.path.append(str(HARNESS.parent))
    return importlib.import_module(HARNESS.stem)


harness = _harness()
KINDS, objects = harness.KINDS, harness.objects
flip, delete, truncate = harness.DAMAGES


@pytest.fixture(scope="module")
def sound(raw_dataset, tmp_path_factory):
    """A dataset of which every kind of store is built; tests take a copy."""
    dataset = raw_dataset(tmp_path_factory.mktemp("sound"))
    document = harness.make_raw(dataset.raw)
    dataset.entry = document["datasets"]["tiny"]
    dataset.atlases, dataset.stores = document["atlases"], document["stores"]
    dataset.build(*KINDS)
    return dataset


@pytest.fixture
def stores(sound, tmp_path):
    """A copy of the sound stores, to damage."""
    dataset = copy.copy(sound)
    dataset.out = tmp_path / "copy"
    shutil.copytree(sound.out, dataset.out)
    return dataset


DAMAGES = [pytest.param(damage, id=damage.__name__) for damage in (flip, delete, truncate)]


def repair(dataset, *names):
    options = Options(workers=1, repair=True)
    outcomes = build(dataset.scan(), dataset.catalog(), dataset.out, names, options)
    return {outcome.store: outcome for outcome in outcomes}


def assert_mended(dataset, sound, kind):
    assert verify(dataset.path(kind)) == []
    assert objects(dataset.path(kind)) == objects(sound.path(kind))
    xr.testing.assert_identical(dataset.open(kind).load(), sound.open(kind).load())


def test_a_whole_dataset_has_no_damage(sound):
    assert verify(sound.out / "tiny") == []
    assert verify([sound.path(kind) for kind in KINDS]) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_object_is_found_and_named(stores, kind, damage):
    path, rng = stores.path(kind), np.random.default_rng(1)
    for key, data in objects(path).items():
        damage(path / key, rng)
        rows = verify(path)
        assert [row["key"] for row in rows] == [key], rows
        array, _, chunk = key.partition("/c/")
        if chunk:
            assert (rows[0]["store"], rows[0]["array"], rows[0]["chunk"]) == (kind, array, chunk)
        (path / key).write_bytes(data)
    assert verify(path) == []


@pytest.mark.parametrize(
    ("key", "array", "chunk"),
    [
        pytest.param("bold/c/7/0/0/0/0", "bold", "7/0/0/0/0", id="chunk-beyond-the-array"),
        pytest.param("bold/c/0/0/0/0/0.f00d.partial", "bold", "0/0/0/0/0.f00d.partial", id="rest"),
        pytest.param("notes.txt", None, None, id="file"),
        pytest.param("extra/zarr.json", "extra", None, id="array"),
    ],
)
def test_foreign_objects_are_found_and_removed(stores, sound, key, array, chunk):
    file = stores.path("volumes") / key
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_bytes(b"?")
    (row,) = verify(stores.path("volumes"))
    assert (row["array"], row["chunk"]) == (array, chunk)
    assert "foreign" in row["problem"]
    assert repair(stores, "volumes")["volumes"].status == "repaired"
    assert_mended(stores, sound, "volumes")


def typical(path) -> list[str]:
    """One object of each sort: chunk, metadata, small variable, part, root, manifest."""
    keys = sorted(objects(path))
    small = "time/c/0"
    sorts = [
        next((key for key in keys if key.startswith(("bold/c", "video/c", "music/c"))), small),
        next(key for key in keys if key.endswith("/zarr.json")),
        small,
        next((key for key in keys if key.startswith(".parts")), small),
        "zarr.json",
        "manifest.json",
    ]
    return list(dict.fromkeys(sorts))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("grey", "coarse")])
def test_repair_mends_each_sort_of_object(stores, sound, kind):
    rng, damages = np.random.default_rng(2), itertools.cycle((flip, delete, truncate))
    for key, damage in zip(typical(stores.path(kind)), damages, strict=False):
        damage(stores.path(kind) / key, rng)
        outcome = repair(stores, kind)[kind]
        assert outcome.status == "repaired", (key, outcome)
        assert_mended(stores, sound, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_repair_mends_all_objects_at_once(stores, sound, kind):
    rng = np.random.default_rng(4)
    for key in objects(stores.path(kind)):
        if key != "manifest.json":
            flip(stores.path(kind) / key, rng)
    repair(stores, kind)
    assert_mended(stores, sound, kind)


def test_only_the_damaged_subject_is_done_again(stores, sound, monkeypatch):
    from sherlock_data.representations.volumes import VolumesPart

    done, whole = [], VolumesPart.run

    def watched(self, path, report):
        done.append(self.name)
        return whole(self, path, report)

    monkeypatch.setattr(VolumesPart, "run", watched)
    chunk = stores.path("volumes") / "bold/c/1/0/0/0/0"
    times = {
        key: (stores.path("volumes") / key).stat().st_mtime_ns
        for key in objects(stores.path("volumes"))
        if key.startswith("bold/c/0")
    }
    flip(chunk, np.random.default_rng(5))
    outcome = repair(stores, "volumes")["volumes"]
    assert done == ["sub-02"]
    assert outcome.detail == "1 damaged object; done again: sub-02"
    assert times
    for key, time in times.items():
        assert (stores.path("volumes") / key).stat().st_mtime_ns == time
    assert_mended(stores, sound, "volumes")


def test_what_derives_from_a_mended_store_still_stands(stores):
    flip(stores.path("volumes") / "bold/c/0/0/0/0/0", np.random.default_rng(6))
    outcomes = repair(stores, "voxels")
    assert {name: o.status for name, o in outcomes.items()} == {
        "volumes": "repaired",
        "voxels": "up to date",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda d: (d.raw / "s1.nii.gz").write_bytes((d.raw / "s2.nii.gz").read_bytes()),
            "another 's1.nii.gz'",
            id="input",
        ),
        pytest.param(
            lambda d: d.stores.update(
                volumes={"kind": "volumes", "mask": {"signal_fraction": 0.5}}
            ),
            "another recipe",
            id="recipe",
        ),
    ],
)
def test_repair_refuses_other_inputs_and_recipes(stores, tmp_path, change, message):
    stores.raw = shutil.copytree(stores.raw, tmp_path / "raw")
    stores.stores = dict(stores.stores)
    (stores.path("volumes") / "bold/c/0/0/0/0/0").unlink()
    before = objects(stores.path("volumes"))
    change(stores)
    with pytest.raises(StoreError, match=rf"damaged, and now with.*{message}.*--overwrite"):
        repair(stores, "volumes")
    assert objects(stores.path("volumes")) == before


def test_a_killed_repair_never_opens_and_is_resumed(stores, sound, monkeypatch):
    from sherlock_data.representations.volumes import VolumesPart

    (stores.path("volumes") / "bold/c/1/0/0/0/0").unlink()
    whole = VolumesPart.run

    def dies(self, path, report):
        raise KeyboardInterrupt

    monkeypatch.setattr(VolumesPart, "run", dies)
    with pytest.raises(KeyboardInterrupt):
        repair(stores, "volumes")
    monkeypatch.setattr(VolumesPart, "run", whole)
    assert store.state(stores.path("volumes")) == "resumable"
    with pytest.raises(StoreError, match="unfinished"):
        sd.open(stores.path("volumes"))
    (row,) = verify(stores.path("volumes"))
    assert "unfinished" in row["problem"]
    stores.build("volumes")
    assert_mended(stores, sound, "volumes")


def test_a_store_that_says_nothing_of_itself_is_not_mended(stores):
    for key in ("zarr.json", "manifest.json"):
        (stores.path("voxels") / key).write_bytes(b"?")
    with pytest.raises(StoreError, match=r"nothing says what it was made from.*--overwrite"):
        repair(stores, "voxels")


def test_a_dry_run_says_what_is_damaged_and_mends_nothing(stores):
    (stores.path("voxels") / "time/c/0").unlink()
    options = Options(repair=True, dry_run=True)
    (found,) = build(stores.scan(), stores.catalog(), stores.out, ["voxels"], options)
    assert (found.store, found.status, found.detail) == ("voxels", "damaged", "damaged objects: 1")
    assert len(verify(stores.path("voxels"))) == 1


def test_the_command_lists_damage_and_exits_with_1(stores):
    folder, run = str(stores.out / "tiny"), CliRunner().invoke
    whole = run(main, ["verify", folder])
    assert whole.exit_code == 0
    assert whole.stdout.count(": whole") == len(KINDS)
    flip(stores.path("parcels") / "bold/c/1/0/0", np.random.default_rng(7))
    damaged = run(main, ["verify", folder, "--json"])
    assert damaged.exit_code == 1
    (row,) = json.loads(damaged.stdout)["rows"]
    wanted = {"store": "parcels", "array": "bold", "chunk": "1/0/0", "problem": "checksum differs"}
    assert {key: row[key] for key in wanted} == wanted
    assert run(main, ["verify", folder]).exit_code == 1
    nothing = run(main, ["verify", str(stores.out / "nothing.zarr")])
    assert (nothing.exit_code, nothing.stderr.startswith("error: ")) == (1, True)


def test_the_command_repairs(stores, sound):
    (stores.path("annotations") / "music/c/0").unlink()
    catalog = stores.raw / "catalog.yaml"
    command = ["build", "tiny", "annotations", "--catalog", str(catalog), "--repair"]
    done = CliRunner().invoke(main, [*command, "--out", str(stores.out), "--json"])
    assert done.exit_code == 0, done.output
    assert [r["status"] for r in json.loads(done.stdout)["rows"]] == ["repaired"]
    assert_mended(stores, sound, "annotations")
