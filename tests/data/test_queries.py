"""What analysis code asks of the stores: labels, time, networks, lazy sums, and no surprises."""

from __future__ import annotations

import time
import warnings

import dask
import dask.array
import numpy as np
import pytest
import xarray as xr

import sherlock_data as sd
from sherlock_data.store import list_stores

UNITS = {"time": "s", "run_time": "s", "x": "mm", "y": "mm", "z": "mm"}


@pytest.fixture(scope="module")
def tree(tiny_stores):
    return sd.open(tiny_stores)


def no_chunk_is_read(monkeypatch):
    """Fail where the values of a large array are read."""
    import zarr

    def refuse(self, *args, **kwargs):
        raise AssertionError(f"{self.name} was read")

    for name in ("__getitem__", "get_basic_selection", "get_orthogonal_selection"):
        whole = getattr(zarr.Array, name)

        def guarded(self, *args, whole=whole, **kwargs):
            if self.ndim > 1 and self.nbytes > 1000:
                refuse(self)
            return whole(self, *args, **kwargs)

        monkeypatch.setattr(zarr.Array, name, guarded)


def test_a_folder_is_a_tree_with_a_node_for_each_store(tree, tiny_stores):
    assert isinstance(tree, xr.DataTree)
    assert sorted(tree.children) == sorted(list_stores(tiny_stores))
    assert {"volumes", "voxels", "parcels", "pca", "stimulus"} <= set(tree.children)


def test_labels_select(tree):
    bold = tree["parcels"].bold
    name = str(bold.parcel.values[1])
    one = bold.sel(parcel=name, subject="sub-02")
    assert one.dims == ("time",)
    np.testing.assert_array_equal(one, bold.values[1, :, 1])
    two = bold.sel(subject=["sub-02", "sub-01"], parcel=[name])
    assert two.shape == (2, bold.sizes["time"], 1)
    with pytest.raises(KeyError):
        bold.sel(subject="sub-99")


def test_seconds_select(tree):
    bold = tree["voxels"].bold
    tr_s = tree["voxels"].attrs["repetition_time_s"]
    piece = bold.sel(time=slice(3 * tr_s, 6 * tr_s))
    assert piece.tr.values.tolist() == [3, 4, 5, 6]
    near = bold.sel(time=3.2 * tr_s, method="nearest")
    assert int(near.tr) == 3


def test_runs_select(tree):
    data = tree["voxels"].to_dataset()
    for run in dict.fromkeys(data.run.values.tolist()):
        piece = data.bold.sel(time=(data.run == run).values)
        assert float(piece.run_time[0]) == 0.0
        assert set(piece.run.values.tolist()) == {run}


def test_networks_select(tree):
    bold = tree["parcels"].bold
    networks = set(bold.network.values.tolist())
    assert len(networks) > 1
    parts = {n: bold.sel(parcel=(bold.network == n).values) for n in networks}
    assert sum(part.sizes["parcel"] for part in parts.values()) == bold.sizes["parcel"]
    by_network = bold.groupby("network").mean()
    for name, part in parts.items():
        np.testing.assert_allclose(
            by_network.sel(network=name), part.mean("parcel"), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("store", "label"), [("parcels", "network"), ("parcels", "hemisphere"), ("voxels", "run")]
)
def test_labels_group_and_what_is_grouped_stays_lazy(tree, store, label, monkeypatch):
    data = tree[store].to_dataset()
    with monkeypatch.context() as patch:
        no_chunk_is_read(patch)
        grouped = data.bold.groupby(label).mean()
        assert dask.is_dask_collection(grouped)
    assert sorted(grouped[label].values.tolist()) == sorted(set(data[label].values.tolist()))
    [dim] = data[label].dims
    name = grouped[label].values[-1]
    members = data.bold.sel({dim: (data[label] == name).values}).mean(dim)
    np.testing.assert_allclose(grouped.sel({label: name}), members, rtol=1e-4, atol=1e-5)


def test_sums_are_lazy_and_right(tree, monkeypatch):
    bold = tree["voxels"].bold
    assert isinstance(bold.data, dask.array.Array)
    with monkeypatch.context() as patch:
        no_chunk_is_read(patch)
        lazy = ((bold - bold.mean("time")) ** 2).mean("time").sel(subject="sub-01")
        assert dask.is_dask_collection(lazy)
        with pytest.raises(AssertionError, match="was read"):
            lazy.compute()
    values = bold.sel(subject="sub-01").values.astype("f8")
    np.testing.assert_allclose(lazy.compute(), np.nanvar(values, axis=0), rtol=1e-3, atol=1e-4)


def test_opening_reads_metadata_and_indexes_only(tiny_stores, monkeypatch):
    no_chunk_is_read(monkeypatch)
    for path in list_stores(tiny_stores).values():
        sd.open(path)
    sd.open(tiny_stores)


def test_ten_stores_open_in_a_second(tiny_stores):
    paths = (list(list_stores(tiny_stores).values()) * 5)[:10]
    assert len(paths) == 10
    for path in paths:  # imports and caches are no part of it
        sd.open(path)
    taken = []
    for _ in range(5):
        start = time.process_time()
        for path in paths:
            sd.open(path)
        taken.append(time.process_time() - start)
    assert min(taken) < 1


def test_plain_xarray_opens_every_store_in_silence(tiny_stores):
    for name, path in list_stores(tiny_stores).items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plain = xr.open_zarr(path)
        ours = sd.open(path)
        assert set(plain.variables) == set(ours.variables), name
        assert plain.attrs == ours.attrs
        xr.testing.assert_identical(plain.isel(time=slice(0, 3)), ours.isel(time=slice(0, 3)))


def test_every_store_speaks_cf(tree):
    for name, node in tree.children.items():
        assert node.attrs["Conventions"] == "CF-1.11"
        assert {"dataset", "recipe", "inputs", "created_by", "schema_version"} <= set(node.attrs)
        for coordinate, units in UNITS.items():
            if coordinate in node.coords:
                assert node[coordinate].attrs["units"] == units, (name, coordinate)
        assert node["time"].dtype == "float64"
        for variable in node.data_vars.values():
            said = {"units", "long_name", "standard_name", "flag_meanings"} & set(variable.attrs)
            assert said, f"{name}/{variable.name} says nothing of itself"


def test_stores_of_a_dataset_share_their_clock(tree):
    times = [node["time"].values for node in tree.children.values()]
    assert all(np.array_equal(times[0], other) for other in times)
    joined = xr.merge(
        [tree["parcels"].to_dataset()[["bold"]], tree["stimulus"].to_dataset()[["video"]]],
        join="exact",
        compat="override",
        combine_attrs="drop",
    )
    assert {"bold", "video"} <= set(joined.data_vars)
