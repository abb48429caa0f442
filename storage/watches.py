"""Vehicles that somebody wants to hear of when they return, and what came of it.

A watch names a vehicle and follows it through corrections (`storage.watch_heirs`). What makes a return is decided in
`storage.watch_duty`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Table, case, exists, func, select, update
from sqlalchemy.orm import aliased

from storage.errors import StorageError, VehicleNotFoundError
from storage.lookup import find_vehicle
from storage.matcher_state import newest_decision
from storage.models import AssignmentRow, EmbeddingRow, TrackletRow, WatchNoticeRow, WatchRow
from storage.statements import add_numbered, hold_decisions
from storage.watch_heirs import find_watches, going_on, heirs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, ColumnExpressionArgument
    from sqlalchemy.orm import Session


class WatchError(StorageError):
    """A watch that can't be made or ended."""


class WatchNotFoundError(WatchError):
    """No such watch."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A vehicle that is waited for.

    Attributes:
        watch_id: Its number.
        vehicle_id: The vehicle by now, after merges and splits.
        made_by: Who waits.
        made_at: Since when, by the clock.
        note: Why, in that person's words.
        ended_at: When it ended; None while it goes on.
        last_seen: The last frame of the vehicle's newest tracklet; None where there is none any more.
        last_camera: Where that was.
        crop_images: The vehicle's best crop of each band, below the crop store, by the band's name.
        notices: How often it returned.
    """

    watch_id: int
    vehicle_id: str
    made_by: str
    made_at: datetime
    note: str
    ended_at: datetime | None
    last_seen: datetime | None
    last_camera: str | None
    crop_images: dict[str, str]
    notices: int


@dataclass(frozen=True, slots=True)
class Notice:
    """That a watched vehicle returned.

    Attributes:
        notice_id: Its number; never given twice.
        watch_id: The watch.
        vehicle_id: The watched vehicle by now; where it was not seen at the cameras that were asked for, whose the
            tracklet is.
        tracklet_id: Its return.
        camera: Where.
        seen_at: The tracklet's first frame, event time.
        made_at: When it was found, by the clock.
        attempts: How often telling it has failed.
        delivered_at: When everybody had been told; None while somebody has not.
        error: Of the last attempt that failed; empty without one.
        note: The watch's.
        tracklets: How many became the vehicle's own together, of which this is the one seen last: more than one where a
            correction gave them.
    """

    notice_id: int
    watch_id: int
    vehicle_id: str
    tracklet_id: str
    camera: str
    seen_at: datetime
    made_at: datetime
    attempts: int
    delivered_at: datetime | None
    error: str
    note: str = ""
    tracklets: int = 1


def watch(session: Session, vehicle_id: str, *, by: str, at: datetime, note: str = "") -> Watch:
    """Waits for a vehicle from now on.

    Holds the decisions (`statements.hold_decisions`), so that none made before is taken for a later one.

    Args:
        session: Of `Database.transaction`.
        vehicle_id: Its id, or the beginning of it.
        by: Who waits.
        at: Now, by the clock.
        note: Why.

    Raises:
        VehicleNotFoundError: No such vehicle, several, or one whose tracklets have all been given to others.
        WatchError: It is watched already.
    """
    hold_decisions(session)
    vehicle = find_vehicle(session, vehicle_id).vehicle_id
    is_own = (AssignmentRow.vehicle_id == vehicle) & AssignmentRow.is_current
    if session.execute(select(AssignmentRow.assignment_id).where(is_own).limit(1)).first() is None:
        raise VehicleNotFoundError(f"vehicle {vehicle}: its tracklets have been given to other vehicles")
    for known, heir in heirs(session, going_on(session)).items():
        if heir == vehicle:
            raise WatchError(f"vehicle {vehicle} is watched already: watch {known}")
    values = {"vehicle_id": vehicle, "made_by": by, "made_at": at, "note": note, "after": newest_decision(session)}
    add = add_numbered(session.get_bind().dialect.name, WatchRow)
    number: int = session.execute(add, values).scalar_one()
    return _watches(session, WatchRow.watch_id == number, visible=None)[0]


