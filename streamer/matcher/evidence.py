"""What speaks for two tracklets being one vehicle: looks, class, time and place, in nats; and what forbids it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reid.modality import Modality
from streamer.matcher.topology import Relation, in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streamer.config import MatcherConfig
    from streamer.matcher.calibration import Calibration
    from streamer.matcher.centring import Centring
    from streamer.matcher.topology import Topology
    from streamer.matcher.tracklet import Tracklet

#: Share of frames whose class the detector gets wrong; keeps one bad vote from forbidding a link.
_CLASS_ERROR = 0.1
#: How often two vehicles picked at random are of one class: cars prevail on any road.
_CLASS_CHANCE = 0.6
#: So sure must both votes be before a motorcycle can't be anything else.
_SURE_CLASS = 0.9
#: Log-odds that a vehicle is seen a second time in one view: a broken tracklet, or a return. Most never are.
_AGAIN_IN_VIEW = -3.0
#: A tracklet goes on where it broke off if it does so within so many seconds.
_BROKEN_S = 5.0
#: Looks that speak against a pair by more than this, in nats, settle it.
_HOPELESS = -4.0
#: How far from the place foreseen a broken tracklet goes on, in box heights: at once, and more for every second; and
#: how far another vehicle would be.
_FORESEEN_SPREAD, _FORESEEN_SPREAD_PER_S, _CHANCE_SPREAD = 0.4, 0.3, 5.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why two tracklets may be one vehicle.

    Attributes:
        appearance: Log-likelihood ratio of the looks, in nats; 0 where one of the two has no picture.
        vehicle_class: That of the classes.
        transit: Log-odds that follow from where and when the two were seen, before any look at them.
        transit_s: Seconds between the two, negative while both were seen.
        co_visibility: What of `transit` comes from where the two stood at one moment, in nats; None where that is not
            known.
        similarity: The best cosine similarity among their pairs of modalities, or None without pictures.
        modalities: That pair, `visible~thermal`, or None.
        prior: What is added to every pair.
    """

    appearance: float
    vehicle_class: float
    transit: float
    transit_s: float
    co_visibility: float | None
    similarity: float | None
    modalities: str | None
    prior: float = 0.0

    @property
    def total(self) -> float:
        """The log-odds; minus infinity without pictures: nobody is linked without a look."""
        if self.similarity is None:
            return -math.inf
        return self.appearance + self.vehicle_class + self.transit + self.prior


