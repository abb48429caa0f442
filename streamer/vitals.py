"""Whether the program lives, and whether it is ready: what `/healthz` and `/readyz` answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from streamer.counters import Field, RowState
from streamer.site_plan import SUPERVISOR

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamer.child_process import Child
    from streamer.config import SiteConfig
    from streamer.counters import Board
    from streamer.health import StatusWriter

#: The supervisor looks after its children several times a second; a reload tries new files in between.
STALE_S = 30.0
#: The database counts as reachable for so many status periods after rows were stored.
STATUS_PERIODS = 5


class Vitals:
    """Looks at a running supervisor from another thread.

    Args:
        board: Counters.
        site_of: The site as it is now.
        children: As they are now.
        status: Writes to the database; None where there is none.
        monotonic: Seconds.
    """

    def __init__(
        self,
        board: Board,
        site_of: Callable[[], SiteConfig],
        children: Sequence[Child],
        status: StatusWriter | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board, self._site_of, self._children = board, site_of, children
        self._status, self._monotonic = status, monotonic

    def faults_of_life(self) -> dict[str, str]:
        """Why the program had better be started again, by culprit; empty while it lives."""
        faults = {}
        still_s = self._monotonic() - self._board.stage(SUPERVISOR)[Field.ALIVE_S]
        if still_s > STALE_S:
            faults[SUPERVISOR] = f"has not looked after its workers for {still_s:.0f} s"
        if self._status is not None and not self._status.is_alive:
            faults["status"] = "its thread has ended"
        return faults

    def faults_of_readiness(self) -> dict[str, str]:
        """What is not at work yet, or no longer, by culprit; empty when all is."""
        return self.faults_of_life() | self._unready_stages() | self._unreachable_database() | self._unbegun_cameras()

    def _unready_stages(self) -> dict[str, str]:
        waited_for = [child for child in self._children if not child.is_done]
        idle = [child for child in waited_for if not child.has_started or child.process is None]
        return {child.stage: self._board.stage(child.stage).note or "not at work" for child in idle}

    def _unreachable_database(self) -> dict[str, str]:
        if self._status is None:
            return {}
        silent_s = self._monotonic() - self._status.stored_s
        if silent_s <= STATUS_PERIODS * self._site_of().status_period_s:
            return {}
        return {"database": self._board.stage(SUPERVISOR).note or "nothing stored yet"}

    def _unbegun_cameras(self) -> dict[str, str]:
        stages = [name for name in self._board.stages if name.startswith("cameras-")]
        cameras = [camera.id for camera in self._site_of().cameras] if stages else []
        waiting = [name for name in cameras if self._board.camera(name).state is RowState.STARTING]
        return {f"camera {name}": self._board.camera(name).note or "no picture yet" for name in waiting}
