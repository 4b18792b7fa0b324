"""Decoders made by hand, whose answer is known: lesions find what was planted and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sherlock_models.lesions.brain import Reading
from sherlock_models.lesions.effects import Decoding, increases
from sherlock_models.lesions.first_layer import CutDecoder
from sherlock_models.lesions.null import null_units
from sherlock_models.lesions.units import Unit
from sherlock_models.scoring.error_parts import (
    PictureParts,
    VectorParts,
    part_means,
    picture_parts,
    variance_of,
)
from sherlock_models.scoring.linear_errors import LinearErrors
from tests.models.by_hand import decoding_of, each_unit, reading_of

UNITS, TRS, BANDS = 6, 24, 3
#: which unit drives which target
DRIVES = {"video": 1, "audio": 4}


class Planted(nn.Module):
    """Unit 1 alone drives the left half of the picture, unit 4 alone the last band."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(UNITS, 4)
        self.last = nn.Linear(4, 3 * 8 * 12 + BANDS)
        with torch.no_grad():
            for layer in (self.first, self.last):
                layer.weight.zero_()
                layer.bias.zero_()
            self.first.weight[0, DRIVES["video"]], self.first.weight[1, DRIVES["video"]] = 1, -1
            self.first.weight[2, DRIVES["audio"]], self.first.weight[3, DRIVES["audio"]] = 1, -1
            picture = self.last.weight[: 3 * 8 * 12].view(3, 8, 12, 4)
            picture[:, :, :6, 0], picture[:, :, :6, 1] = 1, -1
            self.last.weight[-1, 2], self.last.weight[-1, 3] = 1, -1

    def forward(self, read: Tensor) -> dict[str, Tensor]:
        told = self.last(torch.relu(self.first(read)))
        return {"video": told[:, :-BANDS].view(-1, 3, 8, 12), "audio": told[:, -BANDS:]}


class Grid(nn.Module):
    """The brain enters by a convolution: nothing can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv1d(1, 2, 3, padding=1), nn.Linear(2 * UNITS, BANDS)

    def forward(self, read: Tensor) -> dict[str, Tensor]:
        return {"audio": self.out(torch.relu(self.conv(read[:, None])).flatten(1))}


class Sly(nn.Module):
    """A dense layer reads the brain, and something else does so too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(UNITS, 4), nn.Linear(4, BANDS)

    def forward(self, read: Tensor) -> dict[str, Tensor]:
        return {"audio": self.out(torch.relu(self.first(read))) + read[:, :BANDS]}


@pytest.fixture
def reading() -> Reading:
    read = torch.randn(TRS, UNITS, generator=torch.Generator().manual_seed(0))
    return reading_of(read)


def decoding(decoder: nn.Module, reading: Reading, fast: bool) -> Decoding:
    """The movie is what the decoder tells of the whole brain."""
    told = {name: values.detach() for name, values in decoder(reading.read).items()}
    return decoding_of(decoder, UNITS, told, fast)


def effects(decoding: Decoding, reading: Reading, isolate: bool = False) -> np.ndarray:
    """Mean increase over TRs, (units, targets)."""
    found = increases(decoding, reading, each_unit(reading, isolate), reading.start(isolate))
    return found.mean(axis=1)


@pytest.mark.parametrize("fast", [True, False])
def test_the_unit_that_drives_a_target_is_found_and_no_other(reading: Reading, fast: bool) -> None:
    planted = decoding(Planted(), reading, fast)
    assert planted.fast == fast
    found = effects(planted, reading)
    square = reading.read.square().mean(0).numpy()
    for name, unit in DRIVES.items():
        column = planted.names.index(name)
        size = 3 * 8 * 6 if name == "video" else 1
        expected = np.zeros(UNITS)
        expected[unit] = size * square[unit]
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-5, atol=1e-5)
    parts = dict(zip(planted.names, found[DRIVES["video"]], strict=True))
    assert parts["video/upper left"] == pytest.approx(parts["video/lower left"], rel=1e-5)
    assert parts["video/upper right"] == pytest.approx(0, abs=1e-5)
    bands = dict(zip(planted.names, found[DRIVES["audio"]], strict=True))
    assert bands["audio/band 2"] > 0.1
    assert bands["audio/band 0"] == 0


