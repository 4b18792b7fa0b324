"""Every entry of the catalogue, at small sizes, and all of them at the first analysis's sizes."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sherlock_data.catalog import Catalog, ModelEntry, load_catalog
from sherlock_data.errors import CatalogError, ConfigError
from sherlock_models.architectures.autoencoder import BrainAutoencoder
from sherlock_models.output import Output
from sherlock_models.sizes import Sizes
from sherlock_models.zoo import build_model, count_parameters, create, list_models

CATALOG = load_catalog()
BATCH, UNITS, SUBJECTS = 16, 12, 3
SIZES = {"video": (18, 25, 3), "audio": (6,)}
GRID = (61, 73, 61)
every_entry = pytest.mark.parametrize("name", CATALOG.models)
#: entries of one architecture differ in sizes only; compiling takes long
one_of_each = pytest.mark.parametrize(
    "name", {entry.architecture: name for name, entry in CATALOG.models.items()}.values()
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small(name: str) -> BrainAutoencoder:
    """Make an entry's model with everything switched on, small enough for a CPU."""
    entry = CATALOG.model(name)
    sizes = Sizes(
        stimulus={stimulus: SIZES.get(stimulus, (5,)) for stimulus in entry.stimulus},
        brain=(UNITS,),
        delays=(0, 1),
        subjects=SUBJECTS,
    )
    return build_model(entry, sizes, {"width": 0.05, "subject_embedding": True})


def movie(model: BrainAutoencoder, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(BATCH, *model.sizes.input_shape(name), generator=generator)
        for name in model.sizes.stimulus
    }


def subjects() -> torch.Tensor:
    """Everyone the model knows, and -1: someone it does not."""
    return torch.arange(BATCH) % (SUBJECTS + 1) - 1


def loss(output: Output, seen: dict[str, torch.Tensor], brain: torch.Tensor) -> torch.Tensor:
    terms = [(output.brain - brain).square().mean()]
    terms += [(output.stimulus[name] - seen[name][:, 0]).square().mean() for name in seen]
    return torch.stack(terms).sum()


def assert_all_the_same(rows: torch.Tensor) -> None:
    """Equal up to rounding, which may differ with a row's place in a matrix product."""
    torch.testing.assert_close(rows, rows[:1].expand_as(rows), rtol=1e-6, atol=1e-7)


# --- every entry ----------------------------------------------------------------------------------


@every_entry
def test_forward_gives_back_what_went_in(name: str) -> None:
    model = small(name)
    seen = movie(model)
    output = model(seen, subjects())
    assert output.brain.shape == output.read.shape == (BATCH, UNITS)
    assert output.stimulus.keys() == seen.keys()
    for stimulus, decoded in output.stimulus.items():
        assert decoded.shape == seen[stimulus][:, 0].shape
        assert torch.isfinite(decoded).all()


@every_entry
def test_the_gradient_reaches_every_parameter(name: str) -> None:
    model = small(name)
    seen = movie(model)
    loss(model(seen, subjects()), seen, torch.randn(BATCH, UNITS)).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@every_entry
def test_one_step_lowers_the_loss(name: str) -> None:
    model = small(name)
    seen, brain = movie(model), torch.randn(BATCH, UNITS)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    before = loss(model(seen, subjects()), seen, brain)
    before.backward()
    optimiser.step()
    assert loss(model(seen, subjects()), seen, brain) < before


@every_entry
def test_weights_travel_through_safetensors(name: str, tmp_path: Path) -> None:
    model = small(name)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = small(name)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    seen = movie(model)
    assert torch.equal(model(seen).brain, other(seen).brain)
    for stimulus, decoded in model(seen).stimulus.items():
        assert torch.equal(decoded, other(seen).stimulus[stimulus])


@every_entry
def test_the_same_seed_builds_the_same_model(name: str) -> None:
    torch.manual_seed(5)
    one = small(name)
    torch.manual_seed(5)
    two = small(name)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))


@every_entry
def test_the_brain_layer_is_the_only_way_through(name: str) -> None:
    """With the whole brain layer at zero, every movie is decoded as the same one."""
    model = small(name)
    told = [model(movie(model, seed), subjects(), channel=torch.zeros_like) for seed in (1, 2)]
    assert not torch.equal(told[0].brain, told[1].brain)
    for stimulus, decoded in told[0].stimulus.items():
        assert torch.equal(decoded, told[1].stimulus[stimulus])
        assert_all_the_same(decoded)
    intact = model(movie(model), subjects()).stimulus
    assert all((value[0] != value[1]).any() for value in intact.values())


