"""What a person decides on the review page, and takes back; refused where another person was quicker."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from storage import corrections as desk
from storage.accounts import Role
from storage.errors import CorrectionError
from storage.explanation import explain
from storage.history import Correction
from storage.history import corrections as book
from storage.records import MATCHER
from storage.review import DoubtfulLink, doubtful

if TYPE_CHECKING:
    from storage.database import Session
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
    """Somebody has decided on the link meanwhile, or the matcher has: there is nothing left to say."""


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


def merge(services: Services, caller: Caller, keep: str, other: str, *, note: str = "") -> Correction:
    """Two vehicles are one, by that person's word.

    Raises:
        CorrectionError: The caller may not, or the two are one already.
        VehicleNotFoundError: One of them isn't known.
    """
    _check_role(caller)
    with services.deciding(caller, "merge", keep, other=other) as session:
        return desk.merge(session, keep, other, by=caller.person, at=datetime.now(UTC), note=note)


def confirm(services: Services, caller: Caller, tracklet_id: str, *, note: str = "") -> Correction:
    """A tracklet is where it belongs, by that person's word.

    Raises:
        CorrectionError: The caller may not, or that person has said so already.
        TrackletNotFoundError: It isn't known.
    """
    _check_role(caller)
    with services.deciding(caller, "confirm", tracklet_id) as session:
        return desk.confirm(session, [tracklet_id], by=caller.person, at=datetime.now(UTC), note=note)


def split(services: Services, caller: Caller, tracklet_id: str, *, note: str = "") -> Correction:
    """A tracklet is another vehicle, by that person's word.

    Raises:
        CorrectionError: The caller may not, or it is all that its vehicle has.
        TrackletNotFoundError: It isn't known.
    """
    _check_role(caller)
    with services.deciding(caller, "split", tracklet_id) as session:
        return desk.split(session, [tracklet_id], by=caller.person, at=datetime.now(UTC), note=note)


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
    shown = ((link.tracklet_id, link.vehicle_id), (link.other_tracklet_id, link.other_vehicle_id))
    for place, (tracklet_id, vehicle_id) in enumerate(shown):
        made = explain(session, tracklet_id, visible=caller.cameras).decisions
        said = made[0].said if made else None
        # What it was compared with may be somebody's word already: that is no word on this link.
        is_spoken_for = said is not None and place == 0 and said.decided_by != MATCHER
        if said is None or said.vehicle_id != vehicle_id or is_spoken_for:
            who = "the matcher" if said is None or said.decided_by == MATCHER else said.decided_by
            raise SettledError(f"{who} has decided on {tracklet_id} meanwhile: on with the next")
