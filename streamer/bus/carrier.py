"""A thread that carries messages on to a broker, round by round, through every outage."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

import structlog

from streamer.bus import BusError

#: After a failed round the next one comes so much later, twice as late each time, up to the second.
FIRST_RETRY_S = 0.25
LAST_RETRY_S = 5.0

_log = structlog.get_logger(__name__)


class Carrier(ABC):
    """The life of such a thread. Nobody waits for it: what it has not carried on is safe where it lies.

    Troubles are counted, said once, and tried again, later each time. A crash carries some messages again.

    Args:
        what: It carries, in a word for logs.
    """

    #: What a round may fail with; all else is a mistake of ours, and ends the thread.
    troubles: tuple[type[Exception], ...] = (BusError,)

    def __init__(self, what: str) -> None:
        self._what = what
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{what}-carrier", daemon=True)
        self._retry_s = FIRST_RETRY_S
        self._trouble: str | None = None
        self._sent = self._failed = 0

    @property
    def sent(self) -> int:
        """Messages that the broker acknowledged."""
        return self._sent

    @property
    def failed(self) -> int:
        """Rounds that failed."""
        return self._failed

    @property
    def trouble(self) -> str | None:
        """Why nothing flows at the moment, in one line; None while all is well."""
        return self._trouble

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread; connecting is its business."""
        self._thread.start()

    def stop(self, *, timeout_s: float) -> bool:
        """Has the thread carry on what is left and end; it gives up at the first failure.

        Returns:
            Whether it ended in time.
        """
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @abstractmethod
    def _round(self) -> bool:
        """Carries on some of what waits, until it is acknowledged; whether there was anything."""

    @abstractmethod
    def _rest(self) -> None:
        """Waits a moment for something to carry."""

    @abstractmethod
    def _let_go(self) -> None:
        """Lets go of connections, at the thread's end."""

    def _run(self) -> None:
        try:
            while self._goes_on():
                pass
        finally:
            self._let_go()

    def _goes_on(self) -> bool:
        """A round, and whether there is to be another."""
        # Asked before the round: what was there until then is carried on, and no more is waited for.
        is_last = self._stopping.is_set()
        try:
            was_busy = self._round()
        except self.troubles as error:
            return self._stumble(str(error))
        self._recover()
        if not was_busy and not is_last:
            self._rest()
        return was_busy or not is_last

    def _stumble(self, reason: str) -> bool:
        self._failed += 1
        if self._trouble is None:
            _log.warning("messages wait", what=self._what, reason=reason)
        self._trouble = reason
        is_stopping = self._stopping.wait(self._retry_s)
        self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)
        return not is_stopping

    def _recover(self) -> None:
        if self._trouble is not None:
            _log.info("messages flow again", what=self._what)
        self._trouble = None
        self._retry_s = FIRST_RETRY_S
