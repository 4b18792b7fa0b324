"""Tests of the wheel with every Python and with the oldest and the newest dependencies, as a table.

    python .ci/matrix.py
    python .ci/matrix.py --python 3.13 --deps oldest --all

Oldest: what pyproject.toml gives as the lower bound, of the packages and of the extras that tests
need, exactly. Newest: whatever the index has. torch stays at the version of constraints.txt
(`--keep`), since others may bring gigabytes. Each pair has an environment of its own, removed
afterwards, and tests a wheel from a folder without the packages' sources. An old library warns when
its own dependencies are newer, so DeprecationWarning is an error with the newest only. Exit code 1
where a test failed; a Python that this machine does not have is said, and no failure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).parent))

from wheel_check import HIDDEN, ROOT, call, make

PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = ("dev", "features", "s3", "fast", "bench")
SHOWN = ("torch", "numpy", "pandas", "xarray", "zarr", "dask", "scikit-learn", "transformers")
#: what is tested unless `--all`: each room with the libraries that it leans on
TESTS = (
    "tests/ageing",
    "tests/cli/test_data.py",
    "tests/cli/test_imports.py",
    "tests/data/test_annotations.py",
    "tests/data/test_audio.py",
    "tests/data/test_build.py",
    "tests/data/test_features.py",
    "tests/data/test_nifti.py",
    "tests/data/test_parcels.py",
    "tests/data/test_pca.py",
    "tests/data/test_queries.py",
    "tests/data/test_round_trip.py",
    "tests/data/test_s3.py",
    "tests/data/test_timing.py",
    "tests/data/test_verify.py",
    "tests/data/test_video.py",
    "tests/models/test_baselines.py",
    "tests/models/test_decode.py",
    "tests/models/test_report.py",
    "tests/models/test_stream.py",
    "tests/security/test_hostile_files.py",
)
#: they read the packages' sources or their linters, which no environment changes
OF_THE_SOURCES = ("tests/docs", "tests/security/test_source.py")


@dataclass(frozen=True)
class Row:
    """A line of the table; ``why``: nothing was tested, and the reason."""

    python: str
    deps: str
    versions: dict[str, str]
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    why: str = ""


def main() -> None:
    """Fill the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--python", nargs="+", default=PYTHONS, help="versions, or programs")
    parser.add_argument("--deps", nargs="+", default=("oldest", "newest"))
    parser.add_argument("--keep", nargs="*", default=["torch"], help="stay as in constraints.txt")
    parser.add_argument("--all", action="store_true", help="all tests but the slow ones")
    parser.add_argument("--only", nargs="+", help="these tests")
    parser.add_argument("--installer", default="pip", choices=["pip", "uv"], help="uv: links files")
    parser.add_argument("--json", type=Path, help="write the table there too")
    given = parser.parse_args()
    tests = given.only or (["tests"] if given.all else TESTS)
    rows = []
    with tempfile.TemporaryDirectory(prefix="matrix-") as name:
        folder = Path(name)
        wheel, _ = make(folder)
        without_sources(folder / "tree")
        for version, deps in ((v, d) for v in given.python for d in given.deps):
            rows.append(tested(version, deps, given, wheel, folder, tests))
            print(table(rows)[-1], flush=True)
    print("\n".join(table(rows)))
    if given.json:
        given.json.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n")
    sys.exit(any(row.failed for row in rows))


# ---------------------------------------------------------------- what is installed


def bounds(project: dict[str, object], extras: Iterable[str]) -> dict[str, str]:
    """Lower bound of every direct dependency, by its canonical name.

    Raises
    ------
    ValueError
        A dependency has no bound, or two.
    """
    optional = project.get("optional-dependencies", {})
    found: dict[str, str] = {}
    for text in [*project["dependencies"], *(text for e in extras for text in optional[e])]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        lowest = [part.version for part in requirement.specifier if part.operator == ">="]
        if len(lowest) != 1 or found.get(name, lowest[0]) != lowest[0]:
            raise ValueError(f"{name}: one lower bound is wanted, not '{text}'")
        found[name] = lowest[0]
    return found


