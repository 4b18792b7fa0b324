"""Movie -> brain -> movie: models, their training and what they are worth."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sherlock_models.run import load
    from sherlock_models.zoo import create, list_models

    __version__: str

__all__ = ["__version__", "create", "list_models", "load"]

#: module of every public name
_HOMES = {
    "create": "sherlock_models.zoo",
    "list_models": "sherlock_models.zoo",
    "load": "sherlock_models.run",
}


def __getattr__(name: str) -> object:
    """Load what is asked for (PEP 562): torch takes seconds that `--help` has no use for."""
    if name == "__version__":
        from importlib.metadata import version

        found: object = version("sherlock-zoo")
    elif name in _HOMES:
        found = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
