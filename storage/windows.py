"""Which vehicles a list is of: found by indexes, however many others there are.

A time window's tracklets began shortly before it, but for the few that were in view for long: these have an index of
their own (`ix_tracklets_long`). Without a window, vehicles are walked in the order they are listed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, text, union
from sqlalchemy.orm import InstrumentedAttribute, aliased

from storage.models import LONG_POSTGRESQL, LONG_S, LONG_SQLITE, AssignmentRow, EmbeddingRow, TrackletRow, VehicleRow
from storage.question_limits import check_moment, check_window

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Subquery
    from sqlalchemy.orm import InstrumentedAttribute, Session

# SQLite tells how long something lasted to a millisecond: what lasted just longer than `LONG_S` may not be long to it.
_SLACK_S = 1.0
# So many vehicles are sooner found one after the other than by reading everything that a viewer's cameras saw.
_FEW = 1000
# Before and after everything.
_EVER, _NEVER = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

_Chosen = Select[*tuple[Any, ...]]
_Statement = TypeVar("_Statement", bound=_Chosen)
_Column = ColumnElement[Any] | InstrumentedAttribute[Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which vehicles are wanted, and in which order.

    Attributes:
        start: In view at this moment or later.
        end: In view before this moment.
        camera: Seen by this camera; within the window, where there is one.
        min_cameras: Seen by so many cameras.
        vehicle_class: Of this class.
        modality: With a look in this band.
        newest_first: By the last sight, latest first; else by the first sight.
        after: When the last one shown was seen, first or last as they are ordered, and its id: only those after it.
        offset: So many are left out.
        limit: At most so many.
        among: Only these; None: of all.
    """

    start: datetime | None = None
    end: datetime | None = None
    camera: str | None = None
    min_cameras: int = 1
    vehicle_class: str | None = None
    modality: str | None = None
    newest_first: bool = False
    after: tuple[datetime, str] | None = None
    offset: int = 0
    limit: int | None = None
    among: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_window(self.start, self.end)
        if self.after is not None:
            check_moment("after", self.after[0])


def at_visible(statement: _Statement, visible: Collection[str] | None) -> _Statement:
    """A statement on tracklets, on those of these cameras alone; None: of all."""
    return statement if visible is None else statement.where(TrackletRow.camera.in_(visible))


def in_window(
    session: Session,
    *columns: Any,  # noqa: ANN401 - any columns
    start: datetime | None,
    end: datetime | None,
    camera: str | None = None,
) -> Select[Any]:
    """Some columns of the tracklets in view at some time of [start, end), each tracklet once.

    Args:
        session: Whose database is asked.
        columns: Of `TrackletRow`; with its id, or rows that are the same in all of them become one.
        start: None: since ever.
        end: None: until now.
        camera: Only this one's.
    """
    conditions: list[ColumnElement[bool]] = []
    if end is not None:
        conditions.append(TrackletRow.started_at < end)

    def of_camera(column: ColumnElement[str] | InstrumentedAttribute[str]) -> list[ColumnElement[bool]]:
        return [] if camera is None else [column == camera]

    if start is None:
        return select(*columns).where(*of_camera(TrackletRow.camera), *conditions)
    conditions.append(TrackletRow.ended_at >= start)
    began_lately = TrackletRow.started_at >= start - timedelta(seconds=LONG_S + _SLACK_S)
    is_long = text(LONG_SQLITE if session.get_bind().dialect.name == "sqlite" else LONG_POSTGRESQL)
    lately = select(*columns).where(began_lately, *of_camera(TrackletRow.camera), *conditions)
    # With the bare column SQLite would go by the camera, and read half of all it ever saw.
    long = select(*columns).where(is_long, *of_camera(TrackletRow.camera.concat("")), *conditions)
    both = union(lately, long)
    return select(*both.subquery().c)


def current_members() -> Subquery:
    """Which tracklet belongs to which vehicle, as known now."""
    return select(AssignmentRow.tracklet_id, AssignmentRow.vehicle_id).where(AssignmentRow.is_current).subquery()


