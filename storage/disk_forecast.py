"""How long the disk will last, by what the last days have added to it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, select, text

from storage.errors import StorageError
from storage.models import TrackletRow
from storage.removal import pictures_of

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy.orm import Session

    from storage.crop_store import CropStore

#: Over how long a rate is taken: a week has all kinds of days.
RATE_DAYS = 7.0
#: Tracklets whose pictures' sizes are looked at, all of them: crops alone would hide the larger contexts.
_SAMPLED_TRACKLETS = 250
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Growth:
    """What the last days have added.

    Attributes:
        days: Over which it was counted; fewer than `RATE_DAYS` where the site is younger.
        tracklets_per_day: By the tracklets' ends, in event time.
        database_bytes_per_tracklet: Of the whole database, indexes too.
        picture_bytes_per_tracklet: Of the newest tracklets.
    """

    days: float
    tracklets_per_day: float
    database_bytes_per_tracklet: float
    picture_bytes_per_tracklet: float

    @property
    def database_bytes_per_day(self) -> float:
        """What the database grows by."""
        return self.tracklets_per_day * self.database_bytes_per_tracklet

    @property
    def picture_bytes_per_day(self) -> float:
        """What the pictures grow by."""
        return self.tracklets_per_day * self.picture_bytes_per_tracklet


def disk_days_left(folder: Path, bytes_per_day: float) -> float | None:
    """How many days the disk below a folder will last; None where nothing is added to it.

    What retention will have removed by then is not counted back: the disk lasts at least so long.

    Args:
        folder: Any on that disk, or one that is still to be made there.
        bytes_per_day: What all programs add to it, in bytes.

    Raises:
        StorageError: The disk can't be asked.
    """
    if bytes_per_day <= 0:
        return None
    return free_bytes(folder) / bytes_per_day


def free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder, in bytes.

    Raises:
        StorageError: The disk can't be asked.
    """
    nearest = next((one for one in (folder, *folder.absolute().parents) if one.exists()), folder)
    try:
        return shutil.disk_usage(nearest).free
    except OSError as error:
        raise StorageError(f"disk of {folder}: {error.strerror or error}") from error


def growth(session: Session, crops: CropStore | None, now: datetime) -> Growth:
    """What the site has added of late; some SQL statements, and a look at some hundred files.

    Args:
        session: To read from.
        crops: Where the pictures lie; None: they are not counted.
        now: The end of the time that is looked at: the clock, or of recorded films the newest event.
    """
    since = now - timedelta(days=RATE_DAYS)
    is_new = (TrackletRow.ended_at >= since) & (TrackletRow.ended_at <= now)
    count, first = session.execute(
        select(func.count(), func.min(TrackletRow.ended_at, type_=TrackletRow.ended_at.type)).where(is_new)
    ).one()
    total = session.execute(select(func.count()).select_from(TrackletRow)).scalar_one()
    if not count or first is None:
        return Growth(RATE_DAYS, 0.0, 0.0, 0.0)
    # A site that runs for an hour is not to be told of a day's figures that are that of one vehicle.
    days = min(RATE_DAYS, max((now - first).total_seconds() / _DAY_S, 1 / 24))
    pictures = 0.0 if crops is None else _picture_bytes(session, crops, now)
    return Growth(days, count / days, _database_bytes(session) / total, pictures)


def recent_growth(session: Session, crops: CropStore | None, now: datetime) -> Growth:
    """What the site has added of late; of a site whose newest event is older than the rate's days, what it added then.

    Args:
        session: To read from.
        crops: Where the pictures lie; None: they are not counted.
        now: The clock.
    """
    newest = _newest_event(session) or now
    return growth(session, crops, newest if (now - newest).days >= RATE_DAYS else now)


def _newest_event(session: Session) -> datetime | None:
    """When the newest tracklet was last seen."""
    return session.execute(select(func.max(TrackletRow.ended_at, type_=TrackletRow.ended_at.type))).scalar_one()


def _database_bytes(session: Session) -> int:
    if session.get_bind().dialect.name == "sqlite":
        # Pages that retention has emptied are filled first: the file doesn't grow by them.
        names = ("page_count", "freelist_count", "page_size")
        pages, empty, size = (int(session.execute(text(f"PRAGMA {name}")).scalar_one()) for name in names)
        return (pages - empty) * size
    return int(session.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def _picture_bytes(session: Session, crops: CropStore, now: datetime) -> float:
    """Of a tracklet, by the newest; 0 where no picture is kept."""
    newest = (
        select(TrackletRow.tracklet_id)
        .where(TrackletRow.ended_at <= now)
        .order_by(TrackletRow.ended_at.desc())
        .limit(_SAMPLED_TRACKLETS)
    )
    ids = list(session.scalars(newest))
    return sum(_size(crops, path) for _, path in pictures_of(session, ids)) / max(1, len(ids))


def _size(crops: CropStore, path: str) -> int:
    try:
        return crops.path(path).stat().st_size
    except (OSError, StorageError):
        return 0
