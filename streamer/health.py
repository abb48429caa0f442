"""How cameras and stages are doing: counters read from shared memory, rates made of them, rows for the database."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from reid.modality import Modality
from storage.errors import StorageError
from storage.records import CameraRecord, CameraStatus, StageStatus
from storage.status_samples import store_samples
from storage.writer import Writer
from streamer.counters import Field, RowState
from streamer.trouble_log import TroubleLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from storage.database import Database
    from streamer.config import CameraConfig, SiteConfig
    from streamer.counters import Board, Row

_log = structlog.get_logger(__name__)

#: Frame rates are means over so long.
RATE_WINDOW_S = 3.0
#: How often a row is kept for the page's view of the last hours.
SAMPLE_EVERY = timedelta(minutes=1)

_STAGE_FIELDS = {
    "handled": Field.HANDLED,
    "batches": Field.BATCHES,
    "sightings": Field.SIGHTINGS,
    "vehicles": Field.VEHICLES,
    "rejected": Field.REJECTED,
    "tracklets_lost": Field.TRACKLETS_LOST,
    "vectors_uncompared": Field.VECTORS_UNCOMPARED,
    "pictures_lost": Field.PICTURES_LOST,
    "lag": Field.LAG,
    "restarts": Field.RESTARTS,
    "failures": Field.FAILURES,
    "work_s": Field.WORK_S,
    "prepare_s": Field.PREPARE_S,
    "detect_s": Field.DETECT_S,
    "track_s": Field.TRACK_S,
}


class Rates:
    """Frames a second, of late, by camera. Not for two threads.

    Args:
        board: Read at each `update`.
        monotonic: Seconds.
    """

    def __init__(self, board: Board, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._board, self._monotonic = board, monotonic
        self._samples: deque[tuple[float, dict[str, float]]] = deque()

    def update(self) -> dict[str, float]:
        """Takes a sample, and answers with the rates over the window."""
        now = self._monotonic()
        counts = {name: self._board.camera(name)[Field.DECODED] for name in self._board.cameras}
        self._samples.append((now, counts))
        while len(self._samples) > 2 and now - self._samples[1][0] >= RATE_WINDOW_S:
            self._samples.popleft()
        began, before = self._samples[0]
        elapsed = now - began
        # A camera that was added since has no count from before.
        new = {name: count - before.get(name, count) for name, count in counts.items()}
        return {name: count / elapsed if elapsed > 0 else 0.0 for name, count in new.items()}


@dataclass(frozen=True, slots=True)
class Accounts:
    """A camera's frames and crops; each total is the sum of the others once nothing is in flight."""

    decoded: int
    detected: int
    gated: int
    dropped: int
    crops_asked: int
    crops_embedded: int
    crops_dropped: int

    @classmethod
    def of(cls, row: Row) -> Accounts:
        """Read from a camera's row."""
        return cls(
            row.count(Field.DECODED),
            row.count(Field.DETECTED),
            row.count(Field.GATED),
            row.count(Field.DROPPED),
            row.count(Field.CROPS_ASKED),
            row.count(Field.CROPS_EMBEDDED),
            row.count(Field.CROPS_DROPPED),
        )

    @property
    def frames_in_flight(self) -> int:
        """Decoded, and not yet detected, gated or dropped."""
        return self.decoded - self.detected - self.gated - self.dropped

    @property
    def crops_in_flight(self) -> int:
        """Asked for, and not yet answered."""
        return self.crops_asked - self.crops_embedded - self.crops_dropped


def camera_records(site: SiteConfig, board: Board) -> list[CameraRecord]:
    """The site's cameras for the database; `started_at` is there once a first frame was followed."""
    return [_camera_record(site, camera, board.camera(camera.id)) for camera in site.cameras]


def _camera_record(site: SiteConfig, camera: CameraConfig, row: Row) -> CameraRecord:
    place = camera.position
    return CameraRecord(
        camera=camera.id,
        region=site.region_of(camera),
        modality=str(camera.modality),
        x=place.x if place else None,
        y=place.y if place else None,
        lat=place.lat if place else None,
        lon=place.lon if place else None,
        started_at=_moment(row[Field.FIRST_CAPTURED_AT]),
    )


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def camera_statuses(
    cameras: Iterable[CameraConfig], board: Board, rates: dict[str, float], now: datetime
) -> list[CameraStatus]:
    """One row per camera."""
    return [_camera_status(camera, board.camera(camera.id), rates[camera.id], now) for camera in cameras]


