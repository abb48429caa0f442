"""What a matcher counts."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class MatcherCounters:
    """What this matcher has done since it started."""

    messages: int = 0
    sightings: int = 0
    duplicates: int = 0
    rejected: int = 0
    provisional: int = 0
    decided: int = 0
    linked: int = 0
    vehicles: int = 0
    corrected: int = 0
    lost: int = 0
    uncompared: int = 0
    crops_lost: int = 0
    begun_anew: int = 0
    #: Decisions on tracklets that had been removed meanwhile.
    unknown: int = 0

    def take_back(self, before: MatcherCounters) -> None:
        """Counts as it did then: what was counted since did not come to stand in the database."""
        for counter in fields(self):
            setattr(self, counter.name, getattr(before, counter.name))
