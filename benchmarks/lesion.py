"""Lesions of 400 parcels over 200 TRs: ours, running the model again, and the limit.

    python benchmarks/lesion.py [--units 400] [--trs 200] [--width 0.25] [--json OUT]

ours     `sherlock_models.lesions.effects`: the brain is encoded once, the first layer once, many
         units in a batch, a dense last layer never, transposed convolutions sixteen at a time
peer     the model run again for every unit, movie to brain to movie, and its squared error: whole,
         and by part as ours (quadrants and octaves of the picture, bands of the sound)
limit    what the decoder multiplies behind its first layer, once for every unit, as fast as this
         machine multiplies large matrices; ours can be below it where a dense layer is skipped

Weights are random and stimuli are in memory: nothing is read or normalised by any of the three.
The peer is linear in the units, so it is timed on a tenth of them and multiplied; ours runs on all.
Effects of the peer's units are compared, in shares of the target's variance.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sherlock_data.catalog import load_catalog
from sherlock_models.architectures.autoencoder import BrainAutoencoder
from sherlock_models.lesions.brain import Reading
from sherlock_models.lesions.effects import Decoding, increases
from sherlock_models.lesions.first_layer import CutDecoder
from sherlock_models.scoring.error_parts import OCTAVES, PictureParts, VectorParts
from sherlock_models.sizes import Sizes
from sherlock_models.zoo import build_model

VIDEO, AUDIO = (90, 160, 3), 40
BATCH = 32
ENTRIES = {"conv-parcels": "conv-parcels", "dense (as dense-voxels)": "dense-voxels"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--units", type=int, default=400)
    arguments.add_argument("--trs", type=int, default=200)
    arguments.add_argument("--width", type=float, default=0.25)
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--json", type=Path)
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for label, entry in ENTRIES.items():
        rows += measure(label, entry, args)
    print(f"{args.units} units, {args.trs} TRs, width {args.width}, {args.threads} threads")
    print(f"{'entry':40} {'seconds':>9} {'x ours':>7} {'difference':>11}")
    for row in rows:
        apart = "" if row["difference"] is None else f"{row['difference']:.1e}"
        name = f"{row['entry']}, {row['way']}"
        print(f"{name:40} {row['seconds']:9.1f} {row['times_ours']:7.2f} {apart:>11}")
    if args.json:
        args.json.write_text(json.dumps({"settings": _plain(vars(args)), "rows": rows}, indent=2))


@torch.inference_mode()
def measure(label: str, entry: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    sizes = Sizes({"video": VIDEO, "audio": (AUDIO,)}, (args.units,))
    options = {"width": args.width}
    model = build_model(load_catalog(None).models[entry], sizes, options).eval()
    stimulus = {
        "video": torch.randn(args.trs, 1, 3, *VIDEO[:2]),
        "audio": torch.randn(args.trs, 1, AUDIO),
    }
    target = {name: values[:, 0] for name, values in stimulus.items()}
    tenth = max(1, args.units // 10)
    effect, ours_s = timed(lambda: ours(model, stimulus, target))
    seconds = {"ours": ours_s}
    difference: dict[str, float] = {}
    for way, sums in {"peer, whole": whole, "peer, by part": by_part}.items():
        again, peer_s = timed(partial(run_again, model, stimulus, target, tenth, sums))
        seconds[way] = peer_s * args.units / tenth
        columns = [0, -1 - AUDIO] if sums is whole else slice(None)
        difference[way] = float(np.abs(effect[:tenth, columns] - again).max())
    seconds["limit"] = products_behind_first(model) / matrix_speed() * args.units * args.trs
    return [
        {
            "entry": label,
            "way": way,
            "seconds": value,
            "times_ours": value / ours_s,
            "difference": difference.get(way),
        }
        for way, value in seconds.items()
    ]


def whole(error: Tensor) -> Tensor:
    """Sum of squares of a batch's errors, (1,)."""
    return error.square().sum()[None]


