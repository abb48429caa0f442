"""Reading: which vehicles passed, where each one went, every box of it.

The number of SQL statements of a question doesn't grow with its answer. Give these functions the session of
`Database.snapshot`, so that all the statements of one question see the same moment.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sqlalchemy import Subquery, case, func, or_, select

from storage.answers import (
    BoxRow,
    Companion,
    Count,
    CropRow,
    DwellTime,
    JourneyTime,
    Passage,
    Stop,
    Trajectory,
    VehicleSummary,
    halved,
    limited,
    probability,
)
from storage.camera_troubles import troubles_of_vehicle
from storage.errors import VehicleNotFoundError
from storage.history import assignment_record
from storage.journeys import companions, counts, dwell_times, journey_times, passages
from storage.lookup import find_vehicle
from storage.models import AssignmentRow, CameraRow, EmbeddingRow, SightingRow, TrackletRow, VehicleRow
from storage.paths import PathPoints, merged
from storage.records import MATCHER, AssignmentRecord
from storage.windows import Wanted, at_visible, chosen_among, chosen_seen, chosen_vehicles, current_members

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy.orm import Session

__all__ = [
    "AsOf",
    "BoxRow",
    "Companion",
    "Count",
    "CropRow",
    "DwellTime",
    "JourneyTime",
    "Passage",
    "PathPoints",
    "Stop",
    "Trajectory",
    "VehicleSummary",
    "boxes",
    "companions",
    "count_vehicles",
    "counts",
    "crops",
    "dwell_times",
    "journey_times",
    "latest_vehicles",
    "passages",
    "trajectory",
    "vehicles",
]

#: `decision`: what the matcher said when the tracklet ended. `final`: what is known now.
AsOf = Literal["decision", "final"]

# Rows fetched at a time: a segment is at most 64 KB, so that a batch stays below a few megabytes.
_BATCH = 64


def vehicles(  # noqa: PLR0913 - a filter each
    session: Session,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    camera: str | None = None,
    min_cameras: int = 1,
    vehicle_class: str | None = None,
    modality: str | None = None,
    newest_first: bool = False,
    after: tuple[datetime, str] | None = None,
    offset: int = 0,
    limit: int | None = None,
    among: Collection[str] | None = None,
    as_of: AsOf = "final",
    visible: Collection[str] | None = None,
) -> list[VehicleSummary]:
    """Vehicles by their first sight; of each, everything it did, also outside the window.

    Args:
        session: To read from.
        start: Only vehicles in view at this moment or later.
        end: Only vehicles in view before this moment.
        camera: Only vehicles that this camera saw; within the window, where one is given.
        min_cameras: Only vehicles that this many cameras saw.
        vehicle_class: Only vehicles of this class.
        modality: Only vehicles with a look in this band.
        newest_first: By their last sight, latest first.
        after: Only what comes after this one: its first sight (its last, with `newest_first`), and its id.
        offset: So many are left out.
        limit: At most so many.
        among: Only vehicles of these ids.
        as_of: Which decisions count.
        visible: The only cameras that there are for whoever asks; None: all.

    Raises:
        QuestionError: The window ends before it begins, or a time has no zone.
    """
    wanted = Wanted(
        start,
        end,
        camera,
        min_cameras,
        vehicle_class,
        modality,
        newest_first,
        after=after,
        offset=offset,
        limit=limit,
        among=None if among is None else tuple(among),
    )
    member, chosen = _chosen(session, wanted, as_of, visible)
    in_order = chosen.c.seen_at.desc() if newest_first else chosen.c.seen_at
    by_id = member.c.vehicle_id.desc() if newest_first else member.c.vehicle_id
    rows = session.execute(
        at_visible(
            select(member.c.vehicle_id, VehicleRow.vehicle_class, *_columns("camera", "started_at", "ended_at"))
            .select_from(member)
            .join(chosen, chosen.c.vehicle_id == member.c.vehicle_id)
            .join(VehicleRow, VehicleRow.vehicle_id == member.c.vehicle_id)
            .join(TrackletRow, TrackletRow.tracklet_id == member.c.tracklet_id)
            .order_by(in_order, by_id, TrackletRow.started_at, TrackletRow.tracklet_id),
            visible,
        )
    ).all()
    looks = _looks(session, member, chosen, visible)
    return [
        _summary(vehicle_id, list(group), looks.get(vehicle_id, {}))
        for vehicle_id, group in groupby(rows, key=lambda row: row.vehicle_id)
    ]


def count_vehicles(  # noqa: PLR0913 - a filter each
    session: Session,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    camera: str | None = None,
    min_cameras: int = 1,
    vehicle_class: str | None = None,
    modality: str | None = None,
    as_of: AsOf = "final",
    visible: Collection[str] | None = None,
) -> int:
    """How many vehicles `vehicles` would list without a limit; its arguments are the same."""
    wanted = Wanted(start, end, camera, min_cameras, vehicle_class, modality)
    _, chosen = _chosen(session, wanted, as_of, visible)
    return session.execute(select(func.count()).select_from(chosen)).scalar_one()


def latest_vehicles(  # noqa: PLR0913 - a filter each
    session: Session,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    camera: str | None = None,
    min_cameras: int = 1,
    vehicle_class: str | None = None,
    modality: str | None = None,
    limit: int | None = None,
    visible: Collection[str] | None = None,
) -> list[str]:
    """The ids of those that `vehicles` would list, latest first; its arguments are the same."""
    wanted = Wanted(start, end, camera, min_cameras, vehicle_class, modality, newest_first=True, limit=limit)
    _, chosen = _chosen(session, wanted, "final", visible)
    return list(
        session.scalars(select(chosen.c.vehicle_id).order_by(chosen.c.seen_at.desc(), chosen.c.vehicle_id.desc()))
    )


def trajectory(session: Session, vehicle_id: str, *, visible: Collection[str] | None = None) -> Trajectory:
    """Where a vehicle went, as known now.

    Args:
        session: To read from.
        vehicle_id: Its id, or the beginning of it where no other vehicle's id begins so.
        visible: The only cameras that there are for whoever asks; None: all.

    Raises:
        VehicleNotFoundError: No such vehicle, several, or one whose tracklets have all been given to others.
    """
    vehicle = find_vehicle(session, vehicle_id, visible=visible)
    rows = session.execute(
        at_visible(
            select(TrackletRow, AssignmentRow)
            .join(AssignmentRow, AssignmentRow.tracklet_id == TrackletRow.tracklet_id)
            .where(AssignmentRow.vehicle_id == vehicle.vehicle_id, AssignmentRow.is_current)
            .order_by(TrackletRow.started_at, TrackletRow.tracklet_id),
            visible,
        )
    ).all()
    if not rows:
        raise VehicleNotFoundError(f"vehicle {vehicle.vehicle_id}: its tracklets have been given to other vehicles")
    paths = _paths(session, vehicle.vehicle_id)
    crop_images = _crop_images(session, vehicle.vehicle_id)
    troubles = troubles_of_vehicle(session, vehicle.vehicle_id)
    stops = tuple(
        _stop(
            tracklet,
            limited(assignment_record(assignment), visible),
            paths.get(tracklet.tracklet_id, []),
            crop_images.get(tracklet.tracklet_id, []),
            troubles.get(tracklet.tracklet_id),
        )
        for tracklet, assignment in rows
    )
    return Trajectory(
        vehicle_id=vehicle.vehicle_id,
        vehicle_class=vehicle.vehicle_class,
        first_seen=min(stop.arrival for stop in stops),
        last_seen=max(stop.departure for stop in stops),
        stops=stops,
    )


def boxes(session: Session, *, as_of: AsOf = "final") -> Iterator[BoxRow]:
    """Every box of every vehicle: by camera, then vehicle, then frame, each of these once.

    Where two tracklets of one vehicle share a frame, the one that started first is shown. Rows are read as they are
    asked for; memory holds one vehicle in one camera at a time.

    Args:
        session: To read from; it must stay open until the last row is taken.
        as_of: `decision`: each tracklet counts for the vehicle of the matcher's first decision that was not
            provisional, or, where all of these are, of the last; no correction counts. `final`: of its current one.
    """
    starts = _camera_starts(session)
    member = _membership(as_of)
    rows = session.execute(
        select(TrackletRow.camera, member.c.vehicle_id, SightingRow.path)
        .select_from(member)
        .join(TrackletRow, TrackletRow.tracklet_id == member.c.tracklet_id)
        .join(SightingRow, SightingRow.tracklet_id == member.c.tracklet_id)
        .where(SightingRow.path.is_not(None))
        .order_by(
            TrackletRow.camera,
            member.c.vehicle_id,
            TrackletRow.started_at,
            TrackletRow.tracklet_id,
            SightingRow.sequence,
        ),
        execution_options={"yield_per": _BATCH},
    )
    for (camera, vehicle_id), group in groupby(rows, key=lambda row: (row.camera, row.vehicle_id)):
        yield from _box_rows(camera, vehicle_id, starts[camera], merged(row.path for row in group))


def crops(session: Session, *, as_of: AsOf = "final") -> Iterator[CropRow]:
    """Every crop that was kept, once: by vehicle, then modality, then time.

    Args:
        session: To read from; it must stay open until the last row is taken.
        as_of: As for `boxes`.
    """
    member = _membership(as_of)
    rows = session.execute(
        select(
            member.c.vehicle_id,
            TrackletRow.camera,
            EmbeddingRow.modality,
            TrackletRow.vehicle_class,
            EmbeddingRow.captured_at,
            func.min(EmbeddingRow.crop_image),
        )
        .select_from(member)
        .join(TrackletRow, TrackletRow.tracklet_id == member.c.tracklet_id)
        .join(EmbeddingRow, EmbeddingRow.tracklet_id == member.c.tracklet_id)
        .where(EmbeddingRow.crop_image.is_not(None))
        # The end of a tracklet tells its best crops again: of one moment there is one.
        .group_by(
            member.c.vehicle_id,
            TrackletRow.tracklet_id,
            TrackletRow.camera,
            TrackletRow.vehicle_class,
            EmbeddingRow.modality,
            EmbeddingRow.captured_at,
        )
        .order_by(member.c.vehicle_id, EmbeddingRow.modality, EmbeddingRow.captured_at, TrackletRow.tracklet_id),
        execution_options={"yield_per": _BATCH},
    )
    for row in rows:
        yield CropRow(*row)


def _membership(as_of: AsOf) -> Subquery:
    """Which tracklet belongs to which vehicle."""
    if as_of == "final":
        return current_members()
    columns = (AssignmentRow.tracklet_id, AssignmentRow.vehicle_id)
    # The matcher's first that is not provisional; where there is none, its last that is. What was corrected afterwards,
    # by whomever, is no decision of that moment.
    is_correction = or_(AssignmentRow.correction_id.is_not(None), AssignmentRow.decided_by != MATCHER)
    age = case((AssignmentRow.is_provisional, -AssignmentRow.assignment_id), else_=AssignmentRow.assignment_id)
    order = (is_correction, AssignmentRow.is_provisional, age)
    rank = func.row_number().over(partition_by=AssignmentRow.tracklet_id, order_by=order)
    ranked = select(*columns, rank.label("rank")).subquery()
    return select(ranked.c.tracklet_id, ranked.c.vehicle_id).where(ranked.c.rank == 1).subquery()


def _columns(*names: str) -> list[Any]:
    return [getattr(TrackletRow, name) for name in names]


def _chosen(
    session: Session, wanted: Wanted, as_of: AsOf, visible: Collection[str] | None
) -> tuple[Subquery, Subquery]:
    """Which tracklet is whose, and which vehicles are meant."""
    member = _membership(as_of)
    if as_of == "decision":
        return member, chosen_among(session, member, wanted, visible)
    if visible is None:
        return member, chosen_vehicles(session, wanted)
    return member, chosen_seen(session, wanted, visible)


def _looks(
    session: Session, member: Subquery, chosen: Subquery, visible: Collection[str] | None
) -> dict[str, dict[str, str | None]]:
    """Of each vehicle the bands that it was seen in, each with its best picture below the crop store, or None."""
    best = func.row_number().over(
        partition_by=(member.c.vehicle_id, EmbeddingRow.modality),
        order_by=(EmbeddingRow.crop_image.is_(None), EmbeddingRow.quality.desc(), EmbeddingRow.embedding_id),
    )
    ranked = at_visible(
        select(member.c.vehicle_id, EmbeddingRow.modality, EmbeddingRow.crop_image, best.label("rank"))
        .select_from(member)
        .join(chosen, chosen.c.vehicle_id == member.c.vehicle_id)
        .join(TrackletRow, TrackletRow.tracklet_id == member.c.tracklet_id)
        .join(EmbeddingRow, EmbeddingRow.tracklet_id == member.c.tracklet_id),
        visible,
    ).subquery()
    rows = session.execute(
        select(ranked.c.vehicle_id, ranked.c.modality, ranked.c.crop_image)
        .where(ranked.c.rank == 1)
        .order_by(ranked.c.vehicle_id, ranked.c.modality)
    )
    found: dict[str, dict[str, str | None]] = {}
    for vehicle_id, modality, crop_image in rows:
        found.setdefault(vehicle_id, {})[modality] = crop_image
    return found


def _summary(vehicle_id: str, rows: list[Any], looks: dict[str, str | None]) -> VehicleSummary:
    return VehicleSummary(
        vehicle_id=vehicle_id,
        vehicle_class=rows[0].vehicle_class,
        first_seen=rows[0].started_at,
        last_seen=max(row.ended_at for row in rows),
        cameras=tuple(dict.fromkeys(row.camera for row in rows)),
        tracklets=len(rows),
        modalities=tuple(looks),
        crop_images={modality: image for modality, image in looks.items() if image is not None},
    )


def _paths(session: Session, vehicle_id: str) -> dict[str, list[bytes]]:
    rows = session.execute(
        select(SightingRow.tracklet_id, SightingRow.path)
        .join(AssignmentRow, AssignmentRow.tracklet_id == SightingRow.tracklet_id)
        .where(AssignmentRow.vehicle_id == vehicle_id, AssignmentRow.is_current, SightingRow.path.is_not(None))
        .order_by(SightingRow.tracklet_id, SightingRow.sequence)
    )
    found: dict[str, list[bytes]] = {}
    for tracklet_id, path in rows:
        found.setdefault(tracklet_id, []).append(path or b"")
    return found


def _crop_images(session: Session, vehicle_id: str) -> dict[str, list[tuple[str, str | None]]]:
    """Of each tracklet the bands and pictures of its crops, best first."""
    rows = session.execute(
        select(EmbeddingRow.tracklet_id, EmbeddingRow.modality, EmbeddingRow.crop_image)
        .join(AssignmentRow, AssignmentRow.tracklet_id == EmbeddingRow.tracklet_id)
        .where(AssignmentRow.vehicle_id == vehicle_id, AssignmentRow.is_current)
        .order_by(EmbeddingRow.quality.desc(), EmbeddingRow.captured_at, EmbeddingRow.embedding_id)
    )
    found: dict[str, list[tuple[str, str | None]]] = {}
    for tracklet_id, modality, crop_image in rows:
        found.setdefault(tracklet_id, []).append((modality, crop_image))
    return found


def _stop(
    tracklet: TrackletRow,
    assignment: AssignmentRecord,
    blobs: list[bytes],
    images: list[tuple[str, str | None]],
    camera_trouble: str | None,
) -> Stop:
    crop_images: dict[str, str] = {}
    for modality, image in images:
        if image is not None:
            crop_images.setdefault(modality, image)
    return Stop(
        tracklet_id=tracklet.tracklet_id,
        camera=tracklet.camera,
        arrival=tracklet.started_at,
        departure=tracklet.ended_at,
        end_reason=tracklet.end_reason,
        modalities=tuple(sorted({modality for modality, _ in images})),
        path=merged(blobs),
        reason=assignment.reason,
        is_provisional=assignment.is_provisional,
        score=assignment.score,
        probability=probability(halved(assignment.score, assignment.evidence)),
        margin=assignment.margin,
        modality_pair=assignment.modality_pair,
        transit_s=assignment.transit_s,
        crop_image=next(iter(crop_images.values()), None),
        crop_images=crop_images,
        context_image=tracklet.context_image,
        decided_by=assignment.decided_by,
        camera_trouble=camera_trouble,
        evidence=assignment.evidence,
    )


def _camera_starts(session: Session) -> dict[str, datetime]:
    """From when each camera's time counts: its start, or its first tracklet's where that isn't known."""
    rows = session.execute(
        select(TrackletRow.camera, CameraRow.started_at, func.min(TrackletRow.started_at))
        .outerjoin(CameraRow, CameraRow.camera == TrackletRow.camera)
        .group_by(TrackletRow.camera, CameraRow.started_at)
    )
    return {camera: started_at or first for camera, started_at, first in rows}


def _box_rows(camera: str, vehicle_id: str, start: datetime, path: PathPoints) -> Iterator[BoxRow]:
    since = np.round(path.times - start.timestamp(), 6).tolist()
    points = zip(path.frames.tolist(), path.times.tolist(), since, path.boxes.tolist(), strict=True)
    for frame, time, t, (x1, y1, x2, y2) in points:
        yield BoxRow(camera, t, datetime.fromtimestamp(time, UTC), frame, vehicle_id, x1, y1, x2, y2)
