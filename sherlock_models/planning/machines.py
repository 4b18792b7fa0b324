"""What a step's time and memory are reckoned with: a table of accelerators, and this machine.

The figures are the makers' stated peaks, which no kernel reaches; a time made from them is the
shortest that the hardware allows. Sources are NVIDIA's data sheets: RTX A6000 (2021), A100 (2021),
H100 (2023), H200 (2024), the Ampere GA102 (2021) and Ada (2023) whitepapers for the RTX cards.
Tensor-core figures are without sparsity and accumulate in float32. float32 is the rate of the
ordinary cores: training here does not switch TF32 on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from sherlock_data.errors import ConfigError, did_you_mean

_GIB = 2**30
#: share of a card's memory that stays with the driver's context, cuDNN's workspaces and the
#: allocator's gaps
RESERVED = 0.1
#: GPUs of one machine
GPUS_PER_NODE = 8
#: GB/s of each direction: PCIe 4.0 x16; NVLink of the third and fourth generation
_PCIE4, _NVLINK3, _NVLINK4 = 31.5e9, 300e9, 450e9
#: per GPU: one 100 Gb/s port for eight cards; one 200 or 400 Gb/s port per card (DGX A100, H100)
_SHARED_PORT, _HDR, _NDR = 12.5e9 / GPUS_PER_NODE, 25e9, 50e9


@dataclass(frozen=True)
class Machine:
    """One accelerator, and how it is joined to others.

    Attributes
    ----------
    name : str
    memory : int
        Bytes.
    flops_fp32, flops_bf16 : float or None
        FLOP/s; None where unknown.
    bandwidth : float or None
        Bytes/s of its memory.
    link, network : float or None
        Bytes/s in each direction, per GPU: within a machine and between machines.
    """

    name: str
    memory: int
    flops_fp32: float | None
    flops_bf16: float | None
    bandwidth: float | None
    link: float | None = None
    network: float | None = None

    def flops(self, precision: str) -> float | None:
        """FLOP/s of a precision."""
        return self.flops_bf16 if precision == "bf16" else self.flops_fp32

    def transfer_s(self, inside: int, between: int) -> float | None:
        """Shortest time for a GPU's bytes within a machine and through the network, at once.

        None where a link that is needed is unknown.
        """
        times = []
        for nbytes, rate in ((inside, self.link), (between, self.network)):
            if nbytes and rate is None:
                return None
            times.append(nbytes / rate if rate else 0.0)
        return max(times)

    @property
    def usable(self) -> int:
        """Bytes that training can have."""
        return int(self.memory * (1 - RESERVED))


MACHINES: dict[str, Machine] = {
    machine.name: machine
    for machine in (
        Machine("a6000", 48 * _GIB, 38.7e12, 154.8e12, 768e9, _PCIE4, _SHARED_PORT),
        Machine("a100", 80 * _GIB, 19.5e12, 312e12, 2_039e9, _NVLINK3, _HDR),
        Machine("h100", 80 * _GIB, 67e12, 989e12, 3_350e9, _NVLINK4, _NDR),
        Machine("a100-40", 40 * _GIB, 19.5e12, 312e12, 1_555e9, _NVLINK3, _HDR),
        Machine("h200", 141 * _GIB, 67e12, 989e12, 4_800e9, _NVLINK4, _NDR),
        Machine("rtx4090", 24 * _GIB, 82.6e12, 165.2e12, 1_008e9, _PCIE4, _SHARED_PORT),
        Machine("rtx3090", 24 * _GIB, 35.6e12, 71e12, 936e9, _PCIE4, _SHARED_PORT),
        Machine("rtx3060", 12 * _GIB, 12.7e12, 25.6e12, 360e9, _PCIE4, _SHARED_PORT),
    )
}
#: shown where none is named
USUAL = ("a6000", "a100", "h100")
#: this machine's processor
CPU = "cpu"


def machine(
    name: str,
    *,
    flops: float | None = None,
    bandwidth: float | None = None,
    memory: float | None = None,
    try_out: bool = False,
) -> Machine:
    """Look a machine up; what the caller knows better wins.

    Parameters
    ----------
    name : str
        Of the table, or `cpu`; any other name is a card of the caller's own, who must then give
        all three figures.
    flops : float, optional
        FLOP/s, of either precision.
    bandwidth : float, optional
        Bytes/s.
    memory : float, optional
        Bytes.
    try_out : bool
        Measure FLOP/s and bandwidth of `cpu`.

    Raises
    ------
    ConfigError
        If the name is unknown and not all figures are given.
    """
    known = here(try_out) if name == CPU else MACHINES.get(name.lower())
    if known is None:
        if not (flops and bandwidth and memory):
            raise ConfigError(
                f"no machine '{name}'",
                where="--gpu",
                remedy=f"{did_you_mean(name, [*MACHINES, CPU])}; or give a card of your own with "
                "--flops, --bandwidth and --memory",
            )
        known = Machine(name, 0, None, None, None)
    return replace(
        known,
        memory=int(memory or known.memory),
        flops_fp32=flops or known.flops_fp32,
        flops_bf16=flops or known.flops_bf16,
        bandwidth=bandwidth or known.bandwidth,
    )


def here(try_out: bool = False) -> Machine:
    """Return this machine's processor: its memory, and on request its speed.

    Parameters
    ----------
    try_out : bool
        Time a matrix product and a copy; about a second.
    """
    import psutil

    memory = int(psutil.virtual_memory().total)
    if not try_out:
        return Machine(CPU, memory, None, None, None)
    rate, bandwidth = _flops(), _bandwidth()
    return Machine(CPU, memory, rate, None, bandwidth)


def _flops(n: int = 1024) -> float:
    """FLOP/s of a float32 matrix product, (n, n) by (n, n)."""
    import torch

    a, b = torch.randn(n, n), torch.randn(n, n)
    return 2 * n**3 / _shortest(lambda: torch.mm(a, b))


def _bandwidth(numbers: int = 2**25) -> float:
    """Bytes/s of a copy, reads and writes counted."""
    import torch

    source = torch.ones(numbers)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _shortest(lambda: target.copy_(source))


def _shortest(work: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the quickest of some repeats, the first one not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