@every_entry
def test_units_without_signal_carry_nothing(name: str) -> None:
    model = small(name)
    signal = torch.rand(BATCH, UNITS) < 0.5
    output = model(movie(model), subjects(), signal)
    assert (output.read[~signal] == 0).all()
    assert torch.equal(output.read[signal], output.brain[signal])
    none = model(movie(model), subjects(), torch.zeros(BATCH, UNITS, dtype=torch.bool))
    for decoded in none.stimulus.values():
        assert_all_the_same(decoded)


@every_entry
def test_no_block_gives_a_view(name: str) -> None:
    """FSDP hangs its hooks on the outputs of what it shards, and warns that a view loses them."""
    model = small(name)
    views: list[str] = []

    def look(module: torch.nn.Module, _: object, output: object) -> None:
        found = output.stimulus if isinstance(output, Output) else output
        tensors = found.values() if isinstance(found, dict) else [found]
        views.extend(type(module).__name__ for tensor in tensors if tensor._is_view())

    for block in [*model.blocks(), model]:
        block.register_forward_hook(look)
    model(movie(model), subjects())
    assert views == []


@one_of_each
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on CPU needs a C++ compiler")
def test_compiled_equals_eager(name: str) -> None:
    model = small(name)
    seen, signal = movie(model), torch.rand(BATCH, UNITS) < 0.8
    eager = model(seen, subjects(), signal)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True)(seen, subjects(), signal)
    torch.testing.assert_close(compiled.brain, eager.brain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled.stimulus, eager.stimulus, rtol=1e-4, atol=1e-5)


# --- exact sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        pytest.param("conv-voxels", 119_032_335, id="conv-voxels"),
        pytest.param("conv-parcels", 34_059_835, id="conv-parcels"),
        pytest.param("conv-pca", 78_763_059, id="conv-pca"),
        pytest.param("dense-voxels", 1_059_259_540, id="dense-voxels"),
        pytest.param("dense-voxels-slim", 576_849_540, id="dense-voxels-slim"),
        pytest.param("conv-coarse", None, id="conv-coarse"),
        pytest.param("conv-grey", None, id="conv-grey"),
    ],
)
def test_parameters_at_the_first_analysis_sizes(name: str, parameters: int | None) -> None:
    rows = {row["entry"]: row for row in list_models(CATALOG)}
    assert rows[name]["parameters"] == parameters


def test_dense_voxels_is_the_sum_of_its_layers_and_takes_the_whole_grid() -> None:
    """43,240-10,000-5,000-1,000-500-brain-500-1,000-5,000-10,000-43,240 with biases."""
    for brain, parameters in (((83_300,), 1_059_259_540), (GRID, 1_247_780_873)):
        sizes = Sizes({"video": (90, 160, 3), "audio": (40,)}, brain)
        half = [43_240, 10_000, 5_000, 1_000, 500, sizes.units]
        chain = half + half[-2::-1]
        layers = pairwise(chain)
        assert sum(i * o + o for i, o in layers) == parameters
        assert count_parameters(CATALOG.model("dense-voxels"), sizes) == parameters


@pytest.mark.parametrize(
    ("stimulus", "brain", "hidden", "parameters"),
    [
        pytest.param({"bold": (83_300,)}, 5_000, [4_000], 706_496_300, id="brain-compressor"),
        pytest.param(
            {"video": (90, 160, 3), "audio": (40,)},
            5_000,
            [10_000, 5_000],
            1_014_878_240,
            id="dense-compressed",
        ),
    ],
)
def test_both_stages_of_the_analysis_are_dense_chains(
    stimulus: dict[str, tuple[int, ...]], brain: int, hidden: list[int], parameters: int
) -> None:
    entry = ModelEntry(architecture="dense", brain="pca", stimulus=tuple(stimulus), hidden=hidden)
    assert count_parameters(entry, Sizes(stimulus, (brain,))) == parameters


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
    assert rows["dense-voxels"]["claimed"] == "575 M"
    assert rows["conv-parcels"]["claimed"] is None


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


def test_create_says_which_store_it_wanted(stores: Path) -> None:
    message = (
        r"conv-grey: wants the brain store 'grey' and the stimuli video, audio .*found: .*parcels"
    )
    with pytest.raises(ConfigError, match=message):
        create("conv-grey", data=stores)


def test_create_without_the_stimulus_it_wants(stores: Path, tmp_path: Path) -> None:
    shutil.copytree(stores / "parcels.zarr", tmp_path / "toy" / "parcels.zarr")
    with pytest.raises(ConfigError, match=r"conv-parcels: wants .*stimulus.zarr: not built"):
        create("conv-parcels", data=tmp_path / "toy")


def test_create_of_an_unknown_entry(stores: Path) -> None:
    with pytest.raises(CatalogError, match="did you mean 'conv-parcels'"):
        create("conv-parcel", data=stores)
