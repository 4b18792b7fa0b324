"""Judge what `mutmut run` left: every mutant is killed by a test, or explained in survivors.yaml.

    make mutate

A mutant is known by its function and its changed lines, so that an explanation outlives changes
elsewhere in the file. Fails on a survivor that nobody has explained, and on an explanation whose
mutant is gone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import yaml

EXPLAINED = Path(__file__).with_name("survivors.yaml")
COUNTS = Path("mutants/mutmut-cicd-stats.json")

Mutant = tuple[str, str]


def mutmut(*arguments: str) -> str:
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def function_of(name: str) -> str:
    """``sherlock_data.timing.xǁClockǁtime__mutmut_3`` is ``sherlock_data.timing.Clock.time``."""
    module, _, mangled = name.rpartition(".")
    function = mangled.partition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ")
    return f"{module}.{function.replace('ǁ', '.')}"


def changed_lines(diff: str) -> str:
    """Keep the lines of a unified diff that were taken away and put in, without indentation."""
    lines = [line for line in diff.splitlines() if line.startswith(("-", "+"))]
    kept = [line for line in lines if not line.startswith(("---", "+++"))]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in kept)


def left() -> dict[Mutant, str]:
    """Mutants that no test killed, and what became of each: survived, no tests, timeout."""
    found = {}
    for line in mutmut("results").splitlines():
        name, _, fate = line.strip().rpartition(": ")
        found[function_of(name), changed_lines(mutmut("show", name))] = fate
    return found


def explained() -> set[Mutant]:
    groups = yaml.safe_load(EXPLAINED.read_text(encoding="utf-8"))
    return {(group["where"], change.strip()) for group in groups for change in group["changes"]}


def main() -> int:
    mutmut("export-cicd-stats")
    counts = json.loads(COUNTS.read_text(encoding="utf-8"))
    found, known = left(), explained()
    new, gone = sorted(found.keys() - known), sorted(known - found.keys())
    for where, change in new:
        print(f"{where}: {found[where, change]}, no test sees it\n{change}\n")
    for where, change in gone:
        print(f"{where}: explained, but no such mutant is left\n{change}\n")
    modules = Counter(where.rpartition(".")[0] for where, _ in found)
    print(
        f"{counts['total']} mutants, {counts['killed']} killed, {len(found)} left: {dict(modules)}"
    )
    print(
        f"{len(found) - len(new)} explained in {EXPLAINED.name}, {len(new)} new, {len(gone)} gone"
    )
    return 1 if new or gone else 0


if __name__ == "__main__":
    sys.exit(main())
