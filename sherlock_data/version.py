"""The version that is installed, from the package's own metadata."""

from importlib.metadata import version

__version__ = version("sherlock-zoo")
