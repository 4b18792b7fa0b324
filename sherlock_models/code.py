"""Codes of a brain, and the voxels they stand for: principal components, or a stage-1 run.

A model whose brain layer is a code is judged in voxels all the same; what goes there and back is
here. Voxels are standardised as models see them (`feeding.voxel_series`), codes are as the pca
store or the compressor gives them, before a training standardises them once more.

Legend: n = TRs, V = voxels, K = units of the code, S = subjects, R = runs, T = TRs of the scan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from sherlock_data import contract, store
from sherlock_data.errors import ConfigError, StoreError
from sherlock_models.sizes import BRAIN

if TYPE_CHECKING:
    from sherlock_models.architectures.autoencoder import BrainAutoencoder
    from sherlock_models.config import RunConfig

#: TRs that are coded, or told as voxels, at a time
BLOCK_TRS = 128


class Code(Protocol):
    """What takes the voxels of one subject to a code and back."""

    @property
    def units(self) -> int:
        """K."""
        ...

    def from_voxels(self, voxels: Tensor, subject: str) -> Tensor:
        """Code standardised voxels: float32 (n, V) to (n, K)."""
        ...

    def to_voxels(self, code: Tensor, subject: str) -> Tensor:
        """Tell the voxels of a code: float32 (n, K) to (n, V)."""
        ...


@dataclass(frozen=True)
class PcaCode:
    """Scores of principal components.

    Attributes
    ----------
    loadings : Tensor of float32, (K, V)
        Orthonormal rows.
    voxel_mean : Tensor of float32, (V,)
        Of the standardised training rows.
    """

    loadings: Tensor
    voxel_mean: Tensor

    @classmethod
    def read(cls, config: RunConfig) -> PcaCode:
        """Read the components of a run's pca store.

        Raises
        ------
        StoreError
            If the voxels beside it are not those it was fitted on.
        """
        path, source = _path(config, config.brain), _path(config, str(config.voxel_store))
        data = store.open_store(path)
        known = [item.get("sha256") for item in data.attrs["inputs"]]
        if store.fingerprint(source) not in known:
            raise StoreError(
                f"is not the '{config.voxel_store}' that '{config.brain}' was fitted on",
                where=source,
                remedy=f"build '{config.brain}' anew",
            )
        read = {name: torch.from_numpy(data[name].values) for name in ("loadings", "voxel_mean")}
        return cls(**read)

    @property
    def units(self) -> int:
        """K."""
        return len(self.loadings)

    def from_voxels(self, voxels: Tensor, subject: str) -> Tensor:
        """Project: (n, V) to (n, K)."""
        return (voxels - self.voxel_mean) @ self.loadings.T

    def to_voxels(self, code: Tensor, subject: str) -> Tensor:
        """Add the components up: (n, K) to (n, V)."""
        return code @ self.loadings + self.voxel_mean


@dataclass(frozen=True)
class StageOneCode:
    """The free code of a trained compressor, frozen.

    Attributes
    ----------
    model : BrainAutoencoder
        Whose stimulus is the brain.
    rows : dict
        Row of the subject embedding by the subject's name; anyone else is someone unseen.
    """

    model: BrainAutoencoder
    rows: Mapping[str, int]

    @property
    def units(self) -> int:
        """K."""
        return self.model.sizes.units

    @torch.inference_mode()
    def from_voxels(self, voxels: Tensor, subject: str) -> Tensor:
        """Encode: (n, V) to (n, K)."""
        rows = torch.full((len(voxels),), self.rows.get(subject, -1))
        parts = [
            self.model.encode({BRAIN: voxels[part, None]}, rows[part]).float()
            for part in _blocks(len(voxels))
        ]
        return torch.cat(parts) if parts else voxels.new_zeros(0, self.units)

    @torch.inference_mode()
    def to_voxels(self, code: Tensor, subject: str) -> Tensor:
        """Decode: (n, K) to (n, V)."""
        parts = [self.model.decode(code[part])[BRAIN].float() for part in _blocks(len(code))]
        size = self.model.sizes.stimulus[BRAIN]
        return torch.cat(parts) if parts else code.new_zeros(0, *size)


def read_code(config: RunConfig) -> Code:
    """Read what codes a run's brain layer.

    Raises
    ------
    ConfigError, StoreError
        If the stage-1 run is gone or is not the one the run was configured with; if the voxels
        behind a pca store are others.
    """
    return PcaCode.read(config) if config.compressor is None else stage_one(config)[0]


def with_stage_one(config: RunConfig, brain_named: bool) -> RunConfig:
    """Fill in what the stage-1 run of a configuration decides: the store, its code, its weights.

    Parameters
    ----------
    config : RunConfig
        Whose `compressor` names a run.
    brain_named : bool
        Whether the user named the store of the brain as well.

    Raises
    ------
    ConfigError
        If the run is no compressor's, has no checkpoint, or reads another store than was named.
    """
    from sherlock_models.config import CompressorIdentity
    from sherlock_models.run import load

    named = _compressor(config)
    run = load(named.run)
    if not run.config.is_compressor:
        raise ConfigError(
            f"is a run of '{run.config.entry}', which compresses no brain",
            where=named.run,
            remedy="name a run of brain-compressor in --set compressor=",
        )
    if brain_named and config.brain != run.config.brain:
        raise ConfigError(
            f"it compresses '{run.config.brain}', not '{config.brain}'",
            where=named.run,
            remedy="leave out --set brain=",
        )
    model = run.model
    identity = CompressorIdentity(
        run=named.run, weights=weights_hash(model), code=model.sizes.units
    )
    return config.model_copy(update={"brain": run.config.brain, "compressor": identity})


def stage_one(config: RunConfig) -> tuple[StageOneCode, dict[str, Any]]:
    """Load the stage-1 run of a configuration: its best checkpoint, frozen.

    Returns
    -------
    code : StageOneCode
    fitted_on : dict
        On which subjects and brain TRs it was trained.

    Raises
    ------
    ConfigError
        If it is gone, or its best checkpoint is not the one the run was configured with.
    StoreError
        If it was trained on other voxels.
    """
    from sherlock_models.run import load

    named = _compressor(config)
    run = load(named.run)
    model = run.model.requires_grad_(False)
    found = weights_hash(model)
    if found != named.weights:
        raise ConfigError(
            f"its best checkpoint is not the one this run was configured with (weights "
            f"{found[:12]}, were {named.weights[:12]})",
            where=named.run,
            remedy="restore that one, or train stage 2 again",
        )
    theirs, ours = (c.stores[config.brain].fingerprint for c in (run.config, config))
    if theirs != ours:
        raise StoreError(
            f"was trained on another '{config.brain}' (fingerprint {theirs}, here {ours})",
            where=named.run,
            remedy="train stage 1 on these data",
        )
    if run.config.fitted_on is None:
        raise ConfigError(
            "does not say what it was trained on", where=named.run, remedy="train stage 1 again"
        )
    subjects = run.config.fitted_on["subjects"] if run.config.subject == "embedding" else []
    return StageOneCode(model, {name: row for row, name in enumerate(subjects)}), dict(
        run.config.fitted_on
    )


def weights_hash(model: nn.Module) -> str:
    """Hash a model's weights by name, shape and value: sha256, whatever files they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        flat = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(memoryview(flat.numpy()))
    return digest.hexdigest()


def _blocks(length: int) -> list[slice]:
    return [slice(start, start + BLOCK_TRS) for start in range(0, length, BLOCK_TRS)]


def _compressor(config: RunConfig) -> Any:
    if config.compressor is None:
        raise ConfigError("names no stage-1 run", where="compressor")
    return config.compressor


def _path(config: RunConfig, name: str) -> str:
    return f"{config.data.rstrip('/')}/{name}{contract.SUFFIX}"
