"""The pca store: of training TRs alone, resumable, mended, and voxels come back from it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import xarray as xr
import yaml

import sherlock_data as sd
from sherlock_data import store
from sherlock_data.build import Options, build
from sherlock_data.catalog import load_catalog
from sherlock_data.errors import CatalogError, UnavailableError
from sherlock_data.fitting import overlap, ranges, trs_in
from sherlock_data.representations import pca, pca_parts
from sherlock_data.scan import resolve
from sherlock_data.splits import make_split
from sherlock_data.timing import Clock, Run

COMPONENTS = 12


@pytest.fixture(scope="module")
def built(tiny_raw, tmp_path_factory):
    """Raw files of one's own, and pca of voxels built from them."""
    folder = tmp_path_factory.mktemp("pca")
    raw = shutil.copytree(tiny_raw, folder / "raw")
    change(raw, components=COMPONENTS)
    run(raw, folder / "out")
    return raw, folder / "out" / "synth"


def change(raw, name="pca", **keys):
    path = raw / "catalog.yaml"
    document = yaml.safe_load(path.read_text())
    document["datasets"]["synth"].setdefault("stores", {}).setdefault(name, {}).update(keys)
    path.write_text(yaml.safe_dump(document))


def run(raw, out, names=("pca",), **options):
    catalog = load_catalog(raw / "catalog.yaml")
    scan = resolve("synth", catalog.dataset("synth"), raw)
    return {o.store: o for o in build(scan, catalog, out, names, Options(**options))}


def chunks(path):
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("c/*") if p.is_file()}


@pytest.fixture
def copy(built, tmp_path):
    """Raw files and stores to change, pca not yet built."""
    raw = shutil.copytree(built[0], tmp_path / "raw")
    out = tmp_path / "out"
    for name in ("volumes", "voxels"):
        shutil.copytree(built[1] / f"{name}.zarr", out / "synth" / f"{name}.zarr")
    return raw, out


def standardised(voxels, fitted_on):
    """What the fit should see, the plain way: every subject's rows, 0 where nothing counts."""
    train = np.zeros(voxels.sizes["time"], dtype=bool)
    train[trs_in(fitted_on["trs"])] = True
    valid, run_of_tr = voxels.valid.values, voxels.run.values.astype(object)
    out = []
    for row in range(voxels.sizes["subject"]):
        bold = voxels.bold[row].values.astype(np.float64)
        signal = voxels.has_signal.values[row].copy()
        for name in np.unique(run_of_tr):
            here = run_of_tr == name
            alone = not train[here].any()  # wholly held out: its own statistics
            fit = bold[here & valid[row] & (train | alone)]
            signal &= fit.std(axis=0) > 0
            bold[here] = (bold[here] - fit.mean(axis=0)) / np.where(fit.std(0) > 0, fit.std(0), 1)
        bold[:, ~signal] = 0
        bold[~valid[row]] = 0
        out.append(bold)
    return np.stack(out), train


def test_the_store_is_scikit_learns_pca_of_standardised_training_rows(reference_pca, built):
    data = sd.open(built[1] / "pca.zarr")
    voxels = sd.open(built[1] / "voxels.zarr")
    rows, train = standardised(voxels, data.attrs["fitted_on"])
    valid = voxels.valid.values
    fit = np.concatenate([rows[s, train & valid[s]] for s in range(len(rows))])
    wanted, known = reference_pca(fit, COMPONENTS)
    np.testing.assert_allclose(data.loadings, wanted, atol=1e-4)
    np.testing.assert_allclose(
        data.explained_variance_ratio, known.explained_variance_ratio_, atol=1e-5
    )
    np.testing.assert_allclose(data.voxel_mean, 0, atol=1e-5)
    scores = (rows - known.mean_) @ wanted.T
    np.testing.assert_allclose(data.bold.values[valid], scores[valid], atol=2e-2, rtol=1e-3)
    assert (data.bold.values[~valid] == 0).all()


def test_held_out_variance_is_measured_on_held_out_trs(built):
    data = sd.open(built[1] / "pca.zarr")
    voxels = sd.open(built[1] / "voxels.zarr")
    fitted_on = data.attrs["fitted_on"]
    rows, _ = standardised(voxels, fitted_on)
    for side in ("validation", "test"):
        held = np.zeros(rows.shape[1], dtype=bool)
        held[trs_in(fitted_on[f"{side}_trs"])] = True
        mine = [rows[s, held & voxels.valid.values[s]] for s in range(len(rows))]
        z = np.concatenate(mine) - data.voxel_mean.values
        share = np.square(z @ data.loadings.values.T).sum(axis=0) / np.square(z).sum()
        found = data.explained_variance_ratio_held_out.sel(side=side)
        np.testing.assert_allclose(found, share, rtol=1e-3)
    held_out = data.explained_variance_ratio_held_out.sum("component")
    assert (held_out < data.explained_variance_ratio.sum()).all()


