"""Reading what vehicles do at and between cameras: who passed two of them, who travelled together, how long it took.

Everything counts as known now: by each tracklet's current decision. The number of SQL statements of a question doesn't
grow with its answer. Where somebody may see only some cameras, nothing else counts: a vehicle's next camera is then the
next of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import ColumnElement, Float, Integer, String, cast, exists, func, select
from sqlalchemy.orm import aliased

from storage.answers import Companion, Count, DwellTime, JourneyTime, Passage, link_probability
from storage.lookup import find_vehicle
from storage.models import AssignmentRow, EmbeddingRow, TrackletRow, VehicleRow
from storage.question_limits import check_seconds, check_window
from storage.windows import at_visible, in_window

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Select, Subquery
    from sqlalchemy.orm import Session

# Rows fetched at a time.
_BATCH = 4096
# By how much more than wanted is asked for where SQLite computes with times, which it does to a millisecond.
_SLACK_S = 1.0
# The shortest interval that is counted by: times are stored to the microsecond.
_SHORTEST_S = 1e-6


@dataclass(frozen=True, slots=True)
class _Filter:
    """Which stays count."""

    start: datetime | None
    end: datetime | None
    vehicle_class: str | None
    visible: Collection[str] | None

    def __post_init__(self) -> None:
        check_window(self.start, self.end)


@dataclass(frozen=True, slots=True, order=True)
class _Meeting:
    """Two arrivals at a camera: seconds between them, and the other vehicle's. The nearest comes first."""

    gap_s: float
    at: datetime
    camera: str


def passages(  # noqa: PLR0913 - a filter each
    session: Session,
    first: str,
    then: str,
    *,
    within_s: float,
    start: datetime | None = None,
    end: datetime | None = None,
    vehicle_class: str | None = None,
    limit: int | None = None,
    visible: Collection[str] | None = None,
) -> list[Passage]:
    """Vehicles that left one camera's view and came into another's, by their departure; others may lie between.

    A vehicle that did it twice is told twice. Where it passed the first camera several times before the other, the last
    of these counts.

    Args:
        session: To read from.
        first: The camera that was left.
        then: The camera that was reached; the same: vehicles that came back.
        within_s: At most so many seconds from leaving one view to entering the other.
        start: Only what left the first one at this moment or later.
        end: Only what left it before this moment.
        vehicle_class: Only vehicles of this class.
        limit: At most so many.
        visible: The only cameras that there are for whoever asks; None: all.

    Raises:
        QuestionError: The window ends before it begins, or a time has no zone, or `within_s` is no number of seconds.
    """
    check_seconds("within_s", within_s)
    stays = _stays(session, _Filter(start, end, vehicle_class, visible), cameras=(first, then), left=first)
    rows = session.execute(
        select(stays)
        .where(stays.c.camera == first, stays.c.next_camera == then, *_left_in_time(stays, start, end))
        .order_by(stays.c.ended_at, stays.c.next_started_at, stays.c.vehicle_id),
        execution_options={"yield_per": _BATCH},
    )
    found: list[Passage] = []
    for row in rows:
        if limit is not None and len(found) >= limit:
            break
        travel_s = (row.next_started_at - row.ended_at).total_seconds()
        if travel_s <= within_s:
            links = ((row.score, row.evidence), (row.next_score, row.next_evidence))
            told = [link_probability(score, evidence, row.vehicle_id, visible) for score, evidence in links]
            sure = min((one for one in told if one is not None), default=None)
            times = (row.ended_at, row.next_started_at, travel_s)
            found.append(Passage(row.vehicle_id, row.vehicle_class, first, then, *times, sure))
    rows.close()
    return found


