import itertools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import av
import av.logging
import pytest
from structlog.testing import capture_logs

from streamer.config import CameraConfig, SourceConfig
from streamer.frames import Frame, SessionEnd
from streamer.packet_loss import PacketLoss
from streamer.sightings import EndReason
from streamer.sources import SourceError, SourceInfo, VideoSource
from streamer.stream import CameraStream, backoff
from tests.servers.need import wait_until
from tests.streamer.fake_camera import FakeContainer, FakeOpener, FakePacket, drain, packets, picture

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATIENCE_S = 20.0


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0

    def set(self, elapsed_s: float) -> None:
        self.elapsed_s = elapsed_s

    def wall(self) -> datetime:
        return NOON + timedelta(seconds=self.elapsed_s)

    def monotonic(self) -> float:
        return self.elapsed_s


def run(
    *script: FakeContainer | Exception,
    queue_frames: int = 100,
    clock: Clock | None = None,
    outage_s: float = 0.0,
    clock_skew: Literal["correct", "refuse"] = "correct",
) -> tuple[list[Frame | SessionEnd], CameraStream, list[float], FakeOpener]:
    """Runs a live camera through its script to the end; returns what waits, the stream and the pauses it made."""
    clock = clock or Clock()
    opener, pauses, done = FakeOpener(*script), list[float](), threading.Event()

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        clock.elapsed_s += outage_s
        if not opener.script:
            done.set()
        return done.is_set()

    stream = CameraStream(
        CameraConfig(id="cam1", url="rtsp://me:secret@camera/1", modality="auto"),
        SourceConfig(queue_frames=queue_frames, reconnect_min_s=1, reconnect_max_s=8, clock_skew=clock_skew),
        wall_clock=clock.wall, monotonic=clock.monotonic, open_container=opener, pause=pause,
    )  # fmt: skip
    stream.start()
    assert done.wait(PATIENCE_S)
    stream.stop()
    return drain(stream.take_nowait), stream, pauses, opener


