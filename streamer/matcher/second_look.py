"""The second look: from what was decided and what would be decided now, the corrections that are worth making."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from streamer.matcher.decision import Reason, vehicle_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from streamer.matcher.gallery import Identity
    from streamer.matcher.tracklet import Tracklet
    from streamer.matcher.window import Placed, Window

#: By so much, in nats, a new division must beat the old one: nobody likes a name that changes for nothing.
_WORTHWHILE = 2.0


def rename(
    window: Window,
    placed: Sequence[Placed],
    tracklets: Sequence[Tracklet],
    before: Sequence[str],
    anchors: Mapping[str, Identity],
    *,
    is_taken: Callable[[str], bool],
) -> list[str]:
    """The vehicle of each tracklet after a second look.

    Args:
        window: What was solved.
        placed: Where each tracklet came to lie.
        tracklets: In the order of `placed`, earliest first.
        before: The vehicle of each so far.
        anchors: By vehicle, what of it is not looked at again and keeps its name.
        is_taken: Whether a vehicle of that id is known.

    Returns:
        Vehicle ids. What is not worth changing stays; a vehicle that does change keeps the name that most of its
        seconds had.
    """
    groups = _groups(placed)
    after = list(before)
    for rows in _entangled(groups, before):
        new: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            new[groups[row]].append(row)
        old: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            old[before[row]].append(row)
        identities = {group: placed[own[0]].identity for group, own in new.items()}
        # The same tracklets may have come to, or away from, what is not looked at again.
        now = sorted((own, _anchor(identities[group])) for group, own in new.items())
        then = sorted((own, vehicle_id if vehicle_id in anchors else "") for vehicle_id, own in old.items())
        if now == then:
            continue
        now_worth = sum(window.worth(own, identities[group]) for group, own in new.items())
        then_worth = sum(window.worth(own, anchors.get(vehicle_id)) for vehicle_id, own in old.items())
        if now_worth - then_worth < _WORTHWHILE:
            continue
        names = _names(new, identities, tracklets, before, anchors, is_taken)
        for group, own in new.items():
            for row in own:
                after[row] = names[group]
    return after


def changes(before: Sequence[str], after: Sequence[str], anchors: Iterable[str]) -> list[tuple[Reason, list[int]]]:
    """What was changed, by kind: the tracklets, as indices, that went from one vehicle to another."""
    moved: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        if old != new:
            moved[old, new].append(row)
    left_over, existed = {*after, *anchors}, {*before, *anchors}
    found = []
    for (old, new), rows in sorted(moved.items()):
        is_whole = old not in left_over and len(rows) == sum(vehicle_id == old for vehicle_id in before)
        kind = Reason.SPLIT if new not in existed else Reason.MERGE if is_whole else Reason.MOVE
        found.append((kind, rows))
    return found


def _anchor(identity: Identity | None) -> str:
    return identity.vehicle_id if identity else ""


def _groups(placed: Sequence[Placed]) -> list[int]:
    """For each tracklet the number of its group: its first tracklet."""
    return [min([row, *place.others]) for row, place in enumerate(placed)]


def _entangled(groups: Sequence[int], before: Sequence[str]) -> list[list[int]]:
    """The tracklets, as indices, whose old and new vehicles have to do with each other."""
    number = {vehicle_id: len(groups) + at for at, vehicle_id in enumerate(sorted(set(before)))}
    size = len(groups) + len(number)
    rows = np.array(groups, np.int64)
    columns = np.array([number[vehicle_id] for vehicle_id in before], np.int64)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    found: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        found[int(label[group])].append(row)
    return list(found.values())


def _names(
    new: Mapping[int, Sequence[int]],
    identities: Mapping[int, Identity | None],
    tracklets: Sequence[Tracklet],
    before: Sequence[str],
    anchors: Mapping[str, Identity],
    is_taken: Callable[[str], bool],
) -> dict[int, str]:
    names = {group: identity.vehicle_id for group, identity in identities.items() if identity is not None}
    seconds: dict[tuple[int, str], float] = defaultdict(float)
    for group, own in new.items():
        for row in own:
            seconds[group, before[row]] += tracklets[row].ended_at - tracklets[row].started_at
    given = {*names.values(), *anchors}
    for (group, vehicle_id), _ in sorted(seconds.items(), key=lambda one: (-one[1], one[0])):
        if group not in names and vehicle_id not in given:
            names[group] = vehicle_id
            given.add(vehicle_id)
    for group, own in new.items():
        if group not in names:
            ids = (tracklets[row].tracklet_id for row in own)
            free = (name for name in map(vehicle_id_of, ids) if name not in given and not is_taken(name))
            first = tracklets[own[0]]
            names[group] = next(free, vehicle_id_of(f"{first.tracklet_id} anew at {first.ended_at}"))
            given.add(names[group])
    return names
