"""Lesions of 400 parcels over 200 TRs: ours, running the model again, and the limit.

    python benchmarks/lesion.py [--units 400] [--trs 200] [--width 0.25] [--json OUT]

ours     `sherlock_models.lesions.effects`: the brain is encoded once, the first layer once, many
         units in a batch, a dense last layer never, transposed convolutions as folded products
peer     the model run again for every unit, movie to brain to movie, and its squared error
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
from sherlock_models.scoring.error_parts import PictureParts, VectorParts
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
    print(f"{'entry':26} {'seconds':>9} {'x peer':>7} {'x limit':>8} {'difference':>11}")
    for row in rows:
        print(
            f"{row['entry'] + ', ' + row['way']:26} {row['seconds']:9.1f} {row['peer']:7.1f} "
            f"{row['limit']:8.2f} {row['difference'] or 0:11.1e}"
        )
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
    factor = args.units / tenth
    peer_effect, peer_s = timed(lambda: run_again(model, stimulus, target, tenth))
    limit_s = products_behind_first(model) / matrix_speed() * args.units * args.trs
    peer_s *= factor
    effect, ours_s = timed(lambda: ours(model, stimulus, target, whole_only=True))
    parts, parts_s = timed(lambda: ours(model, stimulus, target, whole_only=False))
    difference = float(np.abs(effect[:tenth] - peer_effect).max())
    wholes = [0, 1 + 4 + 5]  # the picture, then the sound behind the picture's parts
    with_parts = float(np.abs(parts[:tenth][:, wholes] - peer_effect).max())
    seconds = {
        "ours": (ours_s, difference),
        "ours, by part": (parts_s, with_parts),
        "peer": (peer_s, None),
        "limit": (limit_s, None),
    }
    return [
        {
            "entry": label,
            "way": way,
            "seconds": value,
            "peer": peer_s / value,
            "limit": limit_s / value,
            "difference": apart,
        }
        for way, (value, apart) in seconds.items()
    ]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def batches(trs: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, trs, BATCH)]


def run_again(
    model: BrainAutoencoder, stimulus: dict[str, Tensor], target: dict[str, Tensor], units: int
) -> np.ndarray:
    """Mean squared error without each unit less that with it, (units, stimuli)."""

    def without(unit: int | None, predicted: Tensor) -> Tensor:
        if unit is not None:
            predicted[:, unit] = 0
        return predicted

    def error(unit: int | None) -> np.ndarray:
        total = np.zeros(len(target))
        for rows in batches(len(target["video"])):
            seen = {name: values[rows] for name, values in stimulus.items()}
            told = model(seen, channel=partial(without, unit)).stimulus
            total += [float((told[n] - target[n][rows]).square().sum()) for n in target]
        return total / [values.numel() for values in target.values()]

    whole = error(None)
    return np.stack([error(unit) - whole for unit in range(units)])


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
    whole_only: bool,
) -> np.ndarray:
    """Mean effect of every unit on every target, (units, targets)."""
    rows_of = batches(len(target["video"]))
    encoded = [model.encode({n: v[rows] for n, v in stimulus.items()}) for rows in rows_of]
    read = torch.cat(encoded)
    trs = np.arange(len(read))
    reading = Reading(trs, np.ones(len(read)), read, torch.zeros_like(read))
    parts = {
        "video": PictureParts("video", (3, *VIDEO[:2]), whole_only),
        "audio": VectorParts("audio", [f"band {b}" for b in range(AUDIO)], whole_only),
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
