"""How two opinions on who is who differ: partitions of the same tracklets into vehicles. Values in, figures out.

Nobody knows here which of the two is right: precision and recall are those of the one, were the other the truth.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from storage.replay import Membership

Pair = tuple[str, str]


class Change(StrEnum):
    """What became of vehicles."""

    MERGED = "merged"
    SPLIT = "split"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Links, which are pairs of tracklets of one vehicle, in two partitions.

    Attributes:
        name: Which links: `all`, or two cameras joined by `~`.
        before: Links of the old partition.
        after: Links of the new one.
        kept: Links of both.
    """

    name: str
    before: int
    after: int
    kept: int

    @property
    def precision(self) -> float | None:
        """Of the new links, the share that there was before; None where there are none."""
        return self.kept / self.after if self.after else None

    @property
    def recall(self) -> float | None:
        """Of the old links, the share that there still is; None where there were none."""
        return self.kept / self.before if self.before else None

    @property
    def f1(self) -> float | None:
        """Both in one figure; None where neither has links."""
        links = self.before + self.after
        return 2 * self.kept / links if links else None


@dataclass(frozen=True, slots=True)
class Group:
    """A vehicle's part in a change.

    Attributes:
        vehicle_id: The vehicle.
        tracklets: Its tracklets, in the order in which they began.
    """

    vehicle_id: str
    tracklets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Regrouping:
    """Vehicles that differ, and have to do with each other.

    Attributes:
        change: `merged` (several became one), `split` (one became several), or `moved`, which is anything else.
        before: The vehicles as they were, the largest first.
        after: As they are now, the largest first.
    """

    change: Change
    before: tuple[Group, ...]
    after: tuple[Group, ...]

    @property
    def tracklets(self) -> int:
        """How many tracklets it is about."""
        return sum(len(group.tracklets) for group in self.after)


@dataclass(frozen=True, slots=True)
class Difference:
    """How two partitions of the same tracklets differ.

    Attributes:
        tracklets: That both know.
        left_out: That one of the two does not know.
        vehicles_before: How many vehicles the old partition has.
        vehicles_after: How many the new one has.
        changed: Tracklets that are together with others than before.
        links: All pairs of tracklets.
        camera_links: The same by pair of cameras, one with itself too, by name; those with any link.
        regroupings: What differs, the one of most tracklets first.
    """

    tracklets: int
    left_out: int
    vehicles_before: int
    vehicles_after: int
    changed: int
    links: Agreement
    camera_links: tuple[Agreement, ...]
    regroupings: tuple[Regrouping, ...]


def compare(before: Iterable[Membership], after: Iterable[Membership]) -> Difference:
    """Compares two partitions; time and room grow with the tracklets, not with their pairs.

    Args:
        before: The old one; each tracklet once, in the order in which they began.
        after: The new one, likewise.
    """
    old = {one.tracklet_id: one for one in before}
    new = {one.tracklet_id: one for one in after}
    both = [tracklet_id for tracklet_id in old if tracklet_id in new]
    cells: dict[Pair, list[str]] = defaultdict(list)
    for tracklet_id in both:
        cells[old[tracklet_id].vehicle_id, new[tracklet_id].vehicle_id].append(tracklet_id)
    were, are = (Counter[str](), Counter[str]())
    for (was, is_now), members in cells.items():
        were[was] += len(members)
        are[is_now] += len(members)
    moved = {cell: own for cell, own in cells.items() if not len(own) == were[cell[0]] == are[cell[1]]}
    cameras = {tracklet_id: old[tracklet_id].camera for tracklet_id in both}
    by_camera = _camera_links(cells, cameras)
    return Difference(
        tracklets=len(both),
        left_out=len(old) + len(new) - 2 * len(both),
        vehicles_before=len(were),
        vehicles_after=len(are),
        changed=sum(map(len, moved.values())),
        links=Agreement("all", *(sum(getattr(one, name) for one in by_camera) for name in ("before", "after", "kept"))),
        camera_links=by_camera,
        regroupings=_regroupings(moved, {name: at for at, name in enumerate(both)}),
    )


def _camera_links(cells: Mapping[Pair, list[str]], cameras: Mapping[str, str]) -> tuple[Agreement, ...]:
    sides: dict[str, dict[str, Counter[str]]] = {side: defaultdict(Counter) for side in ("before", "after", "kept")}
    for (was, is_now), members in cells.items():
        seen = Counter(cameras[tracklet_id] for tracklet_id in members)
        for side, vehicle in (("before", was), ("after", is_now), ("kept", f"{was} {is_now}")):
            sides[side][vehicle].update(seen)
    found = {side: _links(vehicles.values()) for side, vehicles in sides.items()}
    pairs = sorted({*found["before"], *found["after"]})
    return tuple(Agreement("~".join(pair), *(found[side][pair] for side in sides)) for pair in pairs)


def _links(vehicles: Iterable[Counter[str]]) -> Counter[Pair]:
    """Pairs of tracklets by pair of cameras, from the number of tracklets that each vehicle has in each camera."""
    links: Counter[Pair] = Counter()
    for seen in vehicles:
        for camera, count in seen.items():
            if count > 1:
                links[camera, camera] += count * (count - 1) // 2
        for first, second in combinations(sorted(seen), 2):
            links[first, second] += seen[first] * seen[second]
    return links


def _regroupings(moved: Mapping[Pair, list[str]], order: Mapping[str, int]) -> tuple[Regrouping, ...]:
    """The changed cells, those with a vehicle in common together."""
    found = [_regrouping([(cell, moved[cell]) for cell in component], order) for component in _components(list(moved))]
    return tuple(sorted(found, key=lambda one: (-one.tracklets, order[one.after[0].tracklets[0]])))


def _components(cells: Sequence[Pair]) -> list[list[Pair]]:
    by_vehicle: dict[tuple[int, str], list[Pair]] = defaultdict(list)
    for cell in cells:
        for side, vehicle in enumerate(cell):
            by_vehicle[side, vehicle].append(cell)
    components, seen = [], set[Pair]()
    for start in cells:
        reached, waiting = list[Pair](), [start]
        while waiting:
            cell = waiting.pop()
            if cell not in seen:
                seen.add(cell)
                reached.append(cell)
                waiting += [other for side, vehicle in enumerate(cell) for other in by_vehicle[side, vehicle]]
        if reached:
            components.append(reached)
    return components


def _regrouping(cells: Iterable[tuple[Pair, list[str]]], order: Mapping[str, int]) -> Regrouping:
    sides: tuple[dict[str, list[str]], dict[str, list[str]]] = (defaultdict(list), defaultdict(list))
    for cell, members in cells:
        for side, vehicle in zip(sides, cell, strict=True):
            side[vehicle] += members
    before, after = (
        tuple(
            sorted(
                (Group(vehicle, tuple(sorted(members, key=order.__getitem__))) for vehicle, members in side.items()),
                key=lambda group: (-len(group.tracklets), order[group.tracklets[0]]),
            )
        )
        for side in sides
    )
    change = Change.MERGED if len(after) == 1 else Change.SPLIT if len(before) == 1 else Change.MOVED
    return Regrouping(change, before, after)
