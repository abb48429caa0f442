"""What speaks for two tracklets being one vehicle: looks, class and travel time, in nats; and what forbids it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamer.matcher.transit import gap_s

if TYPE_CHECKING:
    from streamer.matcher.calibration import Calibration
    from streamer.matcher.tracklet import Tracklet
    from streamer.matcher.transit import RoadGraph, TravelTimes

#: Share of frames whose class the detector gets wrong; keeps one bad vote from forbidding a link.
_CLASS_ERROR = 0.1
#: How often two vehicles picked at random are of one class: cars prevail on any road.
_CLASS_CHANCE = 0.6
#: Log-odds that a vehicle is seen a second time in one view: a broken tracklet, or a return. Most never are.
_AGAIN_IN_VIEW = -3.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why two tracklets may be one vehicle.

    Attributes:
        appearance: Log-likelihood ratio of the looks, in nats; 0 where one of the two has no picture.
        vehicle_class: That of the classes.
        transit: Log-odds that follow from where and when the two were seen: that of the travel time between two
            cameras, or how rare it is to be seen twice by one.
        transit_s: Seconds between the two, negative while both were seen.
        similarity: The best cosine similarity among their pairs of modalities, or None without pictures.
        modalities: That pair, `visible~thermal`, or None.
    """

    appearance: float
    vehicle_class: float
    transit: float
    transit_s: float
    similarity: float | None
    modalities: str | None

    @property
    def total(self) -> float:
        """The log-odds, before any prior; minus infinity without pictures: nobody is linked without a look."""
        return -math.inf if self.similarity is None else self.appearance + self.vehicle_class + self.transit


def weigh(first: Tracklet, second: Tracklet, *, calibration: Calibration, travel_times: TravelTimes) -> Evidence:
    """What speaks for and against two tracklets, which no hard rule keeps apart, being one vehicle."""
    appearance, similarity, modalities = _appearance(first, second, calibration)
    vehicle_class = _class_agreement(first.class_votes, second.class_votes)
    transit = _AGAIN_IN_VIEW if first.camera == second.camera else travel_times.llr(first, second)
    return Evidence(appearance, vehicle_class, transit, gap_s(first, second), similarity, modalities)


def _appearance(first: Tracklet, second: Tracklet, calibration: Calibration) -> tuple[float, float | None, str | None]:
    """Mean over the pairs of modalities: their errors go together, so that adding them up would boast."""
    found: list[tuple[float, float, str]] = []
    for modality, vector in first.vectors.items():
        for other, candidate in second.vectors.items():
            similarity = float(vector @ candidate)
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


def forbids(first: Tracklet, second: Tracklet, roads: RoadGraph) -> str | None:
    """The hard rule that keeps the two from being one vehicle, in words, or None."""
    gap = gap_s(first, second)
    if second.camera == first.camera:
        return "twice in one view at one time" if gap <= 0 else None
    travel = roads.travel_time(second.camera, first.camera)
    if travel is None:
        return f"no road between {first.camera} and {second.camera}"
    if gap < travel.min_s and not travel.may_overlap:
        return f"{gap:.1f} s between {first.camera} and {second.camera}, at least {travel.min_s:g} s needed"
    if gap > travel.max_s:
        return f"{gap:.1f} s between {first.camera} and {second.camera}, at most {travel.max_s:g} s expected"
    return None
