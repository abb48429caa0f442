"""What speaks for two tracklets being one vehicle: looks, class, time and place, in nats; and what forbids it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reid.modality import Modality
from streamer.matcher.broken import BROKEN_S, NO_BREAKS
from streamer.matcher.co_visibility import difference_llr
from streamer.matcher.topology import Relation, in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reid.calibration import Calibration
    from streamer.config import MatcherConfig
    from streamer.matcher.broken import Breaks
    from streamer.matcher.centring import Centring
    from streamer.matcher.topology import Topology
    from streamer.matcher.tracklet import Tracklet

#: The detector's classes: numbered beforehand, so that votes add up in one order whichever is seen first.
_CLASSES = ("bus", "car", "motorcycle", "truck")
#: Share of frames whose class the detector gets wrong; keeps one bad vote from forbidding a link.
_CLASS_ERROR = 0.1
#: How often two vehicles picked at random are of one class: cars prevail on any road.
_CLASS_CHANCE = 0.6
#: So sure must both votes be before a motorcycle can't be anything else.
_SURE_CLASS = 0.9
#: Log-odds that the next tracklet of one view is the same vehicle's: few break off.
_AGAIN_IN_VIEW = -3.0
#: Looks that speak against a pair by more than this, in nats, settle it.
_HOPELESS = -3.0
#: How far from the place foreseen a broken tracklet goes on, in box heights: at once, and more for every second.
_FORESEEN_SPREAD, _FORESEEN_SPREAD_PER_S = 0.5, 0.3
#: Where a tracklet begins never speaks more than this, in nats, against its going on from another.
_LEAST_PLACE = -3.0


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


Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Sheet:
    """N tracklets as columns.

    Attributes:
        tracklets: The tracklets.
        camera: (N,) the numbers of their cameras.
        start: (N,) seconds since the epoch.
        end: (N,) likewise.
        votes: (N, K) shares of the classes, by their numbers.
        leaves: (N,) whether it left where it ends, rather than having broken off.
        enters: (N,) whether it entered where it begins, rather than having gone on.
        vectors: By modality those of the tracklets that have one, (N_m, D), centred.
        places: By modality (N,) where in `vectors` each tracklet's is, or -1.
    """

    tracklets: Sequence[Tracklet]
    camera: Index
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    votes: NDArray[np.float64]
    leaves: NDArray[np.bool_]
    enters: NDArray[np.bool_]
    vectors: dict[Modality, NDArray[np.float32]]
    places: dict[Modality, Index]


class Scales:
    """Weighs pairs of tracklets with what is known of the embedder and of the site."""

    def __init__(self, config: MatcherConfig, calibration: Calibration, centring: Centring, topology: Topology) -> None:
        self._config = config
        self._calibration = calibration
        self._centring = centring
        self.topology = topology
        self._numbers: dict[str, int] = {}
        self._classes = {name: number for number, name in enumerate(_CLASSES)}
        #: (C, C) seconds for which tracklets of two cameras are neighbours on a way; how soon, and how late, the road
        #: allows that one follows the other at all.
        self._reach, self._earliest, self._latest = np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0))

    def is_made_of(self, calibration: Calibration, topology: Topology) -> bool:
        """Whether these are what it weighs by."""
        return calibration is self._calibration and topology is self.topology

    def weigh(self, first: Tracklet, second: Tracklet, breaks: Breaks = NO_BREAKS) -> Evidence:
        """What speaks for and against two tracklets, which no hard rule keeps apart."""
        appearance, similarity, modalities = self._looks_of(first, second)
        is_asked = self._is_asked(first, second, appearance if similarity is not None else -math.inf, breaks)
        relation = self._relation(first, second) if is_asked else Relation(0.0, gap_s(first, second), None)
        return Evidence(
            appearance if self._config.use_appearance else 0.0,
            _class_agreement(first.class_votes, second.class_votes) if self._config.use_class else 0.0,
            relation.log_odds,
            relation.gap_s,
            relation.co_visibility,
            similarity,
            modalities,
            self._config.prior_log_odds if is_asked and first.camera != second.camera else 0.0,
        )

    def looks(self, first: Sequence[Tracklet], second: Sequence[Tracklet]) -> NDArray[np.float64]:
        """(N, M) log-likelihood ratios of the looks of N and M tracklets; minus infinity where one has no picture."""
        return self._looks(self._sheet(first), self._sheet(second))

    def totals(
        self, first: Sequence[Tracklet], second: Sequence[Tracklet], breaks: Breaks = NO_BREAKS
    ) -> NDArray[np.float64]:
        """(N, M) log-odds that two tracklets are one vehicle; minus infinity where a hard rule forbids it.

        Time and place are asked only of pairs that the looks leave open. Between two that are too far apart in time to
        be neighbours on a vehicle's way they mean nothing: there looks may speak against, but not for.
        """
        rows, columns = self._sheet(first, breaks), self._sheet(second, breaks)
        index = np.indices((len(first), len(second)))
        return self._totals(rows, columns, index[0], index[1], self._looks(rows, columns))

    def pair_totals(
        self, pairs: Sequence[tuple[Tracklet, Tracklet]], breaks: Breaks = NO_BREAKS
    ) -> NDArray[np.float64]:
        """(P,) what `totals` says of these pairs."""
        places: dict[str, int] = {}
        tracklets: list[Tracklet] = []
        for tracklet in chain.from_iterable(pairs):
            if tracklet.tracklet_id not in places:
                places[tracklet.tracklet_id] = len(tracklets)
                tracklets.append(tracklet)
        sheet = self._sheet(tracklets, breaks)
        at = [(places[one.tracklet_id], places[other.tracklet_id]) for one, other in pairs]
        index = np.array(at, np.int64).reshape(-1, 2)
        i, j = index.T
        return self._totals(sheet, sheet, i, j, self._pair_looks(sheet, i, j))

    def _sheet(self, tracklets: Sequence[Tracklet], breaks: Breaks = NO_BREAKS) -> _Sheet:
        for name in sorted({name for tracklet in tracklets for name in tracklet.class_votes}):
            self._classes.setdefault(name, len(self._classes))
        votes = np.zeros((len(tracklets), len(self._classes)))
        for row, tracklet in enumerate(tracklets):
            for name, share in tracklet.class_votes.items():
                votes[row, self._classes[name]] = share
        vectors, places = {}, {}
        for modality in Modality:
            having = [row for row, tracklet in enumerate(tracklets) if modality in tracklet.vectors]
            if having:
                vectors[modality] = np.stack([self._centring.centred(tracklets[row], modality) for row in having])
                places[modality] = np.full(len(tracklets), -1)
                places[modality][having] = np.arange(len(having))
        return _Sheet(
            tracklets,
            np.array([self._number(tracklet.camera) for tracklet in tracklets], np.int64),
            np.array([tracklet.started_at for tracklet in tracklets]),
            np.array([tracklet.ended_at for tracklet in tracklets]),
            votes,
            np.array([not breaks.is_broken_off(tracklet) for tracklet in tracklets], bool),
            np.array([not breaks.has_gone_on(tracklet) for tracklet in tracklets], bool),
            vectors,
            places,
        )

    def _looks(self, first: _Sheet, second: _Sheet) -> NDArray[np.float64]:
        shape = (len(first.tracklets), len(second.tracklets))
        total, count = np.zeros(shape), np.zeros(shape)
        for modality, vectors in first.vectors.items():
            for other, others in second.vectors.items():
                block = np.ix_(first.places[modality] >= 0, second.places[other] >= 0)
                total[block] += self._calibration.of(modality, other).llrs(vectors @ others.T)
                count[block] += 1
        return self._mean_looks(total, count)

    def _pair_looks(self, sheet: _Sheet, i: Index, j: Index) -> NDArray[np.float64]:
        total, count = np.zeros(len(i)), np.zeros(len(i))
        for modality, vectors in sheet.vectors.items():
            for other, others in sheet.vectors.items():
                at, other_at = sheet.places[modality][i], sheet.places[other][j]
                both = (at >= 0) & (other_at >= 0)
                similarity = np.einsum("pd,pd->p", vectors[at[both]], others[other_at[both]])
                total[both] += self._calibration.of(modality, other).llrs(similarity)
                count[both] += 1
        return self._mean_looks(total, count)

    def _mean_looks(self, total: NDArray[np.float64], count: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the pairs of modalities: their errors go together, so that adding them up would boast."""
        scale = 1.0 if self._config.use_appearance else 0.0
        return np.where(count > 0, scale * total / np.maximum(count, 1), -np.inf)

    def _totals(
        self, first: _Sheet, second: _Sheet, i: Index, j: Index, looks: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The totals of tracklets `i` of the one sheet and `j` of the other, in the shape that these are given in."""
        is_open = looks > _HOPELESS
        totals = looks + (_class_agreements(first, second, i, j) if self._config.use_class else 0.0)
        gap = np.maximum(second.start[j] - first.end[i], first.start[i] - second.end[j])
        is_one_view = first.camera[i] == second.camera[j]
        on_way = (gap <= self._reach[first.camera[i], second.camera[j]]) & _has_way(first, second, i, j)
        is_near = np.where(is_one_view, gap <= BROKEN_S, on_way)
        totals = np.where(is_open & is_near, totals, np.minimum(totals, np.where(is_open, 0.0, _HOPELESS)))
        bikes = self._motorcycles(first)[i], self._motorcycles(second)[j]
        earliest, latest = (limit[first.camera[i], second.camera[j]] for limit in (self._earliest, self._latest))
        off_road = (gap < earliest) | (gap > latest)
        totals[(is_one_view & (gap <= 0)) | off_road | (bikes[0] * bikes[1] < 0)] = -np.inf
        asked = np.flatnonzero(is_open & is_near & np.isfinite(totals))
        rows, columns = (index.flat[asked].tolist() for index in (i, j))
        pairs = [(first.tracklets[row], second.tracklets[col]) for row, col in zip(rows, columns, strict=True)]
        totals.flat[asked] += self._relations(pairs)
        return totals

    def _motorcycles(self, sheet: _Sheet) -> NDArray[np.int64]:
        """(N,) 1 for what is surely a motorcycle, -1 for what surely is none, 0 where that is open."""
        share = sheet.votes[:, self._classes["motorcycle"]]
        is_sure = sheet.votes.max(axis=1, initial=0.0) >= _SURE_CLASS
        return np.where(is_sure, np.where(share > 0.5, 1, -1), 0)

    def _number(self, camera: str) -> int:
        """A camera's place in the tables of what holds between two, which grow by it where it is new."""
        number = self._numbers.get(camera)
        if number is None:
            number = self._numbers[camera] = len(self._numbers)
            self._reach = np.pad(self._reach, (0, 1), constant_values=self._config.reach_s)
            self._earliest = np.pad(self._earliest, (0, 1), constant_values=-np.inf)
            self._latest = np.pad(self._latest, (0, 1), constant_values=np.inf)
            for other, at in self._numbers.items():
                if other != camera:
                    self._fill(camera, number, other, at)
        return number

    def _fill(self, camera: str, number: int, other: str, at: int) -> None:
        both = [(number, at), (at, number)]
        ways = ((camera, other), (other, camera))
        longest = max(self.topology.reach_s(*way, otherwise=self._config.reach_s) for way in ways)
        travel = self.topology.roads.travel_time(camera, other)
        for way in both:
            self._reach[way] = longest
            if travel is None:
                self._latest[way] = -np.inf
            else:
                self._earliest[way] = -np.inf if travel.may_overlap else travel.min_s
                self._latest[way] = travel.max_s

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
        is_apart = np.array([first.camera != second.camera for first, second in pairs], bool)
        found = np.full(len(pairs), self._config.unknown_log_odds)
        apart = np.flatnonzero(is_apart)
        if self._config.use_transit and len(apart):
            found[apart] = self.topology.log_odds([pairs[at] for at in apart.tolist()])
        for at in np.flatnonzero(~is_apart).tolist():
            found[at] = _again_in_view(*pairs[at])
        found[is_apart] += self._config.prior_log_odds
        return found

    def _is_asked(self, first: Tracklet, second: Tracklet, appearance: float, breaks: Breaks) -> bool:
        """Whether time and place mean anything for a pair, as `totals` sees it."""
        if appearance <= _HOPELESS and self._config.use_appearance:
            return False
        gap = gap_s(first, second)
        if first.camera == second.camera:
            return gap <= BROKEN_S
        left, entered = in_order(first, second)
        if breaks.is_broken_off(left) or breaks.has_gone_on(entered):
            return False
        row, column = self._number(first.camera), self._number(second.camera)
        return bool(gap <= self._reach[row, column])

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
    """Log-odds that a tracklet goes on from another of its camera, within `BROKEN_S`: by where it begins."""
    first, second = in_order(first, second)
    gap = second.started_at - first.ended_at
    if first.path is None or second.path is None or gap <= 0:
        return _AGAIN_IN_VIEW
    # It may have stood meanwhile, or have kept its speed; a box that an obstacle cuts off lies about that.
    begin, height = second.path.points[0], max(first.path.heights[-1], second.path.heights[0], 1.0)
    places = (first.path.points[-1], first.path.ahead(second.started_at)[0])
    distance = min(float(np.linalg.norm(place - begin)) for place in places) / height
    spread = _FORESEEN_SPREAD + _FORESEEN_SPREAD_PER_S * gap
    return _AGAIN_IN_VIEW + max(difference_llr(distance, spread), _LEAST_PLACE)


def _class_agreement(first: dict[str, float], second: dict[str, float]) -> float:
    """Log p(votes | same) / p(votes | different), with votes wrong at a known rate."""
    if not first or not second:
        return 0.0
    agreement = sum(share * second.get(name, 0.0) for name, share in first.items())
    return math.log((1 - _CLASS_ERROR) * agreement + _CLASS_ERROR * _CLASS_CHANCE) - math.log(_CLASS_CHANCE)


def _has_way(first: _Sheet, second: _Sheet, i: Index, j: Index) -> NDArray[np.bool_]:
    """Whether the earlier of two left, and the later entered, where they were last and first seen."""
    is_earlier = (first.start + first.end)[i] <= (second.start + second.end)[j]
    forth, back = first.leaves[i] & second.enters[j], second.leaves[j] & first.enters[i]
    return np.where(is_earlier, forth, back)


def _class_agreements(first: _Sheet, second: _Sheet, i: Index, j: Index) -> NDArray[np.float64]:
    """`_class_agreement` of tracklets `i` of the one sheet and `j` of the other."""
    width = min(first.votes.shape[1], second.votes.shape[1])
    agreement = np.zeros(i.shape)
    for votes, others in zip(first.votes[:, :width].T, second.votes[:, :width].T, strict=True):
        agreement += votes[i] * others[j]
    log_ratio = np.log((1 - _CLASS_ERROR) * agreement + _CLASS_ERROR * _CLASS_CHANCE) - math.log(_CLASS_CHANCE)
    voted = (first.votes.sum(axis=1) > 0)[i] & (second.votes.sum(axis=1) > 0)[j]
    return np.where(voted, log_ratio, 0.0)


def _is_motorcycle(tracklet: Tracklet) -> bool:
    return tracklet.class_votes.get("motorcycle", 0.0) > 0.5


def _sureness(tracklet: Tracklet) -> float:
    return max(tracklet.class_votes.values(), default=0.0)
