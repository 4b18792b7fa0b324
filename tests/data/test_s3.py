"""Stores on S3, held against a real HTTP server on loopback."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from sherlock_cli.data import main

import sherlock_data as sd
from sherlock_data import locks, remote, store
from sherlock_data.build import Options, build
from sherlock_data.errors import StoreError
from sherlock_data.remote import locate, plainly
from sherlock_data.verify import verify

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

OUT = "s3://lab/stores"


@pytest.fixture
def two(dataset, series):
    """Raw files of two subjects, with a parcellation."""
    dataset.write("s1.nii.gz", series[0])
    dataset.write("s2.nii.gz", series[1])
    labels = np.ones(series.shape[1:4], dtype=np.int16)
    labels[0] = 2
    dataset.write("atlas.nii.gz", labels)
    (dataset.raw / "atlas.tsv").write_text("index\tname\n1\tleft\n2\tright\n")
    dataset.atlases["mine"] = {"image": "atlas.nii.gz", "labels": "atlas.tsv", "space": "native"}
    dataset.entry["atlas"] = "mine"
    return dataset


def run(dataset, *names, **options):
    outcomes = build(dataset.scan(), dataset.catalog(), OUT, names, Options(workers=1, **options))
    return {outcome.store: outcome.status for outcome in outcomes}


def test_a_bucket_holds_what_a_disk_holds(two, bucket):
    names = ("volumes", "voxels", "parcels")
    assert run(two, *names) == dict.fromkeys(names, "built")
    two.build(*names)
    for name in names:
        url = f"{OUT}/tiny/{name}.zarr"
        assert verify(url) == []
        xr.testing.assert_identical(sd.open(url).load(), two.open(name).load())
        plain = xr.open_zarr(remote.object_store(url, read_only=True))
        xr.testing.assert_identical(plain.load(), two.open(name).load())
        local = {str(p.relative_to(two.path(name))) for p in two.path(name).rglob("*")}
        there = {key.partition(".zarr/")[2] for key in bucket.find(url)}
        assert there <= local
    # neither locks nor what a build keeps beside its store
    assert all(".zarr/" in key for key in bucket.find("lab"))
    assert list(sd.open(f"{OUT}/tiny").children) == sorted(names)
    assert run(two, *names) == dict.fromkeys(names, "up to date")


def test_damage_on_s3_is_named_and_mended(two, bucket):
    run(two, "volumes")
    url = f"{OUT}/tiny/volumes.zarr"
    before = sd.open(url).load()
    bucket.rm_file(f"{url}/bold/c/1/0/0/0/0")
    bucket.pipe_file(f"{url}/valid/c/0/0", b"?")
    found = {(row["array"], row["chunk"]) for row in verify(f"{OUT}/tiny")}
    assert found == {("bold", "1/0/0/0/0"), ("valid", "0/0")}
    assert run(two, "volumes", repair=True) == {"volumes": "repaired"}
    assert verify(url) == []
    xr.testing.assert_identical(sd.open(url).load(), before)


def test_a_build_that_dies_is_resumed_and_never_opens(two, bucket, monkeypatch):
    from sherlock_data.representations.volumes import VolumesPart

    done, died, whole = [], [], VolumesPart.run

    def dies(self, path, report):
        if self.name == "sub-02" and not died:
            died.append(self.name)
            raise KeyboardInterrupt
        found = whole(self, path, report)
        done.append(self.name)
        return found

    monkeypatch.setattr(VolumesPart, "run", dies)
    url = f"{OUT}/tiny/volumes.zarr"
    assert store.state(url) == "absent"
    with pytest.raises(KeyboardInterrupt):
        run(two, "volumes")
    assert store.state(url) == "resumable"
    with pytest.raises(StoreError, match="unfinished"):
        sd.open(url)
    assert run(two, "volumes") == {"volumes": "built"}
    assert sorted(done) == ["sub-01", "sub-02"]  # whichever came first is not done again
    assert verify(url) == []
    assert not bucket.exists(f"{url}.build")


def test_a_second_build_is_told_who_holds_the_lock(two, bucket):
    url = f"{OUT}/tiny/volumes.zarr"
    with locks.held(url), pytest.raises(StoreError, match="is being built by process"):
        run(two, "volumes")
    assert not bucket.exists(f"{url}.lock")
    assert run(two, "volumes") == {"volumes": "built"}


def test_overwriting_leaves_nothing_of_the_old_store(two, bucket):
    run(two, "volumes")
    before = set(bucket.find(OUT))
    bucket.pipe_file(f"{OUT}/tiny/volumes.zarr/foreign", b"?")
    assert run(two, "volumes", overwrite=True) == {"volumes": "built"}
    assert set(bucket.find(OUT)) == before


def test_the_commands_take_urls(two, bucket):
    catalog = two.raw / "catalog.yaml"
    two.catalog()
    options = ["--catalog", str(catalog), "--out", OUT]
    built = CliRunner().invoke(main, ["build", "tiny", "volumes", *options, "--json"])
    assert built.exit_code == 0, built.output
    listed = CliRunner().invoke(main, ["list", *options, "--json"])
    rows = json.loads(listed.stdout)["rows"]
    (row,) = [r for r in rows if (r["dataset"], r["store"]) == ("tiny", "volumes")]
    assert row["state"] == "complete"
    assert row["bytes"] > 0
    shown = CliRunner().invoke(main, ["info", f"{OUT}/tiny", "--json"])
    assert json.loads(shown.stdout)["rows"][0]["dims"]["subject"] == 2
    assert CliRunner().invoke(main, ["verify", f"{OUT}/tiny"]).exit_code == 0


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def no_bucket(environment):
    """Nothing: the bucket has not been made."""


def no_credentials(environment):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.delenv(name)


def no_server(environment):
    environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    environment.setenv("AWS_MAX_ATTEMPTS", "1")
    environment.setattr(s3fs.S3FileSystem, "retries", 1)


@pytest.mark.parametrize("hinder", [no_bucket, no_credentials, no_server])
@pytest.mark.parametrize("command", ["build", "verify", "info"])
def test_what_cannot_be_reached_is_one_line(two, environment, hinder, command):
    hinder(environment)
    two.catalog()
    arguments = {
        "build": ["tiny", "volumes", "--catalog", str(two.raw / "catalog.yaml"), "--out", OUT],
        "verify": [f"{OUT}/tiny"],
        "info": [f"{OUT}/tiny/volumes.zarr"],
    }[command]
    done = CliRunner().invoke(main, [command, *arguments])
    assert done.exit_code == 1
    lines = [line for line in done.stderr.splitlines() if line]
    assert lines[-1].startswith(f"error: {OUT}"), done.stderr
    assert not any("Traceback" in line for line in lines)


def test_a_missing_package_is_named():
    with (
        pytest.raises(StoreError, match=r"s3://lab: needs a package.*sherlock-zoo\[s3\]"),
        plainly("s3://lab"),
    ):
        raise ImportError("Install s3fs to access S3")


def test_a_url_keeps_its_slashes():
    path = locate("s3://lab/stores/") / "tiny" / "volumes.zarr"
    assert (str(path), path.name) == ("s3://lab/stores/tiny/volumes.zarr", "volumes.zarr")
    assert str(path.parent) == "s3://lab/stores/tiny"
