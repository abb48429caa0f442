"""Where a database lies, as its URL says."""

from __future__ import annotations

from pathlib import Path


def database_folder(url: str) -> Path | None:
    """Where a SQLite file lies; None of a server, whose disk can't be asked from here."""
    return Path(url.removeprefix("sqlite:///").partition("?")[0]).parent if url.startswith("sqlite:///") else None
