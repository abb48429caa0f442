"""What has become too old is removed: pictures first, then vectors, then tracklets, with all that hangs on them.

Old is what was seen so many days ago, by event time. What a legal hold names stays whole. A pass goes through the
database in batches, each a transaction of its own, so that a matcher that is writing waits for one batch at most; it
may be broken off anywhere and begun again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Select, delete, func, literal, select, tuple_, update

from storage import statements
from storage.models import (
    AuditRow,
    Base,
    CameraTroubleRow,
    CameraWatermarkRow,
    DeadLetterRow,
    EmbeddingRow,
    HoldRow,
    TrackletRow,
)
from storage.picture_sweep import sweep_pictures
from storage.removal import (
    Pictures,
    Removed,
    count_removed,
    pictures_of,
    remove_old_watches,
    remove_pictures,
    remove_tracklets,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.orm import Session

    from storage.crop_store import CropStore
    from storage.database import Database

    _Remover = Callable[[Session, Sequence[Row[Any]]], Removed]

#: Whatever is asked for, nothing younger than this is removed: cameras, outbox and matcher may still be at it.
LEAST_AGE = timedelta(hours=2)
#: Tracklets in a transaction: some tenths of a second, for which a matcher waits.
BATCH = 500

#: A file takes as long as several rows: of vectors and pictures a transaction has so many times fewer.
FILES_SHARE = 5
#: A file that no row names is removed by the time it was written, which is so much later than its event at most.
SWEEP_MARGIN = timedelta(days=1)

_PLAIN = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class Limits:
    """How many days of event time things are kept; None: for ever.

    Attributes:
        crops_days: Pictures: crops and contexts. A crop goes with its vector at the latest.
        embeddings_days: Vectors and points.
        tracklets_days: Tracklets with paths and decisions, and vehicles that have none left.
        audit_days: Notes of who asked what; dead letters, camera troubles, the watermarks of past connections and what
            came of watches too.
        least_age: What is younger stays, whatever the days say.
    """

    crops_days: float | None = None
    embeddings_days: float | None = None
    tracklets_days: float | None = None
    audit_days: float | None = None
    least_age: timedelta = LEAST_AGE

    def before(self, days: float | None, now: datetime) -> datetime | None:
        """The moment before which things are too old."""
        return None if days is None else now - max(timedelta(days=days), self.least_age)


class _Place(NamedTuple):
    """Where a pass has come to in a table."""

    at: datetime
    key: Any


class _Old(NamedTuple):
    """What a step looks through: the rows that are too old, by time and key."""

    rows: Select[*tuple[Any, ...]]
    at: ColumnElement[Any]
    key: ColumnElement[Any]

    def page(self, session: Session, after: _Place | None, size: int) -> Sequence[Row[Any]]:
        """The next rows, each with its place (`at`, `key`)."""
        place = tuple_(self.at, self.key)
        wanted = (
            self.rows
            if after is None
            else self.rows.where(place > tuple_(literal(after.at, self.at.type), literal(after.key, self.key.type)))
        )
        return session.execute(wanted.order_by(self.at, self.key).limit(size)).all()


class Retention:
    """Removes what is too old.

    Args:
        database: Open.
        crops: Where the pictures lie.
        limits: What is too old.
        batch: Tracklets per transaction.
    """

    def __init__(self, database: Database, crops: CropStore, limits: Limits, *, batch: int = BATCH) -> None:
        self._database, self._crops, self._limits, self._batch = database, crops, limits, batch
        #: Why a picture could not be removed, the last time that one couldn't.
        self.trouble = ""

    def run(self, now: datetime, *, sweep: bool = True) -> Iterator[Removed]:
        """One pass; what it removed, after each transaction. Whoever asks for no more has broken it off.

        What passes by itself, such as a server's restart, is lived through: see `Database.retrying`.

        Args:
            now: What ages count from, aware UTC.
            sweep: Also look at every picture file, for those that no row names: by their own age, a day late.

        Raises:
            StorageError: The database refused, or a matcher kept it waiting; what was removed until then is removed.
        """
        limits, files = self._limits, max(1, self._batch // FILES_SHARE)
        crops = limits.before(limits.crops_days, now)
        embeddings = limits.before(limits.embeddings_days, now)
        tracklets = limits.before(limits.tracklets_days, now)
        audit = limits.before(limits.audit_days, now)
        if crops is not None:
            yield from self._through(_crops_before(crops), self._clear_crops, files)
            yield from self._through(_contexts_before(crops), self._clear_contexts, files)
        if embeddings is not None:
            yield from self._through(_embeddings_before(embeddings), self._remove_embeddings, files)
        if tracklets is not None:
            yield from self._through(_tracklets_before(tracklets), self._remove_tracklets, self._batch)
        if audit is not None:
            yield self._remove_notes(audit)
        if crops is not None and sweep:
            with self._database.snapshot() as session:
                # By a subquery: a statement of PostgreSQL takes 65,535 values, and both halves would name all of them.
                kept = {path for _, path in pictures_of(session, select(HoldRow.tracklet_id))}
            yield from sweep_pictures(self._crops, crops - SWEEP_MARGIN, kept)

    def due(self, session: Session, now: datetime) -> dict[str, int]:
        """How many rows a pass would look at by now, held ones among them, by what they are."""
        limits = self._limits
        old = {
            "crops": (limits.crops_days, _crops_before),
            "context pictures": (limits.crops_days, _contexts_before),
            "embeddings": (limits.embeddings_days, _embeddings_before),
            "tracklets": (limits.tracklets_days, _tracklets_before),
        }
        found = {}
        for name, (days, rows) in old.items():
            before = limits.before(days, now)
            counted = select(func.count()).select_from(rows(before).rows.subquery()) if before is not None else None
            found[name] = 0 if counted is None else session.execute(counted).scalar_one()
        return found

    def _through(self, old: _Old, remove: _Remover, size: int) -> Iterator[Removed]:
        place: _Place | None = None
        while True:
            removed, place = self._database.retrying(
                partial(_remove_page, old=old, after=place, size=size, remove=remove)
            )
            if place is None:
                return
            yield removed

    def _clear_crops(self, session: Session, rows: Sequence[Row[Any]]) -> Removed:
        pictures = self._remove_pictures([row.crop_image for row in rows])
        cleared = [row.embedding_id for row in rows if row.crop_image not in pictures.stuck]
        clear = update(EmbeddingRow).where(EmbeddingRow.embedding_id.in_(cleared)).values(crop_image=None)
        session.execute(clear, execution_options=_PLAIN)
        return pictures.removed

    def _clear_contexts(self, session: Session, rows: Sequence[Row[Any]]) -> Removed:
        pictures = self._remove_pictures([row.context_image for row in rows])
        cleared = [row.tracklet_id for row in rows if row.context_image not in pictures.stuck]
        clear = update(TrackletRow).where(TrackletRow.tracklet_id.in_(cleared)).values(context_image=None)
        session.execute(clear, execution_options=_PLAIN)
        return pictures.removed

    def _remove_embeddings(self, session: Session, rows: Sequence[Row[Any]]) -> Removed:
        pictures = self._remove_pictures([row.crop_image for row in rows if row.crop_image is not None])
        gone = [row.embedding_id for row in rows if row.crop_image not in pictures.stuck]
        remove = delete(EmbeddingRow).where(EmbeddingRow.embedding_id.in_(gone))
        session.execute(remove, execution_options=_PLAIN)
        return pictures.removed + Removed(embeddings=len(gone))

    def _remove_tracklets(self, session: Session, rows: Sequence[Row[Any]]) -> Removed:
        ids = {row.tracklet_id for row in rows}
        owners = pictures_of(session, ids)
        pictures = self._remove_pictures([path for _, path in owners])
        kept = {tracklet_id for tracklet_id, path in owners if path in pictures.stuck}
        return pictures.removed + remove_tracklets(session, ids - kept)

    def _remove_pictures(self, paths: Iterable[str]) -> Pictures:
        pictures = remove_pictures(self._crops, paths)
        self.trouble = next(iter(pictures.stuck.values()), self.trouble)
        return pictures

    def _remove_notes(self, before: datetime) -> Removed:
        # A file's watermark says that it was read to its end, and must not be read again: it stays.
        old: tuple[tuple[type[Base], ColumnElement[bool]], ...] = (
            (CameraWatermarkRow, (CameraWatermarkRow.watermark < before) & ~CameraWatermarkRow.is_finished),
            (DeadLetterRow, DeadLetterRow.at < before),
            (CameraTroubleRow, CameraTroubleRow.ended_at < before),
            (AuditRow, AuditRow.at < before),
        )
        counts = []
        for model, is_old in old:
            counts.append(self._database.retrying(partial(count_removed, statement=delete(model).where(is_old))))
        watched = self._database.retrying(partial(remove_old_watches, before=before))
        return watched + Removed(watermarks=counts[0], dead_letters=counts[1], troubles=counts[2], audit=counts[3])


def _remove_page(
    session: Session, *, old: _Old, after: _Place | None, size: int, remove: _Remover
) -> tuple[Removed, _Place | None]:
    """What was removed of the next rows, and where the last of them is; None where there are no more."""
    rows = old.page(session, after, size)
    if not rows:
        return Removed(), None
    statements.hold_decisions(session)
    # Asked for only now: nobody puts a hold on them any more before this is done.
    held = _held(session, {row.tracklet_id for row in rows})
    removed = remove(session, [row for row in rows if row.tracklet_id not in held])
    return removed, _Place(rows[-1].at, rows[-1].key)


def _held(session: Session, tracklet_ids: Collection[str]) -> set[str]:
    return set(session.scalars(select(HoldRow.tracklet_id).where(HoldRow.tracklet_id.in_(tracklet_ids))))


def _crops_before(before: datetime) -> _Old:
    return _old_embeddings((EmbeddingRow.captured_at < before) & EmbeddingRow.crop_image.is_not(None))


def _embeddings_before(before: datetime) -> _Old:
    return _old_embeddings(EmbeddingRow.captured_at < before)


def _contexts_before(before: datetime) -> _Old:
    return _old_tracklets((TrackletRow.ended_at < before) & TrackletRow.context_image.is_not(None))


def _tracklets_before(before: datetime) -> _Old:
    return _old_tracklets(TrackletRow.ended_at < before)


def _old_embeddings(is_old: ColumnElement[bool]) -> _Old:
    row = EmbeddingRow
    places = row.captured_at.label("at"), row.embedding_id.label("key")
    return _Old(
        select(row.embedding_id, row.tracklet_id, row.crop_image, *places).where(is_old),
        row.captured_at.expression,
        row.embedding_id.expression,
    )


def _old_tracklets(is_old: ColumnElement[bool]) -> _Old:
    row = TrackletRow
    places = row.ended_at.label("at"), row.tracklet_id.label("key")
    return _Old(
        select(row.tracklet_id, row.context_image, *places).where(is_old),
        row.ended_at.expression,
        row.tracklet_id.expression,
    )
