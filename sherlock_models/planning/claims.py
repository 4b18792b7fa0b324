"""What the first analysis of the dataset claimed, beside what is computed, and why they differ.

Its parameter counts are `claimed` in the catalogue. Its memory, hours and speed-up stand here: its
"Summary" (Options A, B and C), its "Computational Requirements" (a model of about a billion
parameters) and its "Your Setup" (eight A6000).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: passes over the data, and samples of a step, that its hours are for
EPOCHS, BATCH = 100, 32
#: seconds of a step that it assumed
STEP_S = 1.0
#: activations and their gradients of a batch, as it put them
ACTIVATIONS = 1.5e9
#: GPUs of its "Your Setup", and how many times faster they should be
SETUP_GPUS, SPEED_UP = 8, 8.0


@dataclass(frozen=True)
class Claim:
    """The first analysis about one entry; None where it says nothing.

    Attributes
    ----------
    memory : tuple of float or None
        Bytes of GPU memory, from and to.
    hours, hours_8 : tuple of float or None
        Of a training on one GPU and on eight, from and to.
    parameters : str
        Why its count is right or wrong.
    """

    memory: tuple[float, float] | None
    hours: tuple[float, float] | None
    hours_8: tuple[float, float] | None
    parameters: str


CLAIMS: dict[str, Claim] = {
    "dense-voxels": Claim(
        (12e9, 16e9),
        (24, 24),
        (1.5, 1.5),
        "its own layers add up to 530 M for each half; the 575 M has one half and a little",
    ),
    "dense-voxels-slim": Claim(
        (12e9, 16e9), (24, 24), (1.5, 1.5), "agrees: 5,000 for its 10,000 comes nearest to 575 M"
    ),
    "conv-voxels": Claim((8e9, 12e9), (12, 12), (1.5, 1.5), "agrees, to the rounding"),
    "conv-pca": Claim(
        (8e9, 8e9), (6, 8), (0.75, 0.75), "within its range, with wider layers than it drew"
    ),
    "brain-compressor": Claim(None, None, None, "agrees; the biases and 0.9 % are rounded away"),
    "dense-compressed": Claim((8e9, 16e9), (28, 28), None, "agrees, to the rounding"),
    "spatial-grid": Claim(
        None,
        None,
        None,
        "it stopped at the layer to every cell, 1.09 B; the way back has that once more",
    ),
}


def about_parameters(entry: str, claimed: str | None, parameters: int) -> dict[str, Any] | None:
    """Put the claimed count beside the exact one."""
    if claimed is None:
        return None
    why = CLAIMS[entry].parameters if entry in CLAIMS else ""
    return _row("parameters", claimed, f"{parameters:,}", why)


def about_memory(entry: str, peak: int, parameters: int, activations: int) -> dict[str, Any] | None:
    """Put the claimed memory beside what one unsharded rank takes."""
    claim = CLAIMS.get(entry)
    if claim is None or claim.memory is None:
        return None
    low, high = claim.memory
    if peak > high:
        why = (
            f"weights, gradients and AdamW's two moments take 16 bytes a parameter, "
            f"{16 * parameters / 1e9:.1f} GB; it left the moments out"
        )
    elif peak < low:
        why = (
            f"a batch's activations and their gradients take {activations / 1e9:.2f} GB, "
            f"not {ACTIVATIONS / 1e9:.1f} GB; the rest of its figure is room"
        )
    else:
        why = "within its range, though it left AdamW's moments out"
    return _row("memory", f"{_range(low / 1e9, high / 1e9)} GB", f"{peak / 1e9:.1f} GB", why)


def about_hours(
    entry: str, hours: float, gpus: int, machine: str, step_s: float, samples: int
) -> dict[str, Any] | None:
    """Put the claimed hours beside the shortest that the hardware allows."""
    claim = CLAIMS.get(entry)
    claimed = claim and (claim.hours if gpus == 1 else claim.hours_8)
    if not claimed:
        return None
    why = (
        f"it took {STEP_S:.0f} s for a step, which is {step_s * 1e3:.3g} ms at the least, and "
        f"samples without a movie; there are about {samples:,}"
    )
    what = "hours" if gpus == 1 else f"hours on {gpus} GPUs"
    return _row(what, f"{_range(*claimed)} h", f"at least {hours:.2g} h on {machine}", why)


def about_speed_up(speed_up: float, communication_s: float, compute_s: float) -> dict[str, Any]:
    """Put "8x faster" beside what the links allow at the same global batch."""
    if communication_s > compute_s:
        why = (
            f"a step's gradients and weights cross the links for {communication_s * 1e3:.3g} ms, "
            f"its sums take {compute_s * 1e3:.3g} ms; a larger batch scales better"
        )
    elif speed_up < SPEED_UP * 0.9:
        why = "reading weights takes as long for a small share of a batch as for all of it"
    else:
        why = "agrees, if every transfer hides behind the sums"
    computed = f"{speed_up:.2g} times at the most"
    return _row(f"{SETUP_GPUS} GPUs", f"{SPEED_UP:.0f} times faster", computed, why)


def _row(what: str, claimed: str, computed: str, why: str) -> dict[str, Any]:
    return {"what": what, "claimed": claimed, "computed": computed, "why": why}


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
