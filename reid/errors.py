"""What can go wrong in this room, each with a message of one line that names the culprit."""

from __future__ import annotations


class ReidError(Exception):
    """Base of every error that `reid` raises on purpose."""


class ConfigError(ReidError):
    """A configuration file is missing, is not YAML, or has an unknown or impossible key."""


class DatasetError(ReidError):
    """A data folder, its `samples.csv` or one of its pictures can't be used."""


class CheckpointError(ReidError):
    """A weights file is missing, of the wrong kind, or does not fit the model."""
