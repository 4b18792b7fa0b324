"""The wheel alone is enough: build it, look into it, and follow the quickstart with nothing else.

    python .ci/wheel_check.py

Tracked files are copied to a temporary folder; a wheel and an sdist are made there and held to
`twine check --strict`. The wheel must hold every file of the packages as it is in the tree, and
nothing else; a wheel made from the sdist must be the same. Then, in a fresh environment and a fresh
folder that holds the wheel only, every command of docs/quickstart.md runs as it is printed, `pip
install` first, with the versions of constraints.txt. Ends at the first thing that is wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.docs.pages import Block, blocks, run  # noqa: E402 - the docs' own reader

QUICKSTART = ROOT / "docs" / "quickstart.md"
#: what makes another environment, or this checkout, seen from the fresh one
HIDDEN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSAFEPATH")
WHERE = """
import sys, sherlock_cli, sherlock_data, sherlock_models
print(sherlock_cli.__file__, sherlock_data.__file__, sherlock_models.__file__, *sys.path)
"""


def main() -> None:
    """Run all steps, and say what each took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable, help="makes the fresh environment")
    python = parser.parse_args().python
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wheel-") as name:
        folder = Path(name)
        wheel, sdist = make(folder)
        with step("twine check --strict"):
            call(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
        found = contents(wheel)
        complaints = list(differences(found, expected(folder / "tree")))
        with step("a wheel from the sdist, compared"):
            again = contents(from_sdist(sdist, folder / "again"))
            complaints += [f"made from the sdist: {line}" for line in differences(again, found)]
        if complaints:
            sys.exit("\n".join(complaints))
        print(
            f"{wheel.name}: {len(found)} files, {wheel.stat().st_size / 1e6:.2f} MB; as in the tree"
        )
        follow(QUICKSTART, wheel, folder, python)
    print(f"the wheel alone is enough: {time.monotonic() - start:.0f} s")


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print what is done and its seconds."""
    start = time.monotonic()
    yield
    print(f"{time.monotonic() - start:7.1f} s  {what}", flush=True)


def call(*words: str | Path, **options: object) -> str:
    """Run a program; where it fails, show what it printed and end."""
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed with {done.returncode}: {' '.join(map(str, words))}")
    return done.stdout


# ---------------------------------------------------------------- made, and looked into


def make(folder: Path) -> tuple[Path, Path]:
    """Wheel and sdist of the tracked files as they are now."""
    tree = folder / "tree"
    for name in call("git", "ls-files", "-z", cwd=ROOT).split("\0")[:-1]:
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    with step("python -m build --wheel --sdist"):
        call(sys.executable, "-m", "build", "--wheel", "--sdist", "--outdir", folder / "dist", tree)
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return wheel, sdist


def from_sdist(sdist: Path, folder: Path) -> Path:
    """Wheel made of an unpacked sdist."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    call(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", tree)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    """Files of a wheel, but for its list of them."""
    with zipfile.ZipFile(wheel) as archive:
        names = (name for name in archive.namelist() if not name.endswith(("/", "/RECORD")))
        return {name: archive.read(name) for name in names}


def expected(tree: Path) -> dict[str, bytes | None]:
    """Files that a wheel of a tree holds: packages, licence; None: whatever it says."""
    project = tomllib.loads((tree / "pyproject.toml").read_text("utf-8"))
    name, version = project["project"]["name"].replace("-", "_"), project["project"]["version"]
    places = project["tool"]["setuptools"]["package-dir"]
    packages = {package.split(".")[0] for package in project["tool"]["setuptools"]["packages"]}
    held: dict[str, bytes | None] = {}
    for package in packages:
        place = tree / places.get(package, package)
        for path in (path for path in place.rglob("*") if path.is_file()):
            held[f"{package}/{path.relative_to(place).as_posix()}"] = path.read_bytes()
    info = f"{name}-{version}.dist-info"
    held[f"{info}/licenses/LICENSE"] = (tree / "LICENSE").read_bytes()
    stated = ("METADATA", "WHEEL", "entry_points.txt", "top_level.txt")
    return held | {f"{info}/{file}": None for file in stated}


def differences(found: Mapping[str, bytes], wanted: Mapping[str, bytes | None]) -> Iterator[str]:
    """Lines on what is missing, too many, or other than wanted."""
    yield from (f"missing: {name}" for name in sorted(wanted.keys() - found.keys()))
    yield from (f"does not belong there: {name}" for name in sorted(found.keys() - wanted.keys()))
    for name in sorted(found.keys() & wanted.keys()):
        if wanted[name] is not None and found[name] != wanted[name]:
            yield f"other bytes: {name}"


# ---------------------------------------------------------------- followed, with nothing else


def follow(page: Path, wheel: Path, folder: Path, python: str) -> None:
    """Run every command of a page in a fresh environment, in a folder that holds the wheel only."""
    desk, fresh = folder / "desk", folder / "environment"
    desk.mkdir()
    shutil.copy2(wheel, desk)
    with step("a fresh environment"):
        call(python, "-m", "venv", fresh)
    environment = surroundings(fresh)
    ours = [block for block in blocks(page) if block.language in ("console", "python")]
    for block, script, shown in printed(ours):
        with step(script.strip().splitlines()[0] + (" ..." if "\n" in script.strip() else "")):
            try:
                run(block, script, shown, folder=desk, environment=environment)
            except AssertionError as error:
                sys.exit(f"{error}\nnot as the page says")
    seen = call(fresh / "bin" / "python", "-c", WHERE, cwd=desk, env=environment)
    if str(ROOT) in seen or not all(str(fresh) in place for place in seen.split()[:3]):
        sys.exit(f"the packages did not come from the wheel: {seen}")


def surroundings(fresh: Path) -> dict[str, str]:
    """Environment variables with a fresh environment first, and none that leads elsewhere."""
    kept = {name: text for name, text in os.environ.items() if name not in HIDDEN}
    kept = {name: text for name, text in kept.items() if not name.startswith("SHERLOCK_")}
    return kept | {
        "PATH": os.pathsep.join([str(fresh / "bin"), kept["PATH"]]),
        "PYTHONNOUSERSITE": "1",
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
    }


def printed(page: list[Block]) -> Iterator[tuple[Block, str, list[str]]]:
    """Commands in order, each with what is shown under it; a block of Python is a script."""
    for block in page:
        if block.language == "python":
            yield block, f"python - <<'END'\n{block.text}END", []
        else:
            yield from ((block, script, shown) for script, shown in block.commands)


if __name__ == "__main__":
    main()
