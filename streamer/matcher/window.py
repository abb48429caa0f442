"""All that is decided at one time: tracklets weighed against each other and against the vehicles already known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from streamer.matcher.association import cluster, totals
from streamer.matcher.broken import find_breaks
from streamer.matcher.evidence import gap_s

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from streamer.matcher.evidence import Scales
    from streamer.matcher.gallery import Identity
    from streamer.matcher.tracklet import Tracklet

#: Members of an identity that a tracklet is compared with: the nearest in time.
_MEMBERS = 8


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a tracklet came to lie.

    Attributes:
        identity: The known vehicle that it belongs to, or None.
        others: The tracklets of its window that belong to the same vehicle, as indices.
        score: Log-odds that it belongs to them, summed over all; None where it is alone.
        margin: By how much that beats being alone or the best other vehicle; of one alone, what it would have taken to
            join the best, or None where there was none.
        rivals: The vehicles that it could have been, its own among them: log-odds, the known vehicle or None, and the
            tracklets of its window that belong to it; best first. Those that a hard rule forbids are missing.
    """

    identity: Identity | None
    others: tuple[int, ...]
    score: float | None
    margin: float | None
    rivals: tuple[tuple[float, Identity | None, tuple[int, ...]], ...]

    @property
    def is_alone(self) -> bool:
        """Whether it belongs to nobody else."""
        return self.identity is None and not self.others


