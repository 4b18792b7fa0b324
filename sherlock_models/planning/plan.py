"""What an entry takes before it is trained: memory, GPUs, time, links, disk.

Parameters are exact; activations and FLOPs are traced (`planning.footprint`); times are the
shortest that a machine's stated peaks allow. The first analysis's claims stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sherlock_data.catalog import Catalog, load_catalog
from sherlock_data.errors import ConfigError, SherlockError
from sherlock_models.memory import free_memory
from sherlock_models.planning import claims
from sherlock_models.planning.footprint import Footprint
from sherlock_models.planning.machines import Machine
from sherlock_models.planning.prepare import Training, prepare
from sherlock_models.planning.scaling import Parallel, Share
from sherlock_models.planning.step_trace import FLOAT32, Part
from sherlock_models.resolve import settable
from sherlock_models.training.saving import COPY_SHARE, FILE_BYTES

#: GPUs over which a step is spread to see how far it scales, and how: one machine, eight of them
SCALED: tuple[tuple[int, Parallel], ...] = (
    (8, "fsdp"),
    (8, "ddp"),
    (64, "fsdp"),
    (64, "ddp"),
    (64, "hybrid"),
)
#: weights and moments of a checkpoint, float32
CHECKPOINT_BYTES = 3 * FLOAT32
#: checkpoints on disk at one time beside those of `keep`: `last`, `best`, and the one being written
CHECKPOINTS = 3


#: keys of a row that need sizes
TRACED = (
    "trainable",
    "parts",
    "layers",
    "batch_size",
    "precision",
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "peak",
    "data",
    "checkpoint",
    "disk",
    "host",
    "forward_flops",
    "flops",
    "samples",
    "machines",
    "claims",
)


def plan(
    machines: Sequence[Machine],
    *,
    entries: Sequence[str] | None = None,
    catalog: str | Path | None = None,
    data: str | Path | None = None,
    gpus: int = 1,
    options: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Say what entries take; allocates nothing.

    Parameters
    ----------
    machines : sequence of Machine
    entries : sequence of str, optional
        All of the catalogue by default.
    catalog : path, optional
        Catalogue laid over the packaged one.
    data : path, optional
        Dataset folder whose stores give the sizes; the entry's reference sizes without one.
    gpus : int
        Ranks that share a batch.
    options : mapping, optional
        As `sherlock-train --set` takes them; of several entries, each takes those it knows.

    Returns
    -------
    list of dict
        One per entry, see :func:`row`.
    """
    known = load_catalog(catalog)
    if entries:
        prepared = [prepare(known, name, catalog, data, options or {}) for name in entries]
        return [
            row(known, name, training, machines, gpus)
            for name, training in zip(entries, prepared, strict=True)
        ]
    rows = []
    for name, theirs in _divided(known, options or {}).items():
        try:
            training = prepare(known, name, catalog, data, theirs)
        except SherlockError as error:  # a store is not there, or is no store for this entry
            rows.append({**row(known, name, None, machines, gpus), "unknown": str(error)})
            continue
        rows.append(row(known, name, training, machines, gpus))
    return rows


