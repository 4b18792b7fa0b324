"""Real BOLD (Haxby et al. 2001, six runs of one subject) against nibabel and nilearn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from nilearn.maskers import NiftiMasker

from sherlock_data import store
from sherlock_data.build import Options, build
from sherlock_data.catalog import load_catalog
from sherlock_data.images import export, to_nifti
from sherlock_data.scan import resolve

pytestmark = pytest.mark.realdata


@pytest.fixture(
    scope="module",
    params=[pytest.param("25mm", id="whole volume"), pytest.param("1slice", id="single slice")],
)
def haxby(
    request: pytest.FixtureRequest, real: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Path]]:
    """Folder of the built stores, and the six files they were made from."""
    out = tmp_path_factory.mktemp("haxby")
    entry = {"bold": f"run-{{run}}.bold_{request.param}.nii.gz", "space": "native"}
    (out / "catalog.yaml").write_text(yaml.safe_dump({"datasets": {"haxby2001": entry}}))
    catalog = load_catalog(out / "catalog.yaml")
    scan = resolve("haxby2001", catalog.dataset("haxby2001"), real / "haxby2001")
    build(scan, catalog, out, ["volumes", "voxels"], Options(workers=1))
    return out / "haxby2001", sorted((real / "haxby2001").glob(f"*{request.param}.nii.gz"))


def test_six_runs_are_one_series_of_one_subject(haxby: tuple[Path, list[Path]]) -> None:
    folder, files = haxby
    volumes = store.open_store(folder / "volumes.zarr")
    assert volumes.subject.values.tolist() == ["sub-01"]
    assert Counter(volumes.run.values.tolist()) == {f"run-00{n}": 121 for n in range(1, 7)}
    assert volumes.attrs["repetition_time_s"] == 2.5
    expected = np.concatenate([nibabel.load(f).get_fdata(dtype=np.float32) for f in files], axis=-1)
    assert np.array_equal(volumes.bold[0].transpose("x", "y", "z", "time"), expected)


def test_voxels_equal_niftimasker_to_the_last_bit(haxby: tuple[Path, list[Path]]) -> None:
    folder, files = haxby
    mask = to_nifti(store.open_store(folder / "volumes.zarr").mask)
    masker = NiftiMasker(mask, standardize=None, dtype="float32").fit()
    expected = np.concatenate([masker.transform(str(file)) for file in files])
    voxels = store.open_store(folder / "voxels.zarr").bold[0].values
    assert expected.dtype == voxels.dtype == np.float32
    assert np.abs(voxels - expected).max() == 0
    back = masker.inverse_transform(voxels[:3]).get_fdata(dtype=np.float32)
    assert np.array_equal(
        to_nifti(store.open_store(folder / "voxels.zarr").bold[0, :3]).get_fdata(dtype=np.float32),
        back,
    )


def test_export_gives_every_run_back(haxby: tuple[Path, list[Path]], tmp_path: Path) -> None:
    folder, files = haxby
    for number, file in enumerate(files, start=1):
        out = export(folder / "volumes.zarr", tmp_path / "back.nii.gz", run=f"run-00{number}")
        back, source = nibabel.load(out), nibabel.load(file)
        assert np.array_equal(back.affine, source.affine)
        assert np.array_equal(back.header.get_zooms(), source.header.get_zooms())
        assert np.array_equal(back.get_fdata(), source.get_fdata())