def by_part(error: Tensor) -> Tensor:
    """Sum of squares, and of every part's, in the order of `ours`: by torch's own transform."""
    square = error.square()
    if error.ndim == 2:
        return torch.cat([whole(error), square.sum(0)])
    up, left = VIDEO[0] // 2, VIDEO[1] // 2
    halves = square[..., :up, :], square[..., up:, :]
    corners = [side.sum() for half in halves for side in (half[..., :left], half[..., left:])]
    waves = torch.view_as_real(torch.fft.rfft2(error, norm="ortho"))
    power = waves.square().sum((0, 1, 4))
    power[:, 1:-1] *= 2  # what a real picture's transform leaves out
    down = torch.fft.fftfreq(VIDEO[0], 1 / VIDEO[1])
    cycles = (down[:, None].square() + torch.arange(power.shape[1]).square()).sqrt()
    edges = [0.0, *OCTAVES, torch.inf]
    octaves = [power[(a <= cycles) & (cycles < b)].sum() for a, b in pairwise(edges)]
    return torch.stack([sum(corners), *corners, *octaves])


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def batches(trs: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, trs, BATCH)]


def run_again(
    model: BrainAutoencoder,
    stimulus: dict[str, Tensor],
    target: dict[str, Tensor],
    units: int,
    sums: Callable[[Tensor], Tensor],
) -> np.ndarray:
    """Mean squared error without each unit less that with it, (units, targets)."""

    def without(unit: int | None, predicted: Tensor) -> Tensor:
        if unit is not None:
            predicted[:, unit] = 0
        return predicted

    def error(unit: int | None) -> np.ndarray:
        total = {name: torch.zeros(()) for name in target}
        for rows in batches(len(target["video"])):
            seen = {name: values[rows] for name, values in stimulus.items()}
            told = model(seen, channel=partial(without, unit)).stimulus
            for name in target:
                total[name] = total[name] + sums(told[name] - target[name][rows]).double()
        return torch.cat([total[name] / target[name].numel() for name in target]).numpy()

    everything = error(None)
    return np.stack([error(unit) - everything for unit in range(units)])


def products_behind_first(model: BrainAutoencoder) -> int:
    """Floating-point operations of the decoder behind its first layer, for one sample."""
    with FlopCounterMode(display=False) as counter:
        model.decoder(torch.zeros(1, model.sizes.units))
    first = CutDecoder.of(model.decoder, model.sizes.units).first
    if first is None:
        raise SystemExit("this decoder has no dense first layer")
    return counter.get_total_flops() - 2 * first.weight.numel()


def matrix_speed(size: int = 2048, times: int = 5) -> float:
    """Floating-point operations a second of this machine's matrix product, at its best."""
    matrix = torch.randn(size, size)
    return 2 * size**3 / min(timed(lambda: matrix @ matrix)[1] for _ in range(times))


def ours(
    model: BrainAutoencoder,
    stimulus: dict[str, Tensor],
    target: dict[str, Tensor],
) -> np.ndarray:
    """Mean effect of every unit on every target, (units, targets)."""
    rows_of = batches(len(target["video"]))
    encoded = [model.encode({n: v[rows] for n, v in stimulus.items()}) for rows in rows_of]
    read = torch.cat(encoded)
    trs = np.arange(len(read))
    reading = Reading(trs, np.ones(len(read)), read, torch.zeros_like(read))
    parts = {
        "video": PictureParts("video", (3, *VIDEO[:2])),
        "audio": VectorParts("audio", [f"band {b}" for b in range(AUDIO)]),
    }
    decoding = Decoding(CutDecoder.of(model.decoder, model.sizes.units), parts, target, trs)
    changes = [
        partial(lambda unit, rows: reading.change(unit, rows, False), np.array([unit]))
        for unit in range(model.sizes.units)
    ]
    found = increases(decoding, reading, changes, read).mean(axis=1)
    numbers = [target[name.split("/")[0]][0].numel() for name in decoding.names]
    return found / np.array(numbers)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}


if __name__ == "__main__":
    main()
