"""Who may ask over the network, and how much."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What somebody may do; each may do what those before it may."""

    #: Asks; of some cameras only, where the account says so.
    VIEWER = "viewer"
    #: Sees all cameras, corrects, and watches vehicles.
    OPERATOR = "operator"
    #: Reads the audit too, and gives accounts and tokens.
    ADMIN = "admin"

    def may(self, wanted: Role) -> bool:
        """Whether this role may do what is left to `wanted`."""
        order = list(Role)
        return order.index(self) >= order.index(wanted)
