"""What people had said of an earlier run, said again of a rebuilt one."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from storage.records import AssignmentRecord
from streamer.matcher.decision import Reason, vehicle_id_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from storage.labels import SaidPair
    from storage.replay import Pin
    from storage.writer import Writer


_NOTE = "kept from an earlier run"


def vehicles_of_pins(pins: Sequence[Pin], now: Mapping[str, str]) -> dict[str, str]:
    """Where a person's word puts each pinned tracklet among the vehicles that there are now.

    What a person had put together is together again, and what he had kept apart is apart. The old names may be gone,
    or other vehicles' by now: so a group becomes the vehicle that most of it is already, each vehicle once; what was
    linked to that vehicle without a person's word stays there.

    Args:
        pins: Of the old run, the tracklets that began first, first.
        now: The vehicle of each tracklet of the new one.

    Returns:
        By tracklet id, the vehicle it must belong to.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for pin in pins:
        if pin.tracklet_id in now:
            groups[pin.vehicle_id].append(pin.tracklet_id)
    used, claimed = set(now.values()), set[str]()
    found = {}
    for old, members in sorted(groups.items(), key=lambda group: -len(group[1])):
        free = Counter(now[member] for member in members if now[member] not in claimed)
        name = max(free, key=lambda vehicle: free[vehicle]) if free else _new_name(old, used)
        claimed.add(name)
        used.add(name)
        found.update(dict.fromkeys(members, name))
    return found


def _new_name(old: str, used: set[str]) -> str:
    names = (old, *(vehicle_id_of(f"{old} kept {number}") for number in range(len(used) + 1)))
    return next(name for name in names if name not in used)


def keep_corrections(pins: Sequence[Pin], said: Iterable[SaidPair], now: Mapping[str, str], writer: Writer) -> int:
    """Writes them down: what was confirmed together as that, all else as one correction for each person and vehicle.

    Args:
        pins: As for `vehicles_of_pins`.
        said: The pairs that people's corrections were about.
        now: Likewise.
        writer: Of the caller's transaction.

    Returns:
        How many tracklets are pinned.
    """
    vehicles = vehicles_of_pins(pins, now)
    kept = {pin.tracklet_id: pin for pin in pins if pin.tracklet_id in vehicles}
    confirmed: dict[int, list[SaidPair]] = defaultdict(list)
    for pair in said:
        if pair.kind == "confirm" and {pair.first, pair.second} <= kept.keys():
            confirmed[pair.correction_id].append(pair)
    for _, pairs in sorted(confirmed.items()):
        # Of two that were kept apart only a confirmation tells: a move knows of one vehicle.
        names = sorted({name for pair in pairs for name in (pair.first, pair.second)})
        person, said_at = pairs[0].said_by, pairs[0].said_at
        rows = [_assignment(replace(kept[name], decided_by=person), vehicles[name], "confirm") for name in names]
        writer.correct("confirm", rows, made_by=person, made_at=said_at, note=_NOTE)
    groups: dict[tuple[str, str], list[Pin]] = defaultdict(list)
    for pin in kept.values():
        groups[pin.decided_by, vehicles[pin.tracklet_id]].append(pin)
    for (person, vehicle_id), own in groups.items():
        rows = [_assignment(pin, vehicle_id) for pin in own]
        said_at = max(pin.decided_at for pin in own)
        writer.correct(Reason.MOVE, rows, made_by=person, made_at=said_at, note=_NOTE)
    return len(vehicles)


def _assignment(pin: Pin, vehicle_id: str, reason: str = Reason.MOVE) -> AssignmentRecord:
    return AssignmentRecord(
        pin.tracklet_id,
        vehicle_id,
        reason,
        is_provisional=False,
        score=None,
        margin=None,
        modality_pair=None,
        transit_s=None,
        model_id="",
        decided_at=pin.decided_at,
        evidence={"rule": f"given to this vehicle by {pin.decided_by}, in an earlier run vehicle {pin.vehicle_id}"},
        decided_by=pin.decided_by,
    )
