"""The registry: parameters at the first analysis's sizes, rows of the list, models from stores."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import sherlock_data as sd
from sherlock_data.catalog import Catalog, ModelEntry, load_catalog
from sherlock_data.errors import CatalogError, ConfigError
from sherlock_models.architectures.autoencoder import BrainAutoencoder
from sherlock_models.architectures.layers import shrunk
from sherlock_models.sizes import Sizes
from sherlock_models.zoo import build_model, count_parameters, create, list_models

CATALOG = load_catalog()
UNITS, SUBJECTS = 12, 3
SIZES = {"video": (18, 25, 3), "audio": (6,)}
GRID = (61, 73, 61)


# --- exact sizes ----------------------------------------------------------------------------------


#: by entry; None where only a store can tell
PARAMETERS = {
    "dense-voxels": 1_059_259_540,
    "dense-voxels-slim": 576_849_540,
    "conv-voxels": 119_032_335,
    "conv-pca": 78_763_059,
    "conv-parcels": 34_059_835,
    "conv-coarse": None,
    "conv-grey": None,
    "spatial-grid": 2_747_449_664,
    "spatial-seeded": 75_779_388,
    "brain-compressor": 706_496_300,
    "dense-compressed": 1_014_878_240,
    "dense-features": None,
    "conv-frames": None,
    "temporal-features": None,
}
CLAIMED = {
    "dense-voxels": "575 M",
    "dense-voxels-slim": "575 M",
    "conv-voxels": "119 M",
    "conv-pca": "50 to 100 M",
    "spatial-grid": "still too big",
    "brain-compressor": "~700 M",
    "dense-compressed": "~1 B",
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_at_the_first_analysis_sizes(name: str) -> None:
    assert count_parameters(CATALOG.model(name)) == PARAMETERS[name]


def test_the_list_has_every_entry_with_its_claim() -> None:
    rows = {row["entry"]: row for row in list_models(CATALOG)}
    assert {name: row["parameters"] for name, row in rows.items()} == PARAMETERS
    assert {name: row["claimed"] for name, row in rows.items() if row["claimed"]} == CLAIMED


def test_spatial_grid_is_the_sum_of_its_layers() -> None:
    """Architecture 3 with biases; most of it are the dense layers to and from the grid."""
    cells = 61 * 73 * 61
    channels = [(3, 32), (32, 64), (64, 128)]
    video = sum(i * o * 9 + o for i, o in channels)
    video_back = sum(i * o * 9 + i for i, o in channels)
    dense = [(128 * 12 * 20, 8_000), (40, 256), (8_256, 4_000), (4_000, 2_000), (2_000, 2 * cells)]
    there = sum(i * o + o for i, o in dense)
    back = sum(i * o + i for i, o in dense)
    grid = (2 * 8 * 27 + 8) + (8 * 16 * 27 + 16) + (16 + 1)
    grid_back = (16 * 27 + 16) + (16 * 8 * 27 + 8) + (8 * 2 * 27 + 2)
    total = video + video_back + there + back + grid + grid_back
    assert total == PARAMETERS["spatial-grid"]
    assert 2 * 2_000 * 2 * cells / total > 0.75


def test_spatial_seeded_fits_one_gpu_at_the_real_grid() -> None:
    """Its seed is 64 x 8 x 10 x 8, and it stays below 150 M whatever the grid's size."""
    assert PARAMETERS["spatial-seeded"] < 150_000_000
    entry, stimulus = CATALOG.model("spatial-seeded"), {"video": (90, 160, 3), "audio": (40,)}
    with torch.device("meta"):
        model = build_model(entry, Sizes(stimulus, GRID))
        assert model.encoder.head.first == (64, 8, 10, 8)
        assert build_model(entry, Sizes(stimulus, (64, 76, 64))).count_parameters() < 150_000_000


