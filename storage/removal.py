"""Removing tracklets with all that hangs on them, and pictures; what retention and forgetting share.

A picture's file goes first, its row after: what a crash leaves behind is a row whose file is gone, which the next look
finds and clears, and never a picture that no row knows of.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, cast

from sqlalchemy import Table, delete, exists, func, insert, select, union_all
from sqlalchemy.orm import aliased

from storage.crop_store import OutsideError
from storage.errors import StorageError
from storage.models import (
    AssignmentRow,
    Base,
    ConsumerOffsetRow,
    CorrectionRow,
    EmbeddingRow,
    SightingRow,
    TrackletRow,
    VehicleRow,
    WatchNoticeRow,
    WatchRow,
)
from storage.statements import given_numbers
from storage.watch_heirs import find_watches, heirs
from storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from sqlalchemy import ColumnElement, CursorResult, Delete, Select
    from sqlalchemy.orm import Session

    from storage.crop_store import CropStore


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed, in rows and files.

    Attributes:
        tracklets: With sightings, embeddings and assignments counted by themselves.
        sightings: With their paths.
        embeddings: Vectors, with their points.
        assignments: Decisions on these tracklets.
        corrections: Of which no decision was left.
        vehicles: That no decision named any more.
        pictures: Files.
        picture_bytes: Their sizes.
        missing: Pictures that a row named and no file was there for.
        stuck: Pictures that could not be removed; their rows stay, and they are tried again.
        watermarks: Of camera connections long past.
        dead_letters: Messages that could not be read.
        troubles: Times in which a camera was not to be trusted.
        audit: Notes of who asked what.
        watches: Of vehicles that were forgotten, or that ended long ago.
        notices: That watched vehicles returned.
    """

    tracklets: int = 0
    sightings: int = 0
    embeddings: int = 0
    assignments: int = 0
    corrections: int = 0
    vehicles: int = 0
    pictures: int = 0
    picture_bytes: int = 0
    missing: int = 0
    stuck: int = 0
    watermarks: int = 0
    dead_letters: int = 0
    troubles: int = 0
    audit: int = 0
    watches: int = 0
    notices: int = 0

    def __add__(self, other: Removed) -> Removed:
        """The sum, count by count."""
        return Removed(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def counts(self) -> dict[str, int]:
        """What there is of it, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name)}


@dataclass(frozen=True, slots=True)
class Pictures:
    """What became of some files.

    Attributes:
        removed: How many there were, and how large.
        stuck: Those that could not be removed, by their paths; in one line each why.
    """

    removed: Removed
    stuck: Mapping[str, str]


def remove_pictures(crops: CropStore, paths: Iterable[str]) -> Pictures:
    """Removes files; one that is missing is fine, and one outside of the folder isn't ours to remove."""
    removed, stuck = Removed(), dict[str, str]()
    for path in paths:
        try:
            size = crops.remove(path)
        except OutsideError:
            removed += Removed(missing=1)
        except StorageError as error:
            removed += Removed(stuck=1)
            stuck[path] = str(error)
        else:
            removed += Removed(missing=1) if size is None else Removed(pictures=1, picture_bytes=size)
    return Pictures(removed, stuck)


def pictures_of(session: Session, tracklet_ids: Collection[str] | Select[tuple[str]]) -> list[tuple[str, str]]:
    """Of each picture of these tracklets (or of those asked for), crops and contexts, whose it is and where it lies."""
    crop = select(EmbeddingRow.tracklet_id, EmbeddingRow.crop_image).where(
        EmbeddingRow.tracklet_id.in_(tracklet_ids), EmbeddingRow.crop_image.is_not(None)
    )
    context = select(TrackletRow.tracklet_id, TrackletRow.context_image).where(
        TrackletRow.tracklet_id.in_(tracklet_ids), TrackletRow.context_image.is_not(None)
    )
    return [(tracklet_id, path) for tracklet_id, path in session.execute(union_all(crop, context)) if path is not None]


def remove_tracklets(session: Session, tracklet_ids: Collection[str]) -> Removed:
    """Removes the rows of tracklets, of the corrections that are left empty, and of vehicles that nothing names.

    Vehicles that keep other tracklets are brought up to date. The caller holds the decisions
    (`statements.hold_decisions`), has removed the pictures, and leaves out what is held.

    Args:
        session: Of `Database.transaction`.
        tracklet_ids: Some thousands at most; ids that aren't there are passed over.
    """
    own = AssignmentRow.tracklet_id.in_(tracklet_ids)
    vehicles = set(session.scalars(select(AssignmentRow.vehicle_id).where(own)))
    has_correction = AssignmentRow.correction_id.is_not(None)
    touched = set(session.scalars(select(AssignmentRow.correction_id).where(own, has_correction)))
    _keep_numbers(session, AssignmentRow)
    notices = remove_notices(session, WatchNoticeRow.tracklet_id.in_(tracklet_ids))
    embeddings = count_removed(session, delete(EmbeddingRow).where(EmbeddingRow.tracklet_id.in_(tracklet_ids)))
    sightings = count_removed(session, delete(SightingRow).where(SightingRow.tracklet_id.in_(tracklet_ids)))
    assignments = count_removed(session, delete(AssignmentRow).where(own))
    tracklets = count_removed(session, delete(TrackletRow).where(TrackletRow.tracklet_id.in_(tracklet_ids)))
    gone = _remove_vehicles(session, vehicles)
    Writer(session).refresh_vehicles(vehicles - gone)
    corrections = _remove_corrections(session, {number for number in touched if number is not None})
    return Removed(tracklets, sightings, embeddings, assignments, corrections, len(gone), notices=notices)


def remove_watches(session: Session, vehicle_id: str) -> Removed:
    """Removes the watches of a vehicle, ended ones too, with all that came of them."""
    found = find_watches(session)
    own = {number for number, heir in heirs(session, found).items() if heir == vehicle_id}
    own |= {row.watch_id for row in found if row.vehicle_id == vehicle_id}
    notices = remove_notices(session, WatchNoticeRow.watch_id.in_(own))
    return Removed(watches=_remove_numbered(session, WatchRow, WatchRow.watch_id.in_(own)), notices=notices)


def remove_old_watches(session: Session, before: datetime) -> Removed:
    """Removes what was noted of watched vehicles before that moment, and the watches that ended before it."""
    has_notice = exists().where(WatchNoticeRow.watch_id == WatchRow.watch_id)
    notices = remove_notices(session, WatchNoticeRow.made_at < before)
    ended = (WatchRow.ended_at < before) & ~has_notice
    return Removed(watches=_remove_numbered(session, WatchRow, ended), notices=notices)


def remove_notices(session: Session, condition: ColumnElement[bool]) -> int:
    """Removes notices of watches; how many there were."""
    return _remove_numbered(session, WatchNoticeRow, condition)


def _remove_numbered(session: Session, model: type[Base], condition: ColumnElement[bool]) -> int:
    if session.execute(select(exists().where(condition))).scalar_one():
        _keep_numbers(session, model)
        return count_removed(session, delete(model).where(condition))
    return 0


def _remove_vehicles(session: Session, vehicle_ids: set[str]) -> set[str]:
    """Those of them that no decision names; one of the past, on another tracklet, keeps a vehicle's id."""
    is_named = exists().where(AssignmentRow.vehicle_id == VehicleRow.vehicle_id)
    unnamed = delete(VehicleRow).where(VehicleRow.vehicle_id.in_(vehicle_ids), ~is_named)
    return set(session.scalars(unnamed.returning(VehicleRow.vehicle_id), execution_options=_PLAIN))


def _remove_corrections(session: Session, numbers: set[int]) -> int:
    """Those of them that have no decision left, and what they had undone likewise: an undo goes before its object."""
    later = aliased(CorrectionRow)
    has_decision = exists().where(AssignmentRow.correction_id == CorrectionRow.correction_id)
    is_undone = exists().where(later.undoes == CorrectionRow.correction_id)
    removed = 0
    if numbers:
        _keep_numbers(session, CorrectionRow)
    while numbers:
        empty = delete(CorrectionRow).where(CorrectionRow.correction_id.in_(numbers), ~has_decision, ~is_undone)
        gone = session.execute(
            empty.returning(CorrectionRow.correction_id, CorrectionRow.undoes), execution_options=_PLAIN
        ).all()
        removed += len(gone)
        undone = {row.undoes for row in gone if row.undoes is not None}
        numbers = (numbers - {row.correction_id for row in gone}) | undone if gone else set()
    return removed


def _keep_numbers(session: Session, model: type[Base]) -> None:
    """Notes the highest number that was ever given, where the database would give it again: see `add_numbered`."""
    if session.get_bind().dialect.name != "sqlite":
        return
    table = cast("Table", model.__table__)
    number = table.primary_key.columns.values()[0]
    name = given_numbers(table.name)
    highest = session.execute(select(func.coalesce(func.max(number), 0))).scalar_one()
    noted = select(ConsumerOffsetRow.next_offset).where(ConsumerOffsetRow.topic == name)
    known = session.execute(noted).scalar_one_or_none() or 0
    if highest < known:
        return
    session.execute(delete(ConsumerOffsetRow).where(ConsumerOffsetRow.topic == name))
    session.execute(insert(ConsumerOffsetRow).values(topic=name, partition=0, next_offset=highest + 1))


def count_removed(session: Session, statement: Delete) -> int:
    """Removes rows; how many there were."""
    return cast("CursorResult[None]", session.execute(statement, execution_options=_PLAIN)).rowcount


# Nothing loaded as an object is used on: bringing such objects up to date would cost a look at each.
_PLAIN = {"synchronize_session": False}
