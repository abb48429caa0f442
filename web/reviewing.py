"""What a person decides on the page, and takes back; refused where it isn't any more what they were shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from storage import corrections as desk
from storage.accounts import Role
from storage.errors import CorrectionError, VehicleNotFoundError
from storage.explanation import explain
from storage.history import Correction
from storage.history import corrections as book
from storage.lookup import find_vehicle
from storage.records import MATCHER
from storage.review import DoubtfulLink, doubtful
from storage.trajectories import VehicleSummary, vehicles

if TYPE_CHECKING:
    from storage.database import Session
    from storage.records import AssignmentRecord
    from web.callers import Caller
    from web.services import Services

#: Links that are read at a time, and corrections that are listed.
LINKS, CORRECTIONS = 50, 30


class Verdict(StrEnum):
    """What a person says of a doubtful link."""

    CONFIRM = "confirm"
    SPLIT = "split"
    MERGE = "merge"


class SettledError(CorrectionError):
    """Somebody, or the matcher, has decided meanwhile: what was shown is not so any more."""


@dataclass(frozen=True, slots=True)
class Work:
    """What lies on the desk.

    Attributes:
        links: Most doubtful first.
        corrections: People's and the matcher's, latest first.
    """

    links: list[DoubtfulLink]
    corrections: list[Correction]


def work(services: Services, caller: Caller) -> Work:
    """What is to be decided, and what was; of the caller's cameras alone."""
    with services.asking(caller, "review") as session:
        return Work(
            doubtful(session, limit=LINKS, visible=caller.cameras),
            book(session, limit=CORRECTIONS, visible=caller.cameras),
        )


def verdicts(link: DoubtfulLink) -> tuple[Verdict, ...]:
    """What can be said of it: a link is right or is split, a near miss is right or is merged."""
    return (Verdict.CONFIRM, Verdict.SPLIT if link.kind == "link" else Verdict.MERGE)


def decide(services: Services, caller: Caller, link: DoubtfulLink, verdict: Verdict, *, note: str = "") -> Correction:
    """Has it as that person says.

    Args:
        services: The database.
        caller: Who decides: an operator.
        link: As it was shown.
        verdict: What they say; of two vehicles that are one the id of the one seen first is kept.
        note: Why, in their words.

    Raises:
        SettledError: It was decided meanwhile.
        CorrectionError: The caller may not, or the verdict doesn't fit the link.
    """
    _check_role(caller)
    if verdict not in verdicts(link):
        raise CorrectionError(f"{verdict}: this is a {link.kind}; wanted {' or '.join(verdicts(link))}")
    both = (link.tracklet_id, link.other_tracklet_id)
    with services.deciding(caller, verdict.value, link.tracklet_id, other=link.other_tracklet_id) as session:
        _check_unsettled(session, caller, link)
        now = datetime.now(UTC)
        if verdict is Verdict.CONFIRM:
            return desk.confirm(session, both, by=caller.person, at=now, note=note)
        if verdict is Verdict.SPLIT:
            return desk.split(session, [link.tracklet_id], by=caller.person, at=now, note=note)
        keep, other = link.other_vehicle_id, link.vehicle_id
        if link.started_at < link.other_started_at:
            keep, other = other, keep
        return desk.merge(session, keep, other, by=caller.person, at=now, note=note)


def pair(services: Services, caller: Caller, vehicle_id: str, other: str) -> tuple[VehicleSummary, VehicleSummary]:
    """Two vehicles to be looked at before something is said of both.

    Args:
        services: The database.
        caller: Who asks.
        vehicle_id: The one.
        other: The other's id, or the beginning of it.

    Raises:
        CorrectionError: They are one.
        VehicleNotFoundError: One of them isn't known, or has no stops any more.
    """
    if not other.strip():
        raise CorrectionError("which vehicle? Its id stands on its page")
    with services.asking(caller, "vehicles", vehicle_id, other=other) as session:
        ids = [find_vehicle(session, name.strip(), visible=caller.cameras).vehicle_id for name in (vehicle_id, other)]
        found = {one.vehicle_id: one for one in vehicles(session, among=ids, visible=caller.cameras)}
    if ids[0] == ids[1]:
        raise CorrectionError(f"{other} is this vehicle itself")
    for name in ids:
        if name not in found:
            raise VehicleNotFoundError(f"vehicle {name}: its stops have been given to other vehicles")
    return found[ids[0]], found[ids[1]]


