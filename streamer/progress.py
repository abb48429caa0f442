"""What a person at the terminal sees while a site runs, and at its end."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from streamer.counters import Field, RowState
from streamer.health import Accounts, Rates, band

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from rich.console import Console

    from storage.trajectories import VehicleSummary
    from streamer.config import SiteConfig
    from streamer.counters import Board

#: Between two lines where the output is no terminal.
LINE_PERIOD_S = 5.0
#: Between two pictures on a terminal.
LIVE_PERIOD_S = 0.5

_COLOURS = {
    RowState.RUNNING: "green",
    RowState.FINISHED: "cyan",
    RowState.FAILED: "red",
    RowState.RECONNECTING: "yellow",
}


class Progress:
    """Shows how far the cameras are. `tick` is cheap between two pictures.

    Args:
        site: The site.
        board: Read.
        console: Where to; a terminal gets a table that moves, anything else a line now and then.
        monotonic: Seconds.
    """

    def __init__(
        self, site: SiteConfig, board: Board, console: Console, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        #: Whose cameras are shown.
        self.site = site
        self._board, self._console, self._monotonic = board, console, monotonic
        self._rates = Rates(board, monotonic)
        self._shown_s = monotonic()
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[Progress]:
        """Shows the progress inside this block."""
        if not self._console.is_terminal:
            yield self
            return
        with Live(self.table(), console=self._console, auto_refresh=False, transient=False) as live:
            self._live = live
            yield self
            live.update(self.table(), refresh=True)
        self._live = None

    def tick(self) -> None:
        """Shows the state of the moment, when it is time."""
        now = self._monotonic()
        if now - self._shown_s < (LINE_PERIOD_S if self._live is None else LIVE_PERIOD_S):
            return
        self._shown_s = now
        if self._live is None:
            self._console.print(self.line(), soft_wrap=True, highlight=False, markup=False)
        else:
            self._live.update(self.table(), refresh=True)

    def table(self) -> Group:
        """Cameras as rows, and the site as a line below."""
        rates = self._rates.update()
        table = Table(title=f"site {self.site.site}", title_justify="left")
        table.add_column("camera")
        table.add_column("modality")
        for name in ("fps", "decoded", "detected", "gated", "dropped", "detections"):
            table.add_column(name, justify="right")
        table.add_column("state")
        for camera in self.site.cameras:
            row = self._board.camera(camera.id)
            counts = (Field.DECODED, Field.DETECTED, Field.GATED, Field.DROPPED, Field.DETECTIONS)
            state = Text(_state(row.state, row.note), style=_COLOURS.get(row.state, ""))
            numbers = [f"{rates[camera.id]:.1f}", *(f"{row.count(field):,}" for field in counts)]
            table.add_row(camera.id, band(camera, row), *numbers, state)
        return Group(table, Text(self._overall()))

    def line(self) -> str:
        """The same in one line."""
        rates = self._rates.update()
        cameras = "; ".join(
            f"{name} {rates[name]:.1f} fps {row.count(Field.DECODED)} decoded {row.count(Field.DROPPED)} dropped "
            f"{row.count(Field.GATED)} gated {row.count(Field.DETECTIONS)} detections {row.state.name.lower()}"
            for name, row in ((camera.id, self._board.camera(camera.id)) for camera in self.site.cameras)
        )
        return f"{cameras}; {self._overall()}"

    def _overall(self) -> str:
        cameras = [self._board.camera(name) for name in self._board.cameras]
        sightings = sum(row.count(Field.SIGHTINGS) for row in cameras)
        crops = sum(row.count(Field.CROPS_EMBEDDED) for row in cameras)
        text = f"sightings {sightings:,}, crops embedded {crops:,}"
        if "matcher" in self._board.stages:
            matcher = self._board.stage("matcher")
            text += f", vehicles {matcher.count(Field.VEHICLES):,}, lag {matcher.count(Field.LAG):,}"
        if dropped := outbox_dropped(self._board):
            text += f", outbox dropped {dropped:,}"
        restarts = sum(self._board.stage(name).count(Field.RESTARTS) for name in self._board.stages)
        return f"{text}, restarts {restarts}" if restarts else text


def _state(state: RowState, note: str) -> str:
    says_why = state in {RowState.FAILED, RowState.RECONNECTING} and note
    return f"{state.name.lower()}: {note}" if says_why else state.name.lower()


def vehicles_table(vehicles: Sequence[VehicleSummary], visits: dict[str, list[tuple[str, datetime]]]) -> Table:
    """Vehicles that passed several cameras.

    Args:
        vehicles: In the order in which they came.
        visits: By vehicle id, cameras and arrival times in order.
    """
    table = Table(title="vehicles that passed several cameras", title_justify="left")
    for name in ("vehicle", "class", "cameras", "modalities"):
        table.add_column(name)
    for vehicle in vehicles:
        way = " -> ".join(f"{camera} {arrived:%H:%M:%S}" for camera, arrived in visits[vehicle.vehicle_id])
        table.add_row(vehicle.vehicle_id[:8], vehicle.vehicle_class, way, ", ".join(vehicle.modalities))
    return table


#: What may go wrong and is told only when it has, by what it is called; cameras and stages alike.
_LOSSES = {
    "sightings lost": Field.SIGHTINGS_LOST,
    "pictures lost": Field.PICTURES_LOST,
    "messages put aside": Field.REJECTED,
    "tracklets without an end": Field.TRACKLETS_LOST,
    "vectors of another embedder": Field.VECTORS_UNCOMPARED,
    "frames that could not be decoded": Field.DECODE_ERRORS,
    "packets lost": Field.PACKETS_LOST,
    "updates dropped from the outbox": Field.OUTBOX_DROPPED_DROPPABLE,
    "other messages dropped from the outbox": Field.OUTBOX_DROPPED_OTHERS,
    "messages dropped from the outbox for their age": Field.OUTBOX_DROPPED_OLD,
}


def outbox_dropped(board: Board) -> int:
    """Messages that the outbox gave up, for want of room or for their age, since its file was made."""
    fields = (Field.OUTBOX_DROPPED_DROPPABLE, Field.OUTBOX_DROPPED_OTHERS, Field.OUTBOX_DROPPED_OLD)
    return sum(board.stage(name).count(field) for name in board.stages for field in fields)


def losses_line(board: Board) -> str:
    """Everything that was lost or put aside in the run beside frames and crops; empty where nothing was."""
    rows = [board.camera(name) for name in board.cameras] + [board.stage(name) for name in board.stages]
    counts = {name: sum(row.count(field) for row in rows) for name, field in _LOSSES.items()}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def totals_line(board: Board) -> str:
    """All frames and crops of the run, accounted for."""
    accounts = [Accounts.of(board.camera(name)) for name in board.cameras]
    decoded, detected, gated, dropped = (
        sum(getattr(item, name) for item in accounts) for name in ("decoded", "detected", "gated", "dropped")
    )
    asked, embedded, lost = (
        sum(getattr(item, name) for item in accounts) for name in ("crops_asked", "crops_embedded", "crops_dropped")
    )
    tokens = sum(board.camera(name).count(Field.TOKEN_BYTES) for name in board.cameras)
    return (
        f"frames: {decoded} decoded = {detected} detected + {gated} gated + {dropped} dropped; "
        f"crops: {asked} asked = {embedded} embedded + {lost} dropped" + (f"; points: {tokens} bytes" if tokens else "")
    )
