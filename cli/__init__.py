"""The commands: ``sherlock-data``, ``sherlock-train``, ``sherlock-models``."""