def pinned(text: str) -> dict[str, str]:
    """Versions of a file of constraints, by canonical name."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {canonicalize_name(name): version for name, version in pairs}


def constraints(
    deps: str, lowest: dict[str, str], exact: dict[str, str], keep: Iterable[str]
) -> dict[str, str]:
    """Versions that an installer must take; `newest` leaves all but the kept ones open."""
    kept = {name: exact[name] for name in map(canonicalize_name, keep)}
    return kept if deps == "newest" else {**lowest, **kept}


def interpreter(wanted: str) -> str | None:
    """Program of a version such as 3.12 (on PATH, else pyenv's), or of a path; None: not here."""
    if not re.fullmatch(r"3\.\d+", wanted):
        return shutil.which(wanted)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = [f"python{wanted}", *map(str, sorted(root.glob(f"versions/{wanted}.*/bin/python")))]
    for program in filter(None, map(shutil.which, places)):
        # pyenv's shims are on PATH for versions that are not switched on
        if subprocess.run([program, "--version"], capture_output=True).returncode == 0:
            return program
    return None


def install(python: Path, installer: str, wheel: Path, versions: dict[str, str]) -> None:
    """Put the wheel with what its tests need into an environment."""
    file = wheel.with_name("versions.txt")
    file.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))
    words: tuple[str | Path, ...] = ("uv", "pip", "install", "--quiet", "--python", python)
    if installer == "pip":
        words = (python, "-m", "pip", "install", "--quiet", "--progress-bar", "off")
        call(*words, "--upgrade", "pip")
    call(*words, "--constraint", file, f"{wheel}[{','.join(EXTRAS)}]")


# ---------------------------------------------------------------- what is tested


def without_sources(tree: Path) -> None:
    """Take the packages away, so that a test can import them from the wheel only."""
    for package in ("sherlock_data", "sherlock_models", "cli", "build"):
        shutil.rmtree(tree / package, ignore_errors=True)


def tested(
    version: str,
    deps: str,
    given: argparse.Namespace,
    wheel: Path,
    folder: Path,
    tests: Iterable[str],
) -> Row:
    """One environment: made, tested, removed."""
    program = interpreter(version)
    if program is None:
        return Row(version, deps, {}, why="this machine does not have it")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    exact = pinned((ROOT / "constraints.txt").read_text("utf-8"))
    fresh, start = folder / "environment", time.monotonic()
    try:
        call(program, "-m", "venv", fresh)
        python = fresh / "bin" / "python"
        versions = constraints(deps, bounds(project, EXTRAS), exact, given.keep)
        install(python, given.installer, wheel, versions)
        counts = run_tests(python, folder / "tree", deps, tests)
        return Row(version, deps, resolved(python), *counts, time.monotonic() - start)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def run_tests(python: Path, tree: Path, deps: str, tests: Iterable[str]) -> tuple[int, int, int]:
    """Numbers of tests that passed, failed and were skipped; failures are printed."""
    out = tree / "tests.xml"
    out.unlink(missing_ok=True)
    words = [
        python,
        "-m",
        "pytest",
        "-q",
        "--durations=9",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        *tests,
    ]
    words += [f"--junitxml={out}", *(f"--ignore={place}" for place in OF_THE_SOURCES)]
    if deps == "oldest":
        words += ["-W", "ignore::DeprecationWarning"]
    environment = {name: text for name, text in os.environ.items() if name not in HIDDEN}
    environment |= {"PATH": f"{python.parent}{os.pathsep}{environment['PATH']}"}
    log = tree.with_name("tests.log")
    with log.open("w") as printed:
        done = subprocess.run(
            words, cwd=tree, env=environment, stdout=printed, stderr=subprocess.STDOUT
        )
    if done.returncode:
        print(log.read_text()[-20000:], flush=True)
    if not out.exists():
        sys.exit(f"pytest ended with {done.returncode} before a test ran")
    return counted(out.read_text("utf-8"))


def counted(report: str) -> tuple[int, int, int]:
    """Count the passed, failed and skipped of a JUnit report; an error is a failure."""
    suites = list(ElementTree.fromstring(report).iter("testsuite"))  # noqa: S314 - our own file
    total, errors, failures, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites)
        for key in ("tests", "errors", "failures", "skipped")
    )
    return total - errors - failures - skipped, errors + failures, skipped


def resolved(python: Path) -> dict[str, str]:
    """Versions of Python and of the packages that are shown, as they were tested."""
    script = (
        "import json, platform, sys; from importlib.metadata import version; print(json.dumps("
        "{'python': platform.python_version()} | {n: version(n) for n in sys.argv[1:]}))"
    )
    return json.loads(call(python, "-c", script, *SHOWN))


def table(rows: Iterable[Row]) -> list[str]:
    """Lines of a Markdown table."""
    return list(_table(rows))


def _table(rows: Iterable[Row]) -> Iterator[str]:
    yield f"| Python | dependencies | {' | '.join(SHOWN)} | passed | failed | skipped | s |"
    yield "|" + "---|" * (len(SHOWN) + 6)
    for row in rows:
        python = row.versions.get("python", row.python)
        shown = [row.versions.get(name, "-") for name in SHOWN]
        counts = [str(row.passed), str(row.failed), str(row.skipped), f"{row.seconds:.0f}"]
        cells = [python, row.deps, *shown, *([row.why, "-", "-", "-"] if row.why else counts)]
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
