"""What is checked before anything is started: the database, that files open, weights exist, pictures can be kept."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from storage.database import Database
from storage.errors import StorageError
from storage.locations import database_folder
from storage.matcher_state import session_is_finished
from storage.writer import Writer
from streamer.bus import BusError
from streamer.bus.factory import open_outbox
from streamer.children import StartError
from streamer.counters import RowState
from streamer.health import camera_records
from streamer.recordings import file_session
from streamer.sources import SourceError, open_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from streamer.config import CameraConfig, SiteConfig
    from streamer.counters import Board

_log = structlog.get_logger(__name__)


def open_database(site: SiteConfig, board: Board) -> Database:
    """The site's database, made and brought up to date where needed, with the site's cameras in it.

    Raises:
        StorageError: It can't be used.
        StartError: There can be no such file.
    """
    _make_folder(site.database)
    database = Database.open(site.database)
    with database.transaction() as session:
        Writer(session).register_cameras(camera_records(site, board))
    return database


def _make_folder(url: str) -> None:
    folder = database_folder(url)
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"database: {folder}: {error.strerror or error}") from error


def mark_finished(cameras: Iterable[CameraConfig], board: Board, database: Database | None) -> tuple[str, ...]:
    """A file that an earlier run has read to its end is not read again.

    Returns:
        The ids of those cameras.

    Raises:
        StartError: The database doesn't tell.
    """
    done = tuple(camera.id for camera in cameras if not camera.is_live and _is_finished(camera, database))
    for name in done:
        row = board.camera(name)
        row.state, row.note = RowState.FINISHED, "read to its end by an earlier run"
    return done


def _is_finished(camera: CameraConfig, database: Database | None) -> bool:
    if database is None:
        return False
    try:
        with database.transaction() as session:
            return session_is_finished(session, camera.id, file_session(camera))
    except StorageError as error:
        raise StartError(str(error)) from error


def check_outbox(site: SiteConfig) -> None:
    """Makes sure that the outbox can be written.

    Raises:
        StartError: It can't.
    """
    outbox = open_outbox(site)
    try:
        outbox.depth()
    except BusError as error:
        raise StartError(str(error)) from error
    finally:
        outbox.close()


def check_edge(site: SiteConfig) -> None:
    """Checks what cameras and embedder need.

    A file that doesn't open is reported, and the others run; a live camera is tried for ever.

    Raises:
        StartError: No camera can ever give a frame, or weights are missing, or pictures can't be kept. A line each.
    """
    problems = [*_missing_weights(site), *_unwritable(site.crops_dir)]
    faults = {camera.id: fault for camera in site.cameras if (fault := _file_fault(camera, site))}
    if len(faults) == len(site.cameras):
        problems += [f"cameras: {name}: {fault}" for name, fault in faults.items()]
    if problems:
        raise StartError("\n".join(problems))
    for name, fault in faults.items():
        _log.warning("camera can't be opened, the others go on", camera=name, reason=fault)


def check_cameras(site: SiteConfig, cameras: Sequence[CameraConfig]) -> None:
    """Checks what cameras need that a running site is to take up.

    Raises:
        StartError: A file doesn't open, or weights are missing. A line each.
    """
    faults = ((camera.id, _file_fault(camera, site)) for camera in cameras)
    problems = [*_missing_weights(site), *(f"cameras: {name}: {fault}" for name, fault in faults if fault)]
    if problems:
        raise StartError("\n".join(problems))


def _missing_weights(site: SiteConfig) -> Iterator[str]:
    detector = site.detector
    used = {
        "detector.weights": detector.weights,
        **{f"detector.weights_by_modality.{name}": path for name, path in detector.weights_by_modality.items()},
        **{f"cameras: {camera.id}: detector": camera.detector for camera in site.cameras if camera.detector},
    }
    for key, weights in used.items():
        if not Path(weights).exists() and not (detector.allow_download and "/" not in weights):
            yield f"{key}: {weights}: no such file or folder"
    if not Path(site.embedder.weights).exists():
        yield f"embedder.weights: {site.embedder.weights}: no such file or folder"


def _unwritable(folder: Path) -> Iterator[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield f"crops_dir: {folder}: {error.strerror or error}"


def _file_fault(camera: CameraConfig, site: SiteConfig) -> str:
    """Why a camera's file gives no frames; empty for live cameras and for files that do."""
    if camera.is_live:
        return ""
    try:
        source = open_source(camera, site.source)
    except SourceError as error:
        return str(error)
    try:
        first = next(source.pictures(), None)
    except SourceError as error:
        return str(error)
    finally:
        source.close()
    return "" if first is not None else f"{source.info.shown}: no picture could be decoded"
