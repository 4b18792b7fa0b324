"""Movie -> brain -> movie: models, their training and what they are worth.

Names are loaded when they are asked for (SPEC 1): torch takes seconds that `--help` has no use for.
"""

import logging
from typing import TYPE_CHECKING

import lazy_loader

from sherlock_data.version import __version__

if TYPE_CHECKING:
    from sherlock_models.run import load
    from sherlock_models.zoo import create, list_models

__all__ = ["__version__", "create", "list_models", "load"]

__getattr__, *_ = lazy_loader.attach(
    __name__, submod_attrs={"run": ["load"], "zoo": ["create", "list_models"]}
)


def __dir__() -> list[str]:
    return __all__


# who uses the package says what is shown of its log, and where
logging.getLogger(__name__).addHandler(logging.NullHandler())
