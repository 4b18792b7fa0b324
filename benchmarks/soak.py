"""Soak: build, verify, train, resume, evaluate, lesion and decode for an hour, with random kills.

An undisturbed way through tiny data is the reference. Then two kinds of rounds take turns. In one,
a process that lives all the time goes the whole way through the Python API, with an interrupted
training; what it holds is sampled after every round. In the other, commands are processes of their
own that are killed at a random instant (SIGKILL, now and then SIGTERM or Ctrl-C) and run again to
the end. Every value of every round must be that of the reference, bit by bit; trainings on two
ranks have a reference of their own, as their sums are added in another order.

    python benchmarks/soak.py --minutes 60 --seed 0 --json soak.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from soak_kills import Commands, Ended, Kill
from soak_way import STAGES, Values, Way, differing, files_of, half_written, prepare, values_of
from soak_worker import DECODE_EVERY, flatness, serve

from sherlock_models.run import CONFIG

#: stages of a round of commands; `resume` comes with the training
ORDER = ("build", "verify", "train", "evaluate", "lesion", "decode")
#: kills of one stage, and how likely each number is
KILLS, LIKELY = (0, 1, 2), (0.2, 0.55, 0.25)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
OFTEN = (0.7, 0.15, 0.15)
#: shares of the rounds that a shell starts, and of those that train on two ranks
BY_SHELL, TWO_RANKS = 0.25, 0.6
TAIL = 1500
#: in the path of every command's own files
OURS = f"{os.sep}cli{os.sep}"
TRACEBACK = re.compile(
    r"(?P<ignored>Exception ignored in[^\n]*\n)?Traceback \(most recent call last\)"
)
#: a folder in the temp folder that torch makes once and keeps
CACHES = ("torchinductor_",)
NOTES = Console(stderr=True, highlight=False)


@dataclass
class Counts:
    """What happened."""

    rounds: Counter[str] = field(default_factory=Counter)
    kills: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    too_late: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    left_by_sigkill: Counter[str] = field(default_factory=Counter)
    wrong_values: list[str] = field(default_factory=list)
    half_written: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    cut_short: int = 0
    hung: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    open_files: list[dict[str, int]] = field(default_factory=list)

    FAULTS = ("wrong_values", "half_written", "leftovers", "orphans", "hung", "tracebacks")
    FAULTS += ("failed",)

    @property
    def bad(self) -> int:
        """Faults of any kind."""
        return sum(len(getattr(self, name)) for name in self.FAULTS)

    def judge(self, where: str, values: Values, files: set[str], wanted: Reference) -> None:
        """Compare what a round left with the reference."""
        self.wrong_values += [f"{where}: {name}" for name in differing(values, wanted.values)]
        self.leftovers += [f"{where}: {name}" for name in sorted(files - wanted.files)]

    def note(self, where: str, ended: Ended) -> None:
        """Count what is wrong with the end of a command, however it ended."""
        self.orphans += [f"{where}: {line}" for line in ended.orphans]
        if ended.hung:
            self.hung.append(f"{where}: {ended.said[-TAIL:]}")
        for found in TRACEBACK.finditer(ended.said):
            traceback = ended.said[found.start() : found.start() + 4 * TAIL]
            # torch lets its ranks be interrupted by the system when their launcher is killed
            told = ended.sent == signal.SIGKILL and "KeyboardInterrupt" in traceback
            interrupted = ended.sent == signal.SIGINT or told
            if interrupted and (found["ignored"] or OURS not in traceback):
                # Python cannot raise it where it calls a library's __del__; or it came before a
                # line of the command was run
                self.cut_short += 1
                continue
            around = ended.said[max(0, found.start() - TAIL // 4) : found.start() + TAIL]
            self.tracebacks.append(f"{where}: {around}")
        made = [name for name in ended.temporary if not name.startswith(CACHES)]
        if ended.sent == signal.SIGKILL:
            self.left_by_sigkill.update(name[:14] for name in made)
        else:
            self.leftovers += [f"{where}: temporary {name}" for name in made]


@dataclass(frozen=True)
class Reference:
    """What an undisturbed way leaves."""

    values: Values
    files: set[str]


class Soak:
    """The rounds and what they need.

    Parameters
    ----------
    folder : Path
        For everything that is made.
    seed : int
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng, self.counts = folder, np.random.default_rng(seed), Counts()
        self.raw = folder / "raw"
        self.commands = Commands(folder)
        self.references: dict[int, Reference] = {}
        self.took: dict[tuple[str, bool, int], list[float]] = defaultdict(list)
        prepare(self.raw)
        self._start_worker()

    def _start_worker(self) -> None:
        context = multiprocessing.get_context("spawn")
        temporary = self.folder / "worker-tmp"
        temporary.mkdir()
        os.environ["TMPDIR"], before = str(temporary), os.environ["TMPDIR"]
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, self.raw, self.folder, temporary)
        self.worker = context.Process(target=serve, args=arguments)
        self.worker.start()
        os.environ["TMPDIR"] = before
        theirs.close()

    def refer(self) -> None:
        """Go the way undisturbed: on one rank parted from the server, on two by a shell."""
        for shell, ranks in ((False, 1), (True, 2)):
            way, where = Way(self.raw, self.folder / "reference"), f"reference, {ranks} ranks"
            for stage in ORDER:
                self._to_its_end(way, where, stage, shell, ranks)
            self.references[ranks] = Reference(values_of(way), files_of(way))
            way.remove()

    def by_worker(self) -> None:
        """One round of the process that lives all the time."""
        number, wanted = self.counts.rounds["worker"], self.references[1]
        seed = int(self.rng.integers(2**31))
        self.pipe.send((number, seed, (wanted.values, wanted.files) if number == 0 else None))
        done = self.pipe.recv()
        where = f"worker, round {number}"
        self.counts.rounds["worker"] += 1
        self.counts.resumed += "resume" in done["seconds"]
        self.counts.wrong_values += [f"{where}: {name}" for name in done["wrong"]]
        self.counts.leftovers += [f"{where}: {name}" for name in done["left"]]
        self.counts.failed += [f"{where}: {done['failed']}"] if done["failed"] else []
        self.counts.samples.append(done["sample"])
        self.counts.open_files.append(done["open"])

    def by_commands(self) -> None:
        """One round of commands that are killed and run again."""
        number = self.counts.rounds["commands"]
        shell = bool(self.rng.random() < BY_SHELL)
        ranks = 2 if shell and self.rng.random() < TWO_RANKS else 1
        way = Way(self.raw, self.folder / f"commands-{number}")
        where = f"commands, round {number}, {ranks} ranks"
        self.counts.rounds["commands"] += 1
        self.counts.rounds["of them by a shell"] += shell
        self.counts.rounds["of them on two ranks"] += ranks == 2
        film = number % DECODE_EVERY == 0
        stages = [stage for stage in ORDER if film or stage != "decode"]
        again = str(self.rng.choice(["evaluate", "lesion"]))  # over what is there already
        try:
            for stage in (*stages, again):
                self._killed(way, where, stage, shell, ranks)
            self._to_its_end(way, where, "verify", shell, ranks)
        except RuntimeError as error:
            self.counts.failed.append(str(error))
        else:
            wanted, keep = self.references[ranks], way.folder / "film.mp4"
            names = {n for n in wanted.values if keep.exists() or not n.startswith("film")}
            expected = Reference({n: wanted.values[n] for n in names}, wanted.files)
            self.counts.judge(where, values_of(way), files_of(way), expected)
        way.remove()

    def _killed(self, way: Way, where: str, stage: str, shell: bool, ranks: int) -> None:
        """Kill a stage some times, look at what is there, and run it to its end."""
        kills = int(self.rng.choice(KILLS, p=LIKELY))
        for _ in range(max(kills, stage == "train")):
            now = _now(way, stage)
            usual = self._usual(now, shell, ranks)
            by = SIGNALS[self.rng.choice(len(SIGNALS), p=OFTEN)]
            group = bool(by == signal.SIGINT or self.rng.random() < 0.5)
            kill = Kill(float(self.rng.uniform(0, usual)), by, group)
            ended = self.commands.run(way.words(now, ranks), kill, shell)
            told = f"{where}, {now}, {by.name} to {'all' if group else 'it'} at {kill.after_s:.2f}"
            self.counts.note(told, ended)
            if ended.code == 0:
                self.counts.too_late[now] += 1
                return
            if ended.sent is None:
                raise RuntimeError(f"{told}: exit {ended.code} by itself: {ended.said[-TAIL:]}")
            self.counts.kills[now][by.name] += 1
            half = half_written(way, self.references[ranks].values)
            self.counts.half_written += [f"{told}: {name}" for name in half]
        self.counts.resumed += _now(way, stage) == "resume"
        self._to_its_end(way, where, _now(way, stage), shell, ranks)

    def _usual(self, stage: str, shell: bool, ranks: int) -> float:
        """Seconds a stage takes undisturbed, of late; of what is most like it where not known."""
        like = ((stage, shell, ranks), (stage, shell, 2), ("train", shell, ranks))
        known = [self.took[key] for key in (*like, ("train", shell, 2)) if self.took[key]]
        return float(median(known[0]))

    def _to_its_end(self, way: Way, where: str, stage: str, shell: bool, ranks: int) -> None:
        ended = self.commands.run(way.words(stage, ranks), None, shell)
        self.counts.note(f"{where}, {stage}", ended)
        if ended.code != 0:
            raise RuntimeError(f"{where}, {stage}: exit {ended.code}: {ended.said[-TAIL:]}")
        self.took[stage, shell, ranks] = [*self.took[stage, shell, ranks][-6:], ended.seconds]

    def close(self) -> None:
        """End the worker."""
        if self.worker.is_alive():
            self.pipe.send(None)
            self.worker.join(60)
        if self.worker.is_alive():
            self.worker.kill()


