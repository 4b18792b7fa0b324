"""Labelled arrays back to images: where they lie, what survives arithmetic, what is refused."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from nibabel.affines import from_matvec

from sherlock_data.contract import strings
from sherlock_data.errors import ConfigError, StoreError
from sherlock_data.grid import Grid
from sherlock_data.images import to_nifti
from sherlock_data.representations.voxels import coarsened, voxel_coords

OBLIQUE = from_matvec([[-2.9, 0.3, 0.1], [0.3, 2.95, -0.2], [0.05, 0.2, 3.1]], [80.0, -110, -60])
GRID = Grid((4, 3, 2), OBLIQUE, "native")
IJK = np.array([[0, 0, 0], [0, 2, 1], [1, 1, 0], [3, 2, 1]])


@pytest.fixture
def voxels() -> xr.Dataset:
    """Four voxels of an oblique grid over five TRs and two subjects."""
    values = np.arange(40, dtype=np.float32).reshape(2, 5, 4)
    return xr.Dataset(
        {"bold": (("subject", "time", "voxel"), values)},
        coords={
            "subject": strings("subject", ["sub-01", "sub-02"]),
            "time": ("time", np.arange(5) * 2.5, {"units": "s"}),
            "grid": strings((), GRID.encode()),
            **voxel_coords(GRID, IJK),
        },
    )


def test_the_designs_example_gives_an_image(voxels: xr.Dataset) -> None:
    tree = xr.DataTree.from_dict({"voxels": voxels})
    image = to_nifti(tree["voxels"].bold.sel(subject="sub-01").mean("time"))
    assert image.shape == (4, 3, 2)
    assert np.array_equal(image.affine, OBLIQUE.astype(np.float32))
    assert np.array_equal(image.get_fdata()[tuple(IJK.T)], voxels.bold[0].mean("time"))
    assert np.count_nonzero(image.get_fdata()) == 4


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a.isel(time=0) - a.isel(time=1) ** 2, id="arithmetic"),
        pytest.param(lambda a: np.sqrt(a.std("time")), id="numpy function"),
        pytest.param(lambda a: a.mean("time", keep_attrs=False), id="attributes dropped"),
        pytest.param(lambda a: xr.apply_ufunc(np.negative, a.max("time")), id="apply_ufunc"),
        pytest.param(lambda a: a.isel(time=0, voxel=[3, 0]), id="some of the voxels"),
        pytest.param(lambda a: a.chunk(voxel=2).mean("time").compute(), id="dask"),
    ],
)
def test_an_array_knows_where_it_lies_after(voxels: xr.Dataset, change: object) -> None:
    changed = change(voxels.bold.sel(subject="sub-01"))
    image = to_nifti(changed)
    here = np.stack([changed[axis] for axis in "ijk"])
    assert np.allclose(image.affine, OBLIQUE, atol=1e-5)
    assert np.array_equal(image.get_fdata(dtype=np.float32)[tuple(here)], changed.values)


def test_time_becomes_the_fourth_axis_with_its_tr(voxels: xr.Dataset) -> None:
    image = to_nifti(voxels.bold.sel(subject="sub-02"))
    assert image.shape == (4, 3, 2, 5)
    assert image.header.get_zooms()[3] == 2.5
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert np.array_equal(image.get_fdata()[tuple(IJK.T)], voxels.bold[1].values.T)


def test_uneven_times_have_no_tr(voxels: xr.Dataset) -> None:
    image = to_nifti(voxels.bold.isel(subject=0, time=[0, 1, 4]))
    assert image.header.get_zooms()[3] == 0


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        pytest.param(bool, np.uint8, id="mask"),
        pytest.param(np.float16, np.float32, id="half"),
        pytest.param(np.float64, np.float64, id="double"),
        pytest.param(np.int64, np.int32, id="whole numbers"),
    ],
)
def test_values_keep_a_type_nifti_has(voxels: xr.Dataset, dtype: type, expected: type) -> None:
    image = to_nifti(voxels.bold[0, 0].astype(dtype))
    assert image.get_data_dtype() == expected


def test_a_grid_array_is_not_turned_round() -> None:
    values = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    array = xr.DataArray(values, dims=("x", "y", "z"), coords={"grid": strings((), GRID.encode())})
    assert np.array_equal(to_nifti(array).get_fdata(dtype=np.float32), values)
    assert np.array_equal(to_nifti(array.T).get_fdata(dtype=np.float32), values)


def test_parcels_are_drawn_where_their_store_has_them() -> None:
    label = np.zeros(GRID.shape, dtype=np.int32)
    label[0], label[1], label[3, 0, 0] = 30, 10, 99
    store = xr.Dataset(
        {"label": (("i", "j", "k"), label), "effect": ("parcel", np.array([1.5, -2.0, 7.0]))},
        coords={
            "parcel": strings("parcel", ["b", "a", "nowhere"]),
            "atlas_index": ("parcel", [30, 10, 20]),
            "grid": strings((), GRID.encode()),
        },
    )
    values = to_nifti(store.effect * 2, like=store).get_fdata()
    assert (values[0] == 3).all()
    assert (values[1] == -4).all()
    assert not values[2:].any()
    some = to_nifti(store.effect.sel(parcel=["a"]), like=store).get_fdata()
    assert (some[1] == -2).all()
    assert np.count_nonzero(some) == 6
    with pytest.raises(StoreError, match=r"give the parcels store: to_nifti\(array, like=store\)"):
        to_nifti(store.effect)


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        pytest.param(
            lambda a: a, ConfigError, "room for one more dim.*subject, time", id="two more"
        ),
        pytest.param(lambda a: a.mean("voxel"), ConfigError, "no spatial dims", id="no space"),
        pytest.param(
            lambda a: a[0].drop_vars("grid"), StoreError, "lost its coordinate 'grid'", id="no grid"
        ),
        pytest.param(lambda a: a[0].drop_vars("j"), StoreError, "coordinate 'j'", id="no index"),
    ],
)
def test_what_cannot_be_an_image_says_why(
    voxels: xr.Dataset, spoil: object, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        to_nifti(spoil(voxels.bold))


def test_lost_coordinates_can_be_lent_by_the_store(voxels: xr.Dataset) -> None:
    bare = voxels.bold[0, 0].drop_vars(["grid", "i", "j", "k"])
    lent, own = to_nifti(bare, like=voxels), to_nifti(voxels.bold[0, 0])
    assert np.array_equal(lent.get_fdata(), own.get_fdata())


@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3), factor=st.integers(1, 4), seed=st.integers(0, 2**16)
)
def test_blocks_hold_every_voxel_once_and_lie_where_their_voxels_do(
    shape: tuple[int, int, int], factor: int, seed: int
) -> None:
    grid = Grid(shape, OBLIQUE)
    ijk = np.argwhere(np.random.default_rng(seed).random(shape) < 0.6)
    if not len(ijk):
        return
    blocks, cell, unit = coarsened(grid, ijk, factor)
    assert np.array_equal(cell[unit], ijk // factor)
    assert len(np.unique(cell, axis=0)) == len(cell)
    # the centre of a whole block is the mean of its voxels' centres
    inside = np.argwhere(np.ones((factor,) * 3)) + cell[0] * factor
    assert np.allclose(blocks.millimetres(cell[:1]), grid.millimetres(inside).mean(0))


@given(
    st.lists(st.floats(-500, 500), min_size=12, max_size=12),
    st.tuples(*[st.integers(1, 99)] * 3),
)
def test_a_grid_survives_its_text(numbers: list[float], shape: tuple[int, int, int]) -> None:
    affine = np.vstack([np.array(numbers).reshape(3, 4), [0, 0, 0, 1]])
    found = Grid.decode(Grid(shape, affine, "MNI152").encode())
    assert found.shape == shape
    assert np.array_equal(found.affine, affine)
    assert found.is_mni


def test_flat_positions_are_those_of_the_file() -> None:
    volume = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    stored = np.frombuffer(
        nibabel.Nifti1Image(volume, np.eye(4)).to_bytes(), dtype="<f4", offset=352
    )
    assert np.array_equal(stored[GRID.stored_index(IJK)], volume[tuple(IJK.T)])
