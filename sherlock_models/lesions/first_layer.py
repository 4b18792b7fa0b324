"""A decoder cut behind its first layer, and before its last ones where these are linear.

Replacing a unit of the brain changes the first layer by that unit's contribution alone: it need
not be computed again. A last layer that is linear need not be computed at all where only sums of
squares are wanted (`sherlock_models.lesions.effects`), nor a picture be made.

Legend: B = samples of a batch, L = units of the brain layer, H = outputs of the first layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from sherlock_models.lesions.side_by_side import SideBySide, replace_pictures

M = TypeVar("M", bound=nn.Module)
#: size of the numbers that a layer is made to answer with where it is tried out
_FAR = 1e6
#: layers that need not be finished
LastLayer = nn.Linear | SideBySide


@dataclass
class CutDecoder:
    """A decoder whose first layer can be given instead of computed.

    Attributes
    ----------
    decoder : nn.Module
        (B, L) -> dict of stimuli; a copy, laid out for inference.
    units : int
        L.
    first : nn.Linear or None
        None where the brain enters by another way (a grid by convolutions).
    last : dict
        By stimulus, the dense layer whose outputs ``[a:b]`` it is, if there is one.
    pictures : dict
        By stimulus, the convolutions that it is the output of.
    """

    decoder: nn.Module
    units: int
    first: nn.Linear | None
    last: dict[str, tuple[nn.Linear, slice]] = field(default_factory=dict)
    pictures: dict[str, SideBySide] = field(default_factory=dict)

    @classmethod
    @torch.inference_mode()
    def of(cls, decoder: nn.Module, units: int, fast: bool = True) -> CutDecoder:
        """Copy a decoder and look where it can be cut.

        Parameters
        ----------
        decoder : nn.Module
        units : int
        fast : bool
            Whether transposed convolutions may be computed as products.
        """
        own = copy.deepcopy(decoder).eval()
        replaced = replace_pictures(own) if fast else []
        for module in own.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                # a tenth to a quarter faster on CPUs, to within rounding the same
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        first, last = find_first(own, units), find_last(own, units)
        ends = {name: end for name, end in last.items() if end[0] is not first}
        return cls(own, units, first, ends, find_pictures(own, units, replaced))

    def twin(self) -> CutDecoder:
        """Return another with the same weights in memory, for another thread."""
        own = chain(self.decoder.parameters(), self.decoder.buffers())
        return copy.deepcopy(self, {id(tensor): tensor for tensor in own})

    def __call__(self, read: Tensor) -> dict[str, Tensor]:
        """Decode a brain (B, L) the plain way."""
        decoded: dict[str, Tensor] = self.decoder(read)
        return decoded

    def first_output(self, read: Tensor) -> Tensor:
        """Return the first layer's output for a brain, (B, H)."""
        if self.first is None:
            raise ValueError("this decoder has no dense first layer")
        output: Tensor = self.first(read)
        return output

    def rest(self, hidden: Tensor) -> dict[str, Tensor]:
        """Decode from the first layer's output (B, H)."""
        if self.first is None:
            raise ValueError("this decoder has no dense first layer")
        unread = hidden.new_zeros(1, 1).expand(len(hidden), self.units)
        with given(self.first, hidden):
            return self(unread)

    def before_last(self, hidden: Tensor, names: Set[str]) -> tuple[dict[str, Tensor], ...]:
        """Decode from (B, H) without the last layers of some stimuli.

        Parameters
        ----------
        hidden : Tensor, (B, H)
        names : set of str
            Stimuli among `last` and `pictures`.

        Returns
        -------
        decoded : dict of Tensor
            Nothing that comes from one of these layers means anything.
        unfinished : dict of Tensor
            What such a layer was given, by every stimulus that it makes: a dense one (B, inputs),
            convolutions (B, channels, h, w).
        """
        ends: dict[str, LastLayer] = {name: layer for name, (layer, _) in self.last.items()}
        ends |= self.pictures
        seen: dict[LastLayer, Tensor] = {}

        def unmade(layer: LastLayer, value: Tensor) -> Tensor:
            seen[layer] = value
            if isinstance(layer, SideBySide):
                return value.new_zeros(()).expand(layer.size(value))
            return value.new_zeros(()).expand(len(value), layer.out_features)

        with ExitStack() as stack:
            for layer in {ends[name] for name in names}:
                stack.enter_context(answering(layer, partial(unmade, layer)))
            decoded = self.rest(hidden)
        return decoded, {name: seen[layer] for name, layer in ends.items() if layer in seen}