def chosen_vehicles(session: Session, wanted: Wanted) -> Subquery:
    """The vehicles as known now: `vehicle_id` and `seen_at`, by which they are ordered."""
    seen_at = VehicleRow.last_seen if wanted.newest_first else VehicleRow.first_seen
    chosen = select(VehicleRow.vehicle_id, seen_at.label("seen_at")).where(seen_at.is_not(None))
    chosen = chosen.where(*_in_time(session, wanted), *_traits(wanted))
    return ordered(chosen, seen_at, VehicleRow.vehicle_id, wanted).subquery()


def chosen_seen(session: Session, wanted: Wanted, visible: Collection[str]) -> Subquery:
    """As `chosen_vehicles`, of what these cameras saw of them.

    Few vehicles, or those since some moment, are found by walking the tracklets in their order, of each vehicle to the
    first (the last) that was seen; for others everything of these cameras, or of the window, is read.
    """
    bound = wanted.start if wanted.newest_first else wanted.end
    is_edge = wanted.camera is None and (wanted.end if wanted.newest_first else wanted.start) is None
    if not is_edge or (bound is None and (wanted.limit is None or wanted.limit > _FEW)):
        return chosen_among(session, current_members(), wanted, visible)
    edge = TrackletRow
    seen_at = edge.ended_at if wanted.newest_first else edge.started_at
    # With a bound alone SQLite goes by the index of times, and not by that of cameras.
    within = seen_at >= (bound or _EVER) if wanted.newest_first else seen_at < (bound or _NEVER)
    chosen = (
        select(VehicleRow.vehicle_id, seen_at.label("seen_at"))
        .join_from(edge, AssignmentRow, (AssignmentRow.tracklet_id == edge.tracklet_id) & AssignmentRow.is_current)
        .join(VehicleRow, VehicleRow.vehicle_id == AssignmentRow.vehicle_id)
        .where(edge.camera.concat("").in_(visible), within, ~_beyond(wanted, visible))
    )
    chosen = chosen.where(*_traits(wanted, visible))
    return ordered(chosen, seen_at, VehicleRow.vehicle_id, wanted).subquery()


def _beyond(wanted: Wanted, visible: Collection[str]) -> ColumnElement[bool]:
    """Whether the same vehicle was seen still later, or, where the first sight is wanted, still earlier."""
    other, others, edge = aliased(TrackletRow), aliased(AssignmentRow), TrackletRow
    ours, theirs = (edge.ended_at, other.ended_at) if wanted.newest_first else (edge.started_at, other.started_at)
    is_beyond = theirs > ours if wanted.newest_first else theirs < ours
    return exists().where(
        others.vehicle_id == AssignmentRow.vehicle_id,
        others.is_current,
        other.tracklet_id == others.tracklet_id,
        other.camera.in_(visible),
        or_(is_beyond, and_(theirs == ours, other.tracklet_id > edge.tracklet_id)),
    )


def chosen_among(session: Session, member: Subquery, wanted: Wanted, visible: Collection[str] | None) -> Subquery:
    """As `chosen_vehicles`, of another state of things than what is known now, or of what some cameras saw of it.

    Without a window it reads all of it.

    Args:
        session: Whose database is asked.
        member: `tracklet_id` and `vehicle_id`.
        wanted: Which.
        visible: The only cameras that there are; None: all.
    """
    on_tracklet = TrackletRow.tracklet_id == member.c.tracklet_id
    seen_at = func.max(TrackletRow.ended_at) if wanted.newest_first else func.min(TrackletRow.started_at)
    chosen = (
        select(member.c.vehicle_id, seen_at.label("seen_at"))
        .join_from(member, TrackletRow, on_tracklet)
        .group_by(member.c.vehicle_id)
        .having(func.count(TrackletRow.camera.distinct()) >= wanted.min_cameras)
    )
    chosen = at_visible(chosen, visible)
    of_window = at_visible(select(member.c.vehicle_id).join_from(member, TrackletRow, on_tracklet), visible)
    window = in_window(session, TrackletRow.tracklet_id, start=wanted.start, end=wanted.end, camera=wanted.camera)
    if (wanted.start, wanted.end, wanted.camera) != (None, None, None):
        chosen = chosen.where(member.c.vehicle_id.in_(of_window.where(member.c.tracklet_id.in_(window))))
    if wanted.among is not None:
        chosen = chosen.where(member.c.vehicle_id.in_(wanted.among))
    if wanted.vehicle_class is not None:
        of_class = select(VehicleRow.vehicle_id).where(VehicleRow.vehicle_class == wanted.vehicle_class)
        chosen = chosen.where(member.c.vehicle_id.in_(of_class))
    if wanted.modality is not None:
        looks = exists().where(
            EmbeddingRow.tracklet_id == member.c.tracklet_id, EmbeddingRow.modality == wanted.modality
        )
        chosen = chosen.where(member.c.vehicle_id.in_(of_window.where(looks)))
    found = chosen.subquery()
    again = select(found.c.vehicle_id, found.c.seen_at)
    return ordered(again, found.c.seen_at, found.c.vehicle_id, wanted).subquery()