def _divided(known: Catalog, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give every entry the options it knows; one that none knows is an error."""
    theirs = {
        name: {key: value for key, value in options.items() if key in settable(model)}
        for name, model in known.models.items()
    }
    for key in options:
        if not any(key in own for own in theirs.values()):
            raise ConfigError(f"no entry knows the key '{key}'", where="--set")
    return theirs


def row(
    known: Catalog, entry: str, training: Training | None, machines: Sequence[Machine], gpus: int
) -> dict[str, Any]:
    """Everything about one entry.

    Returns
    -------
    dict
        `entry`, `architecture`, `brain`, `stimulus`, `parameters`, `claimed`; the rest is None
        where only a store can tell: `trainable`, `parts` (parameters by part), `layers` (of every
        layer: parameters, forward FLOPs, bytes of activations), `batch_size`, `precision`,
        `weights`, `gradients`, `optimizer`, `activations`, `data`, `peak`, `checkpoint`, `disk`
        (bytes), `host` (bytes of a process that trains on the processor), `flops` (of a step),
        `samples`, `machines` (one document each) and `claims`.
    """
    found = _identity(known, entry)
    if training is None:
        return {**found, **dict.fromkeys(TRACED)}
    one = training.footprint()
    checkpoint = CHECKPOINT_BYTES * one.trainable + FLOAT32 * (one.parameters - one.trainable)
    on_machines = [_on(training, machine, gpus) for machine in machines]
    return {
        **found,
        "parameters": one.parameters,
        "trainable": one.trainable,
        "parts": parts(one),
        "layers": [asdict(part) for part in one.parts],
        "batch_size": training.config.batch_size,
        "precision": training.config.precision,
        "weights": one.weights,
        "gradients": one.gradients,
        "optimizer": one.optimizer,
        "activations": one.activations,
        "peak": one.peak,
        "data": training.data,
        "checkpoint": checkpoint,
        "disk": checkpoint * (CHECKPOINTS + training.config.keep),
        "host": _host(training, checkpoint),
        "forward_flops": one.forward_flops,
        "flops": one.flops,
        "samples": training.extent.training_samples,
        "machines": on_machines,
        "claims": _claims(entry, found["claimed"], training, machines),
    }


def parts(footprint: Footprint) -> dict[str, int]:
    """Parameters of the encoder's trunk and brain head, the decoder, and whatever else there is."""
    found: dict[str, int] = {}
    for part in footprint.parts:
        found[_whole(part)] = found.get(_whole(part), 0) + part.parameters
    return {name: parameters for name, parameters in found.items() if parameters}


def _whole(part: Part) -> str:
    """Part of the model that a layer belongs to: `encoder.trunk`, `encoder.head`, `decoder`."""
    names = part.name.split(".")
    return ".".join(names[:2]) if names[0] == "encoder" else names[0]


def _identity(known: Catalog, entry: str) -> dict[str, Any]:
    model = known.model(entry)
    return {
        "entry": entry,
        "architecture": model.architecture,
        "brain": model.brain,
        "stimulus": list(model.stimulus),
        "parameters": None,
        "claimed": model.claimed,
    }


def _host(training: Training, checkpoint: int) -> dict[str, int]:
    """Bytes of a process that trains on the processor, beside Python and the libraries."""
    one = training.footprint()
    # gradients are let go behind every step, before a checkpoint is written
    held = one.weights + one.optimizer + training.data
    # where there is no room for a copy, the steps wait
    copied = checkpoint if checkpoint <= (free_memory() - held) * COPY_SHARE else 0
    return {
        "training": one.resident + training.data,
        "checkpoint": held + copied + _written_at_once(one),
    }


def _written_at_once(footprint: Footprint) -> int:
    """Bytes that writing a checkpoint takes: two copies of a file, or of the largest tensor."""
    largest = max((part.parameters for part in footprint.parts), default=0)
    whole = CHECKPOINT_BYTES * footprint.parameters
    return 2 * min(whole, max(FILE_BYTES, FLOAT32 * largest))


def _on(training: Training, machine: Machine, gpus: int) -> dict[str, Any]:
    """One entry on so many of one machine, sharded where there are several."""
    usable = machine.usable
    alone, share = training.share(1), training.share(gpus)
    several = gpus > 1
    way: Parallel = "fsdp" if several else "ddp"
    step, first = share.step_s(machine, way), alone.step_s(machine, "ddp")
    steps = training.extent.training_samples / training.config.batch_size
    # bf16 is FSDP's mixed precision, on one GPU too
    held = share.sharded if several or share.precision == "bf16" else share.unsharded
    return {
        "machine": machine.name,
        "gpus": gpus,
        "memory": machine.memory,
        "peak": held,
        "peak_unsharded": share.unsharded,
        "fits": held <= usable,
        "data_fits_beside": held + training.data <= usable,
        "gpus_needed": training.needed(usable, lambda s: s.unsharded),
        "gpus_needed_sharded": training.needed(usable, lambda s: s.sharded),
        "compute_s": share.compute_s(machine, way),
        "sent": share.sent(way).whole,
        "communication_s": share.communication_s(machine, way),
        "step_s": step,
        "samples_per_s": training.config.batch_size / step if step else None,
        "speed_up": first / step if first and step else None,
        "hours": steps * claims.EPOCHS * step / 3600 if step else None,
        "scaling": [_scaled(training, machine, ranks, way) for ranks, way in SCALED],
    }


def _scaled(training: Training, machine: Machine, ranks: int, parallel: Parallel) -> dict[str, Any]:
    """One entry over so many of one machine, the global batch as it is and N times it."""
    alone, share = training.share(1), training.share(ranks)
    gathered = share.gathered * ranks
    larger = Share(ranks, alone.footprint, alone.precision, gathered)
    first, step, whole = (
        alone.step_s(machine, "ddp"),
        share.step_s(machine, parallel),
        larger.step_s(machine, parallel),
    )
    sent = share.sent(parallel)
    return {
        "machine": machine.name,
        "gpus": ranks,
        "parallel": parallel,
        "peak": share.peak(parallel),
        "fits": share.peak(parallel) <= machine.usable,
        "sent": sent.whole,
        "sent_between_machines": sent.between,
        "compute_s": share.compute_s(machine, parallel),
        "communication_s": share.communication_s(machine, parallel),
        "step_s": step,
        "speed_up": first / step if first and step else None,
        "speed_up_larger_batch": ranks * first / whole if first and whole else None,
    }


def _quickest(share: Share, machine: Machine | None) -> Parallel:
    """Replicas where they fit and send no more, else shards."""
    fits = machine is None or share.peak("ddp") <= machine.usable
    return "ddp" if fits and share.sent("ddp").whole <= share.sent("fsdp").whole else "fsdp"


def _claims(
    entry: str, claimed: str | None, training: Training, machines: Sequence[Machine]
) -> list[dict[str, Any]]:
    """Put the first analysis beside the first of the machines."""
    one = training.footprint()
    said = [
        claims.about_parameters(entry, claimed, one.parameters),
        claims.about_memory(entry, one.peak, one.trainable, one.activations),
    ]
    for gpus in (1, claims.SETUP_GPUS):
        share = training.share(gpus)
        machine = machines[0] if machines else None
        way = _quickest(share, machine)
        step = share.step_s(machine, way) if machine else None
        if machine is None or step is None or entry not in claims.CLAIMS:
            continue
        samples = training.extent.training_samples
        hours = samples / training.config.batch_size * claims.EPOCHS * step / 3600
        said.append(claims.about_hours(entry, hours, gpus, machine.name, step, samples))
        if gpus > 1:
            alone = training.share(1).step_s(machine, "ddp") or math.nan
            sending = share.communication_s(machine, way) or 0.0
            compute = share.compute_s(machine, way) or 0.0
            said.append(claims.about_speed_up(alone / step, sending, compute))
    return [claim for claim in said if claim is not None]
