"""A free code: the compressor's layers there and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sherlock_data.errors import ConfigError
from sherlock_models.architectures import compressor
from sherlock_models.sizes import Sizes

UNITS = 7
AUDIO = (4,)
MOVIE = {"video": (9, 14, 3), "audio": AUDIO}


class TestCompressor:
    def make(self, **more: Any) -> compressor.BrainCompressor:
        torch.manual_seed(0)
        sizes = Sizes({"brain": (UNITS,)}, (UNITS,), **more)
        return compressor.build(sizes, compressor.CompressorOptions(hidden=(6,), code=3))

    def test_there_and_back_by_itself(self) -> None:
        model, brain = self.make(), torch.randn(4, UNITS)
        code = model.compress(brain)
        assert code.shape == (4, 3)
        assert model.expand(code).shape == brain.shape
        output = model({"brain": brain[:, None]})
        assert torch.equal(output.brain, code)
        assert torch.equal(output.stimulus["brain"], model.expand(code))

    def test_voxels_without_signal_are_read_as_zero(self) -> None:
        model, brain = self.make(), torch.randn(4, UNITS)
        signal = torch.rand(4, UNITS) < 0.5
        loud = torch.where(signal, brain, torch.inf)
        output = model({"brain": loud[:, None]}, signal=signal)
        assert torch.equal(output.brain, model.compress(brain * signal))

    def test_a_code_starts_at_the_size_of_the_hidden_layers(self) -> None:
        code = self.make().compress(torch.randn(256, UNITS))
        assert 0.3 < code.square().mean() < 3

    @pytest.mark.parametrize(
        ("stimulus", "delays"),
        [
            pytest.param(MOVIE, (0,), id="movie"),
            pytest.param({"brain": (UNITS,), "audio": AUDIO}, (0,), id="more"),
            pytest.param({"brain": (UNITS,)}, (0, 1), id="delays"),
        ],
    )
    def test_it_wants_the_brain_alone(
        self, stimulus: dict[str, tuple[int, ...]], delays: tuple[int, ...]
    ) -> None:
        sizes = Sizes(stimulus, (UNITS,), delays)
        with pytest.raises(ConfigError, match="wants the stimulus 'brain' at delay 0; found "):
            compressor.build(sizes, compressor.CompressorOptions())
