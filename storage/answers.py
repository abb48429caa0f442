"""The values that `storage.trajectories` answers with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from storage.records import MATCHER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from storage.paths import PathPoints
    from storage.records import AssignmentRecord

# What evidence says of the decision alone; the rest is of what was weighed: how many, and how far off the nearest was.
_OF_ITSELF = frozenset({"rule", "halved", "agrees", "upheld", "confirmed", "restores"})


@dataclass(frozen=True, slots=True)
class VehicleSummary:
    """A vehicle in a list.

    Attributes:
        vehicle_id: Its id.
        vehicle_class: By vote of all its tracklets, as known now.
        first_seen: First frame of its first tracklet.
        last_seen: Last frame of its last tracklet.
        cameras: Those it passed, each once, in the order of the first visits.
        tracklets: How many it has.
        modalities: The bands it was seen in, by name.
        crop_images: The best crop of each band, below the crop store, by the band's name.
    """

    vehicle_id: str
    vehicle_class: str
    first_seen: datetime
    last_seen: datetime
    cameras: tuple[str, ...]
    tracklets: int
    modalities: tuple[str, ...]
    crop_images: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Stop:
    """A vehicle's stay in one camera's view, and why the tracklet was taken for this vehicle's.

    Attributes:
        tracklet_id: The tracklet.
        camera: Where.
        arrival: First frame.
        departure: Last frame, so far.
        end_reason: Why it ended; None while it goes on.
        modalities: The bands its crops were taken in, by name.
        path: Frame by frame.
        reason: Why it was linked, in a word.
        is_provisional: Whether that may still change by itself.
        score: Log-odds of the link; None where nothing was linked, as at a vehicle's first stop.
        probability: The same as a probability.
        margin: By how much the score beat the next best candidate's; None without one.
        modality_pair: The two bands compared; None where nothing was linked.
        transit_s: Seconds from the camera before; None where nothing was linked.
        crop_image: Its best crop, below the crop store; None when none was kept.
        crop_images: The best crop of each band, by the band's name.
        context_image: The picture that shows it in its scene, below the crop store, or None.
        decided_by: Whose word it is: the matcher's, or a person's.
        camera_trouble: What was wrong with the camera's picture meanwhile (`covered`, say), or None.
        evidence: What was weighed: the rule, and each candidate with its terms in nats; see docs/decisions/0006.
    """

    tracklet_id: str
    camera: str
    arrival: datetime
    departure: datetime
    end_reason: str | None
    modalities: tuple[str, ...]
    path: PathPoints
    reason: str
    is_provisional: bool
    score: float | None
    probability: float | None
    margin: float | None
    modality_pair: str | None
    transit_s: float | None
    crop_image: str | None
    crop_images: dict[str, str]
    context_image: str | None
    decided_by: str = MATCHER
    camera_trouble: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Where a vehicle went.

    Attributes:
        vehicle_id: Its id.
        vehicle_class: By vote of all its tracklets.
        first_seen: First frame of its first stop.
        last_seen: Last frame of its last stop.
        stops: By arrival.
    """

    vehicle_id: str
    vehicle_class: str
    first_seen: datetime
    last_seen: datetime
    stops: tuple[Stop, ...]