class Window:
    """Tracklets that are decided together.

    Args:
        tracklets: N of them.
        candidates: For each the known vehicles that it may be. Known vehicles stay apart from each other.
        scales: What pairs are weighed with.
        reach_s: Members that were last seen longer ago than this are no neighbours in time: looks alone count.
        return_log_odds: What is added to the looks of a vehicle all of whose members are out of reach.

    Attributes:
        breaks: Which tracklets are halves of broken ones.
    """

    def __init__(
        self,
        tracklets: Sequence[Tracklet],
        candidates: Sequence[Sequence[Identity]],
        scales: Scales,
        *,
        reach_s: float,
        return_log_odds: float,
    ) -> None:
        self._tracklets = tracklets
        self._scales = scales
        self._reach_s = reach_s
        self._return_log_odds = return_log_odds
        known = {identity.vehicle_id: identity for found in candidates for identity in found}
        self._known = [known[vehicle_id] for vehicle_id in sorted(known)]
        column = {identity.vehicle_id: index for index, identity in enumerate(self._known)}
        self._columns = [sorted(column[identity.vehicle_id] for identity in found) for found in candidates]
        members = [member for identity in self._known for member in identity.members]
        self.breaks = find_breaks(tracklets, members, scales)
        self._between = scales.totals(tracklets, tracklets, self.breaks)
        self._to_known: dict[tuple[int, int], float] = {}
        self._weigh_known([(row, at) for row, columns in enumerate(self._columns) for at in columns])

    def _weigh_known(self, asked: Sequence[tuple[int, int]]) -> None:
        """Notes the log-odds that tracklets, as indices, are known vehicles; minus infinity where a rule forbids it."""
        asked = [pair for pair in asked if pair not in self._to_known]
        if not asked:
            return
        members = [_nearest_in_time(self._tracklets[row], self._known[column]) for row, column in asked]
        flat = [(self._tracklets[row], own) for (row, _), found in zip(asked, members, strict=True) for own in found]
        totals_ = self._scales.pair_totals(flat, self.breaks)
        ends = np.cumsum([len(own) for own in members])
        for (row, column), own, end in zip(asked, members, ends.tolist(), strict=True):
            total = float(totals_[end - len(own) : end].sum()) if own else -np.inf
            if any(_is_twice(self._tracklets[row], member) for member in self._known[column].members):
                total = -np.inf
            is_gone = bool(own) and gap_s(self._tracklets[row], own[0]) > self._reach_s
            if is_gone and np.isfinite(total):
                total = float(self._scales.looks([self._tracklets[row]], own).mean()) + self._return_log_odds
            self._to_known[row, column] = total

    def worth(self, cluster_: Sequence[int], identity: Identity | None) -> float:
        """The log-odds of some tracklets, as indices, and a known vehicle being one, summed over all pairs."""
        between = self._between[np.ix_(cluster_, cluster_)][np.triu_indices(len(cluster_), 1)].sum()
        if identity is None:
            return float(between)
        asked = [(row, self._known.index(identity)) for row in cluster_]
        self._weigh_known(asked)
        return float(between + sum(self._to_known[pair] for pair in asked))

    def place(self, left_out: Collection[int] = ()) -> list[Placed]:
        """Clusters everything, and says of each tracklet where it came to lie and what else it could have been.

        Args:
            left_out: Tracklets, as indices, that are taken for alone, with nobody to choose from.
        """
        placed = [Placed(None, (), None, None, ())] * len(self._tracklets)
        for columns, rows in self._components(left_out):
            evidence = self._evidence(columns, rows)
            labels = cluster(evidence)
            for node, row in enumerate(rows, start=len(columns)):
                placed[row] = self._placed(node, evidence, labels, columns, rows)
        return placed

    def _components(self, left_out: Collection[int]) -> list[tuple[list[int], list[int]]]:
        """Known vehicles and tracklets, as indices, that anything speaks for joining, directly or by way of others."""
        count = len(self._tracklets)
        between = self._between > 0
        between[list(left_out)] = between[:, list(left_out)] = False
        rows, others = np.nonzero(between)
        known = ((row, column) for (row, column), total in self._to_known.items() if total > 0)
        edges = [(row, count + column) for row, column in known if row not in left_out]
        first = np.array([*rows, *(row for row, _ in edges)], np.int64)
        second = np.array([*others, *(other for _, other in edges)], np.int64)
        size = count + len(self._known)
        graph = coo_array((np.ones(len(first)), (first, second)), shape=(size, size))
        _, group = connected_components(graph, directed=False)
        members: dict[int, tuple[list[int], list[int]]] = {}
        for node, label in enumerate(group[:count]):
            if node in left_out:
                continue
            members.setdefault(int(label), ([], []))[1].append(node)
        for column, label in enumerate(group[count:]):
            if int(label) in members:
                members[int(label)][0].append(column)
        return list(members.values())

    def _evidence(self, columns: Sequence[int], rows: Sequence[int]) -> NDArray[np.float64]:
        """(N, N) between the known vehicles, first, and the tracklets of a component."""
        known = len(columns)
        evidence = np.full((known + len(rows), known + len(rows)), -np.inf)
        evidence[known:, known:] = self._between[np.ix_(rows, rows)]
        self._weigh_known([(row, column) for column in columns for row in rows])
        for at, column in enumerate(columns):
            for node, row in enumerate(rows, start=known):
                evidence[at, node] = evidence[node, at] = self._to_known[row, column]
        return evidence

    def _placed(
        self,
        node: int,
        evidence: NDArray[np.float64],
        labels: NDArray[np.int64],
        columns: Sequence[int],
        rows: Sequence[int],
    ) -> Placed:
        known, row = len(columns), rows[node - len(columns)]
        found: list[tuple[float, Identity | None, tuple[int, ...], bool]] = []
        for label, total in totals(evidence, labels, node).items():
            if np.isfinite(total):
                identity = self._known[columns[label]] if label < known else None
                own = np.flatnonzero(labels == label).tolist()
                others = tuple(rows[other - known] for other in own if other >= known and other != node)
                found.append((total, identity, others, label == labels[node]))
        outside = {column: self._to_known[row, column] for column in self._columns[row] if column not in columns}
        found += [(total, self._known[column], (), False) for column, total in outside.items() if np.isfinite(total)]
        found.sort(key=lambda rival: -rival[0])
        rivals = tuple((total, identity, others) for total, identity, others, _ in found)
        best_other = max((total for total, _, _, is_own in found if not is_own), default=None)
        own_place = next(((total, identity, others) for total, identity, others, is_own in found if is_own), None)
        if own_place is None:
            return Placed(None, (), None, None if best_other is None else -best_other, rivals)
        score, identity, others = own_place
        return Placed(identity, others, score, score - max(0.0, best_other or 0.0), rivals)


def _nearest_in_time(tracklet: Tracklet, identity: Identity) -> list[Tracklet]:
    """The members that there is something to compare with."""
    members = [member for member in identity.members if member.vectors]
    members.sort(key=lambda member: (max(0.0, gap_s(tracklet, member)), member.tracklet_id))
    return members[:_MEMBERS]


def _is_twice(first: Tracklet, second: Tracklet) -> bool:
    """Whether two tracklets of one camera were seen at one time."""
    return first.camera == second.camera and first.overlaps(second)
