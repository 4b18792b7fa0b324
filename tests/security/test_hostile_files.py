"""Files that carry code, or lead elsewhere: refused in one line, and nothing of them is run."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import torch
import yaml

from sherlock_data.parts import decode
from tests.corpus.case import snapshot
from tests.corpus.example import call

MARK = "ran"


class Malice:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path(MARK),))


def test_the_trap_works(desk: Path) -> None:
    pickle.loads(pickle.dumps(Malice()))  # noqa: S301
    assert (desk / MARK).exists()


def shard(desk: Path) -> Path:
    """Only shard of the run's checkpoint."""
    [file] = (desk / "runs/toy/checkpoints/step-2").glob("*.safetensors")
    return file


def beside_the_checkpoint(desk: Path) -> str:
    """Plant what torch's stock reader would unpickle."""
    (shard(desk).parent / ".metadata").write_bytes(pickle.dumps(Malice()))
    return "sherlock-models evaluate runs/toy"


def in_the_shard(desk: Path) -> str:
    """Put a pickle of torch's in the shard's place, with a checksum that is right."""
    torch.save({"model.weight": Malice()}, shard(desk))
    step = shard(desk).parent / "step.json"
    document = json.loads(step.read_text())
    document["crc32c"][shard(desk).name] = google_crc32c.value(shard(desk).read_bytes())
    step.write_text(json.dumps(document))
    return "sherlock-models evaluate runs/toy"


def in_the_statistics(desk: Path) -> str:
    """Put a pickle in the place of what was fitted."""
    torch.save({"x": Malice()}, desk / "runs/toy/fitted.safetensors")
    return "sherlock-models decode runs/toy raw/film.mp4 out.mp4"


def in_the_configuration(desk: Path) -> str:
    """Let YAML make an object."""
    path = f"!!python/object/apply:pathlib.Path [{MARK}]"
    text = f"entry: !!python/object/apply:pathlib.Path.touch [{path}]"
    (desk / "runs/toy/config.yaml").write_text(text)
    return "sherlock-models show runs/toy"


def in_the_catalogue(desk: Path) -> str:
    """Let YAML make an object of ours to be trusted."""
    (desk / "raw/catalog.yaml").write_text(yaml.dump({"datasets": {"lab": Malice()}}))
    return "sherlock-data list --catalog raw/catalog.yaml"


def in_an_array(desk: Path) -> str:
    """Save objects as a TR-aligned array."""
    np.save(desk / "raw/pitch.npy", np.array([Malice()] * 120), allow_pickle=True)
    return "sherlock-data build lab features --catalog raw/catalog.yaml --out new"


def in_place_of_an_array(desk: Path) -> str:
    """Give a bare pickle, which an older numpy would have loaded."""
    (desk / "raw/pitch.npy").write_bytes(pickle.dumps(Malice()))
    return "sherlock-data build lab features --catalog raw/catalog.yaml --out new"


def codec(name: str) -> Callable[[Path], str]:
    """Name a codec that unpickles in a store's metadata."""

    def plant(desk: Path) -> str:
        root = desk / "stores/lab/voxels.zarr/zarr.json"
        document = json.loads(root.read_text())
        for key in ("bold", "time"):
            document["consolidated_metadata"]["metadata"][key]["codecs"] = [
                {"name": name, "configuration": {}}
            ]
        root.write_text(json.dumps(document))
        chunk = desk / "stores/lab/voxels.zarr/time/c/0"
        chunk.write_bytes(pickle.dumps(Malice()))
        return "sherlock-data info stores/lab/voxels.zarr"

    return plant


def objects(desk: Path) -> str:
    """Say that an array of a store holds objects."""
    root = desk / "stores/lab/voxels.zarr/zarr.json"
    document = json.loads(root.read_text())
    document["consolidated_metadata"]["metadata"]["time"]["data_type"] = "object"
    root.write_text(json.dumps(document))
    (desk / "stores/lab/voxels.zarr/time/c/0").write_bytes(pickle.dumps(Malice()))
    return "sherlock-data info stores/lab/voxels.zarr"


@pytest.mark.parametrize(
    "plant",
    [
        beside_the_checkpoint,
        in_the_shard,
        in_the_statistics,
        in_the_configuration,
        in_the_catalogue,
        in_an_array,
        in_place_of_an_array,
        pytest.param(codec("pickle"), id="codec"),
        pytest.param(codec("numcodecs.pickle"), id="codec_of_numcodecs"),
        objects,
    ],
    ids=lambda plant: plant.__name__,
)
def test_planted_code_is_refused_in_one_line_and_never_run(
    plant: Callable[[Path], str], desk: Path
) -> None:
    command = plant(desk).split()
    before = snapshot(desk)
    outcome = call(*command)
    assert outcome.exit_code == 1, (outcome.output, outcome.exception)
    assert outcome.stderr.count("error: ") == 1
    assert not (desk / MARK).exists()
    assert snapshot(desk) == before


def test_objects_in_the_record_of_a_part_are_not_unpickled(desk: Path) -> None:
    keys, sums = np.array(["a"]), np.array([[1, 2]])
    record = {"written/keys": keys, "written/sums": sums, "x": np.array([Malice()])}
    buffer = io.BytesIO()
    np.savez(buffer, **record)
    assert decode(buffer.getvalue()) is None
    assert not (desk / MARK).exists()


def test_the_record_of_a_part_cannot_lead_out_of_its_store(desk: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../outside.npy", b"x")
    assert decode(buffer.getvalue()) is None
    assert not list(desk.parent.rglob("outside.npy"))


def test_a_linked_store_is_read_and_never_written(desk: Path) -> None:
    store, elsewhere = desk / "stores/lab/voxels.zarr", desk / "elsewhere.zarr"
    store.rename(elsewhere)
    store.symlink_to(elsewhere)
    assert call("sherlock-data", "info", store).exit_code == 0
    assert call("sherlock-data", "verify", store).exit_code == 0
    before = snapshot(desk)
    catalog = ["--catalog", "raw/catalog.yaml", "--out", "stores"]
    for more in (["--overwrite"], ["--repair"]):
        outcome = call("sherlock-data", "build", "lab", "voxels", *catalog, *more)
        assert outcome.exit_code == 1, outcome.output
        assert f"voxels.zarr: is a link to {elsewhere}, and only read" in outcome.stderr
        assert snapshot(desk) == before


def test_a_link_in_place_of_a_chunk_is_found(desk: Path) -> None:
    (desk / "secret").write_text("nobody's business")
    chunk = desk / "stores/lab/voxels.zarr/bold/c/0/0/0"
    chunk.unlink()
    chunk.symlink_to(desk / "secret")
    outcome = call("sherlock-data", "verify", "stores/lab/voxels.zarr", "--json")
    assert outcome.exit_code == 1
    assert [row["array"] for row in json.loads(outcome.stdout)["rows"]] == ["bold"]
    target = ["stores/lab/voxels.zarr", "out.nii", "--subject", "sub-01"]
    outcome = call("sherlock-data", "export", *target)
    assert outcome.exit_code == 1
    assert "is damaged: a checksum differs" in outcome.stderr
    assert not (desk / "out.nii").exists()
    assert (desk / "secret").read_text() == "nobody's business"
