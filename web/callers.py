"""Who asks, of a request or of an open page."""

from __future__ import annotations

import getpass
from dataclasses import dataclass

from storage.accounts import Role
from storage.errors import StorageError


class EndedError(StorageError):
    """Who asks has logged out meanwhile, or may no longer what they could when their page was made."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who asks.

    Attributes:
        person: The name that is noted with every question.
        role: What they may do.
        cameras: The only cameras that they may see; None: all.
        token_id: Of the login or the API token that they came with; None for this machine's own user.
    """

    person: str
    role: Role
    cameras: frozenset[str] | None = None
    token_id: int | None = None

    def may(self, role: Role) -> bool:
        """Whether they may do what is left to that role."""
        return self.role.may(role)

    def sees(self, camera: str) -> bool:
        """Whether that camera is theirs to see."""
        return self.cameras is None or camera in self.cameras


def local_caller() -> Caller:
    """Whoever runs this program, where it answers this machine alone and there are no accounts."""
    try:
        return Caller(getpass.getuser(), Role.ADMIN)
    except (OSError, KeyError):
        return Caller("local", Role.ADMIN)