def unwatch(session: Session, watch_id: int, *, by: str, at: datetime) -> None:
    """Waits no longer. What was found until now is still told, and stays to be read.

    Args:
        session: Of `Database.transaction`.
        watch_id: The watch.
        by: Who says so.
        at: Now, by the clock.

    Raises:
        WatchNotFoundError: No such watch.
        WatchError: It has ended.
    """
    if not by:
        raise WatchError("by: wanted a person's name, got ''")
    found = select(WatchRow.ended_at).where(WatchRow.watch_id == watch_id)
    row = session.execute(found).first()
    if row is None:
        raise WatchNotFoundError(f"watch {watch_id}: not known")
    if row.ended_at is not None:
        raise WatchError(f"watch {watch_id}: has ended already")
    session.execute(update(cast("Table", WatchRow.__table__)).where(WatchRow.watch_id == watch_id).values(ended_at=at))


def watches(session: Session, *, ended: bool = False, visible: Collection[str] | None = None) -> list[Watch]:
    """What is watched, the newest first; six SQL statements.

    Args:
        session: To read from.
        ended: Also what is watched no longer.
        visible: Only of these cameras: sights and returns elsewhere are left out, and vehicles that were seen nowhere
            else. None: of all.
    """
    wanted: list[ColumnElement[bool]] = [] if ended else [WatchRow.ended_at.is_(None)]
    return _watches(session, *wanted, visible=visible)


def notices(
    session: Session,
    *,
    watch_id: int | None = None,
    before: int | None = None,
    limit: int = 100,
    visible: Collection[str] | None = None,
) -> list[Notice]:
    """What returned, the latest first; three SQL statements, or five.

    Args:
        session: To read from.
        watch_id: Only of this watch; None: of all.
        before: Only those of a lower number.
        limit: At most so many.
        visible: Only at these cameras; None: anywhere.
    """
    wanted: list[ColumnElement[bool]] = []
    if watch_id is not None:
        wanted.append(WatchNoticeRow.watch_id == watch_id)
    if before is not None:
        wanted.append(WatchNoticeRow.notice_id < before)
    return find_notices(session, *wanted, order=[WatchNoticeRow.notice_id.desc()], limit=limit, visible=visible)


def _watches(session: Session, *wanted: ColumnElement[bool], visible: Collection[str] | None) -> list[Watch]:
    found = find_watches(session, *wanted)
    heir_of = heirs(session, found)
    vehicles = sorted(set(heir_of.values()))
    sights = _last_sights(session, vehicles, visible)
    crops = _crop_images(session, vehicles, visible)
    counts = _counts(session, visible)
    unseen: tuple[datetime | None, str | None] = (None, None)
    return [
        Watch(
            one.watch_id,
            heir_of[one.watch_id],
            one.made_by,
            one.made_at,
            one.note,
            one.ended_at,
            *sights.get(heir_of[one.watch_id], unseen),
            crops.get(heir_of[one.watch_id], {}),
            counts.get(one.watch_id, 0),
        )
        for one in reversed(found)
        if visible is None or heir_of[one.watch_id] in sights
    ]


def _last_sights(
    session: Session, vehicles: Collection[str], visible: Collection[str] | None
) -> dict[str, tuple[datetime, str]]:
    order = (TrackletRow.ended_at.desc(), TrackletRow.tracklet_id.desc())
    rank = func.row_number().over(partition_by=AssignmentRow.vehicle_id, order_by=order)
    seen = (
        select(AssignmentRow.vehicle_id, TrackletRow.ended_at, TrackletRow.camera, rank.label("rank"))
        .join(TrackletRow, TrackletRow.tracklet_id == AssignmentRow.tracklet_id)
        .where(AssignmentRow.is_current, AssignmentRow.vehicle_id.in_(vehicles))
    )
    if visible is not None:
        seen = seen.where(TrackletRow.camera.in_(visible))
    ranked = seen.subquery()
    rows = session.execute(select(ranked.c.vehicle_id, ranked.c.ended_at, ranked.c.camera).where(ranked.c.rank == 1))
    return {row.vehicle_id: (row.ended_at, row.camera) for row in rows}


