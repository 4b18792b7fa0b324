"""Atlases: label image and table, names, the grid, and what is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from sherlock_data.atlas import load_atlas, parse_schaefer
from sherlock_data.catalog import AtlasEntry
from sherlock_data.errors import InputError, UnavailableError
from sherlock_data.grid import Grid, read_volume

LABELS = np.array([[[0, 7], [7, 2]], [[2, 2], [5, 0]]])
TABLE = "index\tname\n7\t7Networks_LH_Vis_1\n2\t7Networks_RH_Default_PCC_8\n5\tamygdala\n"


@pytest.fixture
def entry(tmp_path: Path) -> AtlasEntry:
    """Three parcels on a 2 x 2 x 2 grid of 3 mm, in MNI152 space."""
    nibabel.save(
        nibabel.Nifti1Image(LABELS.astype(np.float32), np.diag([3.0, 3, 3, 1])),
        tmp_path / "a.nii.gz",
    )
    (tmp_path / "a.tsv").write_text(TABLE)
    return AtlasEntry(image=tmp_path / "a.nii.gz", labels=tmp_path / "a.tsv")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("7Networks_LH_Vis_1", ("Vis", "LH"), id="7 networks"),
        pytest.param("7Networks_RH_Default_PCC_8", ("Default", "RH"), id="with an area"),
        pytest.param("17Networks_LH_VisCent_ExStr_1", ("VisCent", "LH"), id="17 networks"),
        pytest.param("amygdala", ("", ""), id="another atlas"),
        pytest.param("LH_Vis_1", ("", ""), id="almost"),
    ],
)
def test_network_and_hemisphere_come_from_schaefers_names(
    name: str, expected: tuple[str, str]
) -> None:
    assert parse_schaefer(name) == expected


def test_parcels_keep_the_tables_order(entry: AtlasEntry) -> None:
    atlas = load_atlas("mine", entry)
    assert atlas.index.tolist() == [7, 2, 5]
    assert atlas.label.tolist() == ["7Networks_LH_Vis_1", "7Networks_RH_Default_PCC_8", "amygdala"]
    assert atlas.network.tolist() == ["Vis", "Default", ""]
    assert atlas.hemisphere.tolist() == ["LH", "RH", ""]
    assert [item["name"] for item in atlas.inputs] == ["a.nii.gz", "a.tsv"]


def test_columns_of_the_table_win_over_names(entry: AtlasEntry, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(
        "index\tname\tnetwork\themisphere\n0\tbackground\t\t\n7\ta\tvisual\tleft\n2\tb\tlimbic\t\n5\tc\t\t\n"
    )
    atlas = load_atlas("mine", entry)
    assert atlas.network.tolist() == ["visual", "limbic", ""]
    assert atlas.hemisphere.tolist() == ["left", "", ""]


def test_an_image_without_a_table_names_parcels_by_value(entry: AtlasEntry) -> None:
    atlas = load_atlas("mine", AtlasEntry(image=entry.image))
    assert atlas.label.tolist() == ["label-2", "label-5", "label-7"]


def test_on_its_own_grid_an_atlas_is_not_changed(entry: AtlasEntry) -> None:
    grid = Grid((2, 2, 2), np.diag([3.0, 3, 3, 1]), "MNI152")
    assert np.array_equal(load_atlas("mine", entry).on_grid(grid), LABELS)


def test_on_another_grid_every_voxel_takes_its_nearest_label(
    entry: AtlasEntry,
) -> None:
    padded = np.pad(LABELS, 1)  # scipy gives nothing beyond the outermost centres
    nibabel.save(
        nibabel.Nifti1Image(padded.astype(np.float32), np.diag([3.0, 3, 3, 1])), entry.image
    )
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = 3 - 0.75
    moved = load_atlas("mine", entry).on_grid(Grid((4, 4, 4), affine, "MNI152"))
    assert np.array_equal(moved, LABELS.repeat(2, 0).repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize(
    ("space", "grid_space", "refused"),
    [
        pytest.param("MNI152", "MNI152", False, id="both MNI152"),
        pytest.param("MNI152", "MNI152NLin2009cAsym", False, id="versions of MNI152"),
        pytest.param("native", "native", False, id="both native"),
        pytest.param("MNI152", "native", True, id="MNI152 atlas, native scan"),
        pytest.param("native", "MNI152", True, id="native atlas, MNI152 scan"),
    ],
)
def test_an_atlas_in_another_space_is_unavailable(
    entry: AtlasEntry, space: str, grid_space: str, refused: bool
) -> None:
    atlas = load_atlas("mine", entry.model_copy(update={"space": space}))
    grid = Grid((2, 2, 2), np.diag([3.0, 3, 3, 1]), grid_space)
    if refused:
        with pytest.raises(UnavailableError, match=rf"atlas mine: is in {space} space"):
            atlas.on_grid(grid)
    else:
        assert atlas.on_grid(grid).any()


def test_an_atlas_elsewhere_is_an_error_not_an_empty_store(entry: AtlasEntry) -> None:
    affine = np.diag([3.0, 3, 3, 1])
    affine[:3, 3] = 500
    with pytest.raises(InputError, match="no parcel lies on the scan's grid"):
        load_atlas("mine", entry).on_grid(Grid((2, 2, 2), affine, "MNI152"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param("index\tname\n7\ta\n2\tb\n", "1 labels of the image have no name", id="short"),
        pytest.param("index\tname\n7\ta\n2\ta\n5\tc\n", "name a is there twice", id="name twice"),
        pytest.param("index\tname\n7\ta\n7\tb\n5\tc\n", "index 7 is there twice", id="index twice"),
        pytest.param("id,label\n1,a\n", "no label table.*columns index and name", id="columns"),
        pytest.param("index\tname\nseven\ta\n", "no label table", id="index is text"),
    ],
)
def test_a_table_that_contradicts_the_image_is_refused(
    entry: AtlasEntry, tmp_path: Path, table: str, message: str
) -> None:
    (tmp_path / "a.tsv").write_text(table)
    with pytest.raises(InputError, match=message):
        load_atlas("mine", entry)


def test_a_map_of_probabilities_is_no_atlas(tmp_path: Path) -> None:
    values = np.full((2, 2, 2), 0.5, dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "p.nii")
    with pytest.raises(InputError, match="values that are no labels"):
        load_atlas("mine", AtlasEntry(image=tmp_path / "p.nii"))


def test_a_parcel_of_the_table_may_be_missing_from_the_image(
    entry: AtlasEntry, tmp_path: Path
) -> None:
    (tmp_path / "a.tsv").write_text(TABLE + "9\tnowhere\n")
    assert load_atlas("mine", entry).label[-1] == "nowhere"


def test_a_fetch_that_fails_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(**options: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("nilearn.datasets.fetch_atlas_schaefer_2018", no_network)
    with pytest.raises(UnavailableError) as caught:
        load_atlas("schaefer-400", AtlasEntry(source="nilearn", parcels=400))
    assert "no route to host" in str(caught.value)
    assert "atlases: {schaefer-400: {image: ..., labels: ...}}" in str(caught.value)


@pytest.mark.parametrize("background", [["Background"], []], ids=["new nilearn", "old nilearn"])
def test_a_fetched_atlas_is_read_like_any_other(
    entry: AtlasEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: list[str]
) -> None:
    values = np.select([LABELS == 7, LABELS == 2], [1, 2]).astype(np.int32)
    image = nibabel.Nifti1Image(values, np.eye(4))
    nibabel.save(image, tmp_path / "s.nii.gz")
    names = [*background, b"7Networks_LH_Vis_1", b"7Networks_RH_Cont_2"]
    asked = {}

    def fetched(**options: object) -> dict[str, object]:
        asked.update(options)
        return {"maps": str(tmp_path / "s.nii.gz"), "labels": names}

    monkeypatch.setattr("nilearn.datasets.fetch_atlas_schaefer_2018", fetched)
    atlas = load_atlas("s", AtlasEntry(source="nilearn", parcels=400, networks=17))
    assert (asked["n_rois"], asked["yeo_networks"]) == (400, 17)
    assert atlas.index.tolist() == [1, 2]
    assert atlas.label.tolist() == ["7Networks_LH_Vis_1", "7Networks_RH_Cont_2"]
    assert atlas.network.tolist() == ["Vis", "Cont"]


@pytest.mark.realdata
def test_schaefer_400_on_the_sherlock_grid(real: Path) -> None:
    folder = real / "atlas"
    entry = AtlasEntry(
        image=folder / "Schaefer400_space-MNI152NLin6_res-2x2x2.nii.gz",
        labels=folder / "Schaefer400_7Networks_labels.tsv",
    )
    atlas = load_atlas("schaefer-400", entry)
    assert len(atlas.label) == 400
    assert set(atlas.network) == {
        "Vis", "SomMot", "DorsAttn", "SalVentAttn", "Limbic", "Cont", "Default",
    }  # fmt: skip

    reference = read_volume(real / "sherlock" / "ref_img.nii.gz")
    grid = Grid(reference.shape, reference.affine, "MNI152")
    labels = atlas.on_grid(grid)
    assert labels.shape == (61, 73, 61)
    assert set(np.unique(labels)) == {0, *range(1, 401)}
    # cortex is two fifths of the brain; each label is where the 2 mm image has it
    assert 35_000 < (labels > 0).sum() < 50_000
    x = grid.millimetres(np.argwhere(labels > 0))[:, 0]
    hemisphere = atlas.hemisphere[labels[labels > 0] - 1]
    assert (x[hemisphere == "LH"] <= 1.5).mean() > 0.999
    assert (x[hemisphere == "RH"] >= -1.5).mean() > 0.999
    source = np.asanyarray(atlas.image.dataobj)
    ijk = np.argwhere(labels > 0)
    nearest = np.linalg.solve(
        atlas.image.affine, np.c_[grid.millimetres(ijk), np.ones(len(ijk))].T
    )[:3].T
    apart = np.abs(nearest - nearest.round())
    clear = (apart < 0.4).all(axis=1)
    assert clear.sum() > 1000
    here = tuple(nearest[clear].round().astype(int).T)
    assert np.array_equal(source[here], labels[tuple(ijk[clear].T)])
