"""What a build did with each store, or on a dry run would do: for people and for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sherlock_data import store as stores
from sherlock_data.plan import StorePlan

#: bytes before compression that one core turns into a store per second; `benchmarks/build.py`
#: prints what this machine does
BYTES_PER_SECOND = 2e8


@dataclass(frozen=True)
class Outcome:
    """What happened to one store.

    Attributes
    ----------
    store : str
    status : str
        ``"built"``, ``"repaired"``, ``"updated"`` (it records another lag now), ``"up to date"``,
        ``"skipped"``, or, on a dry run, ``"planned"`` or ``"damaged"``.
    detail : str
        A line for people: size, or why it was skipped.
    nbytes, memory_bytes : int
        Size before compression, and the most one worker holds.
    problems : list of dict
        ``code``, ``where``, ``message``, recorded in the store.
    """

    store: str
    status: str
    detail: str = ""
    nbytes: int = 0
    memory_bytes: int = 0
    problems: tuple[dict[str, str], ...] = ()


def outcome_of(name: str, plan: StorePlan, status: str, detail: str = "") -> Outcome:
    """Outcome of a store by its plan, with what of it lies on disk by now."""
    if status == "planned" and stores.state(plan.path) == "resumable":
        detail = "would be resumed"
    problems = plan.problems
    if status != "planned":
        # a plan knows what headers say; the store also what reading every volume found
        problems = stores.attributes(plan.path).get("problems", problems)
    return Outcome(name, status, detail, plan.nbytes, plan.memory_bytes, tuple(problems))


def describe(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Outcomes as JSON rows."""
    return [
        {
            "store": outcome.store,
            "status": outcome.status,
            "detail": outcome.detail,
            "bytes": outcome.nbytes,
            "memory_bytes": outcome.memory_bytes,
            "seconds": outcome.nbytes / BYTES_PER_SECOND,
            "problems": list(outcome.problems),
        }
        for outcome in outcomes
    ]
