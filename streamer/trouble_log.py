"""What is to be written of cameras' troubles: changes seen on the board, kept until the database has them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from storage.camera_troubles import begin_trouble, end_trouble
from streamer.camera_health import PictureHealth
from streamer.counters import Field, RowState

if TYPE_CHECKING:
    from storage.database import Session
    from streamer.counters import Row

#: Changes that wait for a database that is away; a camera makes one in `persist_s` at most. Then the oldest are lost.
MAX_WAITING = 10_000
_OVER = (RowState.FINISHED, RowState.FAILED)


@dataclass(frozen=True, slots=True)
class _Change:
    camera: str
    health: PictureHealth
    since: datetime


class TroubleLog:
    """Follows the health of cameras' pictures on the board; look more often than it may change. Not for threads."""

    def __init__(self) -> None:
        self._seen: dict[str, PictureHealth] = {}
        self._waiting: deque[_Change] = deque(maxlen=MAX_WAITING)

    def look(self, camera: str, row: Row) -> None:
        """Notes a change since the last look. A camera that is over is in no trouble from its last frame on."""
        health, since_s = PictureHealth(row.count(Field.HEALTH)), row[Field.HEALTH_SINCE]
        if row.state in _OVER and health.is_trouble:
            health, since_s = PictureHealth.OK, row[Field.LAST_CAPTURED_AT]
        if health not in (PictureHealth.UNKNOWN, self._seen.get(camera)):
            self._seen[camera] = health
            self._waiting.append(_Change(camera, health, datetime.fromtimestamp(since_s, UTC)))

    def write(self, session: Session) -> None:
        """Writes what waits. Call `written` once the transaction has ended well; else it is written again."""
        for change in self._waiting:
            if change.health.is_trouble:
                begin_trouble(session, change.camera, change.health.name.lower(), change.since)
            else:
                end_trouble(session, change.camera, change.since)

    def written(self) -> None:
        """All that was noted is in the database."""
        self._waiting.clear()