def companions(
    session: Session,
    vehicle_id: str,
    *,
    within_s: float = 10.0,
    min_cameras: int = 2,
    limit: int | None = None,
    visible: Collection[str] | None = None,
) -> list[Companion]:
    """Vehicles that came to the same cameras as one within so many seconds; those of most cameras first.

    Args:
        session: To read from.
        vehicle_id: Its id, or the beginning of it where no other vehicle's id begins so.
        within_s: At most so many seconds between the two arrivals at a camera.
        min_cameras: At so many different cameras at least.
        limit: At most so many.
        visible: The only cameras that there are for whoever asks; None: all.

    Raises:
        VehicleNotFoundError: No such vehicle, or several.
        QuestionError: `within_s` is no number of seconds.
    """
    check_seconds("within_s", within_s)
    vehicle = find_vehicle(session, vehicle_id, visible=visible)
    # Of each other vehicle its nearest arrival to each of the own ones.
    met: dict[tuple[str, str], dict[str, _Meeting]] = {}
    for row in session.execute(_near(session, vehicle.vehicle_id, within_s, visible)):
        gap_s = abs((row.arrival - row.own_arrival).total_seconds())
        if gap_s <= within_s:
            nearest = met.setdefault((row.vehicle_id, row.vehicle_class), {})
            meeting = _Meeting(gap_s, row.arrival, row.camera)
            nearest[row.own_id] = min(nearest.get(row.own_id, meeting), meeting)
    found = [_companion(*of, sorted(nearest.values(), key=attrgetter("at", "camera"))) for of, nearest in met.items()]
    wanted = [companion for companion in found if len(companion.cameras) >= min_cameras]
    wanted.sort(key=lambda one: (-len(one.cameras), -one.meetings, one.largest_gap_s, one.vehicle_id))
    return wanted[:limit]


def dwell_times(
    session: Session,
    *,
    camera: str | None = None,
    vehicle_class: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    visible: Collection[str] | None = None,
) -> list[DwellTime]:
    """How long vehicles stay in view of each camera, by camera; what is still in view counts as long as it has been.

    Args:
        session: To read from.
        camera: Only this one.
        vehicle_class: Only vehicles of this class.
        start: Only stays that ended at this moment or later.
        end: Only stays that began before this moment.
        visible: The only cameras that there are for whoever asks; None: all.

    Raises:
        QuestionError: The window ends before it begins, or a time has no zone.
    """
    check_window(start, end)
    columns = (TrackletRow.tracklet_id, TrackletRow.camera, TrackletRow.started_at, TrackletRow.ended_at)
    seen = in_window(session, *columns, start=start, end=end, camera=camera).subquery()
    statement = (
        select(seen.c.camera, seen.c.started_at, seen.c.ended_at)
        .join(AssignmentRow, (AssignmentRow.tracklet_id == seen.c.tracklet_id) & AssignmentRow.is_current)
        .join(VehicleRow, VehicleRow.vehicle_id == AssignmentRow.vehicle_id)
    )
    if vehicle_class is not None:
        statement = statement.where(VehicleRow.vehicle_class == vehicle_class)
    if visible is not None:
        statement = statement.where(seen.c.camera.in_(visible))
    stays: dict[str, list[float]] = {}
    for at, began, ended in session.execute(statement, execution_options={"yield_per": _BATCH}):
        stays.setdefault(at, []).append((ended - began).total_seconds())
    return [
        DwellTime(at, len(seconds), *_middle(seconds), round(max(seconds), 6)) for at, seconds in sorted(stays.items())
    ]


def journey_times(
    session: Session,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    vehicle_class: str | None = None,
    visible: Collection[str] | None = None,
) -> list[JourneyTime]:
    """How long vehicles take from each camera to the next other one that sees them, by the two cameras.

    Two stays at one camera in turn are no journey.

    Args:
        session: To read from.
        start: Only journeys that began at this moment or later: when the first view was left.
        end: Only those that began before this moment.
        vehicle_class: Only vehicles of this class.
        visible: The only cameras that there are for whoever asks; None: all.

    Raises:
        QuestionError: The window ends before it begins, or a time has no zone.
    """
    stays = _stays(session, _Filter(start, end, vehicle_class, visible))
    rows = session.execute(
        select(stays.c.camera, stays.c.next_camera, stays.c.ended_at, stays.c.next_started_at).where(
            stays.c.next_camera != stays.c.camera, *_left_in_time(stays, start, end)
        ),
        execution_options={"yield_per": _BATCH},
    )
    taken: dict[tuple[str, str], list[float]] = {}
    for first, then, departed_at, arrived_at in rows:
        taken.setdefault((first, then), []).append((arrived_at - departed_at).total_seconds())
    return [
        JourneyTime(*way, len(seconds), round(min(seconds), 6), *_middle(seconds))
        for way, seconds in sorted(taken.items())
    ]


