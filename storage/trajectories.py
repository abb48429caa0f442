"""Reading: which vehicles passed, where each one went, every box of it.

The number of SQL statements of a question doesn't grow with its answer. Give these functions the session of
`Database.snapshot`, so that all the statements of one question see the same moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sqlalchemy import Select, Subquery, case, func, select

from storage.blobs import decode_path
from storage.errors import VehicleNotFoundError
from storage.models import AssignmentRow, CameraRow, EmbeddingRow, SightingRow, TrackletRow, VehicleRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from sqlalchemy.orm import Session

#: `decision`: what was said when the tracklet ended. `final`: what is known now.
AsOf = Literal["decision", "final"]

# Rows fetched at a time: a segment is at most 64 KB, so that a batch stays below a few megabytes.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class VehicleSummary:
    """A vehicle in a list.

    Attributes:
        vehicle_id: Its id.
        vehicle_class: By vote of all its tracklets, as known now.
        first_seen: First frame of its first tracklet.
        last_seen: Last frame of its last tracklet.
        cameras: Those it passed, each once, in the order of the first visits.
        tracklets: How many it has.
        modalities: The bands it was seen in, by name.
    """

    vehicle_id: str
    vehicle_class: str
    first_seen: datetime
    last_seen: datetime
    cameras: tuple[str, ...]
    tracklets: int
    modalities: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PathPoints:
    """Where a vehicle was in one camera, frame by frame.

    Attributes:
        frames: (N,) int64, index of the decoded source frame, rising.
        times: (N,) float64, seconds since the Unix epoch.
        boxes: (N, 4) float32, xyxy in source pixels, half-open.
    """

    frames: NDArray[np.int64]
    times: NDArray[np.float64]
    boxes: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, slots=True, eq=False)
class Stop:
    """A vehicle's stay in one camera's view, and why the tracklet was taken for this vehicle's.

    Attributes:
        tracklet_id: The tracklet.
        camera: Where.
        arrival: First frame.
        departure: Last frame, so far.
        end_reason: Why it ended; None while it goes on.
        modalities: The bands its crops were taken in, by name.
        path: Frame by frame.
        reason: Why it was linked, in a word.
        is_provisional: Whether that may still change by itself.
        score: Log-odds of the link; None where nothing was linked, as at a vehicle's first stop.
        probability: The same as a probability.
        margin: By how much the score beat the next best candidate's; None without one.
        modality_pair: The two bands compared; None where nothing was linked.
        transit_s: Seconds from the camera before; None where nothing was linked.
        crop_image: Its best crop, below the crop store; None when none was kept.
        crop_images: The best crop of each band, by the band's name.
        context_image: The picture that shows it in its scene, below the crop store, or None.
    """

    tracklet_id: str
    camera: str
    arrival: datetime
    departure: datetime
    end_reason: str | None
    modalities: tuple[str, ...]
    path: PathPoints
    reason: str
    is_provisional: bool
    score: float | None
    probability: float | None
    margin: float | None
    modality_pair: str | None
    transit_s: float | None
    crop_image: str | None
    crop_images: dict[str, str]
    context_image: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Where a vehicle went.

    Attributes:
        vehicle_id: Its id.
        vehicle_class: By vote of all its tracklets.
        first_seen: First frame of its first stop.
        last_seen: Last frame of its last stop.
        stops: By arrival.
    """

    vehicle_id: str
    vehicle_class: str
    first_seen: datetime
    last_seen: datetime
    stops: tuple[Stop, ...]


@dataclass(frozen=True, slots=True)
class BoxRow:
    """One vehicle in one frame.

    Attributes:
        camera: Where.
        t: Seconds since that camera's start.
        captured_at: When, aware UTC.
        frame: Index of the decoded source frame.
        vehicle: The vehicle's id.
        x1: Left, in source pixels.
        y1: Top.
        x2: Right, the first column outside.
        y2: Bottom, the first row outside.
    """

    camera: str
    t: float
    captured_at: datetime
    frame: int
    vehicle: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class CropRow:
    """One crop of a vehicle.

    Attributes:
        vehicle: The vehicle's id.
        camera: Where.
        modality: The band it was taken in.
        vehicle_class: Of the tracklet.
        captured_at: When, aware UTC.
        crop_image: Below the crop store.
    """

    vehicle: str
    camera: str
    modality: str
    vehicle_class: str
    captured_at: datetime
    crop_image: str