def ordered(chosen: _Chosen, seen_at: _Column, vehicle_id: _Column, wanted: Wanted) -> _Chosen:
    """The same in the order wanted, from where it is wanted, as many as are."""
    if wanted.after is not None:
        moment, last = wanted.after
        if wanted.newest_first:
            beyond = or_(seen_at < moment, and_(seen_at == moment, vehicle_id < last))
            chosen = chosen.where(seen_at <= moment, beyond)
        else:
            beyond = or_(seen_at > moment, and_(seen_at == moment, vehicle_id > last))
            chosen = chosen.where(seen_at >= moment, beyond)
    by = (seen_at.desc(), vehicle_id.desc()) if wanted.newest_first else (seen_at, vehicle_id)
    # SQLite takes no offset without a limit, SQLAlchemy writes one.
    return chosen.order_by(*by).limit(wanted.limit).offset(wanted.offset or None)


def _traits(wanted: Wanted, visible: Collection[str] | None = None) -> list[ColumnElement[bool]]:
    """Conditions on a vehicle, whenever it was seen."""
    conditions: list[ColumnElement[bool]] = []
    own, seen = aliased(AssignmentRow), aliased(TrackletRow)
    is_own = (own.vehicle_id == VehicleRow.vehicle_id) & own.is_current
    on_tracklet = seen.tracklet_id == own.tracklet_id
    is_seen = [] if visible is None else [seen.camera.in_(visible)]
    if wanted.among is not None:
        conditions.append(VehicleRow.vehicle_id.in_(wanted.among))
    if wanted.vehicle_class is not None:
        conditions.append(VehicleRow.vehicle_class == wanted.vehicle_class)
    if wanted.min_cameras > 1:
        cameras = select(func.count(seen.camera.distinct())).join(own, on_tracklet).where(is_own, *is_seen)
        conditions.append(cameras.correlate(VehicleRow).scalar_subquery() >= wanted.min_cameras)
    if wanted.modality is not None:
        looks = select(EmbeddingRow.embedding_id).join(own, own.tracklet_id == EmbeddingRow.tracklet_id)
        if is_seen:
            looks = looks.join(seen, on_tracklet).where(*is_seen)
        looks = looks.where(is_own, EmbeddingRow.modality == wanted.modality)
        conditions.append(looks.correlate(VehicleRow).exists())
    return conditions


def _in_time(session: Session, wanted: Wanted) -> list[ColumnElement[bool]]:
    start, end, camera = wanted.start, wanted.end, wanted.camera
    if camera is None and (start is None or end is None):
        # By the whole of what the vehicle did: what was seen before `end` was first seen before it.
        began = [] if end is None else [VehicleRow.first_seen < end]
        return began if start is None else [*began, VehicleRow.last_seen >= start]
    if start is None and end is None:
        own = (AssignmentRow.vehicle_id == VehicleRow.vehicle_id) & AssignmentRow.is_current
        on_tracklet = TrackletRow.tracklet_id == AssignmentRow.tracklet_id
        return [exists().where(own, on_tracklet, TrackletRow.camera == camera)]
    window = in_window(session, TrackletRow.tracklet_id, start=start, end=end, camera=camera)
    of_window = select(AssignmentRow.vehicle_id).where(AssignmentRow.is_current, AssignmentRow.tracklet_id.in_(window))
    return [VehicleRow.vehicle_id.in_(of_window)]
