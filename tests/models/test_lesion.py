"""Lesions of whole runs: what they give, and that the fast way is the plain way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import xarray as xr

import sherlock_data as sd
from sherlock_data.errors import ConfigError, InputError, SherlockError
from sherlock_models.lesions.block_tests import apart
from sherlock_models.lesions.brain import Replacing
from sherlock_models.lesions.lesion import lesion, lesioned
from sherlock_models.lesions.lesion_store import is_current, load_lesions, save
from sherlock_models.lesions.retrain import retrain
from sherlock_models.lesions.study import Study
from sherlock_models.lesions.units import Elements, find_units
from sherlock_models.resolve import resolve
from sherlock_models.run import Run, load
from sherlock_models.scoring.heldout import Reader, Side
from sherlock_models.training.train import fit

QUICK = {"steps": 40, "batch_size": 16, "validate_every": 20}


def train(folder: Path, stores: Path, entry: str, **options: Any) -> Run:
    catalog = options.pop("catalog", None)
    config = resolve(entry, stores, catalog=catalog, options={**QUICK, **options})
    return fit(config, folder / "run", device="cpu")


@pytest.fixture(scope="module")
def toy(stores: Path, catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """12 parcels in three networks, dense: its first and last layers can both be cut."""
    return train(tmp_path_factory.mktemp("toy"), stores, "toy", catalog=catalog, steps=150)


@pytest.fixture(scope="module")
def conv(judged: Path) -> Run:
    """20 synthetic parcels, convolutions: the first layer alone can be cut."""
    return load(judged)


@pytest.fixture(scope="module")
def pca(tiny_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("pca"), tiny_stores, "conv-pca", width=0.02)


@pytest.fixture(scope="module")
def voxels(tiny_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("voxels"), tiny_stores, "conv-voxels", width=0.02)


@pytest.fixture(scope="module")
def lesions(toy: Run) -> xr.Dataset:
    return lesion(toy, "parcels", null_draws=8)


class TestStore:
    def test_the_contract_and_more(self, toy: Run, lesions: xr.Dataset) -> None:
        assert lesions["effect"].dims == ("unit", "target")
        assert {"effect", "null_mean", "null_std", "q", "p", "z"} <= set(lesions.data_vars)
        targets = [str(t) for t in lesions["target"].values]
        assert targets[:3] == ["video", "audio", "loss"]
        assert {"video/upper left", "video/0-2 cycles", "audio/band 0"} <= set(targets)
        assert lesions.attrs["mode"] == "lesion"
        assert lesions.attrs["smallest_p"] == 2.0 ** -lesions.sizes["block"]
        # the empty parcel is no unit; a network is known for every other
        assert lesions.sizes["unit"] == 11
        assert set(lesions["network"].values.tolist()) == {"Net0", "Net1", "Net2"}

    def test_written_and_opened_with_plain_xarray(self, toy: Run, lesions: xr.Dataset) -> None:
        path = save(toy, lesions)
        assert path.name == "lesions.zarr"
        with xr.open_zarr(path) as opened:
            np.testing.assert_array_equal(opened["effect"].values, lesions["effect"].values)
            assert opened.attrs["replace"] == "zero"
        assert is_current(toy)
        assert not is_current(toy, "isolate")
        with pytest.raises(ConfigError, match="--mode isolate"):
            load_lesions(toy, "isolate")

    def test_blocks_add_up_to_the_effect(self, lesions: xr.Dataset) -> None:
        np.testing.assert_allclose(
            lesions["increase"].sum("block").values, lesions["effect"].values, atol=1e-12
        )

    @pytest.mark.parametrize(
        ("whole", "parts"),
        [
            pytest.param("video", ("upper left", "upper right", "lower left", "lower right")),
            pytest.param(
                "video",
                ("0-2 cycles", "2-4 cycles", "4-8 cycles", "8-16 cycles", "above 16 cycles"),
                id="octaves",
            ),
            pytest.param("audio", tuple(f"band {b}" for b in range(4)), id="bands"),
        ],
    )
    def test_parts_add_up_to_the_whole(
        self, toy: Run, lesions: xr.Dataset, whole: str, parts: tuple[str, ...]
    ) -> None:
        study = Study.of(toy, "parcels")
        share = dict(zip(study.decoding.names, study.variance, strict=True))
        effect = {str(t): lesions["effect"].sel(target=t).values for t in lesions["target"].values}
        total = sum(effect[f"{whole}/{p}"] * share[f"{whole}/{p}"] for p in parts)
        np.testing.assert_allclose(total, effect[whole] * share[whole], rtol=1e-3, atol=1e-6)

    def test_a_map_averages_to_the_effect(self, lesions: xr.Dataset) -> None:
        mean = lesions["video_map"].mean(("video_height", "video_width")).values
        np.testing.assert_allclose(mean, lesions["effect"].sel(target="video"), atol=1e-5)

    def test_the_loss_is_the_weighted_sum(self, toy: Run, lesions: xr.Dataset) -> None:
        both = lesions["effect"].sel(target=["video", "audio"]).sum("target")
        np.testing.assert_allclose(lesions["effect"].sel(target="loss").values, both.values)


@pytest.mark.parametrize("mode", ["lesion", "isolate"])
@pytest.mark.parametrize("replace", ["zero", "mean", "shuffle"])
@pytest.mark.parametrize(
    ("which", "units"),
    [
        pytest.param("toy", "parcels", id="dense"),
        pytest.param("conv", "networks", id="convolutions"),
        pytest.param("pca", "networks", id="components"),
        pytest.param("voxels", "networks", id="voxels"),
    ],
)
def test_the_fast_way_is_the_plain_way(
    request: pytest.FixtureRequest, which: str, units: str, replace: str, mode: str
) -> None:
    run = request.getfixturevalue(which)
    options = {"mode": mode, "replace": replace, "null_draws": 0, "mapped": 0}
    fast, plain = (lesion(run, units, fast=f, **options) for f in (True, False))
    assert fast.attrs["fast"]
    assert not plain.attrs["fast"]
    for name in ("effect", "judged_increase", "measured_gain"):
        np.testing.assert_allclose(fast[name], plain[name], atol=1e-5)
    assert float(np.abs(plain["effect"]).max()) > 1e-6


def test_an_effect_is_the_error_of_the_model_run_again(toy: Run) -> None:
    found = lesion(toy, "parcels", null_draws=0, mapped=0)
    data, test = toy.data, Side.of(toy.data, "test")
    reader = Reader(toy, test)
    variance = Study.of(toy, "parcels").variance[0]
    name = str(found["unit"].values[2])
    column = [str(n) for n in data.unit_names].index(name)
    squares, samples = 0.0, 0
    for subject in test.subjects:
        brain = reader.predicted(subject)
        truth = data.stimulus_target("video", test.of_subject(subject))
        without = brain.copy()
        without[:, column] = 0
        for read, sign in ((without, 1), (brain, -1)):
            squares += sign * np.square(reader.decode(read)["video"] - truth).sum()
        samples += len(truth)
    assert float(found["effect"].sel(unit=name, target="video")) == pytest.approx(
        squares / samples / variance, rel=1e-3, abs=1e-6
    )


def test_the_measured_gain_is_that_of_the_group_upright_and_upside_down(
    toy: Run, lesions: xr.Dataset
) -> None:
    study = Study.of(toy, "parcels")
    unit = study.units[2]
    reader, test, (column,) = Reader(toy, study.replacing.test), study.replacing.test, unit.index
    runs = toy.data.brains.run.numpy()
    kept = study.blocks.trs[apart(study.blocks, study.autocorrelation)]
    gain, samples = 0.0, 0
    # sub-02 lacks signal in another parcel, so that its prediction is its own
    for subjects in ([0, 2], [1]):
        own = {s: test.of_subject(s) for s in subjects}
        activity = np.full((len(subjects), len(toy.data.clock.tr())), np.nan)
        for row, (subject, trs) in enumerate(own.items()):
            measured = test.measured(subject, trs)[:, column].astype(np.float64)
            for run in np.unique(runs[trs]):
                measured[runs[trs] == run] -= measured[runs[trs] == run].mean()
            activity[row, trs] = measured
        for subject, trs in own.items():
            trs = trs[np.isin(trs, kept)]
            brain = reader.predicted(subject)[np.isin(own[subject], kept)].copy()
            truth = toy.data.stimulus_target("video", trs)
            for sign in (-1, 1):
                brain[:, column] = sign * np.nanmean(activity[:, trs], axis=0)
                gain -= sign * np.square(reader.decode(brain)["video"] - truth).sum()
            samples += len(trs)
    found = float(lesions["measured_gain"].sum("block").sel(unit=unit.name, target="video"))
    assert found == pytest.approx(gain / samples / study.variance[0], rel=1e-3, abs=1e-6)


def test_a_measured_brain_is_read_subject_by_subject(toy: Run) -> None:
    found = lesion(toy, "networks", brain="measured", null_draws=0)
    assert found.attrs["brain"] == "measured"
    # it has its noise already, and nothing else is left to ask it
    np.testing.assert_array_equal(found["p"].values, found["p_lesion"].values)
    assert np.isnan(found["p_measured"].values).all()
    assert len(Study.of(toy, "networks", brain="measured").readings) == 3
    assert len(Study.of(toy, "networks").readings) == 2  # one subject lacks signal in a parcel


def test_held_out_data_change_no_fitted_quantity(toy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Study.of(toy, "parcels", replace="mean")
    fresh = Run(toy.path)
    held = torch.from_numpy(fresh.data.split.test)
    for table in fresh.data.tables.values():
        table.values[held] = table.values[held].flip(0)
    fresh.data.brains.raw[:, held + fresh.data.lag_trs] *= -3.0
    after = Study.of(fresh, "parcels", replace="mean")
    np.testing.assert_array_equal(before.variance, after.variance)
    assert before.autocorrelation == after.autocorrelation
    for one, other in zip(before.readings, after.readings, strict=True):
        torch.testing.assert_close(one.replacement, other.replacement)
    assert not torch.equal(before.readings[0].read, after.readings[0].read)


def test_stills_with_and_without(toy: Run) -> None:
    trs = toy.data.split.test[[0, 3]]
    stills = lesioned(toy, "Net0", trs)
    assert set(stills) == {"video", "audio"}
    assert stills["video"]["lesioned"].shape == (2, 3, 18, 32)
    np.testing.assert_array_equal(
        stills["audio"]["original"], toy.data.stimulus_target("audio", trs)
    )
    assert not np.allclose(stills["video"]["decoded"], stills["video"]["lesioned"])
    with pytest.raises(ConfigError, match="is not held out"):
        lesioned(toy, "Net0", toy.data.split.train[:1])


class TestPca:
    def test_a_unit_is_replaced_in_voxel_space_and_projected_again(self, pca: Run) -> None:
        study = Study.of(pca, "networks")
        reading, unit = study.readings[0], study.units[0]
        store = sd.open(Path(pca.config.data) / "pca.zarr")
        loadings, mean = store["loadings"].values, store["voxel_mean"].values
        brains, subject = pca.data.brains, int(study.replacing.test.subjects[0])
        rows = torch.from_numpy(reading.trs) + pca.data.lag_trs
        which = torch.full_like(rows, subject)
        code = brains.restore(which, rows, reading.read).numpy()
        told = code @ loadings + mean
        signal = study.replacing.space.signal[subject]
        lesioned = np.where(signal, told, 0)
        lesioned[:, unit.index] = 0
        again = (lesioned - np.where(signal, told, 0)) @ loadings.T
        expected = again * brains.inverse_std[subject][brains.run[rows]].numpy()
        columns, change = reading.change(unit.index, slice(None), False)
        assert len(columns) == len(loadings)
        np.testing.assert_allclose(change.numpy(), expected, atol=2e-4)

    def test_components_are_units_of_the_layer_itself(self, pca: Run) -> None:
        found = lesion(pca, "components", null_draws=0, mapped=0)
        assert found.sizes["unit"] == pca.model.sizes.units
        study = Study.of(pca, "components")
        columns, change = study.readings[0].change(study.units[1].index, slice(None), False)
        assert columns.tolist() == [1]
        torch.testing.assert_close(change[:, 0], -study.readings[0].read[:, 1])


class TestUnits:
    @pytest.fixture
    def elements(self, conv: Run) -> Elements:
        return Elements(conv, Replacing(conv, Side.of(conv.data, "test")).signal)

    @pytest.fixture
    def image(self, tiny_stores: Path, tmp_path: Path) -> Any:
        """Write the voxels of some parcels as an image of twice the resolution."""
        parcels = sd.open(tiny_stores / "parcels.zarr")

        def make(names: list[str], code: int = 4, value: float = 1.0) -> str:
            picked = parcels["atlas_index"].sel(parcel=names).values
            fine = np.isin(parcels["label"].values, picked).astype(np.float32) * value
            affine = np.array(sd.open(tiny_stores / "voxels.zarr").attrs["affine"])
            fine = fine.repeat(2, 0).repeat(2, 1).repeat(2, 2)
            affine = affine @ np.diag([0.5, 0.5, 0.5, 1])
            affine[:3, 3] -= affine[:3, :3].sum(1) / 2
            image = nibabel.Nifti1Image(fine, affine)
            image.header["sform_code"] = code
            nibabel.save(image, tmp_path / "roi.nii.gz")
            return str(tmp_path / "roi.nii.gz")

        return make

    def test_a_region_is_its_parcels(self, elements: Elements, image: Any) -> None:
        names = [str(n) for n in elements.names[[1, 4]]]
        (unit,) = find_units(elements, image(names))
        assert unit.name == "roi"
        assert [str(n) for n in elements.names[unit.index]] == names

    def test_a_region_of_voxels(self, voxels: Run, elements: Elements, image: Any) -> None:
        own = Elements(voxels, Replacing(voxels, Side.of(voxels.data, "test")).signal)
        name = str(elements.names[2])
        (unit,), (parcel,) = find_units(own, image([name])), find_units(own, name)
        np.testing.assert_array_equal(unit.index, parcel.index)

    def test_networks_are_all_their_parcels(self, voxels: Run) -> None:
        own = Elements(voxels, Replacing(voxels, Side.of(voxels.data, "test")).signal)
        parcels, networks = find_units(own, "parcels"), find_units(own, "networks")
        for network in networks:
            mine = [unit.index for unit in parcels if unit.network == network.name]
            np.testing.assert_array_equal(np.sort(np.concatenate(mine)), network.index)

    def test_a_list_of_names(self, elements: Elements) -> None:
        names = [str(name) for name in elements.names[:2]]
        assert [unit.name for unit in find_units(elements, ",".join(names))] == names

    def test_unknown_names_are_corrected(self, elements: Elements) -> None:
        name = str(elements.names[0])
        with pytest.raises(ConfigError, match=f"did you mean '{name}'"):
            find_units(elements, f"{name}x")

    def test_a_region_beside_the_brain(self, elements: Elements, image: Any) -> None:
        with pytest.raises(InputError, match="holds no unit"):
            find_units(elements, image([str(elements.names[0])], value=0.0))

    def test_a_region_in_another_space(self, elements: Elements, image: Any) -> None:
        with pytest.raises(SherlockError, match="lies in Talairach space"):
            find_units(elements, image([str(elements.names[0])], code=3))

    def test_components_of_a_brain_of_parcels(self, elements: Elements) -> None:
        with pytest.raises(ConfigError, match="has no components"):
            find_units(elements, "components")

    def test_an_empty_parcel(self, toy: Run) -> None:
        elements = Elements(toy, Replacing(toy, Side.of(toy.data, "test")).signal)
        with pytest.raises(ConfigError, match="no held-out subject has signal there"):
            find_units(elements, str(elements.names[11]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"mode": "lesoin"}, "say lesion, isolate", id="mode"),
        pytest.param({"replace": "noise"}, "say zero, mean, shuffle", id="replace"),
        pytest.param({"brain": "read"}, "say predicted, measured", id="brain"),
        pytest.param({"units": "Net0,Net0"}, "is there twice", id="twice"),
    ],
)
def test_what_cannot_be_asked_for(toy: Run, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lesion(toy, **options)


@pytest.fixture(scope="module")
def control(toy: Run) -> dict[str, Any]:
    return retrain(toy, "Net0", device="cpu")


class TestRetrained:
    def test_it_is_trained_with_the_unit_closed(self, toy: Run, control: dict[str, Any]) -> None:
        again = load(control["run"])
        assert again.path.parent == toy.path
        closed = list(again.config.without)
        assert closed == [0, 3, 6, 9]
        assert not again.data.signal[:, closed].any()
        assert again.data.signal[:, 1].all()
        assert (again.config.steps, again.config.seed) == (toy.config.steps, toy.config.seed)

    def test_the_three_stand_side_by_side(self, toy: Run, control: dict[str, Any]) -> None:
        assert set(control) == {"unit", "run", "whole", "lesioned", "retrained"}
        effect = lesion(toy, "Net0", null_draws=0, mapped=0)["effect"]
        for target in ("video", "audio"):
            lost = control["whole"][target] - control["lesioned"][target]
            assert lost == pytest.approx(float(effect.sel(target=target)[0]), abs=1e-4)
        assert control["retrained"] != control["whole"]

    def test_asked_again_it_is_not_trained_again(self, toy: Run, control: dict[str, Any]) -> None:
        before = (Path(control["run"]) / "metrics.jsonl").stat().st_mtime_ns
        assert retrain(toy, "Net0", device="cpu") == control
        assert (Path(control["run"]) / "metrics.jsonl").stat().st_mtime_ns == before

    def test_voxels_behind_a_code_cannot_be_closed(self, pca: Run) -> None:
        network = Study.of(pca, "networks").units[0].name
        with pytest.raises(ConfigError, match="is made of voxels"):
            retrain(pca, network)