def vehicles(
    session: Session,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    camera: str | None = None,
    min_cameras: int = 1,
    limit: int | None = None,
    as_of: AsOf = "final",
) -> list[VehicleSummary]:
    """Vehicles by their first sight; of each, everything it did, also outside the window.

    Args:
        session: To read from.
        start: Only vehicles in view at this moment or later.
        end: Only vehicles in view before this moment.
        camera: Only vehicles that this camera saw; within the window, where one is given.
        min_cameras: Only vehicles that this many cameras saw.
        limit: At most so many.
        as_of: Which decisions count.
    """
    member = _membership(as_of)
    chosen = _chosen_vehicles(member, _conditions(start, end, camera), min_cameras, limit)
    rows = session.execute(
        select(member.c.vehicle_id, VehicleRow.vehicle_class, *_columns("camera", "started_at", "ended_at"))
        .select_from(member)
        .join(chosen, chosen.c.vehicle_id == member.c.vehicle_id)
        .join(VehicleRow, VehicleRow.vehicle_id == member.c.vehicle_id)
        .join(TrackletRow, TrackletRow.tracklet_id == member.c.tracklet_id)
        .order_by(chosen.c.first_seen, member.c.vehicle_id, TrackletRow.started_at, TrackletRow.tracklet_id)
    ).all()
    modalities = _modalities(session, member, chosen)
    return [
        _summary(vehicle_id, list(group), modalities.get(vehicle_id, ()))
        for vehicle_id, group in groupby(rows, key=lambda row: row.vehicle_id)
    ]


