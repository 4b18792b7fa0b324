"""Builds: everything the inputs allow, once; resumed, refused and replaced as the contract says."""

import shutil

import numpy as np
import pytest
import xarray as xr
import yaml

import sherlock_data as sd
from sherlock_data import store
from sherlock_data.build import Options, build
from sherlock_data.catalog import load_catalog
from sherlock_data.errors import InputError, NoSpaceError, StoreError, UnavailableError
from sherlock_data.scan import resolve


@pytest.fixture
def raw(tiny_raw, tmp_path):
    """Raw files of one's own, to change."""
    return shutil.copytree(tiny_raw, tmp_path / "raw")


def change(raw, **keys):
    """Change keys of the dataset in its catalogue."""
    path = raw / "catalog.yaml"
    document = yaml.safe_load(path.read_text())
    document["datasets"]["synth"].update(keys)
    path.write_text(yaml.safe_dump(document))


def run(raw, out, names=(), **options):
    catalog = load_catalog(raw / "catalog.yaml")
    scan = resolve("synth", catalog.dataset("synth"), raw)
    return {o.store: o for o in build(scan, catalog, out, names, Options(**options))}


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_default_store_is_there(tiny_stores):
    tree = sd.open(tiny_stores)
    everything = {"volumes", "voxels", "grey", "coarse", "parcels", "pca", "stimulus"}
    assert set(tree.children) == everything
    for node in tree.children.values():
        assert node.attrs["Conventions"] == "CF-1.11"
        assert all(len(item["sha256"]) == 64 for item in node.attrs["inputs"])


def test_the_same_build_again_is_up_to_date(raw, tmp_path):
    run(raw, tmp_path / "out", ["parcels"])
    before = files(tmp_path / "out")
    again = run(raw, tmp_path / "out", ["parcels"])
    assert {o.status for o in again.values()} == {"up to date"}
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        pytest.param(
            lambda raw: change(raw, stores={"voxels": {"mask": {"signal_fraction": 0.5}}}),
            "another recipe.*signal_fraction.*--overwrite",
            id="recipe",
        ),
        pytest.param(
            lambda raw: (raw / "bold" / "sub-02_movie.nii.gz").write_bytes(
                (raw / "bold" / "sub-01_movie.nii.gz").read_bytes()
            ),
            "another 'bold/sub-02_movie.nii.gz'.*--overwrite",
            id="input",
        ),
        pytest.param(
            lambda raw: change(
                raw, runs=[{"name": "run-1", "volumes": 50}, {"name": "run-2", "volumes": 70}]
            ),
            "another runs.*--overwrite",
            id="clock",
        ),
        pytest.param(
            lambda raw: (raw / "bold" / "sub-03_movie.nii.gz").unlink(),
            "'bold/sub-03_movie.nii.gz' that is gone.*--overwrite",
            id="gone",
        ),
    ],
)
def test_a_complete_store_of_another_kind_is_never_replaced_unasked(
    raw, tmp_path, mistake, message
):
    run(raw, tmp_path / "out", ["voxels"])
    before = files(tmp_path / "out")
    mistake(raw)
    with pytest.raises(StoreError, match=message):
        run(raw, tmp_path / "out", ["voxels"])
    assert files(tmp_path / "out") == before


def test_overwrite_replaces(raw, tmp_path):
    run(raw, tmp_path / "out", ["stimulus"])
    change(raw, stores={"stimulus": {"width": 80, "height": 46}})
    outcome = run(raw, tmp_path / "out", ["stimulus"], overwrite=True)
    assert outcome["stimulus"].status == "built"
    assert sd.open(tmp_path / "out/synth/stimulus.zarr").sizes["width"] == 80


def test_a_named_store_that_cannot_be_is_an_error_and_else_skipped(raw, tmp_path):
    change(raw, atlas=None)
    with pytest.raises(UnavailableError, match="atlas"):
        run(raw, tmp_path / "out", ["parcels"])
    outcome = run(raw, tmp_path / "out")
    assert outcome["parcels"].status == "skipped"
    assert outcome["voxels"].status == "built"


def test_a_dry_run_writes_nothing(raw, tmp_path):
    outcome = run(raw, tmp_path / "out", dry_run=True)
    assert outcome["volumes"].nbytes > 1e6
    assert not (tmp_path / "out").exists()