def counts(  # noqa: PLR0913 - a filter each
    session: Session,
    *,
    every_s: float = 3600.0,
    camera: str | None = None,
    vehicle_class: str | None = None,
    modality: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    visible: Collection[str] | None = None,
) -> list[Count]:
    """How many vehicles came into view, by interval, camera and class; an interval without any is left out.

    Args:
        session: To read from.
        every_s: Seconds of an interval; they begin at whole multiples of it since 1970, UTC.
        camera: Only this one.
        vehicle_class: Only vehicles of this class.
        modality: Only stays with a look in this band.
        start: Only what came into view at this moment or later.
        end: Only what came before this moment.
        visible: The only cameras that there are for whoever asks; None: all.

    Raises:
        QuestionError: The window ends before it begins, or a time has no zone, or `every_s` is no number of seconds.
    """
    check_window(start, end)
    check_seconds("every_s", every_s, least=_SHORTEST_S)
    interval: ColumnElement[Any] = _epoch_s(session, TrackletRow.started_at) / every_s
    # SQLite may have been built without floor; times before 1970 don't occur.
    interval = cast(interval, Integer) if _is_sqlite(session) else func.floor(interval)
    arrivals = at_visible(
        select(interval.label("interval"), TrackletRow.camera, VehicleRow.vehicle_class, VehicleRow.vehicle_id)
        .join(AssignmentRow, (AssignmentRow.tracklet_id == TrackletRow.tracklet_id) & AssignmentRow.is_current)
        .join(VehicleRow, VehicleRow.vehicle_id == AssignmentRow.vehicle_id),
        visible,
    )
    if camera is not None:
        arrivals = arrivals.where(TrackletRow.camera == camera)
    if start is not None:
        arrivals = arrivals.where(TrackletRow.started_at >= start)
    if end is not None:
        arrivals = arrivals.where(TrackletRow.started_at < end)
    if vehicle_class is not None:
        arrivals = arrivals.where(VehicleRow.vehicle_class == vehicle_class)
    if modality is not None:
        of_band = (EmbeddingRow.tracklet_id == TrackletRow.tracklet_id) & (EmbeddingRow.modality == modality)
        arrivals = arrivals.where(exists().where(of_band))
    # Apart, since PostgreSQL takes two expressions with parameters for different ones.
    found = arrivals.subquery()
    by = (found.c.interval, found.c.camera, found.c.vehicle_class)
    rows = session.execute(select(*by, func.count(found.c.vehicle_id.distinct())).group_by(*by)).all()
    counted = [Count(datetime.fromtimestamp(int(row[0]) * every_s, UTC), row[1], row[2], row[3]) for row in rows]
    # Here, since the two databases sort words differently.
    return sorted(counted, key=attrgetter("start", "camera", "vehicle_class"))


def _stays(
    session: Session, wanted: _Filter, *, cameras: Sequence[str] | None = None, left: str | None = None
) -> Subquery:
    """Every stay of the vehicles that were in view in the window, with the same vehicle's next one.

    Args:
        session: Whose database is asked.
        wanted: Which vehicles and cameras count; of these vehicles all stays, so that none hides its next one.
        cameras: Only stays at these.
        left: Only vehicles that were in view of this one in the window.
    """
    in_turn = (TrackletRow.started_at, TrackletRow.tracklet_id)
    following: list[ColumnElement[Any]] = [
        func.lead(column, type_=column.type)
        .over(partition_by=AssignmentRow.vehicle_id, order_by=in_turn)
        .label(f"next_{column.key}")
        for column in (TrackletRow.camera, TrackletRow.started_at, AssignmentRow.score, AssignmentRow.evidence)
    ]
    own = (TrackletRow.camera, TrackletRow.ended_at, AssignmentRow.score, AssignmentRow.evidence)
    stays = at_visible(
        select(VehicleRow.vehicle_id, VehicleRow.vehicle_class, *own, *following)
        .join(AssignmentRow, (AssignmentRow.vehicle_id == VehicleRow.vehicle_id) & AssignmentRow.is_current)
        .join(TrackletRow, TrackletRow.tracklet_id == AssignmentRow.tracklet_id),
        wanted.visible,
    )
    if cameras is not None:
        stays = stays.where(TrackletRow.camera.in_(cameras))
    if wanted.vehicle_class is not None:
        stays = stays.where(VehicleRow.vehicle_class == wanted.vehicle_class)
    if wanted.start is not None or wanted.end is not None:
        window = in_window(session, TrackletRow.tracklet_id, start=wanted.start, end=wanted.end, camera=left)
        of_window = aliased(AssignmentRow)
        chosen = select(of_window.vehicle_id).where(of_window.is_current, of_window.tracklet_id.in_(window))
        stays = stays.where(VehicleRow.vehicle_id.in_(chosen))
    return stays.subquery()


