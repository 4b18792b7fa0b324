"""What every entry of the catalogue must do, at small sizes; a new one is tested by being there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sherlock_data.catalog import load_catalog
from sherlock_models.architectures.autoencoder import BrainAutoencoder
from sherlock_models.output import Output
from sherlock_models.sizes import BRAIN, WAVEFORM, Sizes
from sherlock_models.zoo import build_model

CATALOG = load_catalog()
BATCH, UNITS, GRID, SUBJECTS = 16, 12, (5, 7, 4), 3
PICTURE = (18, 25, 3)
#: any other stimulus is a vector of 5
SIZES = {"video": PICTURE, "frame": PICTURE, "audio": (6,), WAVEFORM: (140,), BRAIN: (UNITS,)}
every_entry = pytest.mark.parametrize("name", CATALOG.models)
#: entries whose brain layer has a target; a compressor's code is free
every_brain = pytest.mark.parametrize(
    "name", [name for name, entry in CATALOG.models.items() if BRAIN not in entry.stimulus]
)
#: the first entry of each architecture: the others differ in sizes, and compiling takes long
one_of_each = pytest.mark.parametrize(
    "name",
    {entry.architecture: name for name, entry in reversed(CATALOG.models.items())}.values(),
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small(name: str) -> BrainAutoencoder:
    """Make an entry's model with everything switched on, small enough for a CPU."""
    entry = CATALOG.model(name)
    sizes = Sizes(
        stimulus={stimulus: SIZES.get(stimulus, (5,)) for stimulus in entry.stimulus},
        brain=GRID if entry.brain == "volumes" else (UNITS,),
        delays=(0,) if BRAIN in entry.stimulus else (0, 1),
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


def some_signal(model: BrainAutoencoder) -> torch.Tensor:
    """Where each sample's brain has signal: (B, U) of the measured brain's units."""
    units = model.sizes.stimulus.get(BRAIN, (model.sizes.units,))
    return torch.rand(BATCH, *units) < 0.6


def target(model: BrainAutoencoder) -> torch.Tensor:
    return torch.randn(BATCH, model.sizes.units)


def loss(output: Output, seen: dict[str, torch.Tensor], brain: torch.Tensor) -> torch.Tensor:
    terms = [] if BRAIN in seen else [(output.brain - brain).square().mean()]
    terms += [(output.stimulus[name] - seen[name][:, 0]).square().mean() for name in seen]
    return torch.stack(terms).sum()


def assert_all_the_same(rows: torch.Tensor) -> None:
    """Equal up to rounding, which may differ with a row's place in a matrix product."""
    torch.testing.assert_close(rows, rows[:1].expand_as(rows), rtol=1e-6, atol=1e-7)


@every_entry
def test_forward_gives_back_what_went_in(name: str) -> None:
    model = small(name)
    seen = movie(model)
    output = model(seen, subjects())
    assert output.brain.shape == output.read.shape == (BATCH, model.sizes.units)
    assert output.stimulus.keys() == seen.keys()
    for stimulus, decoded in output.stimulus.items():
        assert decoded.shape == seen[stimulus][:, 0].shape
        assert torch.isfinite(decoded).all()


@every_entry
def test_the_gradient_reaches_every_parameter(name: str) -> None:
    model = small(name)
    seen = movie(model)
    loss(model(seen, subjects()), seen, target(model)).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@every_entry
def test_one_step_lowers_the_loss(name: str) -> None:
    model = small(name)
    seen, brain = movie(model), target(model)
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
def test_a_brain_without_signal_tells_nothing(name: str) -> None:
    model = small(name)
    none = torch.zeros_like(some_signal(model))
    told = [model(movie(model, seed), None, none).stimulus for seed in (1, 2)]
    for stimulus, decoded in told[0].items():
        assert_all_the_same(decoded)
        assert torch.equal(decoded, told[1][stimulus])


@every_brain
def test_units_without_signal_are_read_as_zero(name: str) -> None:
    model = small(name)
    signal = some_signal(model)
    output = model(movie(model), subjects(), signal)
    assert (output.read[~signal] == 0).all()
    assert torch.equal(output.read[signal], output.brain[signal])


@every_brain
def test_units_outside_the_mask_are_no_way_through(name: str) -> None:
    """With every unit inside at zero the movie is decoded as a constant, whatever lies outside."""
    model = small(name)
    mask = torch.rand(model.sizes.units) < 0.4
    output = model(
        movie(model),
        subjects(),
        mask.expand(BATCH, -1),
        channel=lambda brain: (100 * brain).masked_fill(mask, 0.0),
    )
    for decoded in output.stimulus.values():
        assert_all_the_same(decoded)


@every_brain
def test_with_every_unit_in_the_mask_at_zero_nothing_is_decoded(name: str) -> None:
    """Whatever lies outside: R² is 0 around the decoder's own constant, and the mean no worse."""
    model = small(name)
    seen, brain = movie(model), target(model)
    mask = torch.rand(model.sizes.units) < 0.4
    signal = mask.expand(BATCH, -1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    loss(model(seen, subjects(), signal), seen, brain).backward()
    optimiser.step()

    def zeroed(read: torch.Tensor) -> torch.Tensor:
        return (100 * read).masked_fill(mask, 0.0)

    with torch.inference_mode():
        told = model(seen, subjects(), signal, channel=zeroed).stimulus
    for stimulus, decoded in told.items():
        true = seen[stimulus][:, 0]
        error, spread = true - decoded, true - true.mean(0)
        explained = 1 - (error - error.mean(0)).square().sum() / spread.square().sum()
        assert abs(float(explained)) < 1e-5
        assert error.square().sum() >= (1 - 1e-5) * spread.square().sum()


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
    seen, signal = movie(model), some_signal(model)
    torch.compiler.reset()
    with torch.no_grad():
        eager = model(seen, subjects(), signal)
        compiled = torch.compile(model, fullgraph=True)(seen, subjects(), signal)
    torch.testing.assert_close(compiled.brain, eager.brain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled.stimulus, eager.stimulus, rtol=1e-4, atol=1e-5)
