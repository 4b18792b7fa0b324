"""Tiny real datasets: NIfTI files and a catalogue on disk, built into stores."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import nibabel
import numpy as np
import pytest
import xarray as xr
import yaml
from sklearn.decomposition import PCA

from sherlock_data import store
from sherlock_data.build import Options, build
from sherlock_data.catalog import load_catalog
from sherlock_data.scan import Scan, resolve

AFFINE = np.array([[-3.0, 0, 0, 9], [0, 3, 0, -6], [0, 0, 4, -12], [0, 0, 0, 1]])


class RawDataset:
    """Raw files of a dataset called ``tiny`` and the stores made from them.

    Attributes
    ----------
    raw, out : Path
    entry : dict
        The catalogue's entry; change it before building.
    atlases, extractors, stores : dict
        Further sections of the catalogue.
    """

    affine = AFFINE

    def __init__(self, folder: Path) -> None:
        self.raw, self.out = folder / "raw", folder / "stores"
        self.raw.mkdir()
        self.entry: dict[str, Any] = {
            "bold": "s{subject}.nii.gz",
            "repetition_time_s": 1.5,
            "space": "native",
        }
        self.atlases: dict[str, Any] = {}
        self.extractors: dict[str, Any] = {}
        self.stores: dict[str, Any] = {}

    def write(
        self,
        name: str,
        values: np.ndarray,
        affine: np.ndarray = AFFINE,
        slope: tuple[float, float] | None = None,
    ) -> Path:
        """Write values (x, y, z[, time]) as they are; ``slope``: what they are scaled by."""
        image = nibabel.Nifti1Image(values, affine, dtype=values.dtype)
        if values.ndim == 4:
            image.header.set_zooms((*image.header.get_zooms()[:3], 1.5))
            image.header.set_xyzt_units("mm", "sec")
        if slope is not None:
            image.header.set_slope_inter(*slope)
        path = self.raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(image, path)
        return path

    def scan(self) -> Scan:
        """Resolve the dataset as it lies on disk now."""
        return resolve("tiny", self.catalog().dataset("tiny"), self.raw)

    def catalog(self) -> Any:
        """Write and load the catalogue."""
        document = {
            "datasets": {"tiny": self.entry},
            "atlases": self.atlases,
            "extractors": self.extractors,
            "stores": self.stores,
        }
        path = self.raw / "catalog.yaml"
        path.write_text(yaml.safe_dump({key: part for key, part in document.items() if part}))
        return load_catalog(path)

    def build(self, *names: str, **options: Any) -> Any:
        """Build stores; return the Dataset of the last one named."""
        build(self.scan(), self.catalog(), self.out, names, Options(workers=1, **options))
        return self.open(names[-1])

    def open(self, name: str) -> xr.Dataset:
        """Open a complete store."""
        return store.open_store(self.path(name))

    def path(self, name: str) -> Path:
        """Path of a store."""
        return self.out / "tiny" / f"{name}.zarr"


@pytest.fixture(scope="session")
def raw_dataset() -> type[RawDataset]:
    """Make raw datasets that outlive a test: ``raw_dataset(folder)``."""
    return RawDataset


@pytest.fixture
def dataset(tmp_path: Path) -> RawDataset:
    """An empty raw dataset; write files into it, then build."""
    return RawDataset(tmp_path)


@pytest.fixture
def series() -> np.ndarray:
    """Noise of a scanner's size, (subject, x, y, z, time) float32: 2 x 5 x 4 x 3 x 20."""
    values = np.random.default_rng(0).normal(1000, 30, size=(2, 5, 4, 3, 20))
    return values.astype(np.float32)


@pytest.fixture
def make_movie(tmp_path: Path) -> Callable[..., Path]:
    """Make a movie whose frame n is grey of level n, losslessly, with a 440 Hz tone.

    ``picture`` and ``sound`` are ffmpeg sources (None: no such stream), ``after`` more filters on
    the picture, ``options`` go to the output.
    """

    def make(
        name: str = "movie.mkv",
        *,
        rate: str = "25",
        seconds: float = 6,
        size: str = "32x18",
        picture: str | None = "format=rgb24,geq=r=N:g=N:b=N",
        after: str = "null",
        sound: str | None = "sine=frequency=440:sample_rate=8000",
        options: tuple[str, ...] = ("-c:v", "ffv1", "-pix_fmt", "bgr0", "-c:a", "pcm_f32le"),
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error"]
        if picture is not None:
            source = f"nullsrc=s={size}:r={rate}:d={seconds},{picture},{after}"
            command += ["-f", "lavfi", "-i", source]
        if sound is not None:
            command += ["-f", "lavfi", "-i", f"{sound}:duration={seconds}"]
        command += ["-fps_mode", "passthrough", *options, f"file:{path}"]
        subprocess.run(command, check=True, capture_output=True)
        return path

    return make


@pytest.fixture
def reference_pca() -> Callable[[np.ndarray, int], tuple[np.ndarray, PCA]]:
    """scikit-learn's components by the full SVD, the largest entry of each positive."""

    def reference(values: np.ndarray, components: int) -> tuple[np.ndarray, PCA]:
        found = PCA(components, svd_solver="full").fit(values.astype(np.float64))
        largest = np.abs(found.components_).argmax(axis=1)
        sign = np.sign(found.components_[np.arange(components), largest])
        return found.components_ * sign[:, None], found

    return reference
