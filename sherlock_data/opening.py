"""`sherlock_data.open`, apart so that no room has another `open` than Python's."""

from sherlock_data.store import open_path as open  # noqa: A004 - the contract's name

__all__ = ["open"]
