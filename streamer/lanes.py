"""One camera on its way through a camera worker, and the pace that keeps the files of a site together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import structlog

from streamer.counters import Field, RowState
from streamer.dating import FALLBACK_FPS
from streamer.sightings import EndReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from streamer.camera_health import PictureWatch
    from streamer.camera_session import CameraSession
    from streamer.config import CameraConfig
    from streamer.counters import Row
    from streamer.frames import Frame, SessionEnd
    from streamer.stream import CameraStream

_log = structlog.get_logger(__name__)

#: States that a stop leaves as they are: nothing more will come.
SETTLED = (RowState.FINISHED, RowState.FAILED)

_FROM_STREAM = (
    Field.DECODED,
    Field.DROPPED,
    Field.DECODE_ERRORS,
    Field.RECONNECTS,
    Field.STALLED_S,
    Field.PACKETS_LOST,
)


class Gate(Protocol):
    """`detector.motion.MotionGate`, or a fake."""

    def is_moving(self, image: NDArray[np.uint8]) -> bool:
        """Whether a picture, the next one of its camera, needs the detector."""
        ...


@dataclass(slots=True)
class Lane:
    """One camera on its way through the worker.

    Attributes:
        camera: Its configuration.
        stream: Its frames.
        row: Its counters.
        make_gate: A motion gate for a frame rate; None leaves the gate out.
        gate: Of the session of the moment. This and the next three belong to the preparing thread.
        gate_session: Whose gate that is.
        head: A frame that was taken from the stream, but is still ahead of the other files.
        is_exhausted: Nothing more comes from the stream.
        is_leaving: The site no longer has the camera; what waits is followed, then its session ends.
        is_over: The stream's last word was followed.
        is_unreadable: The file can't be opened, or broke off before its first frame: another try would find the same.
        session: The connection of the moment. This and the next two belong to the following thread.
        closing: Connections that are over but for answers of the embedder.
        base: Counts of this camera's earlier workers, on which this one's build.
        watch: Judges the camera's picture; None where nobody asked. Belongs to the preparing thread.
    """

    camera: CameraConfig
    stream: CameraStream
    row: Row
    make_gate: Callable[[float], Gate] | None
    gate: Gate | None = None
    gate_session: str | None = None
    head: Frame | None = None
    is_exhausted: bool = False
    is_leaving: bool = False
    is_over: bool = False
    is_unreadable: bool = False
    session: CameraSession | None = None
    closing: list[CameraSession] = field(default_factory=list)
    base: dict[Field, float] = field(default_factory=dict)
    watch: PictureWatch | None = None

    @property
    def frame_rate(self) -> float:
        """As the stream declares it."""
        return self.stream.counters.fps or FALLBACK_FPS

    def is_moving(self, frame: Frame) -> bool:
        """Whether the detector must see the frame."""
        if self.make_gate is None:
            return True
        if self.gate is None or self.gate_session != frame.session:
            self.gate, self.gate_session = self.make_gate(self.frame_rate), frame.session
        return self.gate.is_moving(frame.luma())

    def look_after(self, frame: Frame) -> None:
        """Judges a frame's picture, if it is time, and says on the board how it is."""
        at_s = frame.captured_at.timestamp()
        if self.watch is None or not self.watch.is_due(at_s):
            return
        before = self.watch.health
        health = self.watch.look(frame.luma(), at_s, frame.modality.value)
        if health is before:
            return
        # In this order: whoever reads a new health reads its time as well.
        self.row[Field.HEALTH_SINCE], self.row[Field.HEALTH] = self.watch.since_s, health
        if before.is_trouble or health.is_trouble:
            since = datetime.fromtimestamp(self.watch.since_s, UTC).isoformat()
            _log.warning("camera picture changed", camera=self.camera.id, health=health.name.lower(), since=since)

    def end_session(self, end: SessionEnd) -> None:
        """The stream has said that a connection is over."""
        self.close(end.reason, is_final=end.is_final)
        self.is_over = end.is_final
        if self.is_leaving:
            self.row.state = RowState.STOPPED
        elif not end.is_final:
            self.row.state = RowState.RECONNECTING
        elif end.reason is EndReason.SOURCE_ENDED:
            self.row.state = RowState.FINISHED
        else:
            self.row.state = RowState.FAILED
            self.is_unreadable = end.reason is EndReason.DISCONNECTED
        self.row.note = end.message

    def close(self, reason: EndReason, *, is_final: bool) -> None:
        """Ends the session of the moment, if there is one; it is over once the embedder has answered.

        A file that is left before its end is only left: the next run says all of it again, under the same ids, and an
        end said now of what was in view would make that run's sightings known already.
        """
        if self.session is None:
            return
        if reason is EndReason.SHUTDOWN and not self.camera.is_live:
            self.session.leave()
        else:
            self.session.finish(reason, is_final=is_final)
        self.closing.append(self.session)
        self.session = None

    def leave(self) -> None:
        """Takes no more frames from the camera; doesn't wait for its thread."""
        # In this order: who sees the mark and then finds nothing waiting knows that nothing more will come.
        self.stream.ask_to_stop()
        self.is_leaving = True

    @property
    def has_left(self) -> bool:
        """Whether all is said of a camera that was to leave."""
        return self.is_leaving and self.is_over and not self.closing

    def take_over(self) -> None:
        """Begins where an earlier worker of the camera was killed: what it had in flight counts as dropped."""
        row = self.row
        in_flight = row[Field.DECODED] - row[Field.DETECTED] - row[Field.GATED] - row[Field.DROPPED]
        row.add(Field.DROPPED, max(in_flight, 0))
        row.add(Field.CROPS_DROPPED, row[Field.CROPS_ASKED] - row[Field.CROPS_EMBEDDED] - row[Field.CROPS_DROPPED])
        self.base = {name: row[name] for name in _FROM_STREAM}

    def report(self) -> None:
        """Copies the stream's counters to where the supervisor reads them."""
        counters, row = self.stream.counters, self.row
        values = (
            counters.decoded,
            counters.dropped,
            counters.decode_errors,
            counters.reconnects,
            counters.stalled_s,
            counters.packets_lost,
        )
        for name, value in zip(_FROM_STREAM, values, strict=True):
            row[name] = self.base[name] + value
        row[Field.SKEW_S] = counters.skew_s
        if counters.last_captured_at is not None:
            row[Field.LAST_CAPTURED_AT] = counters.last_captured_at.timestamp()
        if row.state in (RowState.STARTING, RowState.RECONNECTING) and counters.message:
            row.note = counters.message


