"""Looks out for watched vehicles, and tells of those that returned."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING

from storage.errors import OffsetConflictError, StorageError
from storage.watch_duty import has_work, look_out, note_delivery, note_failure, take_turn, waiting
from web.notices import DeliveryError, channels

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.watches import Notice
    from web.notices import Channel
    from web.services import Services

#: After so long without a word of it another program takes over: it was ended, or its machine.
TURN_S = 30.0
#: A receiver that fails is left alone for a second, then for twice as long each time, up to this.
LONGEST_PAUSE_S = 300.0
#: So long a stop waits for what is being told.
_STOP_S = 15.0
_BATCH = 100

_log = logging.getLogger(__name__)


class Watchman:
    """A thread that looks at what the matcher decides, and tells those whom the site file names.

    Of several programs on one database one has the turn; another takes over `TURN_S` after it was killed, and at once
    after it was stopped. While the database can't be reached, it waits. Where nobody is watched, nothing is written.

    Args:
        services: Read.
        clock: Monotonic seconds.
    """

    def __init__(self, services: Services, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = services.database
        self._period_s = services.site.web.watch.period_s
        self._receivers = [_Receiver(channel, clock) for channel in channels(services.site.web.watch)]
        # Who has been told of what waits for others: lost with the program, and told again then.
        self._told: dict[int, set[str]] = defaultdict(set)
        self._turn: int | None = None
        self._trouble = ""
        self._is_stopped = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread = Thread(target=self._run, name="watchman", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it, after what is being told, and leaves the turn to others."""
        self._is_stopped.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
            self._thread = None

    def look(self) -> None:
        """One round: looks at what is new, and tells what waits.

        Raises:
            StorageError: The database can't be used; nothing is lost.
        """
        with self._database.snapshot() as session:
            if not has_work(session):
                return
        if not self._has_turn():
            return
        while self._look_out() and self._has_turn():
            pass
        self._tell()

    def leave(self) -> None:
        """Leaves the turn to others.

        Raises:
            StorageError: The database can't be used; others wait `TURN_S` then.
        """
        if self._turn is not None:
            now = _now_ms()
            with self._database.transaction() as session:
                take_turn(session, self._turn, now, now)
            self._turn = None

    def _run(self) -> None:
        while not self._is_stopped.wait(self._period_s):
            self._trying(self.look)
        self._trying(self.leave)

    def _trying(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StorageError as error:
            # Once: it is tried again every few seconds.
            if str(error) != self._trouble:
                _log.warning("watches: %s", error)
            self._trouble = str(error)
        else:
            self._trouble = ""

    def _has_turn(self) -> bool:
        now, length = _now_ms(), int(TURN_S * 1000)
        # More than that is left of it only where the clock was set back: others would wait for as long.
        if self._turn is not None and length / 2 < self._turn - now <= length:
            return True
        try:
            with self._database.transaction() as session:
                self._turn = take_turn(session, self._turn, now, now + length)
        except OffsetConflictError:
            self._turn = None
        return self._turn is not None

    def _look_out(self) -> bool:
        try:
            with self._database.transaction() as session:
                return look_out(session, datetime.now(UTC))
        except OffsetConflictError:
            return False

    def _tell(self) -> None:
        with self._database.snapshot() as session:
            found = waiting(session, limit=_BATCH)
        try:
            for notice in found:
                if self._is_stopped.is_set() or not self._has_turn():
                    return
                self._tell_of(notice)
                if self._receivers and all(receiver.is_paused for receiver in self._receivers):
                    return
        finally:
            # Nobody would answer a broker's questions until the next return, which may be days away.
            for receiver in self._receivers:
                receiver.channel.close()

    def _tell_of(self, notice: Notice) -> None:
        told, errors = self._told[notice.notice_id], []
        for receiver in self._receivers:
            if receiver.channel.name not in told and not receiver.is_paused:
                error = receiver.tell(notice)
                if error:
                    errors.append(error)
                else:
                    told.add(receiver.channel.name)
        is_done = len(told) == len(self._receivers)
        if is_done or errors:
            with self._database.transaction() as session:
                if errors:
                    note_failure(session, notice.notice_id, "; ".join(errors))
                if is_done:
                    note_delivery(session, notice.notice_id, datetime.now(UTC))
        if is_done:
            del self._told[notice.notice_id]


class _Receiver:
    """Who is told by one way, and how long to leave it alone."""

    def __init__(self, channel: Channel, clock: Callable[[], float]) -> None:
        self.channel = channel
        self._clock = clock
        self._failures = 0
        self._paused_until = -1.0

    @property
    def is_paused(self) -> bool:
        return self._failures > 0 and self._clock() < self._paused_until

    def tell(self, notice: Notice) -> str:
        """Why it could not be told; empty where it was."""
        try:
            self.channel.tell(notice)
        except DeliveryError as error:
            self._paused_until = self._clock() + min(LONGEST_PAUSE_S, 2.0 ** min(self._failures, 16))
            self._failures += 1
            return str(error)
        self._failures = 0
        return ""


def _now_ms() -> int:
    return int(time.time() * 1000)
