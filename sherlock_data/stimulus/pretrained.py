"""Pretrained networks, from local weights to one vector per picture, stretch of sound or text.

Legend: N = items of a batch, C = channels, H, W = height and width, T = tokens, F = features.

The only module beside :mod:`sherlock_data.stimulus.vggish` that knows torch; it is imported when a
part of a ``features`` store runs. Code from the hub is never run (``trust_remote_code=False``), no
pickle is trusted, and a parameter that the weights lack is an error, not a random number.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from sherlock_data.errors import ConfigError, InputError
from sherlock_data.extractors import ExtractorEntry
from sherlock_data.stimulus import vggish
from sherlock_data.stimulus.weights import Weights

#: EfficientNet-Lite's own scaling and the share of a picture's short side that it looks at
LITE_MEAN, LITE_STD, LITE_BORDER = 127.0, 128.0, 32
#: the part of a two-tower model that reads a modality, and its projection
TOWERS = {"image": "vision_model", "audio": "audio_model", "text": "text_model"}
#: tokens of a text, where neither tokenizer nor network says how many
TOKENS = 512


@dataclass(frozen=True)
class Network:
    """A network that reads one modality.

    Attributes
    ----------
    name : str
        Of the extractor.
    features : int
    read : callable
        From a batch to a Tensor (N, F). Pictures: list of uint8 arrays (H, W, 3). Sound: float32
        (N, window), mono, full scale 1. Text: list of str.
    sample_rate : int
        Hz; 0 for what does not hear.
    window, hop : int
        Samples that one vector looks at, and samples it stands for.
    """

    name: str
    features: int
    read: Callable[[Any], Tensor]
    sample_rate: int = 0
    window: int = 0
    hop: int = 0

    def __call__(self, items: Any) -> NDArray[np.float32]:
        """Vectors of a batch, shape (N, F), float32.

        Raises
        ------
        InputError
            If the network gives another number of features than the catalogue says, or a vector
            that is not finite.
        """
        with torch.inference_mode():
            found = self.read(items).float().cpu().numpy()
        if found.shape != (len(items), self.features):
            raise InputError(
                f"it gives {found.shape[1:]} features, the catalogue says {self.features}",
                where=f"extractor {self.name}",
                remedy=f"set `features: {found.shape[-1]}`",
            )
        if not np.isfinite(found).all():
            raise InputError(
                "it gives values that are not finite",
                where=f"extractor {self.name}",
                remedy="fetch its weights again",
            )
        return np.asarray(found)


def load(name: str, entry: ExtractorEntry, weights: Weights) -> Network:
    """Load an extractor's network.

    Parameters
    ----------
    name : str
    entry : ExtractorEntry
    weights : Weights
        From :func:`sherlock_data.stimulus.weights.locate`.

    Returns
    -------
    Network

    Raises
    ------
    InputError
        If the weights cannot be read or do not fit the network.
    ConfigError
        If the network has no such layer, pooling or reader.
    """
    loaders = {"transformers": _transformers, "vggish": _vggish, "efficientnet-lite": _lite}
    return loaders[entry.source](name, entry, weights.place)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _filled(network: nn.Module, file: Path) -> nn.Module:
    """Fill a network from a file of named tensors, all of them and no others."""
    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except (OSError, RuntimeError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"no weights of this network ({str(error).splitlines()[0]})",
            where=file,
            remedy="fetch the file again, as tensors only (a state_dict or safetensors)",
        ) from error
    return network.eval().to(_device())


def _vggish(name: str, entry: ExtractorEntry, file: Path) -> Network:
    with torch.device("meta"):
        empty = vggish.VGGish()
    network, device = _filled(empty.to_empty(device="cpu"), file), _device()

    def read(samples: NDArray[np.float32]) -> Tensor:
        found: Tensor = network(torch.from_numpy(vggish.log_mel(samples)).to(device))
        return found

    return Network(
        name,
        int(entry.features or 0),
        read,
        vggish.SAMPLE_RATE,
        vggish.PATCH_SAMPLES,
        vggish.PATCH_HOP,
    )


def _lite(name: str, entry: ExtractorEntry, file: Path) -> Network:
    from efficientnet_lite_pytorch import EfficientNet

    try:
        network = EfficientNet.from_name(entry.model)
    except ValueError as error:
        raise ConfigError(f"no network '{entry.model}'", where=f"extractor {name}") from error
    _filled(network, file)
    size, device = int(EfficientNet.get_image_size(entry.model)), _device()

    def read(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        batch = torch.stack([_centre(picture, size) for picture in pictures]).to(device)
        found: Tensor = network.extract_features((batch - LITE_MEAN) / LITE_STD).mean(dim=(2, 3))
        return found

    return Network(name, int(entry.features or 0), read)


def _centre(picture: NDArray[np.uint8], size: int) -> Tensor:
    """Largest central square but for a border, (3, size, size), as the network was tested with."""
    height, width, _ = picture.shape
    side = max(1, round(min(height, width) * size / (size + LITE_BORDER)))
    top, left = (height - side) // 2, (width - side) // 2
    square = torch.tensor(picture[top : top + side, left : left + side]).permute(2, 0, 1).float()
    resized = nn.functional.interpolate(square[None], (size, size), mode="bicubic", antialias=True)
    return resized[0].clamp(0, 255)


def _transformers(name: str, entry: ExtractorEntry, folder: Path) -> Network:
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    options = {"trust_remote_code": False, "local_files_only": True}
    try:
        model, report = transformers.AutoModel.from_pretrained(
            folder, output_loading_info=True, weights_only=True, dtype=torch.float32, **options
        )
        prepare = _prepare(transformers, entry, folder, options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InputError(
            f"transformers cannot load it ({str(error).strip().splitlines()[0]})",
            where=folder,
            remedy="name a folder with config, weights and preprocessor or tokenizer",
        ) from error
    _check_whole(name, entry, report, folder)
    network = model.eval().to(_device())
    rate = int(getattr(prepare, "sample_rate", 0))
    window = round(entry.window_s * rate)
    read = _reader(name, entry, network, prepare)
    return Network(name, int(entry.features or 0), read, rate, window, window)


def _check_whole(name: str, entry: ExtractorEntry, report: Any, folder: Path) -> None:
    """Refuse weights that lack a parameter: it would be drawn at random."""
    unread = entry.pooling != "pooler"
    missing = [key for key in report["missing_keys"] if not (unread and "pooler." in key)]
    missing += [str(key) for key in report["mismatched_keys"]]
    if missing:
        raise InputError(
            f"the weights lack {len(missing)} parameters ({sorted(missing)[0]})",
            where=f"extractor {name}: {folder}",
            remedy="fetch the weights of this very network",
        )


@dataclass(frozen=True)
class _Prepared:
    """From raw items to a network's named inputs; ``sample_rate`` (Hz) where it hears."""

    make: Callable[[Any], Any]
    sample_rate: int = 0