class FilePace:
    """Keeps the files of a site together in event time: a matcher takes a camera that lags far behind for silent.

    Args:
        files: The rows of all file cameras of the site, in whichever process they run.
        max_lead_s: How far ahead of the last of them a file may be.
    """

    def __init__(self, files: Sequence[Row], max_lead_s: float) -> None:
        #: The rows; replaced when the site's cameras change.
        self.files = files
        self._max_lead_s = max_lead_s
        #: Set when the worker is told to stop: what was decoded is then followed at once.
        self.is_off = False

    @property
    def foremost_s(self) -> float:
        """Event time that some file has reached, Unix seconds; 0 before the first frame."""
        return max((row[Field.REACHED_AT] for row in self.files), default=0.0)

    def hold(self, row: Row, frame: Frame) -> Frame | None:
        """The frame, if it must wait; None when it may go on."""
        reached_s = frame.captured_at.timestamp()
        row[Field.REACHED_AT] = reached_s
        if self.is_off:
            return None
        behind = (other[Field.REACHED_AT] for other in self.files if other.state not in SETTLED)
        return frame if reached_s > min(behind, default=reached_s) + self._max_lead_s else None


def keep_alive_frames(frame_rate: float, max_seconds_lost: float) -> int:
    """Of a still road one frame in so many is shown to the detector, twice before a parked vehicle counts as gone."""
    return max(1, math.floor(frame_rate * max_seconds_lost / 2))
