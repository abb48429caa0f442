"""How often something may be tried: so that passwords can't be guessed."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Names and addresses that are remembered at once; those that tried longest ago are forgotten.
MAX_KEYS = 10_000


class Attempts:
    """Counts attempts within a sliding window, in memory: a restart forgets them. For one thread.

    Args:
        limit: Of each key, within the window.
        window_s: In seconds.
        clock: Monotonic, in seconds.
    """

    def __init__(self, limit: int, window_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._window_s = window_s
        self._clock = clock
        self._tried: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """How long to wait until the next attempt, in seconds; 0: none."""
        tried = self._tried.get(key)
        if tried is None or len(tried) < self._limit:
            return 0.0
        return max(0.0, tried[0] + self._window_s - self._clock())

    def note(self, key: str) -> None:
        """Counts an attempt."""
        tried = self._tried.setdefault(key, deque(maxlen=self._limit))
        tried.append(self._clock())
        self._tried.move_to_end(key)
        while len(self._tried) > MAX_KEYS:
            self._tried.popitem(last=False)

    def take_back(self, key: str) -> None:
        """Counts the last attempt no longer."""
        tried = self._tried.get(key)
        if tried:
            tried.pop()

    def forget(self, key: str) -> None:
        """Counts from nothing again."""
        self._tried.pop(key, None)