class Scales:
    """Weighs pairs of tracklets with what is known of the embedder and of the site."""

    def __init__(self, config: MatcherConfig, calibration: Calibration, centring: Centring, topology: Topology) -> None:
        self._config = config
        self._calibration = calibration
        self._centring = centring
        self.topology = topology
        self._code: dict[str, int] = {}

    def weigh(self, first: Tracklet, second: Tracklet) -> Evidence:
        """What speaks for and against two tracklets, which no hard rule keeps apart."""
        appearance, similarity, modalities = self._looks_of(first, second)
        relation = self._relation(first, second)
        return Evidence(
            appearance if self._config.use_appearance else 0.0,
            _class_agreement(first.class_votes, second.class_votes) if self._config.use_class else 0.0,
            relation.log_odds,
            relation.gap_s,
            relation.co_visibility,
            similarity,
            modalities,
            self._config.prior_log_odds,
        )

    def looks(self, first: Sequence[Tracklet], second: Sequence[Tracklet]) -> NDArray[np.float64]:
        """(N, M) log-likelihood ratios of the looks of N and M tracklets; minus infinity where one has no picture."""
        total, count = np.zeros((len(first), len(second))), np.zeros((len(first), len(second)))
        for modality in Modality:
            rows = [row for row, tracklet in enumerate(first) if modality in tracklet.vectors]
            if not rows:
                continue
            vectors = np.stack([self._centring.centred(first[row], modality) for row in rows])
            for other in Modality:
                columns = [column for column, tracklet in enumerate(second) if other in tracklet.vectors]
                if not columns:
                    continue
                looked_at = np.stack([self._centring.centred(second[column], other) for column in columns])
                similarity = vectors @ looked_at.T
                block = np.ix_(rows, columns)
                total[block] += self._calibration.of(modality, other).llrs(similarity)
                count[block] += 1
        scale = 1.0 if self._config.use_appearance else 0.0
        return np.where(count > 0, scale * total / np.maximum(count, 1), -np.inf)

    def totals(self, first: Sequence[Tracklet], second: Sequence[Tracklet]) -> NDArray[np.float64]:
        """(N, M) log-odds that two tracklets are one vehicle; minus infinity where a hard rule forbids it.

        Time and place are asked only of pairs that the looks leave open. Between two that are too far apart in time to
        be neighbours on a vehicle's way they mean nothing: there looks may speak against, but not for.
        """
        totals = self.looks(first, second)
        is_open = totals > _HOPELESS
        if self._config.use_class:
            totals += _class_agreements(first, second)
        code, start, end, is_bike, is_sure = (column[:, np.newaxis] for column in self._columns(first))
        others = self._columns(second)
        gap = np.maximum(others[1] - end, start - others[2])
        is_near = gap <= self._reach()[code, others[0]]
        totals = np.where(is_open & is_near, totals, np.minimum(totals, np.where(is_open, 0.0, _HOPELESS)))
        contradicts = (is_bike != others[3]) & is_sure & others[4]
        totals[((code == others[0]) & (gap <= 0)) | contradicts] = -np.inf
        if self.topology.roads.is_limited:
            for row, column in np.argwhere(np.isfinite(totals)).tolist():
                if self.forbids(first[row], second[column]) is not None:
                    totals[row, column] = -np.inf
        rows, columns = np.nonzero(is_open & is_near & np.isfinite(totals))
        pairs = [(first[row], second[column]) for row, column in zip(rows.tolist(), columns.tolist(), strict=True)]
        totals[rows, columns] += self._relations(pairs) + self._config.prior_log_odds
        return totals

    def _columns(self, tracklets: Sequence[Tracklet]) -> tuple[NDArray[Any], ...]:
        """Of each tracklet the number of its camera, when it began and ended, and whether it is surely a motorcycle."""
        return (
            np.array([self._code.setdefault(tracklet.camera, len(self._code)) for tracklet in tracklets], np.int64),
            np.array([tracklet.started_at for tracklet in tracklets]),
            np.array([tracklet.ended_at for tracklet in tracklets]),
            np.array([_is_motorcycle(tracklet) for tracklet in tracklets], bool),
            np.array([_sureness(tracklet) >= _SURE_CLASS for tracklet in tracklets], bool),
        )

    def _reach(self) -> NDArray[np.float64]:
        """(C, C) seconds for which two tracklets of two cameras, by their numbers, are neighbours on a way."""
        longest = self._config.reach_s
        reach = np.full((len(self._code), len(self._code)), longest)
        for left, row in self._code.items():
            for entered, column in self._code.items():
                if left != entered:
                    reach[row, column] = self.topology.reach_s(left, entered, otherwise=longest)
        return np.asarray(np.maximum(reach, reach.T))

    def forbids(self, first: Tracklet, second: Tracklet) -> str | None:
        """The hard rule that keeps the two from being one vehicle, in words, or None."""
        gap = gap_s(first, second)
        if second.camera == first.camera:
            if gap <= 0:
                return "twice in one view at one time"
        elif (reason := self.topology.roads.forbids(*_cameras(first, second), gap)) is not None:
            return reason
        if _is_motorcycle(first) != _is_motorcycle(second) and min(_sureness(first), _sureness(second)) >= _SURE_CLASS:
            return "a motorcycle and another vehicle"
        return None

    def _relations(self, pairs: Sequence[tuple[Tracklet, Tracklet]]) -> NDArray[np.float64]:
        """(P,) log-odds by time and place, of pairs that no hard rule forbids."""
        found = np.zeros(len(pairs))
        apart = [index for index, (first, second) in enumerate(pairs) if first.camera != second.camera]
        if not self._config.use_transit:
            found[apart] = self._config.unknown_log_odds
        elif apart:
            found[apart] = self.topology.log_odds([pairs[index] for index in apart])
        for index in set(range(len(pairs))).difference(apart):
            found[index] = _again_in_view(*pairs[index])
        return found

    def _relation(self, first: Tracklet, second: Tracklet) -> Relation:
        if first.camera == second.camera:
            return Relation(_again_in_view(first, second), gap_s(first, second), None)
        if not self._config.use_transit:
            return Relation(self._config.unknown_log_odds, gap_s(first, second), None)
        return self.topology.relation(first, second)

    def _looks_of(self, first: Tracklet, second: Tracklet) -> tuple[float, float | None, str | None]:
        """Mean over the pairs of modalities: their errors go together, so that adding them up would boast."""
        found: list[tuple[float, float, str]] = []
        for modality in first.vectors:
            for other in second.vectors:
                similarity = float(self._centring.centred(first, modality) @ self._centring.centred(second, other))
                llr = self._calibration.of(modality, other).llr(similarity)
                found.append((llr, similarity, f"{modality}~{other}"))
        if not found:
            return 0.0, None, None
        _, similarity, modalities = max(found)
        return sum(llr for llr, _, _ in found) / len(found), similarity, modalities


