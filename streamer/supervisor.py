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

from storage.crop_store import CropStore
from storage.errors import StorageError
from streamer.bus import BusError
from streamer.bus.factory import open_outbox
from streamer.child_process import Child
from streamer.children import StartError, limit_threads
from streamer.counters import Board, Field, Order, RowState
from streamer.health import StatusWriter
from streamer.health_server import HealthServer
from streamer.metrics import registry_of
from streamer.pid_file import PidFile
from streamer.preflight import check_edge, check_outbox, mark_finished, open_database
from streamer.reloading import Reloader
from streamer.retention_keeper import RetentionKeeper, is_kept_by, limits_of
from streamer.site_plan import EMBEDDER, FORWARDER, MATCHER, SUPERVISOR, Role, SitePlan, unfinished
from streamer.vitals import Vitals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from storage.database import Database
    from streamer.config import SiteConfig

_log = structlog.get_logger(__name__)

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
        reread: Reads the site file again, for `reload`; raises `ConfigError`. None: the site stays as it is.
        trace_folder: Where to note times, for measuring.
        log_level: Of the children.
    """

    def __init__(
        self,
        site: SiteConfig,
        role: Role = Role.ALL,
        *,
        reread: Callable[[], SiteConfig] | None = None,
        trace_folder: Path | None = None,
        log_level: int = logging.INFO,
    ) -> None:
        self.role = role
        self.outcome = Outcome()
        self._trace, self._log_level = trace_folder, log_level
        self._plan = SitePlan(site, role)
        self.board = Board([camera.id for camera in site.cameras], self._plan.stages)
        self._folder: Path | None = None
        self._database: Database | None = None
        self._status: StatusWriter | None = None
        self._retention: RetentionKeeper | None = None
        self._children: list[Child] = []
        self._reloader: Reloader | None = None
        self._server: HealthServer | None = None
        self._pid_file = PidFile(site.outbox_path)
        self._reread = reread
        self._stops = self._reloads = 0
        self._stop_deadline_s: float | None = None

    @property
    def site(self) -> SiteConfig:
        """The site as it is now."""
        return self._plan.site

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
        self._reloader = Reloader(self._plan, self.board, self._folder, self._database, self._trace)
        specs = self._plan.specs(self.board, self._folder, self._trace)
        self._children = [Child(spec, self.board, log_level=self._log_level) for spec in specs]
        if self._database is not None:
            self._status = StatusWriter(self.site, self._database, self.board, self.board.stage(SUPERVISOR))
            self._status.start()
            self._keep_retention(self._database)
        self._serve()
        self.board.stage(SUPERVISOR).state = RowState.RUNNING
        self._pid_file.open()
        for child in self._children:
            child.start()
        self._wait_until_started()

    def _keep_retention(self, database: Database) -> None:
        """Removes what is too old, where a matcher's place is: there the pictures are, and no edge waits for it."""
        if self.role is Role.EDGE or not is_kept_by(self.site):
            return
        crops = CropStore(self.site.crops_dir)
        row = self.board.stage(SUPERVISOR)
        self._retention = RetentionKeeper(database, crops, limits_of(self.site), self.site.retention, row)
        self._retention.start()

    def _serve(self) -> None:
        """Answers over HTTP, where the site wants it, from before the workers load."""
        self._note_life()
        vitals = Vitals(self.board, lambda: self.site, self._children, self._status)
        self._server = HealthServer(
            self.site.metrics,
            lives=vitals.faults_of_life,
            ready=vitals.faults_of_readiness,
            registry=registry_of(lambda: self.site, self.board),
        )
        self._server.start()

    @property
    def metrics_port(self) -> int | None:
        """Where `/metrics` is answered; None where it isn't."""
        return None if self._server is None else self._server.port

    def _note_life(self) -> None:
        self.board.stage(SUPERVISOR)[Field.ALIVE_S] = time.monotonic()

    def stop(self) -> None:
        """Asks for an orderly end; the second call ends everything at once. Safe in a signal handler."""
        self._stops += 1

    def reload(self) -> None:
        """Asks to read the site file again and to follow its cameras. Safe in a signal handler."""
        self._reloads += 1

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
        if self._server is not None:
            self._server.stop()
        for child in self._children:
            child.end()
        if self._retention is not None:
            self._retention.stop()
        if self._status is not None:
            self._status.stop()
        if self._database is not None:
            self._database.close()
        self._pid_file.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _open_database(self) -> Database | None:
        try:
            return open_database(self.site, self.board)
        except StorageError as error:
            if self.role is Role.EDGE:
                # Cameras must not wait for a database that only their status rows need.
                _log.warning("no database, no status is stored", reason=str(error))
                return None
            raise StartError(str(error)) from error

    def _check_edge(self) -> None:
        self.outcome.already_done = mark_finished(self.site.cameras, self.board, self._database)
        if unfinished(self.board, self.board.cameras):
            check_edge(self.site)
            check_outbox(self.site)

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
        self._note_life()
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
        if self._reloads and order is Order.RUN:
            self._reload()
        for child in self._children:
            child.watch(restart=child.stage not in _ended_by(order, self._plan.workers))
        self._give_up()
        if order is Order.RUN:
            self._revive()
        if self._is_too_late():
            return True
        return self._advance()

    def _begin_to_stop(self) -> None:
        timeout_s = self.site.supervisor.drain_timeout_s
        _log.info("stopping", timeout_s=timeout_s)
        self.board.order = Order.STOP_CAMERAS
        self._stop_deadline_s = time.monotonic() + timeout_s

    def _reload(self) -> None:
        self._reloads = 0
        if self._reread is None or self._reloader is None:
            return
        change = self._reloader.take_up(self._reread)
        if change is None:
            return
        if self._status is not None:
            self._status.adopt(change.site)
        for child in self._children:
            if child.stage == MATCHER:
                # It ends in order, and begins with the new cameras where the database says that it is.
                child.renew()

    def _revive(self) -> None:
        """A camera worker that was done has work again where a reload gave it cameras."""
        for child in self._children:
            if child.is_done and unfinished(self.board, self._plan.cameras_of(child.stage)):
                child.revive()

    def _is_too_late(self) -> bool:
        if self._stop_deadline_s is None:
            return False
        if self._stops > 1 or time.monotonic() > self._stop_deadline_s:
            _log.warning("ended before everything was matched", left_in_outbox=self._left())
            return True
        return False

    def _left(self) -> int | str:
        """Messages that wait for the next run."""
        outbox = open_outbox(self.site)
        try:
            return outbox.depth()
        except BusError as error:
            return str(error)
        finally:
            outbox.close()

    def _give_up(self) -> None:
        """Nobody is started for ever: a site that goes on without one of its stages would lose its work unheard."""
        for child in self._children:
            limit = self._max_deaths(child.stage)
            if child.is_done or not limit or child.deaths < limit:
                continue
            child.is_done = True
            self.outcome.given_up.append(child.stage)
            note = self.board.stage(child.stage).note or child.problem
            _log.error("worker given up", worker=child.stage, deaths=child.deaths, note=note)
            for name in unfinished(self.board, self._plan.cameras_of(child.stage)):
                row = self.board.camera(name)
                row.state, row.note = RowState.FAILED, f"its worker died {child.deaths} times"
            if self.board.order is Order.RUN and not self._plan.is_of_files_alone(child.stage):
                self._begin_to_stop()

    def _max_deaths(self, stage: str) -> int:
        """In a row; 0: there is no limit."""
        if self.board.order > Order.RUN or self._plan.is_of_files_alone(stage):
            return MAX_DEATHS
        return self.site.supervisor.max_deaths

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
