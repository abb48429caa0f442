"""Looks out for watched vehicles, and tells of those that returned."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING

from storage.errors import OffsetConflictError, StorageError
from storage.watch_duty import has_work, look_out, note_delivery, note_failure, take_turn, to_tell, waiting
from web.notices import DeliveryError, RefusedError, channels

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from storage.watches import Notice
    from web.notices import Channel
    from web.services import Services

#: After so long without a word of it another program takes over: it was ended, or its machine.
TURN_S = 30.0
#: A receiver that fails is left alone for a second, then for twice as long each time, up to this; so is all that needs
#: to be done where something fails that nobody expected.
LONGEST_PAUSE_S = 300.0
#: So long a stop waits for what is being told.
_STOP_S = 15.0
#: Notices of one round: afterwards it is looked for new ones.
_BATCH = 100

_log = logging.getLogger(__name__)


class Watchman:
    """A thread that looks at what the matcher decides, and tells those whom the site file names.

    Of several programs on one database one has the turn; another takes over `TURN_S` after it was killed, and at once
    after it was stopped. While the database can't be reached, it waits. Where nobody is watched, nothing is written.
    Nothing ends it but `stop`: how it is doing stands in `Services.watch`.

    Args:
        services: Read; `watch` is kept up to date.
        clock: Monotonic seconds.
    """

    def __init__(self, services: Services, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._database = services.database
        self._period_s = services.site.web.watch.period_s
        self._receivers = [_Receiver(channel, clock) for channel in channels(services.site.web.watch)]
        self._turn: int | None = None
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
        while not self._is_stopped.is_set() and self._look_out() and self._has_turn():
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
        surprises = 0
        while not self._is_stopped.wait(pause_s(self._period_s, surprises)):
            surprises = 0 if self._is_foreseen(self.look) else surprises + 1
        self._is_foreseen(self.leave)

    def _is_foreseen(self, work: Callable[[], None]) -> bool:
        """Does it; whether it did not end in what nobody expected."""
        try:
            work()
        except StorageError as error:
            self._note_trouble(str(error))
        except Exception as error:  # noqa: BLE001 - an ended thread would tell nobody of anything, for good
            self._note_trouble(f"{_unexpected(error)}: the log has more", error)
            return False
        else:
            self._services.watch = replace(self._services.watch, trouble="")
        return True

    def _note_trouble(self, trouble: str, unexpected: Exception | None = None) -> None:
        before = self._services.watch
        self._services.watch = replace(before, failures=before.failures + 1, trouble=trouble)
        # Once: it is tried again every few seconds.
        if trouble != before.trouble:
            _log.warning("watches: %s", trouble, exc_info=unexpected)

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
            numbers = waiting(session)
            for receiver in self._receivers:
                receiver.forget_all_but(numbers)
            found = to_tell(session, [number for number in numbers if self._can_be_told(number)][:_BATCH])
        try:
            for notice in found:
                if self._is_stopped.is_set() or not self._has_turn():
                    return
                if self._can_be_told(notice.notice_id):
                    self._tell_of(notice)
        finally:
            # Nobody would answer a broker's questions until the next return, which may be days away.
            for receiver in self._receivers:
                receiver.channel.close()

    def _can_be_told(self, number: int) -> bool:
        """Whether anybody is to be told of it now, or all have been, which only has to be noted."""
        return self._is_told(number) or any(receiver.waits_for(number) for receiver in self._receivers)

    def _is_told(self, number: int) -> bool:
        return all(receiver.has(number) for receiver in self._receivers)

    def _tell_of(self, notice: Notice) -> None:
        number = notice.notice_id
        said = [receiver.tell(notice) for receiver in self._receivers if receiver.waits_for(number)]
        errors = "; ".join(error for error in said if error)
        if errors or self._is_told(number):
            with self._database.transaction() as session:
                if errors:
                    note_failure(session, number, errors)
                if self._is_told(number):
                    note_delivery(session, number, datetime.now(UTC))


class _Receiver:
    """Who is told by one way: of what they have been told, and how long to leave them alone."""

    def __init__(self, channel: Channel, clock: Callable[[], float]) -> None:
        self.channel = channel
        self._clock = clock
        # Of what waits for others too: lost with the program, and told again then.
        self._told: set[int] = set()
        # How often it failed, and until when to wait: of everything (None), or of a notice that is refused.
        self._failures: dict[int | None, tuple[int, float]] = {}

    def has(self, number: int) -> bool:
        """Whether they have been told of that notice."""
        return number in self._told

    def waits_for(self, number: int) -> bool:
        """Whether that notice is theirs to be told now."""
        now = self._clock()
        is_paused = any(now < self._failures[key][1] for key in (None, number) if key in self._failures)
        return not self.has(number) and not is_paused

    def forget_all_but(self, numbers: Collection[int]) -> None:
        """Keeps in mind only what still waits."""
        self._told.intersection_update(numbers)
        for gone in self._failures.keys() - {None, *numbers}:
            del self._failures[gone]

    def tell(self, notice: Notice) -> str:
        """Why they could not be told; empty where they were."""
        number = notice.notice_id
        try:
            self.channel.tell(notice)
        except RefusedError as error:
            self._failures.pop(None, None)
            return self._failed(number, str(error))
        except DeliveryError as error:
            return self._failed(None, str(error))
        except Exception as error:  # noqa: BLE001 - what a library makes of one notice keeps no other back
            line = f"{self.channel.name}: {_unexpected(error)}"
            # Where, and not what the error says: it may name what the receiver is known by.
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.warning("watches: notice %s: %s\n%s", number, line, where)
            return self._failed(number, line)
        for key in (None, number):
            self._failures.pop(key, None)
        self._told.add(number)
        return ""

    def _failed(self, key: int | None, error: str) -> str:
        count, _ = self._failures.get(key, (0, 0.0))
        self._failures[key] = count + 1, self._clock() + min(LONGEST_PAUSE_S, 2.0 ** min(count, 16))
        return error


def pause_s(period_s: float, surprises: int) -> float:
    """How long to wait for the next round, after so many in a row that ended in what nobody expected."""
    return min(max(LONGEST_PAUSE_S, period_s), period_s * 2.0 ** min(surprises, 16))


def _unexpected(error: Exception) -> str:
    return f"{type(error).__name__}, which nobody expected"


def _now_ms() -> int:
    return int(time.time() * 1000)
