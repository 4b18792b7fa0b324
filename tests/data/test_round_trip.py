"""NIfTI -> volumes -> voxels -> NIfTI: the same values in the same place, whatever the file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sherlock_data.images import export

RAS = np.array([[3.0, 0, 0, -90], [0, 3, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])
LAS = np.array([[-3.0, 0, 0, 90], [0, 3, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]])
COS, SIN = np.cos(0.3), np.sin(0.3)
OBLIQUE = np.array(
    [[2 * COS, -2 * SIN, 0, 5], [2 * SIN * COS, 2 * COS**2, -2 * SIN, 7],
     [2 * SIN**2, 2 * SIN * COS, 2 * COS, -9], [0, 0, 0, 1]]
)  # fmt: skip
ORIENTATIONS = {"RAS": RAS, "LAS": LAS, "oblique": OBLIQUE}
#: never 0 for a whole number, so that every voxel keeps its signal
SCALED = (0.25, 0.125)


@dataclass(frozen=True)
class Series:
    """A file to be made."""

    dtype: str
    orientation: str
    shape: tuple[int, int, int]
    volumes: int
    scaled: bool = False
    gzipped: bool = True
    seed: int = 0

    def values(self) -> np.ndarray:
        """Whole numbers, none 0, no volume uniform and no two in a row equal; one voxel dark."""
        rng = np.random.default_rng(self.seed)
        low, high = (1, 255) if self.dtype == "uint8" else (-3000, 3000)
        values = rng.integers(low, high, (*self.shape, self.volumes))
        values[values == 0] = 1
        if np.dtype(self.dtype).kind == "f":
            values = values + rng.random(values.shape)
        values[0, 0, 0] = 10 + np.arange(self.volumes) % 7
        if np.prod(self.shape) > 2:
            values[-1, -1, -1] = 0
        return values.astype(self.dtype)


def round_trip(raw_dataset, series: Series) -> None:
    suffix = ".nii.gz" if series.gzipped else ".nii"
    with tempfile.TemporaryDirectory() as folder:
        dataset = raw_dataset(Path(folder))
        dataset.entry["bold"] = f"s{{subject}}{suffix}"
        affine = ORIENTATIONS[series.orientation]
        slope = SCALED if series.scaled else None
        file = dataset.write(f"s1{suffix}", series.values(), affine, slope)
        image = nibabel.load(file)
        wanted = image.get_fdata(dtype=np.float32)
        seen = (wanted != 0).all(axis=-1)
        voxels = dataset.build("voxels")
        assert voxels.sizes["voxel"] == seen.sum()
        volumes = dataset.open("volumes").bold
        assert np.array_equal(volumes[0].transpose("x", "y", "z", "time"), wanted)
        out = Path(folder)
        for name, expected in {
            "volumes": wanted,
            "voxels": np.where(seen[..., None], wanted, 0),
        }.items():
            export(dataset.path(name), out / f"{name}{suffix}")
            back = nibabel.load(out / f"{name}{suffix}")
            assert back.shape == image.shape
            assert np.array_equal(back.get_fdata(dtype=np.float32), expected)
            assert np.allclose(back.affine, image.affine, atol=1e-5)
            assert np.allclose(back.header.get_zooms(), image.header.get_zooms(), atol=1e-5)


SERIES = st.builds(
    Series,
    dtype=st.sampled_from(["uint8", "int16", "float32", "float64"]),
    orientation=st.sampled_from(sorted(ORIENTATIONS)),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    volumes=st.integers(1, 11),
    scaled=st.booleans(),
    gzipped=st.booleans(),
    seed=st.integers(0, 2**16),
)


@given(series=SERIES)
@settings(max_examples=5, deadline=None)
@example(Series("int16", "LAS", (1, 1, 1), 1))
@example(Series("uint8", "oblique", (5, 3, 1), 1, scaled=True, gzipped=False))
@example(Series("float64", "RAS", (1, 1, 1), 9))
def test_what_goes_in_comes_out(raw_dataset, series):
    round_trip(raw_dataset, series)


@pytest.mark.slow
@given(series=SERIES)
@settings(max_examples=100, deadline=None)
def test_what_goes_in_comes_out_of_many_files(raw_dataset, series):
    round_trip(raw_dataset, series)