def trajectory(session: Session, vehicle_id: str) -> Trajectory:
    """Where a vehicle went, as known now.

    Args:
        session: To read from.
        vehicle_id: Its id, or the beginning of it where no other vehicle's id begins so.

    Raises:
        VehicleNotFoundError: No such vehicle, several, or one whose tracklets have all been given to others.
    """
    vehicle = _find_vehicle(session, vehicle_id)
    rows = session.execute(
        select(TrackletRow, AssignmentRow)
        .join(AssignmentRow, AssignmentRow.tracklet_id == TrackletRow.tracklet_id)
        .where(AssignmentRow.vehicle_id == vehicle.vehicle_id, AssignmentRow.is_current)
        .order_by(TrackletRow.started_at, TrackletRow.tracklet_id)
    ).all()
    if not rows:
        raise VehicleNotFoundError(f"vehicle {vehicle.vehicle_id}: its tracklets have been given to other vehicles")
    paths = _paths(session, vehicle.vehicle_id)
    crop_images = _crop_images(session, vehicle.vehicle_id)
    stops = tuple(
        _stop(
            tracklet,
            assignment,
            paths.get(tracklet.tracklet_id, []),
            crop_images.get(tracklet.tracklet_id, []),
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
        as_of: `decision`: each tracklet counts for the vehicle of its first decision that was not provisional;
            `final`: of its current one. A tracklet that has only provisional ones counts for the last of these.
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
        yield from _box_rows(camera, vehicle_id, starts[camera], _merged(row.path for row in group))


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
    columns = (AssignmentRow.tracklet_id, AssignmentRow.vehicle_id)
    if as_of == "final":
        return select(*columns).where(AssignmentRow.is_current).subquery()
    # The first that is not provisional; where there is none, the last that is.
    age = case((AssignmentRow.is_provisional, -AssignmentRow.assignment_id), else_=AssignmentRow.assignment_id)
    rank = func.row_number().over(partition_by=AssignmentRow.tracklet_id, order_by=(AssignmentRow.is_provisional, age))
    ranked = select(*columns, rank.label("rank")).subquery()
    return select(ranked.c.tracklet_id, ranked.c.vehicle_id).where(ranked.c.rank == 1).subquery()


def _columns(*names: str) -> list[Any]:
    return [getattr(TrackletRow, name) for name in names]


def _conditions(start: datetime | None, end: datetime | None, camera: str | None) -> list[Any]:
    conditions: list[Any] = []
    if start is not None:
        conditions.append(TrackletRow.ended_at >= start)
    if end is not None:
        conditions.append(TrackletRow.started_at < end)
    if camera is not None:
        conditions.append(TrackletRow.camera == camera)
    return conditions


def _chosen_vehicles(member: Subquery, conditions: list[Any], min_cameras: int, limit: int | None) -> Subquery:
    def joined(*columns: Any) -> Select[Any]:  # noqa: ANN401 - any columns
        on_tracklet = TrackletRow.tracklet_id == member.c.tracklet_id
        return select(*columns).select_from(member).join(TrackletRow, on_tracklet)

    first_seen = func.min(TrackletRow.started_at)
    statement = (
        joined(member.c.vehicle_id, first_seen.label("first_seen"))
        .group_by(member.c.vehicle_id)
        .having(func.count(TrackletRow.camera.distinct()) >= min_cameras)
        .order_by(first_seen, member.c.vehicle_id)
        .limit(limit)
    )
    if conditions:
        statement = statement.where(member.c.vehicle_id.in_(joined(member.c.vehicle_id).where(*conditions)))
    return statement.subquery()


def _modalities(session: Session, member: Subquery, chosen: Subquery) -> dict[str, tuple[str, ...]]:
    rows = session.execute(
        select(member.c.vehicle_id, EmbeddingRow.modality)
        .select_from(member)
        .join(chosen, chosen.c.vehicle_id == member.c.vehicle_id)
        .join(EmbeddingRow, EmbeddingRow.tracklet_id == member.c.tracklet_id)
        .distinct()
        .order_by(member.c.vehicle_id, EmbeddingRow.modality)
    )
    return {
        vehicle_id: tuple(row.modality for row in group)
        for vehicle_id, group in groupby(rows, key=lambda row: row.vehicle_id)
    }


def _summary(vehicle_id: str, rows: list[Any], modalities: tuple[str, ...]) -> VehicleSummary:
    return VehicleSummary(
        vehicle_id=vehicle_id,
        vehicle_class=rows[0].vehicle_class,
        first_seen=rows[0].started_at,
        last_seen=max(row.ended_at for row in rows),
        cameras=tuple(dict.fromkeys(row.camera for row in rows)),
        tracklets=len(rows),
        modalities=modalities,
    )


def _find_vehicle(session: Session, vehicle_id: str) -> VehicleRow:
    exact = session.scalars(select(VehicleRow).where(VehicleRow.vehicle_id == vehicle_id)).one_or_none()
    if exact is not None:
        return exact
    begins_so = VehicleRow.vehicle_id.startswith(vehicle_id, autoescape=True)
    found = session.scalars(select(VehicleRow).where(begins_so).order_by(VehicleRow.vehicle_id).limit(3)).all()
    if not found:
        raise VehicleNotFoundError(f"vehicle {vehicle_id}: not known")
    if len(found) > 1:
        examples = ", ".join(row.vehicle_id for row in found)
        raise VehicleNotFoundError(f"vehicle {vehicle_id}: more than one begins so: {examples}; give more of the id")
    return found[0]


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
    assignment: AssignmentRow,
    blobs: list[bytes],
    images: list[tuple[str, str | None]],
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
        path=_merged(blobs),
        reason=assignment.reason,
        is_provisional=assignment.is_provisional,
        score=assignment.score,
        probability=_probability(assignment.score),
        margin=assignment.margin,
        modality_pair=assignment.modality_pair,
        transit_s=assignment.transit_s,
        crop_image=next(iter(crop_images.values()), None),
        crop_images=crop_images,
        context_image=tracklet.context_image,
    )


def _probability(log_odds: float | None) -> float | None:
    if log_odds is None:
        return None
    # tanh, since exp of a large score overflows.
    return 0.5 * (1.0 + math.tanh(0.5 * log_odds))


def _merged(blobs: Iterable[bytes]) -> PathPoints:
    """Segments as one path: by frame, each once, the first segment's where several have it."""
    segments = [decode_path(blob) for blob in blobs]
    if not segments:
        return PathPoints(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4), np.float32))
    frames, times, sides = (np.concatenate(parts) for parts in zip(*segments, strict=True))
    _, first = np.unique(frames, return_index=True)
    return PathPoints(frames[first], times[first], sides[first])  # (N,) (N,) (N, 4)


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
