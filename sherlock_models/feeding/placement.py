"""Where the data of a training lie: on the device, in a machine's shared memory, or on disk.

`auto` takes the fastest that fits: the device (a GPU's memory; on CPUs this process's own, for one
rank), else memory that all ranks of a machine share, else blocks read from the store as they are
needed. The first two give the samples in the same, fully random order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import torch

from sherlock_data.errors import ConfigError
from sherlock_models.feeding import shared
from sherlock_models.memory import free_memory
from sherlock_models.parallel import World

Kind = Literal["device", "shared", "stream"]

#: share of the free memory that data may take: the rest is the model's, which is not built yet
GPU_SHARE, HOST_SHARE = 0.5, 0.75


@dataclass(frozen=True)
class Placement:
    """What was chosen, and why.

    Attributes
    ----------
    kind : {"device", "shared", "stream"}
    why : str
    ranks : int
        Of this machine, which share one copy where `kind` is `shared`.
    """

    kind: Kind
    why: str
    ranks: int = 1

    def __str__(self) -> str:
        return f"placement {self.kind} ({self.why})"


IN_PROCESS = Placement("device", "in this process")


@dataclass(frozen=True)
class Room:
    """Memory that the tightest of all ranks finds free.

    Attributes
    ----------
    device, host : int
        Bytes on the rank's device, and on its machine.
    ranks : int
        Ranks of a machine, where most are.
    gpu : bool
    """

    device: int
    host: int
    ranks: int
    gpu: bool

    @classmethod
    def of(cls, world: World | None) -> Room:
        """Look around; the same answer on every rank."""
        host = free_memory()
        if world is None:
            return cls(host, host, 1, gpu=False)
        gpu = world.device.type == "cuda"
        device = torch.cuda.mem_get_info(world.device)[0] if gpu else host
        mine = torch.tensor([[device, host, shared.machine_id()]])
        found = world.gather(mine, world.size)
        ranks = max(Counter(found[:, 2].tolist()).values())
        return cls(int(found[:, 0].min()), int(found[:, 1].min()), ranks, gpu)


def choose(asked: str, nbytes: int, room: Room, *, blocks: bool = True) -> Placement:
    """Decide where data lie.

    Parameters
    ----------
    asked : {"auto", "device", "shared", "stream"}
    nbytes : int
        Of the data, once.
    room : Room
    blocks : bool
        Whether the brains can be read from a store block by block; what is averaged over subjects
        or coded by a model is made once and held.

    Raises
    ------
    ConfigError
        If it was asked for and does not fit.
    """
    if asked == "stream" and not blocks:
        kept = choose("auto", nbytes, room, blocks=False)
        why = f"a mean or coded brain is made once and held, not streamed; {kept.why}"
        return Placement(kept.kind, why, room.ranks)
    if asked == "auto":
        return _fastest(nbytes, room, blocks)
    free = {"device": room.device // (1 if room.gpu else room.ranks), "shared": room.host}
    if asked in free and nbytes > free[asked]:
        raise ConfigError(
            f"{_gb(nbytes)} of data, {_gb(free[asked])} free",
            where=f"placement={asked}",
            remedy="use --set placement=auto or placement=stream",
        )
    kinds: dict[str, Kind] = {"device": "device", "shared": "shared", "stream": "stream"}
    return Placement(kinds[asked], "as asked", room.ranks)


def _fastest(nbytes: int, room: Room, blocks: bool) -> Placement:
    host = int(room.host * HOST_SHARE)
    data = f"{_gb(nbytes)} of data"
    if room.gpu and nbytes <= room.device * GPU_SHARE:
        why = f"auto: {data} fit in half of the GPU's {_gb(room.device)} free"
        return Placement("device", why, room.ranks)
    share = room.ranks > 1 or room.gpu
    if share and nbytes <= host and shared.available():
        why = f"auto: {data} once for {room.ranks} ranks, {_gb(room.host)} free"
        return Placement("shared", why, room.ranks)
    if not room.gpu and nbytes * room.ranks <= host:
        why = f"auto: {data} for each of {room.ranks} ranks, {_gb(room.host)} free"
        return Placement("device", why, room.ranks)
    if blocks:
        why = f"auto: {data} do not fit, {_gb(room.host)} free"
        return Placement("stream", why, room.ranks)
    raise ConfigError(
        f"{data}, {_gb(room.host)} free, and a mean or coded brain cannot be streamed",
        where="placement=auto",
        remedy="free memory, or use more machines",
    )


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f} MB"
