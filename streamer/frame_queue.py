"""The bounded queue between a decode thread and its one consumer."""

from __future__ import annotations

from collections import deque
from threading import Condition

from streamer.frames import Frame, SessionEnd


class FrameQueue:
    """Frames in order, and between them the ends of sessions.

    When full, a live camera's queue drops its oldest frame; a file's queue makes its reader wait. An end is never
    dropped once the consumer has seen a frame of its session, nor is the newest one; it takes no frame's place.

    Args:
        capacity: Frames that may wait.
        drops_oldest: Whether a full queue drops, rather than waits.
    """

    def __init__(self, capacity: int, *, drops_oldest: bool) -> None:
        self._capacity = capacity
        self._drops_oldest = drops_oldest
        self._items: deque[Frame | SessionEnd] = deque()
        self._frames = 0
        self._taken_session: str | None = None
        self._is_closed = False
        self._changed = Condition()

    def put(self, frame: Frame) -> int | None:
        """Adds a frame; where the queue doesn't drop, blocks until there is room or `close`.

        Returns:
            How many older frames were dropped for it, or None if the queue was closed and didn't take it.
        """
        with self._changed:
            if not self._drops_oldest:
                self._changed.wait_for(lambda: self._is_closed or self._frames < self._capacity)
            if self._is_closed:
                return None
            dropped = 0
            if self._frames >= self._capacity:
                self._drop_oldest()
                dropped = 1
            self._items.append(frame)
            self._frames += 1
            self._changed.notify_all()
            return dropped

    def put_end(self, end: SessionEnd) -> None:
        """Adds the end of a session; never blocks.

        Waiting ends of sessions that gave the consumer no frame say nothing any more and make way, so that a camera
        that can't be reached for days holds one place.
        """
        with self._changed:
            told = {item.session for item in self._items if isinstance(item, Frame)} | {self._taken_session}
            self._items = deque(item for item in self._items if isinstance(item, Frame) or item.session in told)
            self._items.append(end)
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Frame | SessionEnd | None:
        """The next item; blocks at most `timeout_s`, None when nothing came. What waits stays after `close`."""
        with self._changed:
            if timeout_s > 0:
                self._changed.wait_for(lambda: self._items or self._is_closed, timeout_s)
            if not self._items:
                return None
            item = self._items.popleft()
            if isinstance(item, Frame):
                self._frames -= 1
                self._taken_session = item.session
                self._changed.notify_all()
            return item

    def close(self) -> None:
        """Takes no more frames and lets go of whoever waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _drop_oldest(self) -> None:
        oldest = next(place for place, item in enumerate(self._items) if isinstance(item, Frame))
        del self._items[oldest]
        self._frames -= 1
