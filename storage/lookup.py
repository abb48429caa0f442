"""Finding what a person means by a part of its id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exists, or_, select

from storage.errors import QuestionError, TrackletNotFoundError, VehicleNotFoundError
from storage.models import AssignmentRow, CameraRow, TrackletRow, VehicleRow

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.orm import Session


def find_vehicle(session: Session, vehicle_id: str, *, visible: Collection[str] | None = None) -> VehicleRow:
    """The vehicle of that id, or the only one whose id begins so.

    Args:
        session: To read from.
        vehicle_id: Its id, or the beginning of it.
        visible: The only cameras that there are: a vehicle that none of them saw is not known. None: all.

    Raises:
        VehicleNotFoundError: None, or several.
    """
    known = select(VehicleRow)
    if visible is not None:
        own = (AssignmentRow.vehicle_id == VehicleRow.vehicle_id) & AssignmentRow.is_current
        on_tracklet = TrackletRow.tracklet_id == AssignmentRow.tracklet_id
        known = known.where(exists().where(own, on_tracklet, TrackletRow.camera.in_(visible)))
    exact = session.scalars(known.where(VehicleRow.vehicle_id == vehicle_id)).one_or_none()
    if exact is not None:
        return exact
    begins_so = VehicleRow.vehicle_id.startswith(vehicle_id, autoescape=True)
    found = session.scalars(known.where(begins_so).order_by(VehicleRow.vehicle_id).limit(3)).all()
    if not found:
        raise VehicleNotFoundError(f"vehicle {vehicle_id}: not known")
    if len(found) > 1:
        examples = ", ".join(row.vehicle_id for row in found)
        raise VehicleNotFoundError(f"vehicle {vehicle_id}: more than one begins so: {examples}; give more of the id")
    return found[0]


def check_cameras(session: Session, *cameras: str | None) -> None:
    """Checks names of cameras: of the site as it is, or of what was ever seen. None names none.

    Raises:
        QuestionError: There is no such camera.
    """
    for camera in cameras:
        is_known = or_(exists().where(CameraRow.camera == camera), exists().where(TrackletRow.camera == camera))
        if camera is not None and not session.scalar(select(is_known)):
            raise QuestionError(f"camera {camera}: not known")


def find_tracklet(session: Session, tracklet_id: str, *, visible: Collection[str] | None = None) -> TrackletRow:
    """The tracklet of that id, or the only one whose id begins or ends so.

    Args:
        session: To read from.
        tracklet_id: Its id, or a part of it.
        visible: The only cameras whose tracklets there are; None: all.

    Raises:
        TrackletNotFoundError: None, or several.
    """
    known = select(TrackletRow) if visible is None else select(TrackletRow).where(TrackletRow.camera.in_(visible))
    exact = session.scalars(known.where(TrackletRow.tracklet_id == tracklet_id)).one_or_none()
    if exact is not None:
        return exact
    column = TrackletRow.tracklet_id
    part = or_(column.startswith(tracklet_id, autoescape=True), column.endswith(tracklet_id, autoescape=True))
    found = session.scalars(known.where(part).order_by(column).limit(3)).all()
    if not found:
        raise TrackletNotFoundError(f"tracklet {tracklet_id}: not known")
    if len(found) > 1:
        examples = ", ".join(row.tracklet_id for row in found)
        raise TrackletNotFoundError(
            f"tracklet {tracklet_id}: more than one begins or ends so: {examples}; give more of the id"
        )
    return found[0]