def test_dense_voxels_is_the_sum_of_its_layers_and_takes_the_whole_grid() -> None:
    """43,240-10,000-5,000-1,000-500-brain-500-1,000-5,000-10,000-43,240 with biases."""
    for brain, parameters in (((83_300,), 1_059_259_540), (GRID, 1_247_780_873)):
        sizes = Sizes({"video": (90, 160, 3), "audio": (40,)}, brain)
        half = [43_240, 10_000, 5_000, 1_000, 500, sizes.units]
        chain = half + half[-2::-1]
        layers = pairwise(chain)
        assert sum(i * o + o for i, o in layers) == parameters
        assert count_parameters(CATALOG.model("dense-voxels"), sizes) == parameters


def test_both_stages_of_the_analysis_are_dense_chains() -> None:
    chains = {
        "brain-compressor": (83_300, 4_000, 5_000, 4_000, 83_300),
        "dense-compressed": (43_240, 10_000, 5_000, 5_000, 5_000, 10_000, 43_240),
    }
    for name, chain in chains.items():
        assert sum(i * o + o for i, o in pairwise(chain)) == PARAMETERS[name]


def test_conv_pca_would_be_smaller_with_the_widths_of_conv_voxels() -> None:
    sizes = Sizes({"video": (90, 160, 3), "audio": (40,)}, (5_000,))
    assert count_parameters(CATALOG.model("conv-voxels"), sizes) == 38_774_835


def test_listing_allocates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[torch.device] = []
    count = BrainAutoencoder.count_parameters

    def spy(model: BrainAutoencoder) -> int:
        built.extend({parameter.device for parameter in model.parameters()})
        return count(model)

    monkeypatch.setattr(BrainAutoencoder, "count_parameters", spy)
    list_models(CATALOG)
    assert set(built) == {torch.device("meta")}


def test_rows_of_the_list() -> None:
    rows = {row["entry"]: row for row in list_models(CATALOG)}
    assert list(rows) == list(CATALOG.models)
    assert rows["conv-voxels"] == {
        "entry": "conv-voxels",
        "input": "video + audio",
        "brain": "voxels",
        "parameters": 119_032_335,
        "claimed": "119 M",
    }


# --- a new row, and what is refused ---------------------------------------------------------------


