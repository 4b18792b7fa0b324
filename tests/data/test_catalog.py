"""The catalogue: what it offers, what it refuses, and how a user's own lies over it."""

import pytest

from sherlock_data.catalog import load_catalog
from sherlock_data.errors import CatalogError

MINE = """
datasets:
  mine: {bold: "sub-{subject}_bold.nii.gz", repetition_time_s: 2.0, stores: {stimulus: {width: 80}}}
atlases:
  own: {image: atlas/labels.nii.gz, labels: atlas/labels.tsv}
"""


@pytest.fixture
def overlay(tmp_path):
    def write(text):
        path = tmp_path / "catalog.yaml"
        path.write_text(text)
        return path

    return write


def test_packaged_catalogue_knows_sherlock():
    sherlock = load_catalog().dataset("sherlock")
    assert sherlock.repetition_time_s == 1.5
    assert [run.volumes for run in sherlock.runs] == [946, 1030]
    assert sherlock.runs[1].movie is None


def test_overlay_adds_and_inherits(overlay, tmp_path):
    catalog = load_catalog(overlay(MINE))
    assert {"mine", "sherlock"} <= set(catalog.datasets)
    assert catalog.atlas("own").image == tmp_path / "atlas/labels.nii.gz"
    assert catalog.recipe("mine", "stimulus").width == 80
    assert catalog.recipe("mine", "stimulus").height == 90
    assert catalog.recipe("sherlock", "stimulus").width == 160


def test_grey_and_voxels_are_recipes_of_one_kind(overlay):
    catalog = load_catalog(overlay("stores: {grey: {kind: voxels, mask: {grey_matter: 0.25}}}"))
    assert catalog.recipe("sherlock", "grey").mask.grey_matter == 0.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("datsets: {}", r"unknown key 'datsets'.*'datasets'", id="section"),
        pytest.param(
            "datasets: {a: {bold: x, repitition_time_s: 1}}",
            r"repitition_time_s.*did you mean 'repetition_time_s'",
            id="dataset-key",
        ),
        pytest.param(
            "datasets: {a: {bold: x, runs: [{name: r, volume: 3}]}}",
            r"did you mean 'volumes'",
            id="run-key",
        ),
        pytest.param(
            "stores: {v: {kind: voxels, mask: {signal_fracton: 0.9}}}",
            r"did you mean 'signal_fraction'",
            id="mask-key",
        ),
        pytest.param("stores: {v: {kind: voxel}}", r"did you mean 'voxels'", id="kind"),
        pytest.param(
            "datasets: {a: {bold: x, stores: {stimulus: {widht: 3}}}}",
            r"did you mean 'width'",
            id="override-key",
        ),
        pytest.param(
            "datasets: {a: {bold: x, repetition_time_s: -1}}", "greater than 0", id="tr-negative"
        ),
        pytest.param("datasets: {a: {}}", "bold: Field required", id="no-bold"),
        pytest.param("atlases: {a: {parcels: 4}}", "source: nilearn", id="atlas-source"),
        pytest.param(
            "datasets: {a: {bold: x, runs: [{name: r, volumes: 9}],"
            " repeats: [{volumes: 3, at: {r: 8}}]}}",
            "repeats: 3 volumes at 8",
            id="repeat-outside",
        ),
        pytest.param("datasets: [1]", "a catalogue is a mapping", id="list"),
        pytest.param("a: b: c", "not valid YAML", id="yaml"),
        pytest.param("!!python/object/apply:os.system ['true']", "not valid YAML", id="yaml-code"),
    ],
)
def test_mistakes_are_one_line_with_the_nearest_key(overlay, text, message):
    with pytest.raises(CatalogError, match=message) as caught:
        load_catalog(overlay(text))
    assert "\n" not in str(caught.value)
    assert "catalog.yaml" in str(caught.value)


@pytest.mark.parametrize("method", ["dataset", "atlas", "model"])
def test_unknown_names_are_answered_with_known_ones(method):
    with pytest.raises(CatalogError, match=r"no .* 'sherlok'"):
        getattr(load_catalog(), method)("sherlok")


def test_a_missing_catalogue_is_said(tmp_path):
    with pytest.raises(CatalogError, match=r"nowhere\.yaml"):
        load_catalog(tmp_path / "nowhere.yaml")
