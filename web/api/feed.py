"""Decisions as they are made, for whoever listens: one look at the database feeds all of them.

A listener that takes its events more slowly than they are made is let go of, told so and counted; it may come back and
go on from the last number that it had.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from anyio.to_thread import run_sync

from storage.errors import StorageError
from storage.matcher_state import load_assignments_after, newest_decision

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from storage.database import Database
    from storage.matcher_state import DecisionEvent
    from web.callers import Caller

#: Between two looks at the database; none while nobody listens.
PERIOD_S = 1.0
#: Decisions of one look.
BATCH = 500
#: Events that wait for one listener.
MAX_WAITING = 2000
#: Listeners at a time: each holds a connection, and asks once a second at most whether it still may.
MAX_LISTENERS = 200
#: Of these, those of one account: for all its pages and programs, so that none can keep everybody else out.
MAX_OF_ONE = 20

_log = logging.getLogger(__name__)


class CrowdedError(Exception):
    """As many listen as may; the text is one line."""


class GreedyError(CrowdedError):
    """One account listens as often as it may."""


class Listener:
    """Somebody who listens.

    Args:
        caller: Who; is told of the cameras that they may see.
        position: Decisions up to this number were made before.

    Attributes:
        caller: As given.
        position: As given.
        is_behind: Whether they were let go of, since they took too long.
        is_over: Whether nothing more is offered: the program ends.
    """

    def __init__(self, caller: Caller, position: int) -> None:
        self.caller = caller
        self.position = position
        self.is_behind = self.is_over = False
        self._waiting: deque[DecisionEvent] = deque()
        self._woken = asyncio.Event()

    def offer(self, events: Sequence[DecisionEvent]) -> None:
        """Has some events wait, unless there is no room."""
        seen = [event for event in events if self.caller.sees(event.camera)]
        if len(self._waiting) + len(seen) > MAX_WAITING:
            self.is_behind = True
        else:
            self._waiting += seen
        if seen:
            self._woken.set()

    def end(self) -> None:
        """Says that nothing more is offered."""
        self.is_over = True
        self._woken.set()

    async def next(self, wait_s: float) -> list[DecisionEvent]:
        """What waits, as soon as something does; nothing after so many seconds."""
        try:
            async with asyncio.timeout(wait_s):
                await self._woken.wait()
        except TimeoutError:
            return []
        self._woken.clear()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


class Feed:
    """Looks at the database for all listeners. Everything but `close` belongs to one event loop.

    Args:
        database: Open.

    Attributes:
        let_go: Listeners that were too slow, since the program started.
    """

    def __init__(self, database: Database) -> None:
        self.let_go = 0
        self._database = database
        self._listeners: set[Listener] = set()
        self._position = 0
        self._looking: asyncio.Task[None] | None = None
        self._joining = asyncio.Lock()
        self._is_closed = False

    @property
    def listeners(self) -> int:
        """How many there are."""
        return len(self._listeners)

    @property
    def is_idle(self) -> bool:
        """Whether nobody looks at the database."""
        return self._looking is None

    async def join(self, caller: Caller) -> Listener:
        """From now on the listener is offered what is decided. Call `leave` in the end.

        Raises:
            GreedyError: The caller has `MAX_OF_ONE` already.
            CrowdedError: There are `MAX_LISTENERS` already.
            StorageError: The database can't be asked.
        """
        async with self._joining:
            own = sum(one.caller.person == caller.person for one in self._listeners)
            if own >= MAX_OF_ONE:
                raise GreedyError(f"{caller.person} listens {own} times already; close one")
            if self.listeners >= MAX_LISTENERS:
                raise CrowdedError(f"{self.listeners} listen already; come back later")
            if self._looking is None:
                self._position = await run_sync(self._newest)
                self._looking = asyncio.create_task(self._look())
            listener = Listener(caller, self._position)
            self._listeners.add(listener)
        if self._is_closed:
            listener.end()
        return listener

    def leave(self, listener: Listener) -> None:
        """Takes a listener off the list. Safe to call twice."""
        self._listeners.discard(listener)

    async def since(self, caller: Caller, after: int, until: int) -> AsyncGenerator[list[DecisionEvent]]:
        """What was decided before, from a number on, some at a time; what the caller may see of it.

        Nobody who is deciding waits for it: there may be many, and whoever listens says how many are read.

        Args:
            caller: Who asks.
            after: Up to this number they know it.
            until: A listener's position.

        Raises:
            StorageError: The database can't be asked.
        """
        while after < until:
            found = await run_sync(self._between, after, until)
            if not found:
                return
            after = found[-1].assignment_id
            yield [event for event in found if caller.sees(event.camera)]

    def close(self) -> None:
        """Ends all streams, those to come as well. In the event loop."""
        self._is_closed = True
        for listener in self._listeners:
            listener.end()
        self._listeners.clear()

    async def _look(self) -> None:
        try:
            await self._look_while_somebody_listens()
        finally:
            # Nothing is awaited in between: whoever joins from now on begins anew. Whoever listens still, after what
            # nobody expected, would wait for ever.
            self._looking = None
            for listener in self._listeners:
                listener.end()

    async def _look_while_somebody_listens(self) -> None:
        trouble = ""
        while self._listeners:
            try:
                found = await run_sync(self._after, self._position)
                trouble = ""
            except StorageError as error:
                # Once: it is tried again every second.
                if str(error) != trouble:
                    _log.warning("events: %s; listeners wait", error)
                trouble = str(error)
                found = []
            self._tell(found)
            if len(found) < BATCH:
                await asyncio.sleep(PERIOD_S)

    def _tell(self, found: Sequence[DecisionEvent]) -> None:
        if not found:
            return
        self._position = found[-1].assignment_id
        for listener in list(self._listeners):
            listener.offer(found)
            if listener.is_behind:
                self.let_go += 1
                self.leave(listener)

    def _newest(self) -> int:
        with self._database.transaction() as session:
            newest = newest_decision(session)
            # Waits for whoever is deciding: with PostgreSQL a lower number may still be on its way.
            load_assignments_after(session, newest - 1, 1)
            return newest

    def _after(self, after: int) -> list[DecisionEvent]:
        with self._database.transaction() as session:
            return load_assignments_after(session, after, BATCH)

    def _between(self, after: int, until: int) -> list[DecisionEvent]:
        with self._database.snapshot() as session:
            return load_assignments_after(session, after, BATCH, until=until)