def test_what_it_was_fitted_on_is_recorded_and_is_a_trainings_split(built):
    data = sd.open(built[1] / "pca.zarr")
    fitted_on = data.attrs["fitted_on"]
    lag = round(data.attrs["lag_s"] / data.attrs["repetition_time_s"])
    names = data.run.values.astype(object)
    clock = Clock(
        data.attrs["repetition_time_s"],
        tuple(Run(n, int((names == n).sum())) for n in dict.fromkeys(names)),
    )
    usable = np.concatenate([np.arange(60) < 60 - lag] * 2)
    split = make_split("block", clock, usable, tuple(data.subject.values), lag_trs=lag)
    assert fitted_on["split"] == "block"
    assert fitted_on["subjects"] == list(data.subject.values)
    np.testing.assert_array_equal(trs_in(fitted_on["trs"]), split.train + lag)
    subjects, trs = overlap(fitted_on, split, lag)
    assert subjects == ()
    assert len(trs) == 0
    other = make_split("block", clock, usable, tuple(data.subject.values), fold=2, lag_trs=lag)
    assert len(overlap(fitted_on, other, lag)[1])


def test_the_claim_stands_beside_what_was_measured(built, copy):
    outcome = run(*copy)["pca"]
    held = sd.open(built[1] / "pca.zarr").explained_variance_ratio.values.sum()
    assert f"12 components hold {100 * held:.1f} % of the training" in outcome.detail
    assert "claimed: 5,000 components hold about 95 %" in outcome.detail


def test_held_out_data_do_not_touch_the_fit(built, copy):
    raw, out = copy
    fitted_on = sd.open(built[1] / "pca.zarr").attrs["fitted_on"]
    array = store.open_array(out / "synth" / "voxels.zarr", "bold")
    held = np.ones(array.shape[1], dtype=bool)
    held[trs_in(fitted_on["trs"])] = False
    values = array[:]
    values[:, held] += np.random.default_rng(0).normal(0, 500, values[:, held].shape)
    array[:] = values
    run(raw, out)
    first, second = sd.open(built[1] / "pca.zarr"), sd.open(out / "synth" / "pca.zarr")
    for name in ("loadings", "voxel_mean", "explained_variance_ratio"):
        np.testing.assert_array_equal(first[name], second[name])
    training = trs_in(fitted_on["trs"])
    trained = [run in set(first.run.values[training]) for run in ("run-1", "run-2")]
    assert any(trained)
    for name in ("mean", "std"):  # a run wholly held out has its own
        np.testing.assert_array_equal(first[name][:, trained], second[name][:, trained])
    np.testing.assert_array_equal(first.bold[:, training], second.bold[:, training])
    assert not np.array_equal(first.bold[:, held], second.bold[:, held])


@pytest.mark.parametrize("of", ["voxels", "grey", "coarse"])
def test_pca_of_any_voxels_store(built, copy, of):
    raw, out = copy
    change(raw, of=of)
    run(raw, out)
    data, source = sd.open(out / "synth" / "pca.zarr"), sd.open(out / "synth" / f"{of}.zarr")
    assert data.loadings.shape == (COMPONENTS, source.sizes["voxel"])
    np.testing.assert_array_equal(data.i, source.i)
    assert sd.to_nifti(data.loadings[0]).shape == json_shape(source)


def json_shape(data):
    from sherlock_data.grid import Grid

    return Grid.decode(data["grid"]).shape


def test_a_source_that_cannot_be_is_named(built, copy):
    raw, out = copy
    change(raw, of="parcels")
    with pytest.raises(CatalogError, match="'parcels', a store of kind parcels"):
        run(raw, out)


def test_more_components_than_the_rank(built, copy):
    raw, out = copy
    rank = 3 * 2 * 60
    change(raw, components=rank)
    with pytest.raises(UnavailableError, match=r"have rank (\d+)") as refused:
        run(raw, out)
    assert not (out / "synth" / "pca.zarr").exists()
    rank = int(str(refused.value).split("have rank ")[1].split()[0])
    change(raw, components=rank + 1)
    assert run(raw, out, ())["pca"].status == "skipped"
    change(raw, components=rank)
    run(raw, out)
    data = sd.open(out / "synth" / "pca.zarr")
    assert data.explained_variance_ratio.sum() == pytest.approx(1, abs=1e-4)