def _near(
    session: Session, vehicle_id: str, within_s: float, visible: Collection[str] | None
) -> Select[*tuple[Any, ...]]:
    """Arrivals of other vehicles at the cameras of one, shortly before and after its own."""
    own, mine = aliased(TrackletRow), aliased(AssignmentRow)
    earliest = _shifted(session, own.started_at, -within_s - _SLACK_S)
    latest = _shifted(session, own.started_at, within_s + _SLACK_S)
    met = (
        select(
            own.tracklet_id.label("own_id"),
            own.started_at.label("own_arrival"),
            TrackletRow.camera,
            TrackletRow.started_at.label("arrival"),
            VehicleRow.vehicle_id,
            VehicleRow.vehicle_class,
        )
        .select_from(mine)
        .join(own, own.tracklet_id == mine.tracklet_id)
        .join(TrackletRow, (TrackletRow.camera == own.camera) & TrackletRow.started_at.between(earliest, latest))
        .join(AssignmentRow, (AssignmentRow.tracklet_id == TrackletRow.tracklet_id) & AssignmentRow.is_current)
        .join(VehicleRow, VehicleRow.vehicle_id == AssignmentRow.vehicle_id)
        .where(mine.vehicle_id == vehicle_id, mine.is_current, AssignmentRow.vehicle_id != vehicle_id)
    )
    return at_visible(met, visible)


def _companion(vehicle_id: str, vehicle_class: str, meetings: Sequence[_Meeting]) -> Companion:
    return Companion(
        vehicle_id=vehicle_id,
        vehicle_class=vehicle_class,
        cameras=tuple(dict.fromkeys(meeting.camera for meeting in meetings)),
        meetings=len(meetings),
        largest_gap_s=max(meeting.gap_s for meeting in meetings),
        first_at=meetings[0].at,
        last_at=meetings[-1].at,
    )


def _left_in_time(stays: Subquery, start: datetime | None, end: datetime | None) -> list[ColumnElement[bool]]:
    after = [] if start is None else [stays.c.ended_at >= start]
    return after if end is None else [*after, stays.c.ended_at < end]


def _middle(seconds: Sequence[float]) -> tuple[float, float, float, float]:
    """Median, mean, and what 85 and 95 of 100 don't exceed, between neighbours in proportion; microseconds count."""
    median, p85, p95 = np.percentile(seconds, (50, 85, 95)).tolist()
    return round(median, 6), round(float(np.mean(seconds)), 6), round(p85, 6), round(p95, 6)


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _epoch_s(session: Session, moment: Any) -> ColumnElement[Any]:  # noqa: ANN401 - a column
    """A time as seconds since 1970, to the microsecond."""
    if not _is_sqlite(session):
        return cast(func.extract("epoch", moment), Float)
    # Stored as 2026-01-01 12:00:00.040000; SQLite's own functions would round to milliseconds, into the next interval.
    whole = func.strftime("%s", func.substr(moment, 1, 19))
    return cast(whole, Integer) + cast("0" + func.substr(moment, 20, type_=String), Float)


def _shifted(session: Session, moment: Any, seconds: float) -> ColumnElement[Any]:  # noqa: ANN401 - a column
    """A time so many seconds later; to a millisecond on SQLite."""
    if _is_sqlite(session):
        return func.strftime("%Y-%m-%d %H:%M:%f", moment, f"{seconds:+.3f} seconds")
    later: ColumnElement[Any] = moment.op("+")(func.make_interval(0, 0, 0, 0, 0, 0, seconds))
    return later