@dataclass(frozen=True, slots=True)
class BoxRow:
    """One vehicle in one frame.

    Attributes:
        camera: Where.
        t: Seconds since that camera's start.
        captured_at: When, aware UTC.
        frame: Index of the decoded source frame.
        vehicle: The vehicle's id.
        x1: Left, in source pixels.
        y1: Top.
        x2: Right, the first column outside.
        y2: Bottom, the first row outside.
    """

    camera: str
    t: float
    captured_at: datetime
    frame: int
    vehicle: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class CropRow:
    """One crop of a vehicle.

    Attributes:
        vehicle: The vehicle's id.
        camera: Where.
        modality: The band it was taken in.
        vehicle_class: Of the tracklet.
        captured_at: When, aware UTC.
        crop_image: Below the crop store.
    """

    vehicle: str
    camera: str
    modality: str
    vehicle_class: str
    captured_at: datetime
    crop_image: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A vehicle that passed one camera and then another.

    Attributes:
        vehicle_id: The vehicle.
        vehicle_class: By vote of all its tracklets.
        first: The camera passed first.
        then: The other one.
        departed_at: When it left the first view.
        arrived_at: When it entered the other.
        travel_s: Seconds between; below zero where it was in both views at once.
        probability: Of the less sure of the links that made the two stops this vehicle's; None: neither was linked.
    """

    vehicle_id: str
    vehicle_class: str
    first: str
    then: str
    departed_at: datetime
    arrived_at: datetime
    travel_s: float
    probability: float | None


@dataclass(frozen=True, slots=True)
class Companion:
    """A vehicle that was where another one was, at about the same time.

    Attributes:
        vehicle_id: The vehicle.
        vehicle_class: By vote of all its tracklets.
        cameras: Where they met, each once, in the order of the first meetings.
        meetings: How often they entered one view shortly after each other.
        largest_gap_s: The longest time between them, in seconds.
        first_at: When it came into view at the first meeting.
        last_at: When at the last.
    """

    vehicle_id: str
    vehicle_class: str
    cameras: tuple[str, ...]
    meetings: int
    largest_gap_s: float
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class DwellTime:
    """How long vehicles stayed in view of a camera, in seconds.

    Attributes:
        camera: Where.
        visits: How many stays.
        median_s: Half of them were shorter.
        mean_s: The mean.
        p85_s: 85 of 100 were shorter.
        p95_s: 95 of 100 were.
        longest_s: The longest.
    """

    camera: str
    visits: int
    median_s: float
    mean_s: float
    p85_s: float
    p95_s: float
    longest_s: float


@dataclass(frozen=True, slots=True)
class JourneyTime:
    """How long vehicles took from one camera to the next, in seconds from leaving one view to entering the other.

    Attributes:
        first: Where from.
        then: Where to.
        journeys: How many went.
        fastest_s: The shortest; below zero where the views overlap.
        median_s: Half of them were faster.
        mean_s: The mean.
        p85_s: 85 of 100 were faster.
        p95_s: 95 of 100 were.
    """

    first: str
    then: str
    journeys: int
    fastest_s: float
    median_s: float
    mean_s: float
    p85_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class Count:
    """How many vehicles came into view of a camera in an interval.

    Attributes:
        start: When the interval began.
        camera: Where.
        vehicle_class: Of what class.
        vehicles: How many, each once.
    """

    start: datetime
    camera: str
    vehicle_class: str
    vehicles: int


def halved(score: float | None, evidence: Mapping[str, Any]) -> float | None:
    """A decision's score on the scale on which it is a probability's.

    Args:
        score: As the decision has it.
        evidence: Of the decision. Those from before scores were halved lack the mark, and boast by a factor of two.
    """
    return score if score is None or evidence.get("halved") else score / 2


def probability(log_odds: float | None) -> float | None:
    """Log-odds as a probability; None stays None."""
    if log_odds is None:
        return None
    # tanh, since exp of a large score overflows.
    return 0.5 * (1.0 + math.tanh(0.5 * log_odds))


def link_probability(
    score: float | None, evidence: Mapping[str, Any], vehicle_id: str, visible: Collection[str] | None
) -> float | None:
    """How sure a link is; None where nothing was linked, or to what only cameras saw that are not visible.

    Args:
        score: Of the decision.
        evidence: Of the decision.
        vehicle_id: Whose the tracklet is by it.
        visible: The only cameras that there are for whoever asks; None: all.
    """
    if visible is not None and not _is_told(_candidates(evidence), vehicle_id, visible):
        return None
    return probability(halved(score, evidence))


def limited(said: AssignmentRecord, visible: Collection[str] | None) -> AssignmentRecord:
    """The decision without what it tells of cameras that are not visible; None: all are.

    That it was linked is told all the same, by its reason; and how sure a link to a visible camera is, whatever else
    was compared.
    """
    if visible is None:
        return said
    weighed = _candidates(said.evidence)
    # A candidate is told by its nearest tracklet. How many others it has, and what these say, is of other cameras, too.
    seen = [
        {name: value for name, value in one.items() if name not in ("tracklets", "summed")}
        for one in weighed
        if one.get("camera") in visible
    ]
    evidence = {name: value for name, value in said.evidence.items() if name in _OF_ITSELF}
    if isinstance(said.evidence.get("candidates"), list):
        evidence["candidates"] = seen
    if not _is_told(weighed, said.vehicle_id, visible):
        return replace(said, evidence=evidence, score=None, margin=None, modality_pair=None, transit_s=None)
    # The next best may be one that is left out.
    return replace(said, evidence=evidence, margin=said.margin if len(seen) == len(weighed) else None)


def _candidates(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    told = evidence.get("candidates")
    return [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []


def _is_told(weighed: Iterable[Mapping[str, Any]], vehicle_id: str, visible: Collection[str]) -> bool:
    return any(one.get("vehicle_id") == vehicle_id and one.get("camera") in visible for one in weighed)
