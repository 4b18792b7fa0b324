"""Watches a step on the meta device: bytes that are alive, operations that are done, and whose.

A meta tensor has a shape and a storage that takes no room; what it would take is counted from the
operation that makes it until the last reference to it goes.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker
from torch.utils.weak import WeakIdKeyDictionary

META = torch.device("meta")
#: bytes of a weight, a gradient or a moment: training keeps them in float32 whatever the precision
FLOAT32 = 4
#: glibc's malloc maps pieces of at least so many bytes on their own and returns them when they are
#: freed; it raises its threshold up to this (M_MMAP_THRESHOLD, mallopt(3))
HEAP_BLOCK = 32 * 2**20


@dataclass(frozen=True)
class Part:
    """A part of the model.

    Attributes
    ----------
    name : str
        As `named_modules` has it: ``encoder.trunk``, ``decoder.video``.
    parameters : int
    flops : int
        Of the forward pass.
    activations : int
        Bytes it leaves for the backward pass.
    """

    name: str
    parameters: int
    flops: int
    activations: int


@dataclass
class _Level:
    """A level and its high-water mark."""

    now: int = 0
    most: int = 0

    def move(self, change: int) -> None:
        self.now += change
        self.most = max(self.most, self.now)


class StepTrace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that are alive and the work that is done, operation by operation.

    Attributes
    ----------
    kept : int
        Bytes alive now, the weights not counted.
    forward_flops : int
    work : list of (int, int)
        FLOPs and bytes of every operation so far.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tracker = ModuleTracker()
        self.forward_flops = 0
        self.work: list[tuple[int, int]] = []
        self._events: list[tuple[int, int]] = []  # which storage, bytes that come or go
        self._gradients: set[int] = set()
        self._root = type(model).__name__
        self._seen: WeakIdKeyDictionary = WeakIdKeyDictionary()  # storage -> number and owner
        self._flops: Counter[str] = Counter()
        self._activations: Counter[str] = Counter()
        for tensor in (*model.parameters(), *model.buffers()):
            self._seen[tensor.untyped_storage()] = (-1, "")
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    self._has_gradient
                )

    @property
    def kept(self) -> int:
        """Bytes alive now, the weights not counted."""
        return sum(size for _, size in self._events)

    def peaks(self) -> tuple[int, int, int]:
        """Most bytes at one time, the weights not counted.

        Returns
        -------
        live : int
        without_gradients : int
        resident : int
            The most of the small ones and the most of the large ones: an allocator that keeps
            small pieces does not give their room to large ones.
        """
        small = {number for number, size in self._events if 0 < size < HEAP_BLOCK}
        live, other = _Level(), _Level()
        kept, returned = _Level(), _Level()
        for number, size in self._events:
            live.move(size)
            (kept if number in small else returned).move(size)
            if number not in self._gradients:
                other.move(size)
        return live.most, other.most, kept.most + returned.most

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation on shapes and note what it made."""
        out = func(*args, **(kwargs or {}))
        made = [t for t in _tensors(out) if t.device == META]
        moved = _bytes_of({id(t.untyped_storage()): t for t in made}.values())
        is_new = [self._count(t) for t in made]
        packet = func._overloadpacket
        flops = 0
        if packet in flop_registry:
            flops = int(flop_registry[packet](*args, **(kwargs or {}), out_val=out))
            self._flops[self._where()] += flops
        if any(is_new) or func._schema.is_mutable:  # a view moves nothing
            read = _bytes_of(t for t in _tensors((args, kwargs)) if t.device == META)
            self.work.append((flops, moved + read))
        return out

    def forward_is_done(self) -> None:
        """Note what is kept for the backward pass, and whose it is."""
        self.forward_flops = sum(self._flops.values())
        for storage, (_, owner) in self._seen.items():  # type: ignore[no-untyped-call]
            if owner:
                self._activations[owner] += storage.nbytes()
        self._forward = dict(self._flops)

    def parts(self, model: nn.Module) -> tuple[Part, ...]:
        """Sum up by the leaves of the module tree."""
        found = []
        for name, module in model.named_modules():
            own = sum(p.numel() for p in module.parameters(recurse=False))
            label = f"{self._root}.{name}" if name else self._root
            flops, kept = self._forward.get(label, 0), self._activations[label]
            if own or flops or kept:
                found.append(Part(name or "between", own, flops, kept))
        return tuple(found)

    def _where(self) -> str:
        """Innermost module at work."""
        where = max(self.tracker.parents, key=len)
        return where if where.startswith(self._root) and not self.tracker.is_bw else ""

    def _count(self, tensor: Tensor) -> bool:
        """Count a tensor's storage, once, until it goes; say whether it is new."""
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return False
        number, size = len(self._events), storage.nbytes()
        self._seen[storage] = (number, self._where())
        self._events.append((number, size))
        weakref.finalize(storage, self._events.append, (number, -size))
        return True

    def _has_gradient(self, parameter: Tensor) -> None:
        """Book a gradient under its own heading; it is kept in float32."""
        if parameter.grad is None:
            return
        storage = parameter.grad.untyped_storage()
        number, _ = self._seen[storage]
        self._gradients.add(number)
        self._events.append((number, FLOAT32 * parameter.numel() - storage.nbytes()))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
