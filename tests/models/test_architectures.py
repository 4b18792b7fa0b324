"""The architectures one by one: sizes that come back, delays, subjects, the brain in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sherlock_data.catalog import ModelEntry
from sherlock_data.errors import ConfigError
from sherlock_models.architectures import conv
from sherlock_models.architectures.autoencoder import BrainAutoencoder
from sherlock_models.architectures.layers import (
    SubjectEmbedding,
)
from sherlock_models.sizes import Sizes
from sherlock_models.zoo import ARCHITECTURES, build_model

VIDEO, AUDIO, UNITS = (9, 14, 3), (4,), 7
MOVIE = {"video": VIDEO, "audio": AUDIO}
GRID = (3, 5, 2)
CONV = {"channels": (4, 6), "sound": (2, 3), "video": 12, "audio": 5, "hidden": 8}
SMALL = {
    "conv": CONV,
    "dense": {"hidden": (16, 8)},
    "spatial": {**CONV, "seed_channels": 4, "growth": (3, 2)},
    "temporal": {"embedded": 16, "hidden": 8},
}


def make(
    architecture: str, stimulus: dict[str, tuple[int, ...]] | None = None, **more: Any
) -> BrainAutoencoder:
    """Build a small model; `delays`, `subjects` and `brain` are sizes, the rest are options."""
    torch.manual_seed(0)
    known = {key: more.pop(key) for key in ("delays", "subjects", "brain") if key in more}
    brain = GRID if architecture == "spatial" else (UNITS,)
    sizes = Sizes(stimulus or MOVIE, **{"brain": brain, **known})
    entry = ModelEntry(architecture=architecture, brain="parcels", **SMALL[architecture])
    return build_model(entry, sizes, more)


def movie(sizes: Sizes, batch: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(batch, *sizes.input_shape(name), generator=generator)
        for name in sizes.stimulus
    }


# --- any stimuli, any brain -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "stimulus"),
    [
        pytest.param("conv", MOVIE, id="conv-movie"),
        pytest.param("conv", {"video": VIDEO}, id="conv-silent-movie"),
        pytest.param("conv", {"audio": AUDIO, "video": VIDEO, "annotations": (6,)}, id="conv-more"),
        pytest.param("conv", {"frame": VIDEO, "waveform": (70,)}, id="conv-frames"),
        pytest.param("conv", {"frame-25": VIDEO, "frame-75": VIDEO}, id="conv-two-frames"),
        pytest.param("temporal", {"resnet50": (5,), "vggish": (3,)}, id="temporal-features"),
        pytest.param("temporal", MOVIE, id="temporal-movie"),
        pytest.param("temporal", {"audio": AUDIO}, id="temporal-sound"),
        pytest.param("dense", MOVIE, id="dense-movie"),
        pytest.param("dense", {"video": VIDEO}, id="dense-silent-movie"),
        pytest.param("dense", {"annotations": (6,)}, id="dense-annotations"),
        pytest.param("dense", {"scene": (1,), "type": (2,), "mfcc.left": (3,)}, id="dense-names"),
    ],
)
@pytest.mark.parametrize("brain", [(UNITS,), (2, 3, 4)], ids=["units", "grid"])
@pytest.mark.parametrize("delays", [(0,), (0, 1, 2), (4,)], ids=str)
def test_shapes(
    architecture: str,
    stimulus: dict[str, tuple[int, ...]],
    brain: tuple[int, ...],
    delays: tuple[int, ...],
) -> None:
    model = make(architecture, stimulus, brain=brain, delays=delays)
    output = model(movie(model.sizes, batch=3))
    assert output.brain.shape == output.read.shape == (3, model.sizes.units)
    found = {name: tuple(value.shape) for name, value in output.stimulus.items()}
    assert found == {name: (3, *model.sizes.output_shape(name)) for name in stimulus}


@pytest.mark.parametrize("architecture", ["conv", "spatial"])
def test_it_says_that_it_wants_a_picture(architecture: str) -> None:
    with pytest.raises(ConfigError, match=r"wants a picture .*, found annotations; .*dense"):
        make(architecture, {"annotations": (6,)})


def test_pictures_of_any_name_may_differ_in_size() -> None:
    model = make("conv", {"frame": (20, 31, 3), "video": VIDEO})
    output = model(movie(model.sizes))
    assert output.stimulus["frame"].shape == (3, 3, 20, 31)
    assert output.stimulus["video"].shape == (3, 3, 9, 14)


@pytest.mark.parametrize("architecture", SMALL)
@pytest.mark.parametrize("delay", [0, 1, 2])
def test_every_delay_reaches_the_brain(architecture: str, delay: int) -> None:
    model = make(architecture, delays=(0, 1, 2))
    seen = movie(model.sizes)
    for value in seen.values():
        value.requires_grad_()
    model.encode(seen).square().sum().backward()
    for value in seen.values():
        assert value.grad is not None
        assert value.grad[:, delay].abs().sum() > 0


@pytest.mark.parametrize("architecture", SMALL)
def test_the_decoder_does_not_grow_with_the_delays(architecture: str) -> None:
    one, three = make(architecture), make(architecture, delays=(0, 1, 2))
    shapes = [[p.shape for p in model.decoder.parameters()] for model in (one, three)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("architecture", SMALL)
def test_no_relu_on_the_brain_or_the_outputs(architecture: str) -> None:
    model = make(architecture)
    output = model(movie(model.sizes, batch=32))
    assert (output.brain < 0).any()
    assert all((value < 0).any() for value in output.stimulus.values())


@pytest.mark.parametrize("architecture", SMALL)
def test_an_untrained_model_predicts_about_the_mean(architecture: str) -> None:
    model = make(architecture)
    output = model(movie(model.sizes, batch=32), channel=lambda brain: torch.randn_like(brain))
    for value in (output.brain, *output.stimulus.values()):
        assert value.square().mean() < 0.1


@pytest.mark.parametrize("architecture", SMALL)
def test_width_narrows_hidden_layers_only(architecture: str) -> None:
    whole, half = make(architecture), make(architecture, width=0.5)
    assert half.count_parameters() < whole.count_parameters()
    output = half(movie(half.sizes))
    assert output.brain.shape == (3, whole.sizes.units)
    assert output.stimulus["video"].shape == (3, 3, *VIDEO[:2])
    assert "width 0.5" in half.describe()
    assert half.describe() in repr(half)


# --- subjects -------------------------------------------------------------------------------------


def test_an_unseen_subject_gets_the_mean_embedding() -> None:
    layer = SubjectEmbedding(3, 2)
    layer.weight.data = torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]])
    hidden = torch.ones(4, 2)
    found = layer(hidden, torch.tensor([0, -1, 2, -1]))
    assert found.tolist() == [[2.0, 1.0], [4.0, 2.0], [7.0, 4.0], [4.0, 2.0]]
    assert layer(hidden, None).tolist() == [[4.0, 2.0]] * 4


@pytest.mark.parametrize("architecture", SMALL)
class TestSubjectEmbedding:
    def test_every_subject_starts_as_the_group(self, architecture: str) -> None:
        model = make(architecture, subjects=3, subject_embedding=True)
        seen = movie(model.sizes)
        alone = [model.encode(seen, torch.full((3,), s)) for s in (-1, 0, 2)]
        assert torch.equal(alone[0], alone[1])
        assert torch.equal(alone[0], alone[2])

    def test_it_changes_the_response_not_just_the_level(self, architecture: str) -> None:
        """BOLD is standardised per subject: a constant shift per subject would be worth nothing."""
        model = make(architecture, subjects=2, subject_embedding=True)
        torch.nn.init.normal_(model.encoder.embedding.weight)
        seen = movie(model.sizes, batch=16)
        zero, one = (model.encode(seen, torch.full((16,), s)) for s in (0, 1))
        assert (zero - one).std(dim=0).max() > 1e-3

    def test_the_decoder_never_sees_the_subject(self, architecture: str) -> None:
        model = make(architecture, subjects=2, subject_embedding=True)
        torch.nn.init.normal_(model.encoder.embedding.weight)
        seen, same = movie(model.sizes), torch.randn(3, model.sizes.units)
        told = [model(seen, torch.full((3,), s), channel=lambda _: same) for s in (0, 1)]
        assert not torch.equal(told[0].brain, told[1].brain)
        assert all(torch.equal(told[0].stimulus[n], told[1].stimulus[n]) for n in MOVIE)

    def test_without_one_the_subject_is_not_looked_at(self, architecture: str) -> None:
        model = make(architecture, subjects=2)
        seen = movie(model.sizes)
        assert torch.equal(model.encode(seen, torch.tensor([0, 1, -1])), model.encode(seen))


# --- the brain in between -------------------------------------------------------------------------


def test_the_channel_lies_between_the_predicted_and_the_read_brain() -> None:
    model = make("dense")
    output = model(movie(model.sizes), channel=lambda brain: brain + 1)
    assert torch.equal(output.read, output.brain + 1)
    decoded = model.decode(output.read)
    assert all(torch.equal(output.stimulus[name], decoded[name]) for name in decoded)


@pytest.mark.parametrize("kind", [torch.bool, torch.float32], ids=str)
@pytest.mark.parametrize("smuggled", [5.0, float("inf"), float("nan")], ids=str)
def test_a_cell_without_signal_carries_nothing(smuggled: float, kind: torch.dtype) -> None:
    model = make("conv")
    seen, signal = movie(model.sizes), torch.ones(3, UNITS, dtype=kind)
    signal[:, 2] = 0
    plain = model(seen, signal=signal)
    cell = torch.tensor([2])
    loud = model(seen, signal=signal, channel=lambda brain: brain.index_fill(1, cell, smuggled))
    assert (plain.read[:, 2] == 0).all()
    assert (plain.brain[:, 2] != 0).any()
    assert all(torch.equal(plain.stimulus[name], loud.stimulus[name]) for name in MOVIE)


# --- a brain that is a grid -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param({"growth": ()}, id="seed-of-the-grid's-size"),
        pytest.param({"growth": (), "grid": (3, 5)}, id="as-drawn"),
        pytest.param({"growth": (3,), "grid": (2,)}, id="both"),
        pytest.param({"growth": (3, 3, 2)}, id="grown-from-one-cell"),
    ],
)
@pytest.mark.parametrize("grid", [(1, 1, 1), (4, 4, 4), (5, 7, 3)], ids=str)
def test_any_grid_is_grown_to_its_own_size(
    layers: dict[str, tuple[int, ...]], grid: tuple[int, ...]
) -> None:
    model = make("spatial", brain=grid, **layers)
    output = model(movie(model.sizes))
    assert output.brain.shape == (3, model.sizes.units)
    assert output.stimulus["video"].shape == (3, 3, *VIDEO[:2])


def test_the_grid_is_flattened_as_the_store_flattens_it() -> None:
    """(x, y, z) in the order of the store: cells beside each other are read by one kernel."""
    model = make("spatial", brain=(4, 5, 6), growth=())
    brain = torch.zeros(1, 4, 5, 6)
    brain[0, 2, 2, 3] = 1.0
    first = model.decoder.reader.convolutions[0]
    with torch.no_grad():
        first.bias.zero_()
    seen = first(brain.flatten(1).reshape(1, 1, *model.sizes.brain))[0].abs().sum(0) > 0
    assert [axis.unique().tolist() for axis in seen.nonzero().T] == [
        [1, 2, 3],
        [1, 2, 3],
        [2, 3, 4],
    ]


def test_spatial_says_that_it_wants_a_grid() -> None:
    with pytest.raises(ConfigError, match=r"wants a brain that is a grid .* 400 .*brain=grid"):
        make("spatial", brain=(400,))


@pytest.mark.parametrize("architecture", SMALL)
def test_no_batch_norm(architecture: str) -> None:
    """Its running statistics differ from rank to rank."""
    assert not [m for m in make(architecture).modules() if "BatchNorm" in type(m).__name__]


# --- a long past ----------------------------------------------------------------------------------


def test_a_kernel_of_one_tr_is_the_same_model_with_one_delay() -> None:
    stimulus = {"resnet50": (5,), "vggish": (3,)}
    long, short = (make("temporal", stimulus, delays=d) for d in (tuple(range(45)), (0,)))
    shapes = [{n: tuple(p.shape) for n, p in m.named_parameters()} for m in (long, short)]
    differ = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    assert shapes[0].keys() == shapes[1].keys()
    assert differ == {"encoder.trunk.kernel.weight"}
    assert shapes[0]["encoder.trunk.kernel.weight"] == (45, 16)
    state = {**long.state_dict(), "encoder.trunk.kernel.weight": torch.ones(1, 16)}
    short.load_state_dict(state)
    with torch.no_grad():
        long.encoder.trunk.kernel.weight.zero_()[0] = 1.0  # listens to the current TR alone
    past = movie(long.sizes)
    now = {name: value[:, :1] for name, value in past.items()}
    torch.testing.assert_close(long.encode(past), short.encode(now))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"audio": None}, "the model sees video, audio; found video", id="missing"),
        pytest.param({"music": torch.zeros(3, 1, 1)}, "found video, audio, music", id="unknown"),
        pytest.param(
            {"audio": torch.zeros(3, 2, 4)}, r"audio: .* \(2, 4\), .* wants \(1, 4\)", id="delays"
        ),
        pytest.param(
            {"video": torch.zeros(3, 1, 9, 14, 3)}, r"video: .*\(1, 9, 14, 3\)", id="colours-last"
        ),
    ],
)
def test_a_stimulus_of_another_shape_is_refused(change: dict[str, Any], message: str) -> None:
    model = make("dense")
    seen = {k: v for k, v in {**movie(model.sizes), **change}.items() if v is not None}
    with pytest.raises(ConfigError, match=message):
        model(seen)


def test_a_brain_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"brain: a sample has the shape \(8,\), .* \(7,\)"):
        make("dense").decode(torch.zeros(2, UNITS + 1))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"stimulus": {}, "brain": (3,)}, id="no-stimulus"),
        pytest.param({"stimulus": {"audio": (4,)}, "brain": ()}, id="no-brain"),
        pytest.param({"stimulus": {"audio": (2, 4)}, "brain": (3,)}, id="audio-not-flat"),
        pytest.param({"stimulus": {"video": (9, 14)}, "brain": (3,)}, id="grey-video"),
        pytest.param({"stimulus": {"frame": (9, 14, 1)}, "brain": (3,)}, id="grey-frame"),
        pytest.param({"stimulus": {"brain": (2, 4)}, "brain": (3,)}, id="brain-not-flat"),
        pytest.param({"stimulus": {"audio": (0,)}, "brain": (3,)}, id="empty"),
        pytest.param({"stimulus": {"audio": (4,)}, "brain": (3,), "delays": ()}, id="no-delay"),
    ],
)
def test_sizes_that_no_model_can_have(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="sizes: "):
        Sizes(**wrong)


# --- sharding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", SMALL)
def test_blocks_keep_huge_layers_apart(architecture: str) -> None:
    known = ARCHITECTURES[architecture]
    brain = (61, 73, 61) if architecture == "spatial" else (5000,)
    with torch.device("meta"):
        sizes = Sizes({"video": (90, 160, 3), "audio": (40,)}, brain)
        model = known.build(sizes, known.options())
    blocks = model.blocks()
    assert len({id(block) for block in blocks}) == len(blocks)
    huge = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.weight.numel() > 1e6]
    assert len(huge) >= 2
    assert {id(m) for m in huge} <= {id(block) for block in blocks}


def test_blocks_come_inner_before_outer() -> None:
    with torch.device("meta"):
        model = conv.build(Sizes({"video": (90, 160, 3)}, (400,)), conv.ConvOptions())
    seen: set[int] = set()
    for block in model.blocks():
        assert id(block) not in seen
        seen |= {id(module) for module in block.modules()}