def gap_s(first: Tracklet, second: Tracklet) -> float:
    """Seconds between the two tracklets; negative while both are seen."""
    return max(second.started_at - first.ended_at, first.started_at - second.ended_at)


def _cameras(first: Tracklet, second: Tracklet) -> tuple[str, str]:
    left, entered = in_order(first, second)
    return left.camera, entered.camera


def _again_in_view(first: Tracklet, second: Tracklet) -> float:
    """Log-odds that one camera saw a vehicle twice: rare, but for one that goes on where another broke off."""
    first, second = in_order(first, second)
    gap = second.started_at - first.ended_at
    if first.path is None or second.path is None or not 0 < gap <= _BROKEN_S:
        return _AGAIN_IN_VIEW
    foreseen, height = first.path.ahead(second.started_at)
    distance = float(np.linalg.norm(foreseen - second.path.entry)) / max(height, 1.0)
    spread = _FORESEEN_SPREAD + _FORESEEN_SPREAD_PER_S * gap
    same = -math.log(spread) - 2 * math.log1p((distance / spread) ** 2 / 3)
    chance = -math.log(_CHANCE_SPREAD) - 2 * math.log1p((distance / _CHANCE_SPREAD) ** 2 / 3)
    return _AGAIN_IN_VIEW + max(same - chance, _AGAIN_IN_VIEW)


def _class_agreement(first: dict[str, float], second: dict[str, float]) -> float:
    """Log p(votes | same) / p(votes | different), with votes wrong at a known rate."""
    if not first or not second:
        return 0.0
    agreement = sum(share * second.get(name, 0.0) for name, share in first.items())
    return math.log((1 - _CLASS_ERROR) * agreement + _CLASS_ERROR * _CLASS_CHANCE) - math.log(_CLASS_CHANCE)


def _class_agreements(first: Sequence[Tracklet], second: Sequence[Tracklet]) -> NDArray[np.float64]:
    """(N, M) of `_class_agreement`."""
    names = sorted({name for tracklet in (*first, *second) for name in tracklet.class_votes})
    votes, others = (
        np.array([[tracklet.class_votes.get(name, 0.0) for name in names] for tracklet in side]).reshape(len(side), -1)
        for side in (first, second)
    )
    agreement = np.log((1 - _CLASS_ERROR) * (votes @ others.T) + _CLASS_ERROR * _CLASS_CHANCE) - math.log(_CLASS_CHANCE)
    voted = np.array([bool(t.class_votes) for t in first])[:, np.newaxis] & [bool(t.class_votes) for t in second]
    return np.where(voted, agreement, 0.0)


def _is_motorcycle(tracklet: Tracklet) -> bool:
    return tracklet.class_votes.get("motorcycle", 0.0) > 0.5


def _sureness(tracklet: Tracklet) -> float:
    return max(tracklet.class_votes.values(), default=0.0)