def _now(way: Way, stage: str) -> str:
    """Return `resume` for a training that has begun."""
    return "resume" if stage == "train" and (way.run / CONFIG).exists() else stage


def shared_memory() -> set[str]:
    """Name the shared memory that nobody has mapped."""
    names = {path.name for path in Path("/dev/shm").iterdir()}  # noqa: S108 - it is looked at
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            used = maps.read_text()
        except OSError:  # it ended, or is another user's
            continue
        names -= {name for name in names if f"/dev/shm/{name}" in used}  # noqa: S108
    return names


def document(counts: Counts, seed: int, minutes: float, shared: list[str]) -> dict[str, Any]:
    """Everything that was counted, as JSON has it."""
    plain = {name: getattr(counts, name) for name in (*Counts.FAULTS, "samples")}
    return {
        "seed": seed,
        "minutes": round(minutes, 1),
        "rounds": counts.rounds,
        "kills": counts.kills,
        "too_late": counts.too_late,
        "resumed": counts.resumed,
        "interrupts_not_heard": counts.cut_short,
        "left_by_sigkill": counts.left_by_sigkill,
        "shared_memory": shared,
        "worker": flatness(counts.samples),
        "open_files": counts.open_files[
            len(counts.open_files) // 4 :: max(1, len(counts.open_files) // 3)
        ],
        **plain,
    }