def _camera_status(camera: CameraConfig, row: Row, fps: float, now: datetime) -> CameraStatus:
    return CameraStatus(
        camera=camera.id,
        updated_at=now,
        state=row.state.name.lower(),
        modality=band(camera, row),
        fps=fps if row.state is RowState.RUNNING else 0.0,
        decoded=row.count(Field.DECODED),
        detected=row.count(Field.DETECTED),
        gated=row.count(Field.GATED),
        dropped=row.count(Field.DROPPED),
        reconnects=row.count(Field.RECONNECTS),
        decode_errors=row.count(Field.DECODE_ERRORS),
        detections=row.count(Field.DETECTIONS),
        tracklets=row.count(Field.TRACKLETS),
        last_frame_at=_moment(row[Field.LAST_CAPTURED_AT]),
        message=row.note,
        stalled_s=row[Field.STALLED_S],
        skew_s=row[Field.SKEW_S],
        packets_lost=row.count(Field.PACKETS_LOST),
        health=picture_health(row),
    )


#: What `Field.HEALTH` says of a camera's picture, by its code.
PICTURE_HEALTH = ("", "ok", "frozen", "covered", "defocused", "moved")


def picture_health(row: Row) -> str:
    """What is wrong with a camera's picture, or `ok`; empty while it was not looked at."""
    return PICTURE_HEALTH[row.count(Field.HEALTH)]


def band(camera: CameraConfig, row: Row) -> str:
    """The band that a camera sees now, or what its configuration says before the first frame."""
    place = row.count(Field.MODALITY)
    return str(tuple(Modality)[place - 1] if place else camera.modality)


def stage_statuses(board: Board, now: datetime) -> list[StageStatus]:
    """One row per stage."""
    return [
        StageStatus(name, now, {key: board.stage(name)[field] for key, field in _STAGE_FIELDS.items()})
        for name in board.stages
    ]


class StatusWriter:
    """A thread that writes status rows every `status_period_s`.

    Best effort: while the database is away, rows are skipped and counted, and nobody waits.

    Args:
        site: The site.
        database: Open.
        board: Read.
        row: Failures are counted there.
    """

    def __init__(self, site: SiteConfig, database: Database, board: Board, row: Row) -> None:
        self._site, self._database, self._board, self._row = site, database, board, row
        #: When rows were last stored, by `time.monotonic`; minus infinity before the first.
        self.stored_s = -math.inf
        self._left: dict[str, CameraConfig] = {}
        self._rates, self._troubles = Rates(board), TroubleLog()
        self._sampled_at: datetime | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Writes the last rows and ends the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def adopt(self, site: SiteConfig) -> None:
        """Takes up another edition of the site; cameras that are gone keep a row, which says that they have stopped."""
        names = {camera.id for camera in site.cameras}
        known = {camera.id: camera for camera in self._site.cameras} | self._left
        self._left = {name: camera for name, camera in known.items() if name not in names}
        self._site = site

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.wait(self._site.status_period_s)
            self.write(is_last=is_last)

    def write(self, *, is_last: bool = False) -> None:
        """Writes the rows once, with a sample where it is time for one, or at the end; a failure is counted."""
        now, rates = datetime.now(UTC), self._rates.update()
        # By id: a reload may come between the two, and no database takes one row twice in a statement.
        cameras = tuple((self._left | {camera.id: camera for camera in self._site.cameras}).values())
        for camera in cameras:
            self._troubles.look(camera.id, self._board.camera(camera.id))
        is_sample = is_last or self._sampled_at is None or now - self._sampled_at >= SAMPLE_EVERY
        statuses = camera_statuses(cameras, self._board, rates, now)
        stages = stage_statuses(self._board, now)
        try:
            with self._database.transaction() as session:
                writer = Writer(session)
                writer.register_cameras(camera_records(self._site, self._board))
                writer.store_camera_status(statuses)
                writer.store_stage_status(stages)
                self._troubles.write(session)
                if is_sample:
                    store_samples(session, statuses, stages, now)
        except StorageError as error:
            if not self._row.note:
                _log.warning("status not stored", reason=str(error))
            self._row.add(Field.FAILURES)
            self._row.note = str(error)
        else:
            self._row.note = ""
            self.stored_s = time.monotonic()
            if is_sample:
                self._sampled_at = now
            self._troubles.written()
