"""Stimuli to and from the units a model sees, fitted on training TRs only.

Legend: T = TRs, F = features of a vector stimulus, H, W = height and width of the video.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sherlock_data.errors import ConfigError
from sherlock_models.feeding import gather

#: numbers converted to float64 at a time while fitting, one TR at least
_BLOCK = 1 << 22
#: a feature whose standard deviation is below this share of its size does not vary
_CONSTANT = 1e-6
#: of the root mean square of all features' standard deviations
_LEAST_SHARE = 0.05


@dataclass(frozen=True)
class Scale:
    """Units of one stimulus: `(value - mean) / scale`.

    Attributes
    ----------
    mean : Tensor of float32, (3, H, W) or (F,)
        Of the training TRs, per pixel and colour or per feature.
    scale : Tensor of float32, () or (F,)
        Video: one number, the root of the mean variance, so that bright and dark pixels keep
        their proportions. Vectors: the standard deviation of each feature, 1 where it is constant.
    """

    mean: Tensor
    scale: Tensor

    def forward(self, values: Tensor) -> Tensor:
        """Raw values (..., *mean.shape) to normalised float32."""
        return (values - self.mean).div_(self.scale)

    def pick(self, table: Tensor, row: Tensor) -> Tensor:
        """Rows (B,) of a table (T, *mean.shape), normalised."""
        if table.dtype == torch.uint8 and self.scale.ndim == 0:
            return gather.normalised(table, self.mean, self.scale, row)
        return self.forward(table.index_select(0, row.to(table.device)))

    def inverse(self, values: Tensor) -> Tensor:
        """Normalised values (..., *mean.shape) back to raw units, not clipped."""
        return values * self.scale + self.mean


def fit_scale(
    values: Tensor, trs: NDArray[np.int64], one_scale: bool, one_unit: bool = False
) -> Scale:
    """Fit the units of one stimulus on `trs`.

    Parameters
    ----------
    values : Tensor, (T, ...)
    trs : ndarray of int64
        Training TRs.
    one_scale : bool
        One scale for everything (pictures, a waveform), or one per feature: its standard deviation.
    one_unit : bool
        The features share a unit (dB): none is divided by less than a twentieth of their root mean
        square. A band that is silent in training would else be divided by next to nothing
        wherever it sounds.
    """
    total = torch.zeros(values.shape[1:], dtype=torch.float64)
    square = torch.zeros_like(total)
    step = max(1, _BLOCK // max(total.numel(), 1))
    for start in range(0, len(trs), step):
        total += _block(values, trs[start : start + step]).sum(0)
    mean = total / len(trs)
    for start in range(0, len(trs), step):
        square += (_block(values, trs[start : start + step]) - mean).square().sum(0)
    variance = square / len(trs)
    overall = variance.mean().sqrt()
    scale = overall if one_scale else variance.sqrt()
    if one_unit:
        scale = scale.clamp(min=_LEAST_SHARE * overall)
    size = mean.abs().amax() if one_scale else mean.abs()
    varies = scale > _CONSTANT * size
    return Scale(mean.float(), torch.where(varies, scale, 1.0).float())


def _block(values: Tensor, trs: NDArray[np.int64]) -> Tensor:
    return values[torch.from_numpy(trs)].double()


@dataclass(frozen=True)
class Normaliser:
    """The units of every stimulus of a run."""

    scales: dict[str, Scale] = field(default_factory=dict)

    def forward(self, name: str, values: Tensor) -> Tensor:
        """Raw values of stimulus `name` to the units the model sees."""
        return self._scale(name).forward(values)

    def pick(self, name: str, table: Tensor, row: Tensor) -> Tensor:
        """Rows of a table of stimulus `name`, in the units the model sees."""
        return self._scale(name).pick(table, row)

    def to(self, device: torch.device) -> Normaliser:
        """Move to a device."""
        scales = {n: Scale(s.mean.to(device), s.scale.to(device)) for n, s in self.scales.items()}
        return Normaliser(scales)

    def inverse(self, name: str, values: Tensor) -> Tensor:
        """Turn what the model gives back to raw units (grey levels, dB, ...); not clipped."""
        return self._scale(name).inverse(values)

    def _scale(self, name: str) -> Scale:
        if name not in self.scales:
            raise ConfigError(
                f"no stimulus '{name}' in this run", remedy=f"it has: {', '.join(self.scales)}"
            )
        return self.scales[name]

    def tensors(self) -> dict[str, Tensor]:
        """Everything fitted, by name, for safetensors."""
        return {
            f"normaliser.{name}.{part}": getattr(scale, part).contiguous()
            for name, scale in self.scales.items()
            for part in ("mean", "scale")
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], names: Iterable[str]) -> Normaliser:
        """Rebuild from :meth:`tensors`."""
        return cls(
            {
                name: Scale(tensors[f"normaliser.{name}.mean"], tensors[f"normaliser.{name}.scale"])
                for name in names
            }
        )


def load_normaliser(path: Path, names: Iterable[str]) -> Normaliser:
    """Read a run's normaliser from its `fitted.safetensors`.

    Raises
    ------
    ConfigError
        If the file is missing, damaged, or lacks a stimulus.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ConfigError("no fitted statistics", where=path, remedy="the run has not started")
    try:
        return Normaliser.from_tensors(load_file(path), names)
    except KeyError as error:
        raise ConfigError(f"lacks {error}", where=path) from None
    except SafetensorError as error:
        raise ConfigError(
            f"is damaged ({error})", where=path, remedy="restore it, or train again"
        ) from None