def test_no_space_is_said_before_anything_is_written(raw, tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(NoSpaceError, match=r"need up to [1-9][\d.]* [MG]B, \d+ MB are free"):
        run(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_killed_build_resumes_without_repeating_a_subject(raw, tmp_path, monkeypatch):
    out = tmp_path / "out"
    catalog = load_catalog(raw / "catalog.yaml")
    scan = resolve("synth", catalog.dataset("synth"), raw)
    from sherlock_data.representations import volumes

    whole = volumes.VolumesPart.run
    read = []

    def dies_at_the_third(self, path, report):
        read.append(self.name)
        if len(read) == 3:
            raise KeyboardInterrupt
        return whole(self, path, report)

    monkeypatch.setattr(volumes.VolumesPart, "run", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        build(scan, catalog, out, ["volumes"], Options(workers=1))
    assert store.state(out / "synth/volumes.zarr") == "resumable"
    with pytest.raises(StoreError, match="unfinished"):
        sd.open(out / "synth/volumes.zarr")
    build(scan, catalog, out, ["volumes"], Options(workers=1))
    assert sorted(read[:3]) == ["sub-01", "sub-02", "sub-03"]
    assert read[3:] == [read[2]]
    fresh = tmp_path / "fresh"
    build(scan, catalog, fresh, ["volumes"], Options(workers=2))
    xr.testing.assert_identical(
        sd.open(out / "synth/volumes.zarr").load(), sd.open(fresh / "synth/volumes.zarr").load()
    )


def test_a_resumed_build_does_not_keep_parts_of_a_file_that_changed(raw, tmp_path, monkeypatch):
    from sherlock_data.representations import volumes

    whole = volumes.VolumesPart.run

    def dies_at_the_second(self, path, report):
        if self.name != "sub-01":
            raise KeyboardInterrupt
        return whole(self, path, report)

    monkeypatch.setattr(volumes.VolumesPart, "run", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "out", ["volumes"], workers=1)
    monkeypatch.undo()
    first = raw / "bold" / "sub-01_movie.nii.gz"
    other = (raw / "bold" / "sub-02_movie.nii.gz").read_bytes()
    first.write_bytes(other)
    run(raw, tmp_path / "out", ["volumes"])
    bold = sd.open(tmp_path / "out/synth/volumes.zarr").bold
    np.testing.assert_array_equal(bold[0].values, bold[1].values)


def test_a_damaged_scan_leaves_nothing_that_opens(raw, tmp_path):
    scan_file = raw / "bold" / "sub-02_movie.nii.gz"
    data = bytearray(scan_file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    scan_file.write_bytes(bytes(data))
    with pytest.raises(InputError, match="sub-02_movie"):
        run(raw, tmp_path / "out", ["volumes"])
    assert store.state(tmp_path / "out/synth/volumes.zarr") != "complete"


def test_parcels_and_voxels_tell_the_same_story(tiny_stores, tiny_raw):
    tree = sd.open(tiny_stores)
    voxels, parcels = tree["voxels"].ds, tree["parcels"].ds
    first = parcels.parcel.values[0]
    labels = sd.open(tiny_stores)["parcels"].label.values
    here = labels[voxels.i.values, voxels.j.values, voxels.k.values] == 1
    mean = voxels.bold.isel(subject=0, voxel=np.flatnonzero(here)).mean("voxel").values
    np.testing.assert_allclose(parcels.bold.sel(parcel=first)[0], mean, rtol=1e-5)


def test_a_scan_damaged_in_its_middle_leaves_nothing_behind(raw, tmp_path):
    """Its end is whole, so the damage shows only while it is inflated."""
    path = raw / "bold" / "sub-02_movie.nii.gz"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"sub-02_movie\.nii\.gz: .*(gzip|checksum)") as said:
        run(raw, tmp_path / "out", ["volumes"])
    assert "\n" not in str(said.value)
    assert files(tmp_path / "out") == {}
    path.write_bytes((raw / "bold" / "sub-01_movie.nii.gz").read_bytes())
    assert run(raw, tmp_path / "out", ["volumes"])["volumes"].status == "built"


def test_an_up_to_date_store_tells_its_problems_again(raw, tmp_path):
    built = run(raw, tmp_path / "out", ["volumes"])["volumes"]
    again = run(raw, tmp_path / "out", ["volumes"])["volumes"]
    assert again.status == "up to date"
    assert "constant-volumes" in {problem["code"] for problem in again.problems}
    assert list(again.problems) == list(built.problems)
