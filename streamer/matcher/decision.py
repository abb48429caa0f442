"""What the matcher answers: a decision per tracklet, and corrections of earlier ones."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamer.matcher.evidence import Evidence

_VEHICLES = uuid.UUID("5f0c5f0e-6d0a-5f0b-9a35-2b8f4c1f7a10")


#: What is summed over a vehicle's tracklets boasts: their looks, times and places go together. A temperature takes it
#: back (Guo et al., ICML 2017): on the training sites anything from 1.5 to 2 does as well, in dense traffic more would.
_BOASTING = 2.0


def vehicle_id_of(tracklet_id: str) -> str:
    """The id of a vehicle first seen as that tracklet: the same in every replay."""
    return str(uuid.uuid5(_VEHICLES, tracklet_id))


def probability(log_odds: float) -> float:
    """Of honest log-odds in nats."""
    return 1 / (1 + math.exp(-min(max(log_odds, -50.0), 50.0)))


def honest(log_odds: float) -> float:
    """What log-odds that were summed over a vehicle's tracklets are worth: what is written down of them."""
    return log_odds / _BOASTING


class Reason(StrEnum):
    """What became of a tracklet."""

    NEW = "new"
    LINKED = "linked"
    JOINED = "joined"
    RETURNED = "returned"
    MERGE = "merge"
    SPLIT = "split"
    MOVE = "move"


class Rule(StrEnum):
    """What decided, in words for people."""

    NOBODY = "nobody else could be there by then"
    NOBODY_ALIKE = "nobody fits well enough"
    TOO_CLOSE = "two vehicles fit almost equally well: kept apart, since a wrong link is worse than a missing one"
    BEST = "the best fit, taken together with everything decided at that time"
    BROKEN_OFF = "goes on where another tracklet of the same camera broke off"
    CAME_BACK = "came back after a long time: by looks alone, at a stricter threshold"
    SECOND_LOOK = "looked at again with what came later"
    SAID = "a person has said so"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A vehicle that a tracklet might have been.

    Attributes:
        vehicle_id: The vehicle.
        tracklet_id: That of its tracklets which is nearest in time.
        camera: The camera of that one.
        log_odds: Summed over the vehicle's tracklets, the nearest in time of them where there are many.
        evidence: For that one tracklet.
        tracklets: How many the vehicle has.
    """

    vehicle_id: str
    tracklet_id: str
    camera: str
    log_odds: float
    evidence: Evidence
    tracklets: int = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for one tracklet, and why.

    Attributes:
        tracklet_id: The tracklet.
        vehicle_id: The vehicle that it is.
        is_provisional: Whether its end may change it.
        reason: What became of it.
        rule: What decided.
        score: Log-odds that it belongs to the vehicle's other tracklets known by then; None where it is the only one.
        margin: By how much that beats the next best vehicle, or being alone; of one alone, what it would have taken
            to join the best other vehicle, or None where there was none.
        considered: How many vehicles were weighed.
        candidates: The best of them, best first.
        decided_at: Event time, seconds since the epoch.
    """

    tracklet_id: str
    vehicle_id: str
    is_provisional: bool
    reason: Reason
    rule: Rule
    score: float | None
    margin: float | None
    considered: int
    candidates: tuple[Candidate, ...]
    decided_at: float

    @property
    def evidence(self) -> Evidence | None:
        """For that tracklet of its vehicle which is nearest in time; None where it is the only one."""
        own = (candidate.evidence for candidate in self.candidates if candidate.vehicle_id == self.vehicle_id)
        return next(own, None)


@dataclass(frozen=True, slots=True)
class Correction:
    """Decisions that take the place of earlier ones, because a second look saw more.

    Attributes:
        kind: `merge` (two vehicles are one), `split` (some tracklets are a vehicle of their own) or `move`.
        decisions: Of the tracklets that change their vehicle.
    """

    kind: Reason
    decisions: tuple[Decision, ...]


@dataclass(slots=True)
class Outcome:
    """What a region's matcher has to say at one moment.

    Attributes:
        decisions: Final ones.
        corrections: Of earlier ones.
        settled_at: The end of the last window that was settled, seconds since the epoch; None where none was.
    """

    decisions: list[Decision] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    settled_at: float | None = None

    def extend(self, other: Outcome) -> None:
        """Takes in what came later."""
        self.decisions += other.decisions
        self.corrections += other.corrections
        self.settled_at = other.settled_at