@contextmanager
def answering(layer: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer do something else for a while."""
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward


def given(layer: nn.Linear, output: Tensor) -> AbstractContextManager[None]:
    """Let a layer return what is known already."""
    return answering(layer, lambda value: output)


@torch.inference_mode()
def find_first(decoder: nn.Module, units: int) -> nn.Linear | None:
    """Find the dense layer that alone reads the brain; None if there is none.

    A decoder may name it itself by a method `first_layer`. The layer counts only if, with its
    output given, the decoder says the same of a brain of NaN: then nothing else reads the brain.
    """
    read = torch.randn(2, units, generator=torch.Generator().manual_seed(0))
    found = _named(decoder) or _reading(decoder, read)
    if found is None:
        return None
    known = decoder(read)
    with given(found, found(read)):
        again = decoder(torch.full_like(read, torch.nan))
    return found if all(torch.equal(known[n], again[n]) for n in known) else None


def _named(decoder: nn.Module) -> nn.Linear | None:
    named = getattr(decoder, "first_layer", None)
    layer = named() if callable(named) else None
    return layer if isinstance(layer, nn.Linear) else None


def _reading(decoder: nn.Module, read: Tensor) -> nn.Linear | None:
    readers: list[nn.Linear] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Linear) and inputs and inputs[0] is read:
            readers.append(module)

    with _watched(decoder, before=note):
        decoder(read)
    return readers[0] if len(readers) == 1 else None


@torch.inference_mode()
def find_last(decoder: nn.Module, units: int) -> dict[str, tuple[nn.Linear, slice]]:
    """Find the stimuli that are outputs of a dense layer, unchanged: by stimulus (layer, slice)."""
    layers = {module for module in decoder.modules() if isinstance(module, nn.Linear)}
    decoded, outputs = _outputs(decoder, units, layers)
    found = {}
    for name, values in decoded.items():
        flat = values.flatten(1)
        for layer, output in outputs.items():
            start = _start(output, flat)
            if start is not None:
                found[name] = (layer, slice(start, start + flat.shape[1]))
    return {name: end for name, end in found.items() if _is_end(decoder, units, end[0], found)}


@torch.inference_mode()
def find_pictures(
    decoder: nn.Module, units: int, replaced: Sequence[SideBySide]
) -> dict[str, SideBySide]:
    """Find the stimuli that are what convolutions put out, unchanged: by stimulus."""
    decoded, outputs = _outputs(decoder, units, set(replaced))
    found = {
        name: (layers, slice(None))
        for name, picture in decoded.items()
        for layers in replaced
        if layers in outputs and torch.equal(picture, outputs[layers])
    }
    return {name: end for name, (end, _) in found.items() if _is_end(decoder, units, end, found)}


def _is_end(
    decoder: nn.Module, units: int, layer: nn.Module, found: Mapping[str, tuple[nn.Module, slice]]
) -> bool:
    """Whether a layer is called once and tells what it is found to tell, and nothing else.

    It is made to answer with numbers far beyond its own: these must arrive as they are, past no
    ReLU or clip, and what other layers tell must stay as it was.
    """
    read = torch.randn(3, units, generator=torch.Generator().manual_seed(2))
    expected = {name: values.flatten(1) for name, values in decoder(read).items()}
    plain, answers = layer.forward, list[Tensor]()

    def far(value: Tensor) -> Tensor:
        output: Tensor = plain(value)
        answers.append(_FAR * torch.randn(output.shape, generator=torch.Generator().manual_seed(3)))
        return answers[-1]

    with answering(layer, far):
        told = {name: values.flatten(1) for name, values in decoder(read).items()}
    for name, (end, columns) in found.items():
        if end is layer:
            expected[name] = answers[-1].flatten(1)[:, columns]
    return len(answers) == 1 and all(torch.equal(told[name], expected[name]) for name in told)


def _outputs(
    decoder: nn.Module, units: int, layers: Set[M]
) -> tuple[dict[str, Tensor], dict[M, Tensor]]:
    """Decode some brain, and note what some layers gave."""
    outputs: dict[M, Tensor] = {}

    def note(module: M, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if module in layers:
            outputs[module] = output

    read = torch.randn(3, units, generator=torch.Generator().manual_seed(1))
    with _watched(decoder, after=note):
        decoded: dict[str, Tensor] = decoder(read)
    return decoded, outputs


def _start(output: Tensor, flat: Tensor) -> int | None:
    """First column of `output` from which `flat` is found in it."""
    if output.ndim != 2 or output.shape[1] < flat.shape[1]:
        return None
    for start in torch.nonzero((output == flat[:, :1]).all(0)).flatten().tolist():
        if torch.equal(output[:, start : start + flat.shape[1]], flat):
            return int(start)
    return None


@contextmanager
def _watched(decoder: nn.Module, before: object = None, after: object = None) -> Iterator[None]:
    handles = []
    for module in decoder.modules():
        if before is not None:
            handles.append(module.register_forward_pre_hook(before))  # type: ignore[arg-type]
        if after is not None:
            handles.append(module.register_forward_hook(after))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
