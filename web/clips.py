"""The moment of a stop, as a film: which stops have one, and those that were cut of late."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from storage.looks import path_of_tracklet
from streamer.recordings import file_session, is_sequence
from web.cutting import ClipError, cut

if TYPE_CHECKING:
    from storage.database import Database
    from streamer.config import CameraConfig, SiteConfig

#: All films that are kept together; those not asked for of late go first.
KEPT_BYTES = 64 << 20
#: How long a film waits for another one that is being cut.
BUSY_S = 20.0


class ClipBusyError(ClipError):
    """Others are being cut: it may be asked for again."""


def no_clip_reason(site: SiteConfig, camera_id: str, session: str) -> str | None:
    """Why there is no film of what a camera saw in a session; None: there is one.

    Args:
        site: The site file.
        camera_id: The camera.
        session: Of the tracklet: a file's is known by its name, size and start.
    """
    camera = next((one for one in site.cameras if one.id == camera_id), None)
    if camera is None or camera.is_live:
        return "the camera's source is no file of this site"
    if is_sequence(camera.url):
        return "the camera's source is a sequence of images, which is not played"
    if site.privacy.blur:
        return "this site hides windows and plates, which its films would show"
    if not _path(camera).is_file() or session != file_session(camera):
        return "the camera's file is no longer the one that was watched"
    return None


class Clips:
    """Cuts films, one at a time, and keeps the latest in memory. Safe for several threads.

    None is ever written to a disk, where it would outlast what is forgotten; and before one is given, the database is
    asked whether there still is such a stop.

    Args:
        site: The site file.
        database: Where tracklets went.
    """

    def __init__(self, site: SiteConfig, database: Database) -> None:
        self._site = site
        self._database = database
        self._cutting = Lock()
        self._keeping = Lock()
        # A stop that goes on is cut anew: they are known by how long it was in view, too.
        self._films = OrderedDict[tuple[str, float], bytes]()

    def film(self, tracklet_id: str) -> bytes:
        """The film of a tracklet, as an MP4 file that browsers play.

        Blocks while it is cut, some seconds, and before that for `BUSY_S` at most.

        Raises:
            TrackletNotFoundError: There is no such tracklet.
            ClipBusyError: Others are being cut.
            ClipError: There is no film of it.
        """
        with self._database.snapshot() as session:
            tracklet = path_of_tracklet(session, tracklet_id)
        reason = no_clip_reason(self._site, tracklet.camera, tracklet.session)
        if reason is None and not len(tracklet.path):
            reason = "where it was is no longer stored"
        if reason is not None:
            raise ClipError(f"no film: {reason}")
        key = (tracklet_id, float(tracklet.path.times[-1]))
        film = self._kept(key)
        if film is not None:
            return film
        if not self._cutting.acquire(timeout=BUSY_S):
            raise ClipBusyError("other films are being cut: ask again in a moment")
        try:
            film = self._kept(key)  # somebody else may have waited for the same
            if film is None:
                camera = self._site.camera(tracklet.camera)
                longest_s = self._site.web.max_clip_s
                film = cut(_path(camera), tracklet.path, start=camera.start_time, longest_s=longest_s)
                self._keep(key, film)
            return film
        finally:
            self._cutting.release()

    def has(self, tracklet_id: str, camera: str) -> bool:
        """Whether there is a film of that tracklet, as far as can be told without reading the file."""
        parts = tracklet_id.split("/")
        return len(parts) == 3 and no_clip_reason(self._site, camera, parts[1]) is None

    def _kept(self, key: tuple[str, float]) -> bytes | None:
        with self._keeping:
            film = self._films.get(key)
            if film is not None:
                self._films.move_to_end(key)
            return film

    def _keep(self, key: tuple[str, float], film: bytes) -> None:
        with self._keeping:
            self._films[key] = film
            # The newest is kept however long it is: players ask for its parts one by one.
            while len(self._films) > 1 and sum(map(len, self._films.values())) > KEPT_BYTES:
                self._films.popitem(last=False)


def _path(camera: CameraConfig) -> Path:
    return Path(camera.url.removeprefix("file://"))