def test_a_new_entry_is_one_row(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(
        "models:\n"
        "  linear-ish: {architecture: dense, brain: parcels, stimulus: [audio], hidden: [2],\n"
        "               sizes: {audio: 40, brain: 3}}\n"
    )
    rows = {row["entry"]: row for row in list_models(load_catalog(overlay))}
    layers = (40 * 2 + 2) + (2 * 3 + 3) + (3 * 2 + 2) + (2 * 40 + 40)
    assert rows["linear-ish"]["parameters"] == layers


@pytest.mark.parametrize(
    ("entry", "options", "message"),
    [
        pytest.param({"architecture": "convv"}, {}, "did you mean 'conv'", id="architecture"),
        pytest.param(
            {"hiden": 3}, {}, "unknown option 'hiden'; did you mean 'hidden'", id="option"
        ),
        pytest.param({}, {"width": 0}, "width: .*greater than 0", id="width"),
        pytest.param({"hidden": "many"}, {}, "hidden: .*many", id="value"),
        pytest.param({"channels": []}, {}, "channels: ", id="no-channels"),
    ],
)
def test_wrong_options_are_one_clear_line(
    entry: dict[str, object], options: dict[str, object], message: str
) -> None:
    wanted = ModelEntry(**{"architecture": "conv", "brain": "parcels", **entry})
    with pytest.raises(ConfigError, match=message) as failure:
        build_model(wanted, Sizes(SIZES, (UNITS,)), options)
    assert "\n" not in str(failure.value)


def test_an_unknown_architecture_is_named_by_the_list() -> None:
    models = {"odd": ModelEntry(architecture="dens", brain="voxels")}
    with pytest.raises(ConfigError, match="no architecture 'dens'; did you mean 'dense'"):
        list_models(Catalog(models=models))


# --- create ---------------------------------------------------------------------------------------


def test_create_takes_its_sizes_from_the_stores(stores: Path) -> None:
    model = create("conv-parcels", data=stores, width=0.1, delays=(0, 1))
    assert model.sizes == Sizes({"video": (18, 32, 3), "audio": (8,)}, (12,), (0, 1), SUBJECTS)
    assert "width 0.1" in model.describe()


def test_create_with_another_stimulus(stores: Path) -> None:
    model = create("dense-voxels", data=stores, stimulus="annotations", width=0.01)
    assert list(model.sizes.stimulus) == ["annotations"]
    assert model.sizes.brain == (30,)


def test_dense_voxels_takes_the_whole_grid(tiny_stores: Path) -> None:
    model = create("dense-voxels", data=tiny_stores, brain="grid", width=0.01)
    assert model.sizes.brain == tuple(sd.open(tiny_stores / "volumes.zarr").bold.shape[2:])


def test_spatial_takes_its_grid_from_the_store(tiny_stores: Path) -> None:
    model = create("spatial-seeded", data=tiny_stores, width=0.1)
    grid = tuple(sd.open(tiny_stores / "volumes.zarr").bold.shape[2:])
    assert model.sizes.brain == grid
    assert model.encoder.head.first[1:] == shrunk(grid, 3)[-1]


def test_create_takes_delays_of_the_entry_unless_told(stores: Path) -> None:
    model = create("temporal-features", data=stores, stimulus="audio")
    assert model.sizes.delays == tuple(range(45))
    for delays, read in (("0..4", (0, 1, 2, 3, 4)), (0, (0,)), ([0, 3], (0, 3))):
        model = create("temporal-features", data=stores, stimulus="audio", delays=delays)
        assert model.sizes.delays == read


@pytest.mark.parametrize("name", CATALOG.models)
def test_create_in_an_empty_folder_says_what_it_wanted(name: str, tmp_path: Path) -> None:
    entry = CATALOG.model(name)
    message = rf"{name}: wants the brain store '{entry.brain}' and .*{', '.join(entry.stimulus)} "
    with pytest.raises(ConfigError, match=message) as failure:
        create(name, data=tmp_path)
    assert "sherlock-data build" in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        pytest.param(
            "conv-grey",
            {},
            r"wants the brain store 'grey' and the stimuli video, audio .*found: .*parcels",
            id="no-brain",
        ),
        pytest.param(
            "conv-frames", {}, r"wants .*frame, waveform .*frames.zarr: not b", id="frames"
        ),
        pytest.param(
            "dense-features", {}, r"wants .*resnet50, vggish .*features.zarr: not b", id="features"
        ),
        pytest.param(
            "spatial-seeded", {"brain": "parcels"}, r"wants a brain that is a grid", id="no-grid"
        ),
        pytest.param(
            "conv-parcels", {"stimulus": "audio"}, r"wants a picture .*found audio", id="no-picture"
        ),
        pytest.param(
            "brain-compressor", {"delays": [0, 1]}, r"wants the stimulus 'brain' at", id="delays"
        ),
    ],
)
def test_create_with_the_wrong_store_says_what_it_wanted(
    stores: Path, name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        create(name, data=stores, **options)


def test_create_without_the_stimulus_it_wants(stores: Path, tmp_path: Path) -> None:
    shutil.copytree(stores / "parcels.zarr", tmp_path / "toy" / "parcels.zarr")
    with pytest.raises(ConfigError, match=r"conv-parcels: wants .*stimulus.zarr: not built"):
        create("conv-parcels", data=tmp_path / "toy")


def test_create_of_an_unknown_entry(stores: Path) -> None:
    with pytest.raises(CatalogError, match="did you mean 'conv-parcels'"):
        create("conv-parcel", data=stores)
