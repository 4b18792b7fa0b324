"""From scans and a movie to labelled Zarr stores."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sherlock_data.catalog import Catalog, load_catalog
    from sherlock_data.errors import SherlockError
    from sherlock_data.images import to_nifti
    from sherlock_data.store import open_path as open  # noqa: A004 - the contract's name

    __version__: str

__all__ = ["Catalog", "SherlockError", "__version__", "load_catalog", "open", "to_nifti"]

#: module of every public name, and what it is called there
_HOMES = {
    "Catalog": ("sherlock_data.catalog", "Catalog"),
    "SherlockError": ("sherlock_data.errors", "SherlockError"),
    "load_catalog": ("sherlock_data.catalog", "load_catalog"),
    "open": ("sherlock_data.store", "open_path"),
    "to_nifti": ("sherlock_data.images", "to_nifti"),
}


def __getattr__(name: str) -> object:
    """Load what is asked for (PEP 562): xarray and zarr take a second that `--help` needs not."""
    if name == "__version__":
        from importlib.metadata import version

        found: object = version("sherlock-zoo")
    elif name in _HOMES:
        module, attribute = _HOMES[name]
        found = getattr(import_module(module), attribute)
    else:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
