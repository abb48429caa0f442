"""Counters in memory shared by a site's processes, so that what a killed worker had counted is still there.

One cell has one writer: a camera's row belongs to the worker that runs it, a stage's row to that stage, the control
row to the supervisor. There is no lock that a killed process could take with it; an aligned 8-byte store is whole.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import IntEnum
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_NOTE_BYTES = 240
#: A camera's id has at most 64 characters, all ASCII, and a zero behind them.
_NAME_BYTES = 65
#: The supervisor's order, and how often it has changed the site.
_CONTROL_CELLS = 2
#: Cameras that a running site can take up beyond those that it was started with: the memory is made once, 1 KB each.
SPARE_CAMERAS = 64
#: Upper bounds of the cells that count how long batches took, in seconds; one more cell counts the longer ones.
LATENCY_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Field(IntEnum):
    """What a cell holds. Cameras and stages share the list; a row leaves at 0 what does not concern it.

    Per camera `DECODED` = `DETECTED` + `GATED` + `DROPPED` + frames in flight, and
    `CROPS_ASKED` = `CROPS_EMBEDDED` + `CROPS_DROPPED` + crops in flight; at the end nothing is in flight.
    """

    STATE = 0
    #: Frames.
    DECODED = 1
    DETECTED = 2
    GATED = 3
    DROPPED = 4
    DECODE_ERRORS = 5
    RECONNECTS = 6
    STALLED_S = 7
    #: Boxes found, tracklets begun, and tracklets that never became a sighting (short, small or in an ignored area).
    DETECTIONS = 8
    TRACKLETS = 9
    TRACKLETS_IGNORED = 10
    CROPS_ASKED = 11
    CROPS_EMBEDDED = 12
    CROPS_DROPPED = 13
    SIGHTINGS = 14
    #: Sightings and pictures that could not be kept (a full disk).
    SIGHTINGS_LOST = 15
    PICTURES_LOST = 16
    #: Unix seconds of event time.
    FIRST_CAPTURED_AT = 30
    #: A file's next frame; what lets one camera's file not run ahead of the others.
    REACHED_AT = 31
    #: Place of the band in `reid.modality.Modality`, plus 1; 0 while unknown.
    MODALITY = 32
    LAST_CAPTURED_AT = 17
    #: Seconds of the monotonic clock, which all processes of a host share: when a worker last got on with its work.
    ALIVE_S = 18
    #: Stages.
    HANDLED = 19
    VEHICLES = 20
    LAG = 21
    BATCHES = 22
    RESTARTS = 23
    FAILURES = 24
    #: Wall-clock seconds of a camera worker's stages.
    PREPARE_S = 25
    DETECT_S = 26
    TRACK_S = 27
    #: Of the matcher: messages put aside, tracklets whose end never came, vectors that its calibration is not for.
    REJECTED = 28
    TRACKLETS_LOST = 33
    VECTORS_UNCOMPARED = 34
    #: Of sightings that were kept: bytes of their packed points.
    TOKEN_BYTES = 35
    #: CPU seconds of embedder and matcher while at work.
    WORK_S = 29
    #: Of cameras: packets that the network lost, how far decoding is behind capture, the picture's health as a code.
    PACKETS_LOST = 36
    SKEW_S = 37
    HEALTH = 38
    #: Of the outbox, written by who empties it: what waits, how old the oldest is, what was dropped since the file was
    #: made: updates and heartbeats for want of room, others for want of room, and those that had waited too long.
    OUTBOX_MESSAGES = 39
    OUTBOX_BYTES = 40
    OUTBOX_OLDEST_S = 41
    OUTBOX_DROPPED_DROPPABLE = 42
    OUTBOX_DROPPED_OTHERS = 43
    OUTBOX_DROPPED_OLD = 44
    #: Of the matcher: final decisions, links among them, changed ones, events told, messages known already, and times
    #: that it began anew from the database (a partition lost, a database away).
    DECIDED = 45
    LINKED = 46
    CORRECTED = 47
    EVENTS_SENT = 48
    DUPLICATES = 49
    BEGUN_ANEW = 50
    #: What waits in front of a stage.
    QUEUE_DEPTH = 51
    #: Batches by how long they took, one cell per bound of `LATENCY_BOUNDS_S` and one above, and all of it in seconds.
    LATENCY_BUCKET_0 = 52
    LATENCY_BUCKET_1 = 53
    LATENCY_BUCKET_2 = 54
    LATENCY_BUCKET_3 = 55
    LATENCY_BUCKET_4 = 56
    LATENCY_BUCKET_5 = 57
    LATENCY_BUCKET_6 = 58
    LATENCY_BUCKET_7 = 59
    LATENCY_BUCKET_8 = 60
    LATENCY_BUCKET_9 = 61
    LATENCY_S = 62
    #: Of cameras: since when `HEALTH` is so, Unix seconds of event time.
    HEALTH_SINCE = 63
    #: Of the matcher: decisions dropped since their tracklets had been forgotten, or had become too old.
    DECISIONS_UNKNOWN = 64
    #: Of the supervisor: what pictures and the database have grown by of late.
    PICTURE_BYTES_PER_DAY = 65
    DATABASE_BYTES_PER_DAY = 66


#: The cells of `Row.observe`, shortest first.
LATENCY_BUCKETS = tuple(Field(Field.LATENCY_BUCKET_0 + place) for place in range(len(LATENCY_BOUNDS_S) + 1))


class RowState(IntEnum):
    """What a camera or a stage is doing."""

    STARTING = 0
    RUNNING = 1
    RECONNECTING = 2
    FINISHED = 3
    FAILED = 4
    STOPPED = 5


class Order(IntEnum):
    """What the supervisor has told the workers, in the order in which it does."""

    RUN = 0
    #: Cameras stop, end their tracklets and publish them.
    STOP_CAMERAS = 1
    #: Cameras are done: the embedder ends, and the forwarder once it has sent all that waits.
    EMPTY_OUTBOX = 2
    #: Nothing more comes: the matcher reads what the bus still has, then ends.
    DRAIN = 3
    #: Everybody ends now.
    STOP_ALL = 4


class Row:
    """The cells and the note of one camera or stage."""

    def __init__(self, cells: NDArray[np.float64], note: NDArray[np.uint8]) -> None:
        self._cells, self._note = cells, note

    def __getitem__(self, field: Field) -> float:
        return float(self._cells[field])

    def __setitem__(self, field: Field, value: float) -> None:
        self._cells[field] = value

    def add(self, field: Field, amount: float = 1) -> None:
        """Adds to a cell that only the caller writes."""
        self._cells[field] += amount

    def observe(self, seconds: float) -> None:
        """Counts a batch by how long it took."""
        self.add(LATENCY_BUCKETS[bisect_left(LATENCY_BOUNDS_S, seconds)])
        self.add(Field.LATENCY_S, seconds)

    def count(self, field: Field) -> int:
        """A cell that holds a whole number."""
        return int(self._cells[field])

    @property
    def state(self) -> RowState:
        """What it is doing."""
        return RowState(int(self._cells[Field.STATE]))

    @state.setter
    def state(self, state: RowState) -> None:
        self._cells[Field.STATE] = state

    @property
    def note(self) -> str:
        """One line for people: why it is in its state. Passwords are masked by whoever writes it."""
        return bytes(self._note).split(b"\0", 1)[0].decode("utf-8", errors="replace")

    @note.setter
    def note(self, text: str) -> None:
        data = text.encode("utf-8")[: _NOTE_BYTES - 1]
        self._note[: len(data)] = np.frombuffer(data, np.uint8)
        self._note[len(data) :] = 0


class BoardFullError(Exception):
    """A running site can take up no more cameras; one line."""


class Board:
    """All rows of a site. The supervisor makes it and hands it to the processes that it spawns.

    Cameras can be added while those processes run: their rows lie ready, and their names are shared memory too. A
    camera that has left the site keeps its row, and goes on counting in it should it come back.

    Args:
        cameras: Ids of the cameras, each a row.
        stages: Names of the other workers, each a row.
        spare: Cameras that can be added later.
    """

    def __init__(self, cameras: Sequence[str], stages: Sequence[str], *, spare: int = SPARE_CAMERAS) -> None:
        context = get_context("spawn")
        self._stages = tuple(stages)
        self._places: dict[str, int] = {}
        self._capacity = len(cameras) + spare
        rows = len(stages) + self._capacity
        self._cells = context.RawArray("d", rows * len(Field) + _CONTROL_CELLS)
        self._notes = context.RawArray("B", rows * _NOTE_BYTES)
        self._names = context.RawArray("B", self._capacity * _NAME_BYTES)
        for camera in cameras:
            self.add_camera(camera)

    def add_camera(self, name: str) -> None:
        """Gives a camera a row, unless it has one. The supervisor's alone.

        Raises:
            BoardFullError: There is no row left.
        """
        known = self.cameras
        if name in known:
            return
        if len(known) == self._capacity:
            raise BoardFullError(f"cameras: {name}: a running site takes up {SPARE_CAMERAS} more at most; restart it")
        data, begin = name.encode(), len(known) * _NAME_BYTES
        self._names[begin : begin + len(data)] = list(data)

    def camera(self, name: str) -> Row:
        """The row of a camera; KeyError where it has none."""
        if name not in self._places:
            self._places = {known: place for place, known in enumerate(self.cameras, len(self._stages))}
        return self._row(self._places[name])

    def stage(self, name: str) -> Row:
        """The row of a worker that is no camera."""
        return self._row(self._stages.index(name))

    @property
    def cameras(self) -> tuple[str, ...]:
        """Ids of the cameras, in order."""
        data = bytes(self._names)
        names = (data[begin : begin + _NAME_BYTES] for begin in range(0, len(data), _NAME_BYTES))
        return tuple(name.rstrip(b"\0").decode() for name in names if name[0])

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, in order."""
        return self._stages

    @property
    def order(self) -> Order:
        """What the supervisor has told everybody."""
        return Order(int(self._cells[-1]))

    @order.setter
    def order(self, order: Order) -> None:
        self._cells[-1] = float(order)

    @property
    def edition(self) -> int:
        """How often the site's cameras have changed since the start."""
        return int(self._cells[-2])

    @edition.setter
    def edition(self, edition: int) -> None:
        self._cells[-2] = float(edition)

    def _row(self, index: int) -> Row:
        cells = np.frombuffer(self._cells, np.float64)
        notes = np.frombuffer(self._notes, np.uint8)
        return Row(
            cells[index * len(Field) : (index + 1) * len(Field)],
            notes[index * _NOTE_BYTES : (index + 1) * _NOTE_BYTES],
        )
