"""One child process of the supervisor: started, watched, started again when it dies."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import TYPE_CHECKING

import structlog

from streamer.children import ChildContext, StartReport, run_child
from streamer.counters import Field, RowState

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from streamer.counters import Board
    from streamer.setups import WorkerSetup

_log = structlog.get_logger(__name__)

#: Before a child that died is started again: doubling from the first to the last, back to the first once it held out.
FIRST_RESTART_S, LAST_RESTART_S, HELD_OUT_S = 0.5, 30.0, 60.0
#: How long a child that was told to end at once may take.
TERMINATE_S = 5.0
#: How long a child that is to be renewed may take to end in order: a matcher stores its batch and leaves its group, so
#: that the next one needn't wait out a session's time-out for its partitions.
RENEW_S = 10.0
#: A worker that has not got on with its work for so long is killed, and started again. Longer than any of its waits:
#: the longest are for a database's lock, and for crops of an embedder that is away.
HUNG_S = 120.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A kind of child.

    Attributes:
        stage: Its row on the board; its name in logs.
        target: `module:function`, imported by the child alone: the supervisor needs no network library.
        make_setup: What it is given, made anew at each start; None when there is nothing left to do.
    """

    stage: str
    target: str
    make_setup: Callable[[], WorkerSetup | None]


def run_target(target: str, context: ChildContext, setup: WorkerSetup) -> None:
    """The child's entry point: imports its work and does it."""
    module, name = target.split(":")
    run_child(lambda given, wanted: getattr(importlib.import_module(module), name)(given, wanted), context, setup)


class Child:
    """A child process. Methods never block, but for `end`.

    Args:
        spec: What it is.
        board: Shared with it.
        log_level: For its log.
        monotonic: Seconds.
    """

    def __init__(
        self,
        spec: ChildSpec,
        board: Board,
        *,
        log_level: int = logging.INFO,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stage = spec.stage
        self.has_started = False
        #: Why it can't start, in one line; empty while it may.
        self.problem = ""
        #: It ended by itself, its work done.
        self.is_done = False
        #: Deaths since it last held out.
        self.deaths = 0
        self._spec, self._board, self._log_level, self._monotonic = spec, board, log_level, monotonic
        self._process: SpawnProcess | None = None
        self._report: Connection | None = None
        self._started_s = self._next_start_s = 0.0
        #: When a child that is to be renewed has taken too long to end by itself; None: it is to stay.
        self._renewed_by_s: float | None = None

    @property
    def process(self) -> SpawnProcess | None:
        """The process of the moment; None before the first and between two."""
        return self._process

    def start(self) -> None:
        """Starts it; `has_started` or `problem` will tell how that went."""
        setup = self._spec.make_setup()
        if setup is None:
            self.is_done = True
            return
        self._report, writer = Pipe(duplex=False)
        context = ChildContext(self._board, writer, self._log_level)
        self._process = multiprocessing.get_context("spawn").Process(
            target=run_target, args=(self._spec.target, context, setup), name=self.stage
        )
        self._process.start()
        writer.close()
        self._started_s = self._monotonic()

    def watch(self, *, restart: bool) -> None:
        """Looks after it: reads its report, and starts it again when it has died or hangs, and its time has come."""
        self._read_report()
        if self.is_done:
            return
        if self._process is None:
            if restart and self._monotonic() >= self._next_start_s:
                self.start()
        elif self._process.exitcode is not None:
            self._bury(self._process.exitcode)
        elif self._renewed_by_s is not None and self._monotonic() > self._renewed_by_s:
            _log.warning("worker takes no new site, ending it", worker=self.stage, after_s=RENEW_S)
            self._process.kill()
        elif self.has_started and self._is_hung():
            _log.warning("worker hangs, ending it", worker=self.stage, after_s=HUNG_S)
            self._process.kill()

    def renew(self) -> None:
        """Expects the process to end by itself, and starts it again with a new setup: no death, and no wait.

        It sees on the board that there is a new edition; after `RENEW_S` it is killed.
        """
        if self._process is not None:
            self._renewed_by_s = self._monotonic() + RENEW_S

    def revive(self) -> None:
        """Has a child that was done start again: there is more to do."""
        self.is_done = False
        self.deaths, self._next_start_s = 0, 0.0

    def end(self, timeout_s: float = TERMINATE_S) -> None:
        """Ends it at once: SIGTERM, then SIGKILL. Blocks until it is gone."""
        if self._process is not None and self._process.exitcode is None:
            self._process.terminate()
            self._process.join(timeout_s)
            self._process.kill()
            self._process.join()
        if self._report is not None:
            self._report.close()
            self._report = None

    def _is_hung(self) -> bool:
        alive_s = self._board.stage(self.stage)[Field.ALIVE_S]
        return self._monotonic() - max(alive_s, self._started_s) > HUNG_S

    def _read_report(self) -> None:
        if self._report is None or not self._report.poll():
            return
        try:
            report: StartReport = self._report.recv()
        except (EOFError, OSError):
            # It died before its first words.
            report = StartReport()
        else:
            self.has_started = self.has_started or not report.problem
            self.problem = report.problem
        self._report.close()
        self._report = None

    def _bury(self, exit_code: int) -> None:
        self._process = None
        if self._renewed_by_s is not None:
            self._renewed_by_s, self._next_start_s = None, 0.0
            return
        if exit_code == 0:
            self.is_done = True
            return
        now_s = self._monotonic()
        self.deaths = 1 if now_s - self._started_s > HELD_OUT_S else self.deaths + 1
        delay_s = min(FIRST_RESTART_S * 2 ** (self.deaths - 1), LAST_RESTART_S)
        self._next_start_s = now_s + delay_s
        row = self._board.stage(self.stage)
        row.add(Field.RESTARTS)
        row.state = RowState.STARTING
        _log.warning("worker died", worker=self.stage, exit_code=exit_code, again_in_s=delay_s, reason=self.problem)
