"""Sizes of a model's borders, which the stores decide and no model may assume."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sherlock_data.errors import ConfigError

#: reserved name of a stimulus: the sample's own brain, standardised and flat
BRAIN = "brain"
#: name of the stimulus that is a sound's raw samples, which is convolved over time
WAVEFORM = "waveform"


@dataclass(frozen=True)
class Sizes:
    """What a model is built for.

    Attributes
    ----------
    stimulus : dict
        By name, in the order a dense layer concatenates them: (H, W, 3) of a picture (`video`,
        `frame`), (F,) of every other stimulus.
    brain : tuple of int
        (units,) of voxels, parcels or components, (x, y, z) of a grid.
    delays : tuple of int
        TRs of the past that the encoder sees, 0 the current one.
    subjects : int
        Rows of the subject embedding.

    Raises
    ------
    ConfigError
        If there is nothing to see, nothing in the brain layer, or a stimulus of another shape.
    """

    stimulus: dict[str, tuple[int, ...]]
    brain: tuple[int, ...]
    delays: tuple[int, ...] = (0,)
    subjects: int = 1

    def __post_init__(self) -> None:
        if not self.stimulus or not self.delays or self.subjects < 1:
            raise ConfigError(
                f"found {len(self.stimulus)} stimuli, {len(self.delays)} delays and "
                f"{self.subjects} subjects",
                where="sizes",
                remedy="a model needs at least one of each",
            )
        for name, shape in [*self.stimulus.items(), ("the brain layer", self.brain)]:
            wanted = (3,) if name == "video" else (1, 3)
            colours = len(shape) == 3 and name in self.stimulus and shape[2] != 3
            if len(shape) not in wanted or min(shape) < 1 or colours:
                raise ConfigError(
                    f"{name} has the shape {shape}",
                    where="sizes",
                    remedy="a picture is (height, width, 3), the brain (units,) or (x, y, z), "
                    "any other stimulus (features,)",
                )

    @property
    def units(self) -> int:
        """Units of the brain layer, a grid's cells counted all."""
        return math.prod(self.brain)

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the stimuli that are pictures, in order."""
        return tuple(name for name, shape in self.stimulus.items() if len(shape) == 3)

    @property
    def features(self) -> int:
        """Numbers of all stimuli in one TR."""
        return sum(math.prod(shape) for shape in self.stimulus.values())

    def input_shape(self, name: str) -> tuple[int, ...]:
        """Shape of one sample as the encoder sees it: (D, 3, H, W) or (D, F)."""
        return (len(self.delays), *self.output_shape(name))

    def output_shape(self, name: str) -> tuple[int, ...]:
        """Shape of one sample as the decoder gives it: (3, H, W) or (F,)."""
        shape = self.stimulus[name]
        return (shape[2], *shape[:2]) if len(shape) == 3 else shape
