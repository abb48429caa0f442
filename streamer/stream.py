"""One camera as a stream of frames: a decode thread, a bounded queue, and reconnection for ever."""

from __future__ import annotations

import random
import secrets
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import av
import structlog

from streamer.config import mask
from streamer.dating import ClockSkewError, SessionClock
from streamer.frame_maker import FrameMaker
from streamer.frame_queue import FrameQueue
from streamer.frames import Frame, SessionEnd
from streamer.recordings import file_session
from streamer.sightings import EndReason
from streamer.sources import SourceError, open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamer.config import CameraConfig, SourceConfig
    from streamer.sources import SourceInfo, VideoSource

_log = structlog.get_logger(__name__)
_RANDOM = random.SystemRandom()


@dataclass(slots=True)
class StreamCounters:
    """What a stream has done so far. Written by its thread alone; others may read at any time.

    Attributes:
        decoded: Frames; equals those taken, dropped and still waiting.
        dropped: Frames of a live camera that nobody took in time. Files drop none.
        reconnects: Attempts after the first.
        decode_errors: Damaged packets or pictures that the stream went on after.
        packets_lost: That the network lost, as far as the stream's own numbering tells (RTP over UDP).
        size_changes: Within a session.
        undated: Frames without a timestamp, dated by the average frame duration.
        stalled_s: Without pictures between the connections of a live camera, in all.
        skew_s: From capture, by the sender's clock where it is known, to decoding, of a live camera's last frame.
        last_captured_at: Of the last frame decoded, aware UTC.
        fps: As the source declares; None where it declares none.
        clock: Where `captured_at` comes from, in words.
        decoder: "software", or the hardware's name, or why the hardware was not taken.
        message: The last thing that went wrong, one line with the password masked; empty while all is well.
    """

    decoded: int = 0
    dropped: int = 0
    reconnects: int = 0
    decode_errors: int = 0
    packets_lost: int = 0
    size_changes: int = 0
    undated: int = 0
    stalled_s: float = 0.0
    skew_s: float = 0.0
    last_captured_at: datetime | None = None
    fps: float | None = None
    clock: str = ""
    decoder: str = ""
    message: str = ""


def now() -> datetime:
    """The wall clock, aware UTC."""
    return datetime.now(UTC)


def backoff(min_s: float, max_s: float, uniform: Callable[[float, float], float] = _RANDOM.uniform) -> Iterator[float]:
    """Seconds to wait before each attempt: doubling from `min_s` to `max_s`, each shortened by up to a half.

    The jitter keeps a hundred cameras from knocking together when their switch comes back.
    """
    delay_s = min_s
    while True:
        yield delay_s * uniform(0.5, 1.0)
        delay_s = min(max_s, delay_s * 2)


