"""Movie -> brain -> movie: models, their training and what they are worth."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sherlock_models.run import load
    from sherlock_models.zoo import create, list_models

__all__ = ["create", "list_models", "load"]


def __getattr__(name: str) -> object:
    """Load what is asked for: importing torch takes seconds, and `--help` needs none of it."""
    if name == "load":
        from sherlock_models.run import load

        return load
    if name in ("create", "list_models"):
        from sherlock_models import zoo

        return getattr(zoo, name)
    raise AttributeError(f"module 'sherlock_models' has no attribute '{name}'")