def merge(services: Services, caller: Caller, keep: str, other: str, *, note: str = "") -> Correction:
    """Two vehicles are one, by that person's word.

    Raises:
        CorrectionError: The caller may not, or the two are one already.
        VehicleNotFoundError: One of them isn't known.
    """
    _check_role(caller)
    with services.deciding(caller, "merge", keep, other=other) as session:
        return desk.merge(session, keep, other, by=caller.person, at=datetime.now(UTC), note=note)


def confirm(services: Services, caller: Caller, tracklet_id: str, vehicle_id: str, *, note: str = "") -> Correction:
    """A tracklet is that vehicle's, by that person's word.

    Args:
        services: The database.
        caller: Who decides: an operator.
        tracklet_id: The tracklet.
        vehicle_id: Whose it was when it was shown.
        note: Why, in their words.

    Raises:
        SettledError: It is another's by now.
        CorrectionError: The caller may not, or that person has said so already.
        TrackletNotFoundError: It isn't known.
    """
    _check_role(caller)
    with services.deciding(caller, "confirm", tracklet_id) as session:
        _check_shown(session, caller, tracklet_id, vehicle_id)
        return desk.confirm(session, [tracklet_id], by=caller.person, at=datetime.now(UTC), note=note)


def split(services: Services, caller: Caller, tracklet_id: str, vehicle_id: str, *, note: str = "") -> Correction:
    """A tracklet is not that vehicle's but another one's that is new, by that person's word.

    Raises:
        SettledError: As `confirm`.
        CorrectionError: The caller may not, or it is all that its vehicle has.
        TrackletNotFoundError: It isn't known.
    """
    _check_role(caller)
    with services.deciding(caller, "split", tracklet_id) as session:
        _check_shown(session, caller, tracklet_id, vehicle_id)
        return desk.split(session, [tracklet_id], by=caller.person, at=datetime.now(UTC), note=note)


def move(
    services: Services, caller: Caller, tracklet_id: str, vehicle_id: str, to: str, *, note: str = ""
) -> Correction:
    """A tracklet is not that vehicle's but another one's that is known, by that person's word.

    Raises:
        SettledError: As `confirm`.
        CorrectionError: The caller may not, or it is that one's already.
        TrackletNotFoundError: It isn't known.
        VehicleNotFoundError: The other one isn't.
    """
    _check_role(caller)
    with services.deciding(caller, "move", tracklet_id, to=to) as session:
        _check_shown(session, caller, tracklet_id, vehicle_id)
        return desk.move(session, [tracklet_id], to, by=caller.person, at=datetime.now(UTC), note=note)


def take_back(services: Services, caller: Caller, correction_id: int) -> Correction:
    """Undoes a correction.

    Raises:
        CorrectionError: The caller may not; it isn't known, was taken back, or something later stands on it.
    """
    _check_role(caller)
    with services.deciding(caller, "undo", "", correction=correction_id) as session:
        return desk.undo(session, correction_id, by=caller.person, at=datetime.now(UTC))


def last_of(corrections: list[Correction], person: str) -> Correction | None:
    """The latest correction of that person's that stands and took nothing back itself; None: there is none."""
    own = (one for one in corrections if one.made_by == person and one.undone_by is None and one.undoes is None)
    return next(own, None)


def _check_role(caller: Caller) -> None:
    if not caller.may(Role.OPERATOR):
        raise CorrectionError(f"{caller.person} is a {caller.role}: to decide is left to operators")


def _check_unsettled(session: Session, caller: Caller, link: DoubtfulLink) -> None:
    said = _check_shown(session, caller, link.tracklet_id, link.vehicle_id)
    # What it was compared with may be somebody's word already: that is no word on this link.
    if said.decided_by != MATCHER:
        raise SettledError(f"{said.decided_by} has decided on {link.tracklet_id} meanwhile")
    _check_shown(session, caller, link.other_tracklet_id, link.other_vehicle_id)


def _check_shown(session: Session, caller: Caller, tracklet_id: str, vehicle_id: str) -> AssignmentRecord:
    """What is said of a tracklet; refused where it isn't that vehicle's any more: nobody decides unseen."""
    made = explain(session, tracklet_id, visible=caller.cameras).decisions
    if not made:
        raise SettledError(f"{tracklet_id} has no vehicle any more")
    said = made[0].said
    if said.vehicle_id != vehicle_id:
        who = "the matcher" if said.decided_by == MATCHER else said.decided_by
        raise SettledError(f"{who} has decided on {tracklet_id} meanwhile: it is vehicle {said.vehicle_id[:8]}'s now")
    return said