def test_the_rank_is_known_before_anything_is_built(built, tmp_path):
    raw = shutil.copytree(built[0], tmp_path / "raw")
    change(raw, components=500)
    with pytest.raises(UnavailableError, match="500 components asked for, the data have rank"):
        run(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_training_trs_are_another_store(built, copy):
    raw, out = copy
    run(raw, out)
    before = chunks(out / "synth" / "pca.zarr")
    change(raw, fold=1)
    with pytest.raises(sd.errors.StoreError, match="fold"):
        run(raw, out)
    assert chunks(out / "synth" / "pca.zarr") == before


def test_subjects_held_out_take_no_part_in_the_fit(built, copy):
    raw, out = copy
    change(raw, fit="subject")
    run(raw, out)
    fitted_on = sd.open(out / "synth" / "pca.zarr").attrs["fitted_on"]
    assert fitted_on["test_subjects"] == ["sub-01"]
    assert fitted_on["subjects"] == ["sub-02", "sub-03"]
    split = make_split("block", CLOCK, np.ones(120, dtype=bool), ("sub-01",))
    assert overlap(fitted_on, split, 0)[1].size == 0


CLOCK = Clock(1.5, (Run("run-1", 60), Run("run-2", 60)))


def test_a_killed_build_repeats_neither_the_fit_nor_a_subject(built, copy, monkeypatch):
    raw, out = copy
    done = []
    fit, score = pca_parts.FitPart.run, pca_parts.ScorePart.run

    def fits(self, path, report):
        done.append(self.name)
        return fit(self, path, report)

    def dies_at_the_second(self, path, report):
        done.append(self.name)
        if done.count("killed") == 0 and len(done) == 3:
            done.append("killed")
            raise KeyboardInterrupt
        return score(self, path, report)

    monkeypatch.setattr(pca_parts.FitPart, "run", fits)
    monkeypatch.setattr(pca_parts.ScorePart, "run", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(raw, out, workers=1)
    assert store.state(out / "synth" / "pca.zarr") == "resumable"
    run(raw, out, workers=1)
    assert done[0] == "fit"
    assert done.count("fit") == 1
    assert len(done) == 6
    assert chunks(out / "synth" / "pca.zarr") == chunks(built[1] / "pca.zarr")


@pytest.mark.slow
def test_a_cluster_waits_for_the_fit_too(built, copy):
    from distributed import LocalCluster

    raw, out = copy
    with LocalCluster(
        n_workers=2, threads_per_worker=1, protocol="tcp", dashboard_address=None
    ) as cluster:
        run(raw, out, scheduler=cluster.scheduler_address)
    near, far = sd.open(built[1] / "pca.zarr"), sd.open(out / "synth" / "pca.zarr")
    np.testing.assert_allclose(near.loadings, far.loadings, atol=1e-5)


@pytest.mark.parametrize("raw_units", [False, True], ids=["standardised", "as recorded"])
def test_voxels_come_back_from_scores(built, copy, raw_units):
    raw, out = copy
    change(raw, components=100)
    run(raw, out)
    data, voxels = sd.open(out / "synth" / "pca.zarr"), sd.open(out / "synth" / "voxels.zarr")
    rows, train = standardised(voxels, data.attrs["fitted_on"])
    scores = data.bold.sel(subject="sub-02")
    found = pca.reconstruct(data, scores, raw=raw_units)
    assert found.dims == ("time", "voxel")
    wanted = voxels.bold.sel(subject="sub-02").values if raw_units else rows[1]
    there = train & voxels.valid.values[1]
    got = found.values[there]
    known = np.isfinite(got)
    share = np.square(got - wanted[there])[known].sum()
    share /= np.square(wanted[there] - wanted[there].mean(axis=0))[known].sum()
    held = 1 - data.explained_variance_ratio.values.sum()
    assert share == pytest.approx(held, abs=0.05)
    assert isinstance(found.mean("time"), xr.DataArray)


def test_training_trs_as_ranges():
    trs = np.array([0, 1, 2, 7, 9, 10])
    assert ranges(trs) == [[0, 2], [7, 7], [9, 10]]
    np.testing.assert_array_equal(trs_in(ranges(trs)), trs)
    assert ranges(trs[:0]) == []


@pytest.mark.parametrize("array", ["loadings", "bold", "voxel_mean"])
def test_a_flipped_byte_is_mended(built, copy, array):
    raw, out = copy
    path = out / "synth" / "pca.zarr"
    shutil.copytree(built[1] / "pca.zarr", path)
    before = chunks(path)
    chunk = next(p for p in sorted((path / array).rglob("*")) if p.is_file() and "c" in p.parts)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(bytes(data))
    assert run(raw, out, repair=True)["pca"].status == "repaired"
    assert chunks(path) == before


def test_what_a_native_dataset_cannot_have_is_skipped_with_a_line(dataset, series):
    for number, values in enumerate(series, start=1):
        dataset.write(f"s{number}.nii.gz", values)
    dataset.stores["pca-of-grey"] = {"kind": "pca", "of": "grey", "components": 2}
    found = build(dataset.scan(), dataset.catalog(), dataset.out, (), Options(workers=1))
    outcomes = {outcome.store: outcome for outcome in found}
    assert {name for name, o in outcomes.items() if o.status == "built"} == {
        *("volumes", "voxels", "coarse")
    }
    assert "needs MNI152 space, this dataset is in native" in outcomes["grey"].detail
    assert "no training TRs to fit on" in outcomes["pca"].detail
    assert "derives from 'grey'" in outcomes["pca-of-grey"].detail
    with pytest.raises(UnavailableError, match="derives from 'grey'"):
        dataset.build("pca-of-grey")
