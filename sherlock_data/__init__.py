"""From scans and a movie to labelled Zarr stores."""

from sherlock_data.catalog import Catalog, load_catalog
from sherlock_data.errors import SherlockError
from sherlock_data.store import open_path as open  # noqa: A004 - the contract's name

__all__ = ["Catalog", "SherlockError", "load_catalog", "open", "to_nifti"]


def __getattr__(name: str) -> object:
    """Load the image tools when they are asked for: nibabel takes half a second to import."""
    if name == "to_nifti":
        from sherlock_data.images import to_nifti

        return to_nifti
    raise AttributeError(f"module 'sherlock_data' has no attribute '{name}'")
