"""Having a vehicle forgotten: all its tracklets, with paths, vectors, decisions and pictures, and who waited for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, literal_column, select

from storage import statements
from storage.errors import StorageError
from storage.lookup import find_vehicle
from storage.models import AssignmentRow, AuditRow, EmbeddingRow, HoldRow, SightingRow, TrackletRow
from storage.removal import Removed, pictures_of, remove_pictures, remove_tracklets, remove_watches

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from storage.crop_store import CropStore

#: What `storage.audit` calls it, and by which a running matcher hears of it.
FORGET = "forget"


class ForgetError(StorageError):
    """A vehicle that can't be forgotten: part of it is held, still in view, or a picture can't be removed."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """What goes with a vehicle.

    Attributes:
        vehicle_id: The vehicle.
        tracklet_ids: All that are its own by now.
        cameras: Those that saw it.
        sightings: Rows, with paths.
        embeddings: Vectors.
        pictures: Where they lie below the crops' folder.
        held: Tracklets that somebody keeps.
        in_view: Tracklets of which no end has come.
    """

    vehicle_id: str
    tracklet_ids: tuple[str, ...]
    cameras: tuple[str, ...]
    sightings: int
    embeddings: int
    pictures: tuple[str, ...]
    held: tuple[str, ...]
    in_view: tuple[str, ...]


def belongings(session: Session, vehicle_id: str) -> Belongings:
    """What would go.

    Raises:
        VehicleNotFoundError: No such vehicle, or several whose id begins so.
    """
    vehicle = find_vehicle(session, vehicle_id).vehicle_id
    own = AssignmentRow.tracklet_id == TrackletRow.tracklet_id
    rows = session.execute(
        select(TrackletRow.tracklet_id, TrackletRow.camera, TrackletRow.end_reason)
        .join(AssignmentRow, own)
        .where(AssignmentRow.vehicle_id == vehicle, AssignmentRow.is_current)
        .order_by(TrackletRow.started_at, TrackletRow.tracklet_id)
    ).all()
    ids = [row.tracklet_id for row in rows]
    counts = [
        session.execute(select(func.count()).where(model.tracklet_id.in_(ids))).scalar_one()
        for model in (SightingRow, EmbeddingRow)
    ]
    return Belongings(
        vehicle,
        tuple(ids),
        tuple(dict.fromkeys(row.camera for row in rows)),
        counts[0],
        counts[1],
        tuple(path for _, path in pictures_of(session, ids)),
        tuple(session.scalars(select(HoldRow.tracklet_id).where(HoldRow.tracklet_id.in_(ids)))),
        tuple(row.tracklet_id for row in rows if row.end_reason is None),
    )


def forget(session: Session, crops: CropStore, vehicle_id: str, *, although_in_view: bool = False) -> Removed:
    """Removes a vehicle and all that is its own.

    Blocks until no decision is under way; from then on nobody decides until the transaction ends. The caller notes who
    did it as `FORGET` (`storage.audit`), in the same transaction and while it holds the decisions: by that note running
    matchers hear of it.

    Args:
        session: Of `Database.transaction`.
        crops: Where the pictures lie.
        vehicle_id: Its id, or the beginning of it.
        although_in_view: Also a vehicle of which more is going to be said, which will then begin anew.

    Raises:
        VehicleNotFoundError: No such vehicle, or several.
        ForgetError: A tracklet of it is held or in view, or a picture can't be removed.
    """
    statements.hold_decisions(session)
    found = belongings(session, vehicle_id)
    if found.held:
        raise ForgetError(f"vehicle {found.vehicle_id}: {', '.join(found.held)} held; release it first")
    if found.in_view and not although_in_view:
        raise ForgetError(
            f"vehicle {found.vehicle_id}: {', '.join(found.in_view)} may still be in view, and would be stored again "
            "with what is said of it next; wait for its end, or say --in-view"
        )
    pictures = remove_pictures(crops, found.pictures)
    if pictures.stuck:
        raise ForgetError(f"vehicle {found.vehicle_id}: not removed: {'; '.join(pictures.stuck.values())}")
    # While it is still known where its tracklets went.
    watched = remove_watches(session, found.vehicle_id)
    return pictures.removed + watched + remove_tracklets(session, found.tracklet_ids)


def newest_forgetting(session: Session) -> int:
    """The number of the note of who was forgotten last; 0 before the first.

    They rise in the order in which others can see them, since each is written by who holds the decisions. A matcher
    that knows a region as of an earlier number may hold what is gone.
    """
    # With the word spelled out, or the databases don't see that ix_audit_forgotten has all there is to find.
    is_forgetting = AuditRow.action == literal_column(f"'{FORGET}'")
    return session.execute(select(func.max(AuditRow.audit_id)).where(is_forgetting)).scalar_one() or 0
