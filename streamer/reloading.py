"""Another edition of a site file, taken up while the site runs: what has changed, and whether it can be done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from streamer.children import StartError
from streamer.config import ConfigError, SiteConfig
from streamer.counters import BoardFullError, RowState
from streamer.lanes import SETTLED
from streamer.preflight import check_cameras, mark_finished
from streamer.setups import camera_entry, put_news

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from storage.database import Database
    from streamer.counters import Board
    from streamer.site_plan import SitePlan

_log = structlog.get_logger(__name__)

#: Keys that a running site takes up: its cameras, and what names them, which the matcher reads when it starts anew.
TAKEN_UP = ("cameras", "links", "regions")


@dataclass(frozen=True, slots=True)
class SiteChange:
    """What another edition changes.

    Attributes:
        site: The edition that is in force from now on: of the new file, the keys `TAKEN_UP`.
        added: Ids of new cameras.
        removed: Ids of cameras that are gone.
        edited: Ids of cameras of which any key has changed.
        is_rearranged: Links or regions have changed.
        wants_restart: Keys that have changed too, and are taken up by the next start.
    """

    site: SiteConfig
    added: tuple[str, ...]
    removed: tuple[str, ...]
    edited: tuple[str, ...]
    is_rearranged: bool
    wants_restart: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Nothing that a running site takes up has changed."""
        return not (self.added or self.removed or self.edited or self.is_rearranged)


def compare(old: SiteConfig, new: SiteConfig) -> SiteChange:
    """What would change if the new file took the old one's place."""
    before, after = ([camera.id for camera in site.cameras] for site in (old, new))
    kept = [name for name in after if name in before]
    return SiteChange(
        site=old.model_copy(update={key: getattr(new, key) for key in TAKEN_UP}),
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        edited=tuple(name for name in kept if camera_entry(old, name) != camera_entry(new, name)),
        is_rearranged=(old.links, old.regions) != (new.links, new.regions),
        wants_restart=tuple(
            key for key in SiteConfig.model_fields if key not in TAKEN_UP and getattr(old, key) != getattr(new, key)
        ),
    )


class Reloader:
    """Takes up new editions of a site file, for the supervisor.

    Args:
        plan: Which camera is whose; adopts them.
        board: Gets rows for new cameras.
        folder: Where the camera workers' news lie.
        database: Tells which files are finished; None where there is none.
        trace: For the workers, as in `SitePlan.specs`.
    """

    def __init__(
        self, plan: SitePlan, board: Board, folder: Path, database: Database | None, trace: Path | None
    ) -> None:
        self._plan, self._board, self._folder, self._database = plan, board, folder, database
        self._trace = trace

    def take_up(self, reread: Callable[[], SiteConfig]) -> SiteChange | None:
        """Reads the site file and has the camera workers follow it; blocks while new files are tried.

        Returns:
            What has changed; None where nothing has, or where the new file has a fault and the old one stays.
        """
        try:
            change = compare(self._plan.site, reread())
            self._prepare(change)
            if not change.is_empty:
                self._publish(change)
        except (ConfigError, StartError, BoardFullError) as error:
            reason = "; ".join(str(error).splitlines())
            _log.error("site file not taken up, the one before stays in force", reason=reason)
            return None
        if change.wants_restart:
            _log.warning("changed keys want a restart", keys=", ".join(change.wants_restart))
        if change.is_empty:
            _log.info("site file read, no camera has changed")
            return None
        names = {"added": change.added, "removed": change.removed, "edited": change.edited}
        _log.info("site file taken up", **{key: ", ".join(value) for key, value in names.items()})
        return change

    def _prepare(self, change: SiteChange) -> None:
        fresh = [change.site.camera(name) for name in (*change.added, *change.edited)]
        if self._plan.has_edge:
            check_cameras(change.site, fresh)
        for name in change.added:
            self._board.add_camera(name)
        for camera in fresh:
            row = self._board.camera(camera.id)
            row.state = RowState.STARTING if row.state in SETTLED else row.state
        mark_finished(fresh, self._board, self._database)

    def _publish(self, change: SiteChange) -> None:
        """Lays the news before it says that there are some."""
        before, edition = self._plan.site, self._board.edition + 1
        self._plan.adopt(change.site)
        try:
            for stage in self._plan.workers:
                setup = self._plan.camera_setup(stage, self._board, self._folder, self._trace)
                put_news(replace(setup, edition=edition))
        except OSError as error:
            self._plan.adopt(before)
            raise StartError(f"{self._folder}: {error.strerror or error}") from error
        self._board.edition = edition
