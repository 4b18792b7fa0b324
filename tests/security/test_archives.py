"""Archives whose members are links, devices, or lead elsewhere: never unpacked, never followed.

No command unpacks anything. What is a zip inside is read as such in memory (`.xlsx` sheets, records
of a build's parts); everything else that is an archive is refused by what it should have been.
"""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sherlock_data.parts import decode
from tests.corpus.case import snapshot
from tests.corpus.example import call

WORDS = "nobody's business"
BUILD = "sherlock-data build lab {store} --catalog raw/catalog.yaml --out new"
OLD = sorted((Path(__file__).parents[1] / "ageing").glob("version-*.zip"))


def secret(desk: Path) -> Path:
    """A file outside of everything that is read."""
    path = desk.parent / "secret"
    path.write_text(WORDS)
    return path


def zip_members(target: Path) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Members of a zip that no unpacker should trust."""
    link = zipfile.ZipInfo("link.npy")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    yield link, str(target)
    device = zipfile.ZipInfo("device.npy")
    device.create_system = 3
    device.external_attr = (stat.S_IFBLK | 0o666) << 16
    yield device, ""
    yield zipfile.ZipInfo(str(target.with_name("absolute.npy"))), "x"
    yield zipfile.ZipInfo("../../up.npy"), "x"
    yield zipfile.ZipInfo("..\\..\\windows.npy"), "x"


def tar_members(target: Path) -> Iterator[tarfile.TarInfo]:
    """Members of a tar that no unpacker should trust."""
    kinds = {"link": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "device": tarfile.BLKTYPE}
    for name, kind in kinds.items():
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, str(target)
        yield member
    yield tarfile.TarInfo(str(target.with_name("absolute")))
    yield tarfile.TarInfo("../../up")


def hostile_zip(target: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in zip_members(target):
            archive.writestr(member, content)
    return buffer.getvalue()


def hostile_tar(target: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member in tar_members(target):
            archive.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize("archive", [hostile_zip, hostile_tar], ids=["zip", "tar.gz"])
@pytest.mark.parametrize(
    ("file", "store"),
    [
        pytest.param("s2.nii.gz", "volumes", id="scan"),
        pytest.param("film.mp4", "stimulus", id="movie"),
        pytest.param("atlas.nii", "parcels", id="atlas"),
        pytest.param("pitch.npy", "features", id="array"),
        pytest.param("catalog.yaml", "volumes", id="catalogue"),
        pytest.param("sheet.tsv", "annotations", id="annotations"),
    ],
)
def test_an_archive_in_a_file_s_place_is_refused_in_a_line(
    desk: Path, archive: Callable[[Path], bytes], file: str, store: str
) -> None:
    (desk / "raw" / file).write_bytes(archive(secret(desk)))
    before = snapshot(desk.parent)
    outcome = call(*BUILD.format(store=store).split())
    assert outcome.exit_code == 1, (outcome.output, outcome.exception)
    assert outcome.stderr.count("error: ") == 1
    assert file in outcome.stderr
    assert WORDS not in outcome.output
    assert snapshot(desk.parent) == before


def sheet(desk: Path) -> Path:
    """Make the annotations an Excel file."""
    raw = desk / "raw"
    table = pd.read_csv(raw / "sheet.tsv", sep="\t")
    table.to_excel(raw / "sheet.xlsx", index=False)
    catalog = raw / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace("sheet.tsv", "sheet.xlsx"))
    return raw / "sheet.xlsx"


def test_members_of_a_sheet_that_lead_out_are_left_where_they_are(desk: Path) -> None:
    path = sheet(desk)
    with zipfile.ZipFile(path, "a") as archive:
        for member, content in zip_members(secret(desk)):
            archive.writestr(member, content)
    before = snapshot(desk.parent)
    outcome = call(*BUILD.format(store="annotations").split())
    assert outcome.exit_code == 0, outcome.output
    added = set(snapshot(desk.parent)) - set(before)
    assert all(name.startswith(f"{desk.name}/new") for name in added)


def test_a_sheet_whose_table_is_a_link_is_refused(desk: Path) -> None:
    path = sheet(desk)
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    link = next(zip_members(secret(desk)))[0]
    link.filename = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in kept.items():
            if name != link.filename:
                archive.writestr(name, content)
        archive.writestr(link, str(secret(desk)))
    before = snapshot(desk.parent)
    outcome = call(*BUILD.format(store="annotations").split())
    assert outcome.exit_code == 1, (outcome.output, outcome.exception)
    assert "sheet.xlsx: cannot be read as a table" in outcome.stderr
    assert WORDS not in outcome.output
    assert snapshot(desk.parent) == before


def test_the_record_of_a_part_follows_no_link(desk: Path) -> None:
    record = {"written/keys": np.array(["a"]), "written/sums": np.array([[1, 2]])}
    buffer = io.BytesIO()
    np.savez(buffer, **record)
    whole = buffer.getvalue()
    assert decode(whole) is not None
    for member, content in zip_members(secret(desk)):
        damaged = io.BytesIO(whole)
        with zipfile.ZipFile(damaged, "a") as archive:
            archive.writestr(member, content)
        before = snapshot(desk.parent)
        found = decode(damaged.getvalue())
        # a member that is no array is no reason to read something else in its place
        assert found is None or WORDS not in str(found)
        assert snapshot(desk.parent) == before


@pytest.mark.parametrize(
    "address", ["zip://voxels.zarr::{}", "tar://voxels.zarr::{}", "libarchive://voxels.zarr::{}"]
)
@pytest.mark.parametrize("verb", ["info", "verify"])
def test_no_store_is_read_in_an_archive(desk: Path, verb: str, address: str) -> None:
    (desk / "stores.zip").write_bytes(hostile_zip(secret(desk)))
    before = snapshot(desk.parent)
    outcome = call("sherlock-data", verb, address.format(desk / "stores.zip"))
    assert outcome.exit_code == 1, (outcome.output, outcome.exception)
    assert "an archive is not read in place; unpack it and name the folder" in outcome.stderr
    assert snapshot(desk.parent) == before


@pytest.mark.parametrize("protocol", ["simplecache", "filecache", "reference", "dir"])
def test_no_address_goes_by_way_of_another(desk: Path, protocol: str) -> None:
    before = snapshot(desk)
    outcome = call("sherlock-data", "info", f"{protocol}::s3://lab/voxels.zarr")
    assert outcome.exit_code == 1, (outcome.output, outcome.exception)
    assert "nothing here opens such an address; known: abfs, gs, s3" in outcome.stderr
    assert snapshot(desk) == before


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_the_archives_of_our_own_hold_plain_files(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            assert kind in (0, stat.S_IFREG, stat.S_IFDIR), member.filename
            assert not member.filename.startswith("/")
            assert ".." not in Path(member.filename).parts
