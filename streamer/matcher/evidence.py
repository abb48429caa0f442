"""What speaks for a tracklet being a vehicle already known: looks and class, in nats; and what forbids it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamer.matcher.transit import gap_s

if TYPE_CHECKING:
    from streamer.matcher.calibration import Calibration
    from streamer.matcher.gallery import Identity
    from streamer.matcher.tracklet import Tracklet
    from streamer.matcher.transit import RoadGraph

#: Share of frames whose class the detector gets wrong; keeps one bad vote from forbidding a link.
_CLASS_ERROR = 0.1
#: How often two vehicles picked at random are of one class: cars prevail on any road.
_CLASS_CHANCE = 0.6


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a tracklet may be a vehicle, or may not.

    Attributes:
        appearance: Log-likelihood ratio of the looks, in nats; 0 where one of the two has no picture.
        vehicle_class: That of the classes.
        transit_s: Seconds between the tracklet and the nearest one of the vehicle, negative while both were seen.
        similarity: The best cosine similarity among the pairs of modalities, or None.
        modalities: That pair, `visible~thermal`, or None.
    """

    appearance: float
    vehicle_class: float
    transit_s: float
    similarity: float | None
    modalities: str | None

    @property
    def total(self) -> float:
        """The log-odds that both are one vehicle, before any price of "somebody new"."""
        return self.appearance + self.vehicle_class


def weigh(tracklet: Tracklet, identity: Identity, *, calibration: Calibration) -> Evidence:
    """What speaks for and against the tracklet being this vehicle, which no hard rule forbids."""
    nearest_s = min((gap_s(member, tracklet) for member in identity.members), key=abs)
    appearance, similarity, modalities = _appearance(tracklet, identity, calibration)
    vehicle_class = _class_agreement(tracklet.class_votes, identity.class_votes)
    return Evidence(appearance, vehicle_class, nearest_s, similarity, modalities)


def _appearance(
    tracklet: Tracklet, identity: Identity, calibration: Calibration
) -> tuple[float, float | None, str | None]:
    """Mean over the pairs of modalities: their errors go together, so that adding them up would boast."""
    found: list[tuple[float, float, str]] = []
    for modality, vector in tracklet.vectors.items():
        for other, prototype in identity.prototypes.items():
            similarity = float(vector @ prototype)
            found.append((calibration.of(modality, other).llr(similarity), similarity, f"{modality}~{other}"))
    if not found:
        return 0.0, None, None
    _, similarity, modalities = max(found)
    return sum(llr for llr, _, _ in found) / len(found), similarity, modalities


def _class_agreement(first: dict[str, float], second: dict[str, float]) -> float:
    """Log p(votes | same) / p(votes | different), with votes wrong at a known rate."""
    if not first or not second:
        return 0.0
    agreement = sum(share * second.get(name, 0.0) for name, share in first.items())
    return math.log((1 - _CLASS_ERROR) * agreement + _CLASS_ERROR * _CLASS_CHANCE) - math.log(_CLASS_CHANCE)


def forbids(tracklet: Tracklet, identity: Identity, roads: RoadGraph) -> str | None:
    """The hard rule that keeps the tracklet from being this vehicle, in words, or None."""
    for member in identity.members:
        rule = _forbids(tracklet, member, roads)
        if rule is not None:
            return rule
    return None


def _forbids(tracklet: Tracklet, member: Tracklet, roads: RoadGraph) -> str | None:
    """The hard rule that keeps the two from being one vehicle, in words, or None."""
    gap = gap_s(member, tracklet)
    if tracklet.camera == member.camera:
        return "twice in one view at one time" if gap < 0 else None
    travel = roads.travel_time(tracklet.camera, member.camera)
    if travel is None:
        return f"no road between {member.camera} and {tracklet.camera}"
    if gap < travel.min_s and not travel.may_overlap:
        return f"{gap:.1f} s between {member.camera} and {tracklet.camera}, at least {travel.min_s:g} s needed"
    if gap > travel.max_s:
        return f"{gap:.1f} s between {member.camera} and {tracklet.camera}, at most {travel.max_s:g} s expected"
    return None