class CameraStream:
    """Decodes one camera in a thread of its own. The constructor does no I/O; `take` from one thread.

    A live source (any scheme but file://) never blocks: its full queue drops the oldest frame and counts it. Whatever
    ends a connection becomes a `SessionEnd`, then it reconnects with back-off, for ever, under a new session id. A
    file waits for its consumer and drops nothing; its one `SessionEnd` is final.

    Should the thread itself crash, the traceback goes to `threading.excepthook`. For a live source that is a disconnect
    like others, after which a new thread goes on; a file's final `SessionEnd` then tells of a `shutdown`: it wasn't
    read to its end, and the next run must read it again.

    Args:
        camera: Which camera.
        source: Timeouts, back-off, and how many frames may wait.
        wall_clock: Aware UTC; dates the frames of live sources.
        monotonic: Seconds; measures outages.
        open_container: The video library's `open`.
        pause: Waits so many seconds between attempts; True when the stream was asked to stop meanwhile.
    """

    def __init__(
        self,
        camera: CameraConfig,
        source: SourceConfig,
        *,
        wall_clock: Callable[[], datetime] = now,
        monotonic: Callable[[], float] = time.monotonic,
        open_container: Callable[..., Any] = av.open,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        self.counters = StreamCounters()
        self._camera = camera
        self._source = source
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._open_container = open_container
        self._stopping = threading.Event()
        self._pause = self._stopping.wait if pause is None else pause
        self._queue = FrameQueue(source.queue_frames, drops_oldest=camera.is_live)
        self._maker = FrameMaker(camera)
        self._thread = self._make_thread()
        self._last_picture_at: float | None = None
        self._session = ""
        self._delays = self._make_delays()
        self._was_refused = False

    @property
    def session_hint(self) -> str | None:
        """A file's session id, known before it is opened; None for a live source."""
        return None if self._camera.is_live else file_session(self._camera)

    def start(self) -> None:
        """Starts the decode thread; once."""
        self._thread.start()

    def take(self, *, timeout_s: float) -> Frame | SessionEnd | None:
        """The next frame or end of a session; blocks at most `timeout_s`. None: nothing came within it."""
        return self._queue.take(timeout_s)

    def take_nowait(self) -> Frame | SessionEnd | None:
        """What waits already, or None."""
        return self._queue.take(0.0)

    def ask_to_stop(self) -> None:
        """Tells the thread to end after the frame it is at; doesn't wait. What waits can still be taken."""
        self._stopping.set()
        self._queue.close()

    def stop(self) -> None:
        """Asks the thread to end and waits for it at most the read timeout.

        The library can't be interrupted: a thread that hangs on a dead camera is left behind, as a daemon that ends
        by its own timeouts. No `SessionEnd` tells of a stop.
        """
        self.ask_to_stop()
        if self._thread.is_alive():
            self._thread.join(self._source.read_timeout_s)
        if self._thread.is_alive():
            _log.warning("decode thread still waits for its camera", camera=self._camera.id)

    def _make_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=f"decode-{self._camera.id}", daemon=True)

    def _make_delays(self) -> Iterator[float]:
        return backoff(self._source.reconnect_min_s, self._source.reconnect_max_s)

    def _run(self) -> None:
        has_crashed = True
        try:
            if self._camera.is_live:
                self._follow()
            else:
                self._play()
            has_crashed = False
        finally:
            if has_crashed:
                self._survive()
            else:
                self._queue.close()

    def _survive(self) -> None:
        """A bug has ended this thread: it costs a live camera one session, and a file this run."""
        message = f"{mask(self._camera.url)}: the decode thread crashed, see the log"
        if not self._camera.is_live:
            self._end(file_session(self._camera), EndReason.SHUTDOWN, message, is_final=True)
            self._queue.close()
        elif not self._stopping.is_set():
            self._end(self._session, EndReason.DISCONNECTED, message, is_final=False)
            self._thread = self._make_thread()
            self._thread.start()

    def _play(self) -> None:
        """Reads a file once."""
        message = self._connection(file_session(self._camera))
        reason = EndReason.SOURCE_ENDED if self.counters.decoded else EndReason.DISCONNECTED
        if not self._stopping.is_set():
            self._end(file_session(self._camera), reason, message, is_final=True)

    def _follow(self) -> None:
        """Reads a live source until asked to stop."""
        while not self._stopping.is_set():
            if self._session:
                if self._pause(next(self._delays)):
                    return
                self.counters.reconnects += 1
            self._session, decoded_before = secrets.token_hex(6), self.counters.decoded
            message = self._connection(self._session)
            if self._stopping.is_set():
                return
            self._end(self._session, EndReason.DISCONNECTED, message, is_final=False)
            if self.counters.decoded > decoded_before and not self._was_refused:
                self._delays = self._make_delays()

    def _end(self, session: str, reason: EndReason, message: str, *, is_final: bool) -> None:
        self.counters.message = message
        _log.info("session ended", camera=self._camera.id, session=session, reason=reason.value, message=message)
        self._queue.put_end(SessionEnd(self._camera.id, session, reason, is_final, message))

    def _connection(self, session: str) -> str:
        """Opens the source and delivers its frames until it ends; returns what ended it."""
        try:
            opened = open_source(self._camera, self._source, open_container=self._open_container)
        except SourceError as error:
            return str(error)
        try:
            return self._deliver(opened, session)
        except SourceError as error:
            self._was_refused = self._was_refused or isinstance(error, ClockSkewError)
            return str(error)
        finally:
            opened.close()

    def _deliver(self, opened: VideoSource, session: str) -> str:
        clock = SessionClock(self._camera, self._source, opened.info, self._wall_clock)
        self._note_opening(opened.info, session)
        before = replace(self.counters)
        count, previous = 0, None
        try:
            for decoded in opened.pictures():
                frame = self._maker.make(decoded.picture, session, count, clock.date(decoded))
                self._note_frame(frame, previous, clock)
                dropped = self._queue.put(frame) if self._is_trusted(clock) else 1
                if dropped is None:
                    break
                self.counters.decoded += 1
                self.counters.dropped += dropped
                self._note_faults(before, opened, clock)
                count, previous = count + 1, frame
        finally:
            self._note_faults(before, opened, clock)
        return self._ending(opened, count)

    def _is_trusted(self, clock: SessionClock) -> bool:
        """A camera whose clock was refused must first show that it is right now: its reports come after its frames."""
        self._was_refused = self._was_refused and not clock.is_checked
        return not self._was_refused

    def _note_faults(self, before: StreamCounters, opened: VideoSource, clock: SessionClock) -> None:
        self.counters.decode_errors = before.decode_errors + opened.decode_errors
        self.counters.packets_lost = before.packets_lost + opened.packets_lost
        self.counters.undated = before.undated + clock.held

    def _note_opening(self, info: SourceInfo, session: str) -> None:
        self.counters.fps, self.counters.decoder = info.fps, info.decoder
        size = f"{info.width}x{info.height}"
        _log.info("session began", camera=self._camera.id, session=session, codec=info.codec, size=size, fps=info.fps)

    def _note_frame(self, frame: Frame, previous: Frame | None, clock: SessionClock) -> None:
        counters, at = self.counters, self._monotonic()
        if previous is None:
            if self._last_picture_at is not None:
                counters.stalled_s += at - self._last_picture_at
            counters.message = ""
        elif (previous.width, previous.height) != (frame.width, frame.height):
            counters.size_changes += 1
            sizes = {"before": f"{previous.width}x{previous.height}", "now": f"{frame.width}x{frame.height}"}
            _log.warning("picture size changed", camera=frame.camera, session=frame.session, **sizes)
        self._last_picture_at = at
        counters.last_captured_at = frame.captured_at
        counters.clock, counters.skew_s = clock.source, clock.skew_s

    def _ending(self, opened: VideoSource, count: int) -> str:
        shown, declared = opened.info.shown, opened.info.frames
        damaged = f", {opened.decode_errors} damaged" if opened.decode_errors else ""
        if not count:
            return f"{shown}: no picture could be decoded{damaged}"
        if self._camera.is_live:
            return f"{shown}: ended by the server after {count} frames{damaged}"
        if declared > count:
            return f"{shown}: ended after {count} of the {declared} frames it should hold{damaged}"
        return f"{shown}: ended after {count} frames{damaged}"