def report(found: dict[str, Any]) -> None:
    """Print what was counted."""
    console = Console(width=100, highlight=False)
    table = Table("stage", *(s.name for s in SIGNALS), "done before", title="Kills")
    for stage in STAGES:
        kills = found["kills"].get(stage, {})
        cells = [str(kills.get(s.name, 0)) for s in SIGNALS]
        table.add_row(stage, *cells, str(found["too_late"].get(stage, 0)))
    console.print(table)
    table = Table("", "", title=f"Soak of {found['minutes']} min, seed {found['seed']}")
    for name, value in found["rounds"].items():
        table.add_row(f"rounds {name}", str(value))
    table.add_row("resumed trainings", str(found["resumed"]))
    table.add_row("interrupts before or outside the command", str(found["interrupts_not_heard"]))
    table.add_row("temp entries that SIGKILL left", str(dict(found["left_by_sigkill"])))
    table.add_row("shared memory left", str(len(found["shared_memory"])))
    for name in Counts.FAULTS:
        table.add_row(name.replace("_", " "), str(len(found[name])))
    for name, value in found["worker"].items():
        if isinstance(value, dict):
            said = "{slope:+.1f} MiB/h [{low:+.1f}, {high:+.1f}], last quarter {growth:+.1f} MiB "
            said += "to the second's {median:.0f}"
            table.add_row(f"worker's {name}", said.format(**value))
        else:
            table.add_row(f"worker's {name}", str(value))
    console.print(table)
    for name in Counts.FAULTS:
        for line in found[name][:20]:
            console.print(f"{name}: {line}", markup=False)


def main() -> None:
    """Soak, and print what was counted."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before any process of ours begins
    warnings.filterwarnings("ignore", message="Consolidated metadata")
    signal.signal(signal.SIGTERM, _interrupt)
    # a shell lets its background jobs ignore it, and whatever they start as well
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begun, before = time.monotonic(), shared_memory()  # the hour begins after the reference
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(Path(folder), args.seed)
        try:
            soak.refer()
            NOTES.print(f"reference in {time.monotonic() - begun:.0f} s")
            begun = time.monotonic()
            while time.monotonic() - begun < 60 * args.minutes:
                soak.by_worker()
                soak.by_commands()
                _keep(args, soak.counts, begun)
        except KeyboardInterrupt:
            NOTES.print("ended early")
        except (RuntimeError, EOFError):
            soak.counts.failed.append(traceback.format_exc())
        finally:
            soak.close()
    found = _keep(args, soak.counts, begun, sorted(shared_memory() - before))
    report(found)
    flat = found["worker"]["flat"] is not False
    sys.exit(1 if soak.counts.bad or not flat else 0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _keep(
    args: argparse.Namespace, counts: Counts, begun: float, shared: list[str] | None = None
) -> dict[str, Any]:
    """Write what was counted so far, and say in a line how far it is."""
    minutes = (time.monotonic() - begun) / 60
    found = document(counts, args.seed, minutes, shared or [])
    if args.json:
        partial = args.json.with_suffix(".partial")
        partial.write_text(json.dumps(found, indent=2), encoding="utf-8")
        partial.replace(args.json)
    rounds = counts.rounds
    memory = counts.samples[-1]["rss_mib"] if counts.samples else 0.0
    kills = sum(sum(one.values()) for one in counts.kills.values())
    NOTES.print(
        f"{minutes:.1f} min: {rounds['worker']} + {rounds['commands']} rounds, {kills} kills, "
        f"{counts.bad} faults, worker {memory:.0f} MiB"
    )
    return found


if __name__ == "__main__":
    main()
