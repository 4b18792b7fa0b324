"""Tables held once per machine, for all of its ranks.

The lowest rank of a machine reads; its tables lie in anonymous shared memory (Linux `memfd`), which
the other ranks open through `/proc/PID/fd`. Such memory has no name: there is nothing in `/dev/shm`
to be left behind, however a rank ends, and no limit of `/dev/shm` (64 MB in a container) to meet.
The system frees it with the last process that has it mapped.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sherlock_data.errors import ConfigError
from sherlock_models.memory import free_memory
from sherlock_models.parallel import World

_REMEDY = "use --set placement=device or placement=stream"


def available() -> bool:
    """Whether this system has memory that processes can share without a name."""
    return hasattr(os, "memfd_create")


def machine_id() -> int:
    """Return a number that ranks have in common when they can see each other's processes."""
    known = Path("/proc/sys/kernel/random/boot_id")
    boot = known.read_text(encoding="ascii") if known.exists() else os.uname().nodename
    space = os.readlink("/proc/self/ns/pid") if Path("/proc/self/ns/pid").exists() else ""
    digest = hashlib.blake2b(f"{boot}{space}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


class Machine:
    """The ranks of one machine, and the memory they share.

    Every rank must make the same calls in the same order.

    Parameters
    ----------
    world : World

    Raises
    ------
    ConfigError
        If the system cannot share memory so.
    """

    def __init__(self, world: World) -> None:
        if not available():
            raise ConfigError(
                "no shared memory without a name on this system", where="placement", remedy=_REMEDY
            )
        self._world = world
        ids = _gathered(world, [machine_id()])[:, 0].tolist()
        self._leader = ids.index(ids[world.rank])
        #: ranks of this machine
        self.ranks = ids.count(ids[world.rank])
        self._open: dict[int, int] = {}

    @property
    def leads(self) -> bool:
        """Whether this rank reads for the others."""
        return self._world.rank == self._leader

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Make a tensor that can be held without a copy; only the leader does."""
        fd, memory = _create(max(1, math.prod(shape) * dtype.itemsize))
        tensor = _view(memory, shape, dtype)
        self._open[tensor.data_ptr()] = fd
        return tensor

    def hold(self, read: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Let the leader read tables, and give every rank the same memory of them.

        Parameters
        ----------
        read : callable
            Called by the leader only; tensors that :meth:`empty` made are not copied.

        Returns
        -------
        dict of Tensor
            To be read only.
        """
        held: dict[str, Tensor] = {}
        told = [0, 0, 0]
        if self.leads:
            held = {name: self._placed(tensor) for name, tensor in read().items()}
            told = [os.getpid(), *self._tell(held)]
        pid, fd, size = _gathered(self._world, told)[self._leader].tolist()
        if not self.leads:
            held = _attach(pid, fd, size)
        self._world.barrier()
        for number in self._open.values():
            os.close(number)  # the mappings stay
        self._open.clear()
        return held

    def _placed(self, tensor: Tensor) -> Tensor:
        if tensor.data_ptr() in self._open:
            return tensor
        return self.empty(tuple(tensor.shape), tensor.dtype).copy_(tensor)

    def _tell(self, held: Mapping[str, Tensor]) -> tuple[int, int]:
        """Write what is where into shared memory too; its descriptor and length."""
        rows = [
            [name, self._open[t.data_ptr()], list(t.shape), str(t.dtype).removeprefix("torch.")]
            for name, t in held.items()
        ]
        text = json.dumps(rows).encode()
        fd, memory = _create(len(text))
        memory[: len(text)] = text
        self._open[-fd] = fd
        return fd, len(text)


def _create(size: int) -> tuple[int, mmap.mmap]:
    # asked before: the system would grant page after page until it kills processes for want of one
    if size > free_memory():
        raise _no_room(size, "more than is free")
    fd = os.memfd_create("sherlock-models")
    try:
        # reserved now: a page that cannot be had later would kill the process that touches it
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        os.close(fd)
        raise _no_room(size, str(error.strerror)) from None
    return fd, mmap.mmap(fd, size)


def _no_room(size: int, why: str) -> ConfigError:
    return ConfigError(
        f"no {size / 1e9:.1f} GB of shared memory ({why})",
        where="placement",
        remedy="use --set placement=stream",
    )


def _attach(pid: int, fd: int, size: int) -> dict[str, Tensor]:
    rows: list[list[Any]] = json.loads(_mapped(pid, fd, size)[:size])
    held = {}
    for name, number, shape, kind in rows:
        dtype: torch.dtype = getattr(torch, kind)
        memory = _mapped(pid, number, max(1, math.prod(shape) * dtype.itemsize))
        held[name] = _view(memory, tuple(shape), dtype)
    return held


def _mapped(pid: int, fd: int, size: int) -> mmap.mmap:
    try:
        own = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR)
    except OSError as error:
        raise ConfigError(
            f"the memory of process {pid} cannot be opened ({error.strerror})",
            where="placement",
            remedy=_REMEDY,
        ) from None
    try:
        return mmap.mmap(own, size)
    finally:
        os.close(own)


def _view(memory: mmap.mmap, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(shape)


def _gathered(world: World, numbers: list[int]) -> Tensor:
    """Return every rank's numbers, (ranks, n)."""
    return world.gather(torch.tensor([numbers]), world.size)
