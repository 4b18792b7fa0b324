"""What the source may not say: pickle, shells, unsafe YAML, evaluated text, unpacked archives."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import sherlock_cli

import sherlock_data
import sherlock_models

PACKAGES = [
    Path(package.__file__).parent for package in (sherlock_data, sherlock_models, sherlock_cli)
]
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
#: modules that run what they read; `pickle` is named where torch's own refusal of one is caught
UNPICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CAUGHT = "pickle.UnpicklingError"
#: calls that run text as a program or a command, or write an archive's members
FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "shutil.unpack_archive",
    "tarfile.open",
    "zipfile.ZipFile",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "yaml.load_all",
    "pandas.read_pickle",
    "pd.read_pickle",
    "torch.jit.load",
    "markupsafe.Markup",
    "Markup",
}
METHODS = {"extractall", "loads_pickle"}
#: keywords that must be there, and their values
REQUIRED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
    "np.savez": ("allow_pickle", False),
    "Environment": ("autoescape", True),
}
#: keywords that may have no other value where they are
FIXED = {"shell": False, "allow_pickle": False, "trust_remote_code": False, "weights_only": True}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call of a file with the name that is called."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def said(call: ast.Call, keyword: str) -> object:
    """Value of a keyword of a call; None where it is not given, or not in so many words."""
    values = [k.value for k in call.keywords if k.arg == keyword]
    return values[0].value if values and isinstance(values[0], ast.Constant) else None


def test_there_is_a_source_to_look_at() -> None:
    assert len(SOURCES) > 100


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nothing_runs_what_it_reads(path: Path) -> None:
    for name, call in calls(path):
        where = f"{path.name}:{call.lineno}: {name}"
        assert name not in FORBIDDEN, where
        assert name.rsplit(".", 1)[-1] not in METHODS, where
        if name in REQUIRED:
            keyword, value = REQUIRED[name]
            assert said(call, keyword) is value, f"{where} without {keyword}={value}"
        for keyword, value in FIXED.items():
            if any(k.arg == keyword for k in call.keywords):
                assert said(call, keyword) is value, f"{where}: {keyword}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_unpickler_is_used(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in UNPICKLERS, path
        if isinstance(node, ast.Attribute) and ast.unparse(node).split(".")[0] in UNPICKLERS:
            assert ast.unparse(node) == CAUGHT, f"{path}:{node.lineno}"


def test_templates_never_switch_escaping_off() -> None:
    templates = list(PACKAGES[1].rglob("templates/*.html"))
    assert templates
    for template in templates:
        text = template.read_text(encoding="utf-8")
        for word in ("| safe", "|safe", "autoescape false", "autoescape off"):
            assert word not in text, template
    for script in PACKAGES[1].rglob("templates/*.js"):
        text = script.read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, script