def _prepare(transformers: Any, entry: ExtractorEntry, folder: Path, options: Any) -> _Prepared:
    if entry.modality == "image":
        # torchvision's processors are another few hundred megabytes and round differently
        images = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", **options)
        return _Prepared(lambda items: images(images=list(items), return_tensors="pt"))
    if entry.modality == "audio":
        sounds = transformers.AutoFeatureExtractor.from_pretrained(folder, **options)
        rate = int(sounds.sampling_rate)
        return _Prepared(
            lambda items: sounds(list(items), sampling_rate=rate, return_tensors="pt"), rate
        )
    words = transformers.AutoTokenizer.from_pretrained(folder, **options)
    words.pad_token = words.pad_token or words.eos_token
    config = transformers.AutoConfig.from_pretrained(folder, **options)
    most = min(words.model_max_length, getattr(config, "max_position_embeddings", TOKENS))
    return _Prepared(
        lambda items: words(
            list(items), padding=True, truncation=True, max_length=most, return_tensors="pt"
        )
    )


def _reader(
    name: str, entry: ExtractorEntry, network: Any, prepare: _Prepared
) -> Callable[[Any], Tensor]:
    modality, device = str(entry.modality), _device()
    if entry.pooling == "projection":
        project = getattr(network, f"get_{modality}_features", None)
        if project is None:
            raise ConfigError("the network has no projection", where=f"extractor {name}")
        run = project
    else:
        run = getattr(network, TOWERS[modality], network)
        if getattr(network.config, "is_encoder_decoder", False):
            run = network.get_encoder()

    def read(items: Any) -> Tensor:
        inputs = prepare.make(items).to(device)
        if entry.pooling == "projection":
            found = run(**inputs)
            vectors = found if isinstance(found, Tensor) else found.pooler_output
        else:
            output = run(**inputs, output_hidden_states=entry.layer is not None)
            mask = inputs.get("attention_mask") if modality == "text" else None
            vectors = _pooled(name, entry, output, mask)
        return nn.functional.normalize(vectors, dim=1) if entry.normalise else vectors

    return read


def _pooled(name: str, entry: ExtractorEntry, output: Any, mask: Tensor | None) -> Tensor:
    """Vectors (N, F) of a layer (N, C, H, W) or (N, T, F); ``mask`` (N, T): 0 at padding."""
    where = f"extractor {name}"
    if entry.pooling == "pooler":
        pooler = output.get("pooler_output")
        if pooler is None:
            raise ConfigError("the network has no pooler", where=where, remedy="use pooling: mean")
        flat: Tensor = pooler.flatten(1)
        return flat
    values: Tensor = output[0]
    if entry.layer is not None:
        layers = output.hidden_states
        if entry.layer >= len(layers):
            raise ConfigError(
                f"no layer {entry.layer}", where=where, remedy=f"use 0 to {len(layers) - 1}"
            )
        values = layers[entry.layer]
    if values.ndim == 4:
        if entry.pooling == "first":
            raise ConfigError("a map has no first token", where=where, remedy="use pooling: mean")
        return values.mean(dim=(2, 3))
    if entry.pooling == "first":
        return values[:, 0]
    if mask is None:
        return values.mean(dim=1)
    weight = mask.unsqueeze(-1).to(values.dtype)
    return (values * weight).sum(dim=1) / weight.sum(dim=1)