def test_isolate_mirrors_lesion_where_units_do_not_interact(reading: Reading) -> None:
    planted = decoding(Planted(), reading, fast=True)
    # here each unit's part of the picture is its own: what is lost without it is what it tells
    np.testing.assert_allclose(
        -effects(planted, reading, isolate=True)[:, :1],
        effects(planted, reading)[:, :1],
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_picture_need_not_be_made_to_know_its_error(reading: Reading) -> None:
    planted = decoding(Planted(), reading, fast=True)
    assert set(planted.linear) == {"video"}
    assert planted.unmade == {"video"}  # the sound is of the same layer, and computed alone


@pytest.mark.parametrize(
    "decoder", [pytest.param(Grid, id="convolution first"), pytest.param(Sly, id="two readers")]
)
def test_what_cannot_be_cut_is_run_whole(reading: Reading, decoder: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = decoder()
    assert CutDecoder.of(model, UNITS).first is None
    assert not decoding(model, reading, fast=True).fast
    assert effects(decoding(model, reading, fast=True), reading)[:, 0].max() > 0


def test_octaves_are_where_the_waves_are() -> None:
    across = torch.arange(160) * 2 * torch.pi / 160
    for cycles, octave in ((1, "0-2"), (3, "2-4"), (6, "4-8"), (12, "8-16"), (30, "above 16")):
        picture = torch.cos(cycles * across).expand(1, 3, 90, 160)
        parts = PictureParts("video", (3, 90, 160))
        power = dict(zip(parts.names, parts.of(picture)[0].tolist(), strict=True))
        assert power[f"video/{octave} cycles"] == pytest.approx(power["video"], rel=1e-4)


def pictures(steepness: float, size: tuple[int, int, int] = (3, 45, 80)) -> Tensor:
    """Six pictures whose waves fall off with a power of their frequency; flat if it is infinite."""
    generator = torch.Generator().manual_seed(2)
    waves = torch.fft.rfft2(torch.randn(6, *size, generator=generator, dtype=torch.float64))
    down, across = torch.fft.fftfreq(size[1]) * size[1], torch.arange(waves.shape[-1])
    turns = torch.hypot(down[:, None] * size[2] / size[1], across).clamp(min=1)
    damped = waves * turns**-steepness if steepness < np.inf else waves * (turns == 1)
    if steepness == np.inf:
        damped[..., 1:], damped[..., 1:, :] = 0, 0
    return torch.fft.irfft2(damped, s=size[1:])


@pytest.mark.parametrize("steepness", [1.0, 2.5, 3.0])
def test_fine_detail_is_told_however_little_there_is(steepness: float) -> None:
    """In float32 a whole less its slow waves would be rounding where nearly all of it is slow."""
    movie = pictures(steepness)
    parts, means = picture_parts("video", movie.float())
    assert parts.complete == (steepness > 1)
    waves = torch.fft.rfft2(movie, norm="ortho").abs().square().sum(1)
    waves[..., 1:-1] *= 2
    down, across = torch.fft.fftfreq(45) * 45, torch.arange(41)
    fine = torch.hypot(down[:, None] * 80 / 45, across) >= 16
    wanted = waves[:, fine].sum(1).float()
    torch.testing.assert_close(parts.of(movie.float())[:, -1], wanted, rtol=1e-5, atol=0)
    assert means[-1] == pytest.approx(float(wanted.mean()), rel=1e-5)


def test_what_does_not_vary_is_measured_by_the_whole() -> None:
    movie = pictures(np.inf).float()
    parts, means = picture_parts("video", movie)
    variance = dict(zip(parts.names, variance_of(means), strict=True))
    assert variance["video/above 16 cycles"] == variance["video"]
    assert variance["video/0-2 cycles"] == pytest.approx(variance["video"], rel=1e-5)
    silent = part_means(VectorParts("audio", ["a", "b"]), torch.zeros(5, 2))
    assert variance_of(silent).tolist() == [1, 1, 1]


@pytest.mark.parametrize("inputs", [5, 400])
@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("size", [(3, 9, 16), (1, 8, 12), (3, 18, 31), (3, 20, 48)])
def test_behind_a_dense_layer_nothing_need_be_made(
    size: tuple[int, int, int], inputs: int, complete: bool
) -> None:
    """The same sums from the layer's inputs, of few (products) and of many (rows)."""
    generator = torch.Generator().manual_seed(1)
    parts = PictureParts("video", size, complete)
    pixels = math.prod(size)
    weight = torch.randn(pixels, inputs, generator=generator) / inputs**0.5
    error, moved = (torch.randn(2, n, generator=generator) for n in (pixels, inputs))
    linear = LinearErrors(parts, weight)
    found = linear.change(moved[None], linear.slope(error))[0]
    wanted = parts.of(error + moved @ weight.T) - parts.of(error)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * pixels)


class TestNull:
    positions = np.stack(np.meshgrid(*[np.arange(6.0)] * 3, indexing="ij"), -1).reshape(-1, 3)

    def test_random_units_are_as_large_and_compact(self) -> None:
        units = [Unit("a", np.arange(8)), Unit("b", np.arange(27))]
        null = null_units(units, self.positions, np.ones(216, bool), draws=10)
        assert sorted({len(i) for i in null.index}) == [8, 27]
        for index in null.index:
            spread = np.linalg.norm(self.positions[index] - self.positions[index].mean(0), axis=1)
            assert spread.max() < 4  # a random set of the whole would reach 5
        assert [len(null.index[list(null.size).index(row)]) for row in null.of] == [8, 27]

    def test_elements_without_signal_are_never_drawn(self) -> None:
        signal = np.arange(216) % 3 > 0
        null = null_units([Unit("a", np.arange(5))], self.positions, signal, draws=20)
        assert all(signal[index].all() for index in null.index)

    def test_moments_are_those_of_the_unit_s_size(self) -> None:
        units = [Unit("a", np.arange(2)), Unit("b", np.arange(4))]
        null = null_units(units, self.positions, np.ones(216, bool), draws=3)
        effect = np.where(null.size == 0, 1.0, 5.0)[:, None]
        mean, std = null.moments(effect)
        assert mean[:, 0].tolist() == [1.0, 5.0]
        assert std[:, 0].tolist() == [0.0, 0.0]