def _crop_images(
    session: Session, vehicles: Collection[str], visible: Collection[str] | None
) -> Mapping[str, dict[str, str]]:
    order = (EmbeddingRow.quality.desc(), EmbeddingRow.captured_at, EmbeddingRow.embedding_id)
    rank = func.row_number().over(partition_by=(AssignmentRow.vehicle_id, EmbeddingRow.modality), order_by=order)
    taken = (
        select(AssignmentRow.vehicle_id, EmbeddingRow.modality, EmbeddingRow.crop_image, rank.label("rank"))
        .join(EmbeddingRow, EmbeddingRow.tracklet_id == AssignmentRow.tracklet_id)
        .join(TrackletRow, TrackletRow.tracklet_id == AssignmentRow.tracklet_id)
        .where(AssignmentRow.is_current, AssignmentRow.vehicle_id.in_(vehicles), EmbeddingRow.crop_image.is_not(None))
    )
    if visible is not None:
        taken = taken.where(TrackletRow.camera.in_(visible))
    ranked = taken.subquery()
    best: dict[str, dict[str, str]] = defaultdict(dict)
    for row in session.execute(select(ranked).where(ranked.c.rank == 1).order_by(ranked.c.modality)):
        best[row.vehicle_id][row.modality] = row.crop_image
    return best


def _counts(session: Session, visible: Collection[str] | None) -> dict[int, int]:
    # What a correction gave counts once; its number can't be a notice's below nought.
    deeds = func.count(func.coalesce(WatchNoticeRow.correction_id, -WatchNoticeRow.notice_id).distinct())
    counted = select(WatchNoticeRow.watch_id, deeds).group_by(WatchNoticeRow.watch_id)
    if visible is not None:
        counted = counted.where(WatchNoticeRow.camera.in_(visible))
    return {watch_id: count for watch_id, count in session.execute(counted)}  # noqa: C416 - a row is no pair to mypy


def find_notices(
    session: Session,
    *wanted: ColumnElement[bool],
    order: Sequence[ColumnExpressionArgument[Any]],
    limit: int | None = None,
    visible: Collection[str] | None = None,
) -> list[Notice]:
    """The notices that meet all the conditions, one of each correction; three SQL statements, five if `visible`."""
    notice = WatchNoticeRow
    if visible is not None:
        wanted = (*wanted, notice.camera.in_(visible))
    rows = session.execute(
        select(
            notice.notice_id,
            notice.watch_id,
            WatchRow.vehicle_id,
            notice.tracklet_id,
            notice.camera,
            notice.seen_at,
            notice.made_at,
            notice.attempts,
            notice.delivered_at,
            notice.error,
            WatchRow.note,
            _together(visible).label("tracklets"),
        )
        .join(WatchRow, WatchRow.watch_id == notice.watch_id)
        .where(is_first(visible), *wanted)
        .order_by(*order)
        .limit(limit)
    ).all()
    vehicles = heirs(session, rows)
    found = [replace(Notice(*row), vehicle_id=vehicles[row.watch_id]) for row in rows]
    return found if visible is None else _as_seen(session, found, visible)


def _as_seen(session: Session, found: Sequence[Notice], visible: Collection[str]) -> list[Notice]:
    """The notices for who sees these cameras alone; where the watched vehicle was not seen there, of whose it is."""
    seen = _last_sights(session, {one.vehicle_id for one in found}, visible)
    is_return = AssignmentRow.is_current & AssignmentRow.tracklet_id.in_([one.tracklet_id for one in found])
    rows = session.execute(select(AssignmentRow.tracklet_id, AssignmentRow.vehicle_id).where(is_return))
    now = {row.tracklet_id: row.vehicle_id for row in rows}
    return [
        one if one.vehicle_id in seen else replace(one, vehicle_id=now.get(one.tracklet_id, one.vehicle_id))
        for one in found
    ]


def is_first(visible: Collection[str] | None = None) -> ColumnElement[bool]:
    """Of the notices that one correction made for a watch, at these cameras or all: the first, which stands for all."""
    other = aliased(WatchNoticeRow)
    return ~exists().where(*_beside(other, visible), other.notice_id < WatchNoticeRow.notice_id)


def _together(visible: Collection[str] | None) -> ColumnElement[int]:
    other = aliased(WatchNoticeRow)
    count = select(func.count()).select_from(other).where(*_beside(other, visible)).scalar_subquery()
    return case((WatchNoticeRow.correction_id.is_(None), 1), else_=count)


def _beside(other: type[WatchNoticeRow], visible: Collection[str] | None) -> list[ColumnElement[bool]]:
    same = [other.watch_id == WatchNoticeRow.watch_id, other.correction_id == WatchNoticeRow.correction_id]
    return same if visible is None else [*same, other.camera.in_(visible)]
