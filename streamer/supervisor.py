"""The one place that builds and starts things: processes by role, their restarts, and the order in which they end."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from storage.database import Database
from storage.errors import StorageError
from storage.matcher_state import session_is_finished
from storage.writer import Writer
from streamer.bus import BusError
from streamer.bus.factory import open_outbox
from streamer.child_process import Child
from streamer.children import StartError, limit_threads
from streamer.counters import Board, Order, RowState
from streamer.health import StatusWriter, camera_records
from streamer.preflight import check_edge
from streamer.site_plan import EMBEDDER, FORWARDER, MATCHER, SUPERVISOR, Role, SitePlan, unfinished
from streamer.sources import file_session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamer.config import CameraConfig, SiteConfig

_log = structlog.get_logger(__name__)

#: From the order to stop to the end: tracklets ended, published and matched. What is left then waits in the outbox.
DRAIN_TIMEOUT_S = 45.0
#: How long workers may take to load their networks.
START_TIMEOUT_S = 180.0
#: A worker of files alone that dies so often in a row is given up: the same file would kill it for ever.
MAX_DEATHS = 5
_TICK_S = 0.2


@dataclass(slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        already_done: Cameras whose file was finished by an earlier run, and so was not read again.
        given_up: Workers that died too often.
        is_drained: Everything published was matched, as far as this role matches.
    """

    already_done: tuple[str, ...] = ()
    given_up: list[str] = field(default_factory=list)
    is_drained: bool = False


