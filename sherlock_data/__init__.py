"""From scans and a movie to labelled Zarr stores.

Names are loaded when they are asked for (SPEC 1): xarray and zarr take a second that `--help` and
its like need not spend.
"""

import logging
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from sherlock_data.catalog import Catalog, load_catalog
    from sherlock_data.errors import SherlockError
    from sherlock_data.images import to_nifti
    from sherlock_data.opening import open  # noqa: A004 - the contract's name
    from sherlock_data.version import __version__

__all__ = ["Catalog", "SherlockError", "__version__", "load_catalog", "open", "to_nifti"]

__getattr__, *_ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "catalog": ["Catalog", "load_catalog"],
        "errors": ["SherlockError"],
        "images": ["to_nifti"],
        "opening": ["open"],
        "version": ["__version__"],
    },
)


def __dir__() -> list[str]:
    return __all__


# who uses the package says what is shown of its log, and where
logging.getLogger(__name__).addHandler(logging.NullHandler())
