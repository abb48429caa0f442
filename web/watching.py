"""Looks out for watched vehicles, and tells of those that returned."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from web.services import Services


class Watchman:
    """A thread that looks at what the matcher decides.

    Args:
        services: Read.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def start(self) -> None:
        """Starts the thread."""

    def stop(self) -> None:
        """Ends it."""