def frames_of(items: list[Frame | SessionEnd]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


def ends_of(items: list[Frame | SessionEnd]) -> list[SessionEnd]:
    return [item for item in items if isinstance(item, SessionEnd)]


def stall() -> av.error.FFmpegError:
    return av.error.ExitError(0x54495845, "Immediate exit requested")


@pytest.mark.parametrize(("fault", "words"), [
    (None, "ended by the server after 3 frames"),
    (stall(), "no answer within the timeout"),
    (av.error.ConnectionResetError(104, "Connection reset by peer"), "connection reset"),
])  # fmt: skip
def test_however_a_live_connection_ends_it_is_a_disconnect_and_a_new_session(
    fault: av.error.FFmpegError | None, words: str
) -> None:
    first, second = FakeContainer(packets(3), fault), FakeContainer(packets(2))
    items, stream, _, _ = run(first, second)
    ends = ends_of(items)
    assert [type(item).__name__ for item in items] == ["Frame"] * 3 + ["SessionEnd"] + ["Frame"] * 2 + ["SessionEnd"]
    assert [(end.reason, end.is_final) for end in ends] == [(EndReason.DISCONNECTED, False)] * 2
    assert words in ends[0].message
    assert "secret" not in ends[0].message
    assert [frame.index for frame in frames_of(items)] == [0, 1, 2, 0, 1]
    assert {frame.session for frame in frames_of(items)} == {end.session for end in ends}
    assert len({end.session for end in ends}) == 2
    assert stream.counters.reconnects == 1
    assert first.is_closed
    assert second.is_closed


def test_a_full_queue_drops_the_oldest_and_counts_it_but_never_an_end() -> None:
    items, stream, _, _ = run(FakeContainer(packets(9)), FakeContainer(packets(1)), queue_frames=3)
    frames, counters = frames_of(items), stream.counters
    assert [frame.index for frame in frames] == [7, 8, 0]
    assert counters.decoded == len(frames) + counters.dropped == 10
    # Of the first session two frames remain, so its end does too; each end follows its session's last frame.
    assert [item.session for item in items if isinstance(item, SessionEnd)] == [frames[0].session, frames[2].session]


def test_a_camera_out_of_reach_is_tried_for_ever_ever_more_slowly_and_holds_one_place() -> None:
    refused = [av.error.ConnectionRefusedError(111, "Connection refused")] * 9
    items, stream, pauses, opener = run(*refused)
    assert len(opener.calls) == 9
    assert len(items) == 1
    assert "connection refused" in ends_of(items)[0].message
    assert stream.counters.decoded == 0
    for waited, allowed in zip(pauses, [1, 2, 4, 8, 8, 8, 8, 8, 8], strict=True):
        assert allowed / 2 <= waited <= allowed


def test_a_connection_that_gave_frames_starts_the_back_off_anew() -> None:
    refused = av.error.ConnectionRefusedError(111, "Connection refused")
    _, _, pauses, _ = run(refused, refused, FakeContainer(packets(1)), refused)
    assert pauses[1] > 1 or pauses[1] == pytest.approx(1)
    assert pauses[2] <= 1


def test_opening_is_bounded_and_uses_the_asked_transport() -> None:
    _, _, _, opener = run(FakeContainer(packets(1)))
    (call,) = opener.calls
    assert call["timeout"] == (10.0, 5.0)
    assert call["options"]["timeout"] == "5000000"
    assert call["options"]["rtsp_transport"] == "tcp"


def test_an_outage_is_measured_from_the_last_picture_to_the_next() -> None:
    refused = av.error.ConnectionRefusedError(111, "Connection refused")
    _, stream, _, _ = run(FakeContainer(packets(2)), refused, FakeContainer(packets(1)), outage_s=7.5)
    assert stream.counters.stalled_s == 15.0
    assert stream.counters.reconnects == 2


def test_live_frames_are_dated_by_first_arrival_and_timestamps() -> None:
    clock = Clock()
    # Arrival jitters; the stream's own clock does not.
    script = packets(5, first_ms=70_000)
    container = FakeContainer(script, before_packet=lambda number: clock.set(number * 0.13))
    items, stream, _, _ = run(container, clock=clock)
    assert [frame.captured_at for frame in frames_of(items)] == [NOON + timedelta(seconds=n / 10) for n in range(5)]
    assert stream.counters.clock == "arrival + timestamps"
    assert stream.counters.skew_s == pytest.approx(4 * 0.03, abs=1e-6)


def test_a_senders_report_dates_frames_once_it_comes() -> None:
    captured = NOON - timedelta(seconds=0.2)
    script = packets(30)
    for number, packet in enumerate(script[3:], start=3):
        packet.sender_time_us = round((captured.timestamp() + number / 10) * 1e6)
    clock = Clock()
    items, stream, _, _ = run(FakeContainer(script, before_packet=lambda number: clock.set(number / 10)), clock=clock)
    frames = frames_of(items)
    assert frames[2].captured_at == NOON + timedelta(seconds=0.2)
    assert frames[-1].captured_at == captured + timedelta(seconds=2.9)
    assert stream.counters.clock == "sender report (RTCP)"
    assert stream.counters.skew_s == pytest.approx(0.2, abs=1e-3)
    # The way back to the sender's time is slewed: no two frames share a moment.
    assert all(earlier.captured_at < later.captured_at for earlier, later in itertools.pairwise(frames))


def test_a_frame_without_a_timestamp_keeps_the_pace_and_is_counted() -> None:
    script = packets(4)
    script[2] = FakePacket([picture(None)])
    clock = Clock()
    items, stream, _, _ = run(FakeContainer(script, before_packet=lambda number: clock.set(number / 10)), clock=clock)
    assert [frame.captured_at for frame in frames_of(items)] == [NOON + timedelta(seconds=n / 10) for n in range(4)]
    assert stream.counters.undated == 1


def test_a_damaged_packet_does_not_end_a_live_session() -> None:
    script = packets(4)
    script[1].fault = av.error.InvalidDataError(1, "Invalid data")
    items, stream, _, _ = run(FakeContainer(script))
    assert len(frames_of(items)) == 3
    assert stream.counters.decode_errors == 1


def test_nothing_comes_of_a_stream_that_was_stopped_at_once() -> None:
    stream = CameraStream(CameraConfig(id="cam1", url="rtsp://camera/1"), SourceConfig(), open_container=FakeOpener())
    assert stream.take_nowait() is None
    assert stream.take(timeout_s=0.001) is None
    stream.stop()
    assert stream.session_hint is None


def test_stop_lets_go_of_a_file_that_waits_for_its_consumer(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("file") / "a.mp4"
    path.write_bytes(b"present")
    container = FakeContainer(packets(50))
    stream = CameraStream(
        CameraConfig(id="cam1", url=str(path), start_time=NOON),
        SourceConfig(queue_frames=2),
        open_container=FakeOpener(container),
    )
    stream.start()
    assert isinstance(stream.take(timeout_s=PATIENCE_S), Frame)
    stream.stop()
    assert container.is_closed
    waiting = drain(stream.take_nowait)
    assert stream.counters.decoded == 1 + len(frames_of(waiting))
    assert stream.counters.dropped == 0
    assert ends_of(waiting) == []


@pytest.fixture
def crashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What threads ended with."""
    found: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: found.append(str(arguments.exc_value)))
    return found


def test_a_bug_costs_a_live_camera_one_session(crashes: list[str]) -> None:
    items, stream, _, _ = run(FakeContainer(packets(3), RuntimeError("a bug")), FakeContainer(packets(2)))
    ends = ends_of(items)
    assert [frame.index for frame in frames_of(items)] == [0, 1, 2, 0, 1]
    assert [(end.reason, end.is_final) for end in ends] == [(EndReason.DISCONNECTED, False)] * 2
    assert {frame.session for frame in frames_of(items)} == {end.session for end in ends}
    assert "crashed" in ends[0].message
    assert "secret" not in ends[0].message
    # The thread that crashed tells of it once the next one runs.
    wait_until(lambda: crashes == ["a bug"])
    assert stream.counters.reconnects == 1


def test_a_bug_does_not_pass_for_the_end_of_a_file(tmp_path: Path, crashes: list[str]) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"present")
    opener = FakeOpener(FakeContainer(packets(3), RuntimeError("a bug")))
    stream = CameraStream(
        CameraConfig(id="cam1", url=str(path), start_time=NOON), SourceConfig(), open_container=opener
    )
    stream.start()
    items = [stream.take(timeout_s=PATIENCE_S) for _ in range(4)]
    stream.stop()
    end = items[-1]
    assert isinstance(end, SessionEnd)
    assert (end.reason, end.is_final, end.session) == (EndReason.SHUTDOWN, True, stream.session_hint)
    assert crashes == ["a bug"]


def reporting(count: int, *, skew_s: float, report_from: int = 0) -> list[FakePacket]:
    """Packets of a camera whose own clock is so far behind."""
    script = packets(count)
    for number, packet in enumerate(script[report_from:], start=report_from):
        packet.sender_time_us = round((NOON.timestamp() + number / 10 - skew_s) * 1e6)
    return script


def paced(script: list[FakePacket], clock: Clock) -> FakeContainer:
    """A connection that begins now and gives ten packets a second."""
    return FakeContainer(script, before_packet=lambda number: clock.set(number / 10))


def test_a_camera_whose_clock_is_wrong_is_dated_by_arrival_and_told_of_once() -> None:
    clock = Clock()
    with capture_logs() as logs:
        items, stream, _, _ = run(paced(reporting(20, skew_s=3600), clock), clock=clock)
    assert [frame.captured_at for frame in frames_of(items)] == [NOON + timedelta(seconds=n / 10) for n in range(20)]
    assert stream.counters.skew_s == pytest.approx(3600, abs=1e-3)
    assert stream.counters.clock == "arrival + timestamps"
    assert [log["reason"] for log in logs if log["event"] == "dated by arrival"] == [
        "its clock is 3600.0 s behind ours, and 10 s are allowed"
    ]


def test_a_camera_whose_clock_is_refused_gives_nothing_until_it_is_right() -> None:
    clock = Clock()
    wrong, right = {"skew_s": -60.0, "report_from": 3}, {"skew_s": 0.0, "report_from": 3}
    script = [paced(reporting(9, **said), clock) for said in (wrong, wrong, right)]  # type: ignore[arg-type]
    items, stream, pauses, _ = run(*script, clock=clock, clock_skew="refuse")
    ends = ends_of(items)
    assert ends[0].message.endswith("its clock is 60.0 s ahead of ours, and 10 s are allowed")
    # Three of the first session, in which nobody knew yet that the clock is wrong, and six of the third.
    assert [frame.index for frame in frames_of(items)] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert stream.counters.decoded == len(frames_of(items)) + stream.counters.dropped == 15
    assert pauses[1] >= 1


def test_packets_that_give_no_picture_any_more_end_a_live_session() -> None:
    healthy, broken = packets(3), packets(40)
    for packet in broken:
        packet.fault = av.error.InvalidDataError(1, "Invalid data")
    began = time.monotonic()
    source = VideoSource(
        FakeContainer([*healthy, *broken]),
        FakeContainer([]).streams.video[0],
        SourceInfo("rtsp://camera", "h264", 64, 48, "yuv420p", 10, 0, None, None, None, "software"),
        patience_s=2.0,
        monotonic=itertools.count(began, 0.5).__next__,
    )
    with pytest.raises(SourceError, match="no h264 any more"):
        list(source.pictures())
    assert 10 <= source.decode_errors < 40


def test_losses_told_in_the_library_s_log_are_counted_by_the_thread_that_reads() -> None:
    losses = [PacketLoss(), PacketLoss()]

    def read(loss: PacketLoss, packets: int) -> None:
        for _ in range(5):
            with loss.counting():
                av.logging.log(av.logging.WARNING, "rtsp", f"RTP: missed {packets} packets\n")

    threads = [threading.Thread(target=read, args=(loss, place + 1)) for place, loss in enumerate(losses)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [loss.packets for loss in losses] == [5, 10]


def test_back_off_doubles_to_its_bound_and_never_waits_longer() -> None:
    def longest(_low: float, high: float) -> float:
        return high

    uniform: Callable[[float, float], float] = longest
    assert list(itertools.islice(backoff(0.5, 5.0, uniform), 6)) == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
