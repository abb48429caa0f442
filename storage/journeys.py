"""Reading what vehicles do between and at cameras: who passed two of them, who travelled together, how long it took.

Everything counts as known now: by each tracklet's current decision. The number of SQL statements of a question doesn't
grow with its answer. Only what some cameras saw counts where somebody may see no others: a vehicle's next camera is
then the next of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import ColumnElement, Select, exists, func, select
from sqlalchemy.orm import aliased

from storage.answers import halved, probability
from storage.lookup import find_vehicle
from storage.models import AssignmentRow, EmbeddingRow, TrackletRow, VehicleRow
from storage.windows import epoch_s, in_window, shifted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Subquery
    from sqlalchemy.orm import Session

# Rows fetched at a time.
_BATCH = 4096
# By how much an index is asked for more than is wanted: SQLite's own arithmetic of times ends at milliseconds.
_SLACK_S = 1.0


@dataclass(frozen=True, slots=True)
class Passage:
    """A vehicle that passed one camera, then another.

    Attributes:
        vehicle_id: Its id.
        vehicle_class: By vote of all its tracklets.
        first: The camera that it left.
        then: The camera where it came into view afterwards.
        departed_at: Last frame there.
        arrived_at: First frame here.
        travel_s: Seconds between these; below 0 where it was in view of both for a while.
        probability: That the later stay is this vehicle's, as its link says; None where nothing was linked.
    """

    vehicle_id: str
    vehicle_class: str
    first: str
    then: str
    departed_at: datetime
    arrived_at: datetime
    travel_s: float
    probability: float | None


@dataclass(frozen=True, slots=True)
class Companion:
    """A vehicle that came to the same cameras at about the same times.

    Attributes:
        vehicle_id: Its id.
        vehicle_class: By vote of all its tracklets.
        cameras: Where both came, each once, in the order of the first meetings.
        meetings: How often both came: of the vehicle asked for each stay counts once.
        largest_gap_s: Seconds between the two arrivals, at the most.
        first_at: When both had come, the first time.
        last_at: The same of the last time.
    """

    vehicle_id: str
    vehicle_class: str
    cameras: tuple[str, ...]
    meetings: int
    largest_gap_s: float
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class DwellTime:
    """How long vehicles stay in a camera's view, in seconds. What is still in view counts as long as it has been.

    Attributes:
        camera: The camera.
        visits: How many stays.
        median_s: Half of them were no longer.
        mean_s: Their mean.
        p85_s: 85 of 100 were no longer.
        p95_s: 95 of 100 were no longer.
        longest_s: The longest.
    """

    camera: str
    visits: int
    median_s: float
    mean_s: float
    p85_s: float
    p95_s: float
    longest_s: float


@dataclass(frozen=True, slots=True)
class JourneyTime:
    """How long vehicles take from one camera to the next other one that sees them, in seconds.

    Attributes:
        first: The camera that they left.
        then: The next one where they came into view.
        journeys: How many.
        fastest_s: The fastest; below 0 where a vehicle was in view of both for a while.
        median_s: Half of them took no longer.
        mean_s: Their mean.
        p85_s: 85 of 100 took no longer.
        p95_s: 95 of 100 took no longer.
    """

    first: str
    then: str
    journeys: int
    fastest_s: float
    median_s: float
    mean_s: float
    p85_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class Count:
    """How many vehicles of a class came into a camera's view in a while.

    Attributes:
        start: When that while begins.
        camera: The camera.
        vehicle_class: The class.
        vehicles: How many different ones; never 0, such a while is left out.
    """

    start: datetime
    camera: str
    vehicle_class: str
    vehicles: int


@dataclass(frozen=True, slots=True)
class WayStop:
    """A stay in one camera's view, without its path and pictures; fields as `storage.answers.Stop` has them."""

    tracklet_id: str
    camera: str
    arrival: datetime
    departure: datetime
    reason: str
    probability: float | None


@dataclass(frozen=True, slots=True)
class Way:
    """Where a vehicle went, without paths and pictures.

    Attributes:
        vehicle_id: Its id.
        vehicle_class: By vote of all its tracklets.
        stops: By arrival.
    """

    vehicle_id: str
    vehicle_class: str
    stops: tuple[WayStop, ...]


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

    A vehicle that passes both twice is told twice; where it passes the first one several times before the other, the
    last of these counts.

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
    """
    stays = _stays(session, _Wanted(start, end, vehicle_class, visible), cameras={first, then}, leaving=first)
    found: list[Passage] = []
    rows = session.execute(
        select(stays)
        .where(stays.c.camera == first, stays.c.next_camera == then, *_departed(stays, start, end))
        .order_by(stays.c.ended_at, stays.c.next_started_at, stays.c.vehicle_id, stays.c.tracklet_id),
        execution_options={"yield_per": _BATCH},
    )
    for row in rows:
        travel_s = (row.next_started_at - row.ended_at).total_seconds()
        if limit is not None and len(found) >= limit:
            break
        if travel_s <= within_s:
            sure = probability(halved(row.next_score, row.next_evidence))
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
    """
    vehicle = find_vehicle(session, vehicle_id, visible=visible)
    met: dict[tuple[str, str], dict[str, _Meeting]] = {}
    for own, other in (
        session.execute(_near(session, vehicle.vehicle_id, within_s, visible)).tuples().all() if False else ()
    ):
        pass
    for row in session.execute(_near(session, vehicle.vehicle_id, within_s, visible)):
        gap_s = abs((row.arrival - row.own_arrival).total_seconds())
        if gap_s > within_s:
            continue
        meetings = met.setdefault((row.vehicle_id, row.vehicle_class), {})
        known = meetings.get(row.own_id)
        if known is None or gap_s < known.gap_s:
            meetings[row.own_id] = _Meeting(row.camera, gap_s, max(row.arrival, row.own_arrival))
    found = [_companion(*of, sorted(meetings.values(), key=attrgetter("at"))) for of, meetings in met.items()]
    wanted = [companion for companion in found if len(companion.cameras) >= min_cameras]
    wanted.sort(key=lambda one: (-len(one.cameras), -one.meetings, one.largest_gap_s, one.vehicle_id))
    return wanted[:limit]