class Supervisor:
    """Runs a site, or a part of it.

    `start` blocks until every worker has loaded, `run` until the site has ended: by itself once all its files are
    read and matched, or after `stop`. A child that dies is started again with back-off; what it owned is replayed
    from the outbox (matcher), asked again (embedder), or counted as dropped (cameras).

    Args:
        site: The site.
        role: Which part of it.
        trace_folder: Where to note times, for measuring.
        log_level: Of the children.
    """

    def __init__(
        self,
        site: SiteConfig,
        role: Role = Role.ALL,
        *,
        trace_folder: Path | None = None,
        log_level: int = logging.INFO,
    ) -> None:
        self.site, self.role = site, role
        self.outcome = Outcome()
        self._trace, self._log_level = trace_folder, log_level
        self._plan = SitePlan(site, role)
        self.board = Board([camera.id for camera in site.cameras], self._plan.stages)
        self._folder: Path | None = None
        self._database: Database | None = None
        self._status: StatusWriter | None = None
        self._children: list[Child] = []
        self._stops = 0
        self._stop_deadline_s: float | None = None

    @property
    def children(self) -> Sequence[Child]:
        """The processes, in the order in which they were made."""
        return self._children

    def start(self) -> None:
        """Checks everything that can be checked, then starts the workers and waits until they are at work.

        Raises:
            StartError: The program can't run; one line per culprit.
        """
        limit_threads(max(2, (os.cpu_count() or 2) // (self.site.workers + 1)))
        self._database = self._open_database()
        if self.role is not Role.MATCHER:
            self._check_edge()
        self._folder = Path(tempfile.mkdtemp(prefix="streamer-"))
        specs = self._plan.specs(self.board, self._folder, self._trace)
        self._children = [Child(spec, self.board, log_level=self._log_level) for spec in specs]
        if self._database is not None:
            self._status = StatusWriter(self.site, self._database, self.board, self.board.stage(SUPERVISOR))
            self._status.start()
        self.board.stage(SUPERVISOR).state = RowState.RUNNING
        for child in self._children:
            child.start()
        self._wait_until_started()

    def stop(self) -> None:
        """Asks for an orderly end; the second call ends everything at once. Safe in a signal handler."""
        self._stops += 1

    def run(self, on_tick: Callable[[], None] = lambda: None) -> Outcome:
        """Watches over the workers until the site has ended.

        Args:
            on_tick: Called several times a second.
        """
        while not self._step():
            on_tick()
        on_tick()
        return self.outcome

    def close(self) -> None:
        """Ends what still runs and removes what was temporary. Safe to call twice."""
        self.board.order = Order.STOP_ALL
        for child in self._children:
            child.end()
        if self._status is not None:
            self._status.stop()
        if self._database is not None:
            self._database.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _open_database(self) -> Database | None:
        try:
            self._make_database_folder()
            database = Database.open(self.site.database)
            with database.transaction() as session:
                Writer(session).register_cameras(camera_records(self.site, self.board))
        except StorageError as error:
            if self.role is Role.EDGE:
                # Cameras must not wait for a database that only their status rows need.
                _log.warning("no database, no status is stored", reason=str(error))
                return None
            raise StartError(str(error)) from error
        return database

    def _make_database_folder(self) -> None:
        url = self.site.database
        if not url.startswith("sqlite:///"):
            return
        folder = Path(url.removeprefix("sqlite:///")).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"database: {folder}: {error.strerror or error}") from error

    def _check_edge(self) -> None:
        self._mark_finished()
        if not unfinished(self.board, self.board.cameras):
            return
        check_edge(self.site)
        outbox = open_outbox(self.site)
        try:
            outbox.depth()
        except BusError as error:
            raise StartError(str(error)) from error
        finally:
            outbox.close()

    def _mark_finished(self) -> None:
        """A file that an earlier run has read to its end is not read again."""
        done = [camera for camera in self.site.cameras if not camera.is_live and self._is_finished(camera)]
        for camera in done:
            row = self.board.camera(camera.id)
            row.state, row.note = RowState.FINISHED, "read to its end by an earlier run"
        self.outcome.already_done = tuple(camera.id for camera in done)

    def _is_finished(self, camera: CameraConfig) -> bool:
        if self._database is None:
            return False
        try:
            with self._database.transaction() as session:
                return session_is_finished(session, camera.id, file_session(camera))
        except StorageError as error:
            raise StartError(str(error)) from error

    def _wait_until_started(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not all(child.has_started or child.is_done for child in self._children):
            self._pause()
            for child in self._children:
                child.watch(restart=True)
            problems = [child.problem for child in self._children if child.problem]
            problems += [f"{child.stage}: dies at its start" for child in self._children if child.deaths >= MAX_DEATHS]
            if time.monotonic() > deadline:
                problems += [f"{child.stage}: not ready" for child in self._children if not child.has_started]
            if problems:
                raise StartError("\n".join(dict.fromkeys(problems)))
            if self._stops:
                return

    def _pause(self) -> None:
        """Waits a tick, less if a child dies."""
        alive = [child.process.sentinel for child in self._children if child.process is not None]
        if alive:
            wait(alive, _TICK_S)
        else:
            time.sleep(_TICK_S)

    def _step(self) -> bool:
        """One look at everything; True when the site has ended."""
        self._pause()
        order = self.board.order
        if self._stops and order is Order.RUN:
            self._begin_to_stop()
        for child in self._children:
            child.watch(restart=child.stage not in _ended_by(order, self._plan.workers))
        self._give_up()
        if self._is_too_late():
            return True
        return self._advance()

    def _begin_to_stop(self) -> None:
        _log.info("stopping", timeout_s=DRAIN_TIMEOUT_S)
        self.board.order = Order.STOP_CAMERAS
        self._stop_deadline_s = time.monotonic() + DRAIN_TIMEOUT_S

    def _is_too_late(self) -> bool:
        if self._stop_deadline_s is None:
            return False
        if self._stops > 1 or time.monotonic() > self._stop_deadline_s:
            _log.warning("ended before everything was matched; the rest waits in the outbox")
            return True
        return False

    def _give_up(self) -> None:
        """A worker of files alone, or any worker once the end has come, is not started for ever."""
        for child in self._children:
            may_give_up = self.board.order > Order.RUN or self._plan.is_of_files_alone(child.stage)
            if child.deaths < MAX_DEATHS or child.is_done or not may_give_up:
                continue
            child.is_done = True
            self.outcome.given_up.append(child.stage)
            _log.error("worker given up", worker=child.stage, deaths=child.deaths)
            for name in unfinished(self.board, self._plan.cameras_of(child.stage)):
                row = self.board.camera(name)
                row.state, row.note = RowState.FAILED, f"its worker died {child.deaths} times"

    def _advance(self) -> bool:
        """Gives the next order when what the last one asked for is done; True when all is."""
        order = self.board.order
        if order <= Order.STOP_CAMERAS:
            # A matcher by itself has no cameras whose end would be its own.
            may_end = order is Order.STOP_CAMERAS or self.role is not Role.MATCHER
            if may_end and self._are_over(self._plan.workers):
                self.board.order = Order.EMPTY_OUTBOX
        elif order is Order.EMPTY_OUTBOX:
            if self._are_over((FORWARDER,)):
                self.board.order = Order.DRAIN
        elif self._are_over(self.board.stages):
            self.outcome.is_drained = MATCHER not in self.outcome.given_up
            return True
        return False

    def _are_over(self, stages: Sequence[str]) -> bool:
        """Whether these have ended for good; between two lives of a worker there is no process either."""
        unwanted = _ended_by(self.board.order, self._plan.workers)
        children = [child for child in self._children if child.stage in stages]
        return all(child.is_done or (child.process is None and child.stage in unwanted) for child in children)


def _ended_by(order: Order, workers: Sequence[str]) -> tuple[str, ...]:
    """Stages that are not started again after that order."""
    if order is Order.RUN:
        return ()
    if order is Order.STOP_CAMERAS:
        return tuple(workers)
    return (*workers, EMBEDDER) if order is Order.EMPTY_OUTBOX else (*workers, EMBEDDER, FORWARDER)
