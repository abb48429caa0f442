"""Cameras that fail, one after the other, beside eight that don't; and streams that are not what they say."""

from __future__ import annotations

import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from storage.crop_store import CropStore
from streamer.camera_session import Services
from streamer.camera_worker import CameraWorker
from streamer.config import CameraConfig, SiteConfig, SourceConfig
from streamer.counters import Board, Field, RowState
from streamer.frames import Frame
from streamer.lanes import FilePace, Lane
from streamer.sighting_codec import decode
from streamer.sightings import EndReason, Sighting, SightingKind
from streamer.stream import CameraStream
from tests.drills.figures import note, size
from tests.servers.need import wait_until
from tests.servers.rtsp import RtspServer, mjpeg, need_rtsp
from tests.servers.tcp_camera import Segment, TcpCamera, number_of
from tests.streamer.fake_embedder import INFO
from tests.streamer.worker_builders import STAGE, InstantClient, OneVehicle, PassingTracker

pytestmark = [pytest.mark.integration, pytest.mark.drill]

FPS = 5
OTHERS = 8
BACK_WITHIN_S = 10.0
FAULTY = "faulty"
PATIENCE_S = 60.0
#: What a fault lasts at least, so that the others' rates can be counted.
FAULT_S = float(size(2, 8))


@dataclass
class Ledger:
    """A publisher that keeps who was told of, without the pictures: months of them must not pass for a leak."""

    told: list[tuple[str, str, int, SightingKind, EndReason | None]] = field(default_factory=list)

    def publish(self, key: str, payload: bytes, *, droppable: bool) -> None:
        del key, droppable
        message = decode(payload)
        if isinstance(message, Sighting):
            about = (message.camera, message.session, message.number, message.kind, message.end_reason)
            self.told.append(about)

    def close(self) -> None:
        pass


class Site:
    """A camera worker with real streams, and fakes for what is behind them.

    Args:
        folder: For context pictures.
        urls: Of the cameras, by id.
    """

    def __init__(self, folder: Path, urls: dict[str, str]) -> None:
        cameras = tuple(CameraConfig(id=name, url=url) for name, url in urls.items())
        source = SourceConfig(read_timeout_s=size(1, 5))
        self.site = SiteConfig(site="site", database="sqlite:///x.db", cameras=cameras, crops_dir=folder, source=source)
        self.board, self.ledger = Board(list(urls), [STAGE]), Ledger()
        self.lanes = {
            camera.id: Lane(camera, CameraStream(camera, source), self.board.camera(camera.id), None)
            for camera in cameras
        }
        services = Services(
            self.site,
            InstantClient(),  # type: ignore[arg-type]
            INFO,
            self.ledger,
            CropStore(folder),
            lambda _: PassingTracker(),
        )
        row, pace = self.board.stage(STAGE), FilePace([], 5.0)
        self._worker = CameraWorker(list(self.lanes.values()), OneVehicle(), services, row=row, pace=pace)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs the worker in a thread; yields when all cameras are seen."""
        stopping = threading.Event()
        thread = threading.Thread(target=self._worker.run, args=(stopping.is_set,))
        thread.start()
        try:
            wait_until(lambda: all(self.session(name) for name in self.lanes), what="all cameras")
            yield
        finally:
            stopping.set()
            thread.join(PATIENCE_S)
        assert not thread.is_alive()

    def session(self, name: str) -> str | None:
        """A camera's connection of the moment."""
        session = self.lanes[name].session
        return None if session is None else session.id

    def followed(self) -> int:
        """Frames of all cameras but the faulty one."""
        return sum(self.board.camera(name).count(Field.DETECTED) for name in self.lanes if name != FAULTY)

    def is_back(self, since: str | None) -> bool:
        """Whether the faulty camera has another session than then, and a vehicle was told of in it."""
        session = self.session(FAULTY)
        return session not in (None, since) and any(said[1] == session for said in self.ledger.told)

    def is_told(self, words: str) -> bool:
        """Whether the faulty camera's note says so."""
        return words in self.board.camera(FAULTY).note

    def is_away(self) -> bool:
        return self.board.camera(FAULTY).state is RowState.RECONNECTING


@dataclass(frozen=True)
class Fault:
    """What is done to the faulty camera's server, how it shows, and what ends it; None: it is over at once."""

    name: str
    begin: Callable[[RtspServer], None]
    shows: Callable[[Site], bool]
    end: Callable[[RtspServer], None] | None


def restart(*credentials: str, path: str = "/camera") -> Callable[[RtspServer], None]:
    def act(server: RtspServer) -> None:
        server.kill()
        server.start(*credentials, path=path)

    return act


FAULTS = [
    Fault("clients dropped", RtspServer.drop_clients, lambda _: True, None),
    Fault("server killed", restart(), lambda _: True, None),
    Fault("port closed", RtspServer.kill, lambda site: site.is_told("refused"), RtspServer.start),
    Fault("server silent", RtspServer.stop_answering, Site.is_away, RtspServer.go_on),
    Fault("no such stream", restart(path="/other"), lambda site: site.is_told("404"), restart()),
    Fault("wrong password", restart("user", "secret"), lambda site: site.is_told("401"), restart()),
]


@dataclass(frozen=True)
class _Outcome:
    back_s: float
    others_per_s: float


def suffer(site: Site, server: RtspServer, fault: Fault) -> _Outcome:
    """One fault from its beginning until the camera is back."""
    followed_before, began, known = site.followed(), time.monotonic(), site.session(FAULTY)
    fault.begin(server)
    shown_s = wait_until(lambda: fault.shows(site), timeout_s=PATIENCE_S, what=f"{fault.name}: to show")
    if fault.end is not None:
        _watch(site, FAULT_S - shown_s)
        fault.end(server)
    back_s = wait_until(lambda: site.is_back(known), what=f"{fault.name}: to be back")
    _watch(site, FAULT_S - back_s)
    return _Outcome(back_s, (site.followed() - followed_before) / (time.monotonic() - began))


def _watch(site: Site, seconds: float) -> float:
    """Lets time pass, to count frames in."""
    if seconds <= 0:
        return 0.0
    wanted = site.followed() + seconds * OTHERS * FPS
    return wait_until(lambda: site.followed() >= wanted, what="the other cameras' frames")


@pytest.fixture
def server() -> Iterator[RtspServer]:
    need_rtsp()
    server = RtspServer(mjpeg(FPS))
    yield server
    server.kill()


@pytest.fixture
def others() -> Iterator[RtspServer]:
    need_rtsp()
    server = RtspServer(mjpeg(FPS))
    yield server
    server.kill()


def test_a_camera_that_fails_comes_back_and_the_others_do_not_notice(
    tmp_path: Path, server: RtspServer, others: RtspServer
) -> None:
    urls = {f"other{place}": others.url() for place in range(OTHERS)} | {FAULTY: server.url()}
    site = Site(tmp_path, urls)
    with site.running():
        counted = site.followed()
        before_s = _watch(site, float(size(3, 20)))
        before_per_s = (site.followed() - counted) / before_s
        sessions = [site.session(FAULTY)]
        steady = {name: site.session(name) for name in urls if name != FAULTY}
        for fault in FAULTS:
            outcome = suffer(site, server, fault)
            sessions.append(site.session(FAULTY))
            ratio = outcome.others_per_s / before_per_s
            note("cameras", fault.name, back_s=round(outcome.back_s, 2), others_fps_ratio=round(ratio, 3))
            assert outcome.back_s <= BACK_WITHIN_S, fault.name
            assert 0.9 <= ratio <= 1.1, fault.name
        assert {name: site.session(name) for name in steady} == steady
    _assert_nothing_is_reused(site.ledger)
    assert len(set(sessions)) == len(FAULTS) + 1
    note("cameras", "all faults", sessions=len(sessions), faults=len(FAULTS), tracklet_ids_reused=0)


def _assert_nothing_is_reused(ledger: Ledger) -> None:
    """Each tracklet begins once and ends once, with its connection."""
    firsts = Counter(said[:3] for said in ledger.told if said[3] is SightingKind.FIRST)
    ends = Counter(said[:3] for said in ledger.told if said[3] is SightingKind.END)
    assert set(firsts.values()) == set(ends.values()) == {1}
    assert set(firsts) == set(ends)
    reasons = Counter(said[4] for said in ledger.told if said[3] is SightingKind.END)
    assert set(reasons) == {EndReason.DISCONNECTED, EndReason.SHUTDOWN}
    assert reasons[EndReason.SHUTDOWN] == OTHERS + 1


def resident_mib() -> float:
    """What this process holds of memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def open_files() -> int:
    """Handles that this process holds."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_connections_that_come_and_go_leave_no_memory_behind(tmp_path: Path, server: RtspServer) -> None:
    cycles, warm_up = size(6, 50), size(2, 10)
    site = Site(tmp_path, {FAULTY: server.url()})
    held: list[float] = []
    with site.running():
        threads, files = threading.active_count(), open_files()
        for _ in range(cycles):
            known = site.session(FAULTY)
            server.drop_clients()
            wait_until(lambda: site.is_back(known), what="a new session")  # noqa: B023 - now
            held.append(resident_mib())
        assert threading.active_count() <= threads
        assert open_files() <= files + 2
    growth_mib = held[-1] - held[warm_up - 1]
    note("cameras", "come and go", cycles=cycles, rss_growth_mib=round(growth_mib, 2))
    assert growth_mib < 16


@dataclass
class Viewing:
    """What a stream gave: how far each frame's date was from the moment when it was made, and the ends."""

    #: By session, in order: seconds that the date is late.
    late_s: dict[str, list[float]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def view(self, camera: TcpCamera, stream: CameraStream, frames: int, sessions: int) -> None:
        """Watches until some session, the last of so many at least, has given so many frames; then stops the stream."""
        while not (len(self.late_s) >= sessions and len(list(self.late_s.values())[-1]) >= frames):
            item = stream.take(timeout_s=PATIENCE_S)
            assert item is not None, self.messages
            if isinstance(item, Frame):
                made_at = camera.made_at[number_of(item.luma())]
                self.late_s.setdefault(item.session, []).append(item.captured_at.timestamp() - made_at)
            else:
                self.messages.append(item.message)
        stream.stop()


@dataclass(frozen=True)
class Trouble:
    """What a camera sends, and what is told of it."""

    shows: list[list[Segment | bytes]]
    frames: int
    sessions: int = 1
    message: str = ""
    event: str = ""


SECONDS = size(3, 30)
#: The library looks at a stream for a second or more before it gives the first frame: until time has caught up with
#: that, at half speed, dates are late.
SETTLED_AFTER = 4 * 12
LONG = 12 * (SECONDS + 4)
#: Frames that are watched: a show's last ones may be lost with its connection.
ENOUGH = LONG - 12
NOISE = bytes(range(256)) * 4000
TROUBLES = {
    "25 fps declared and 12 sent": Trouble([[Segment(LONG, declared_fps=25)]], ENOUGH),
    "no timestamps": Trouble(
        [[Segment(LONG, codec="mjpeg", container="mpjpeg", declared_fps=25)]],
        ENOUGH,
        event="frames without a timestamp, dated by arrival",
    ),
    "clock back an hour": Trouble([[Segment(60, first_pts_s=7200), Segment(LONG, first_pts_s=3600)]], 60 + ENOUGH),
    "other resolution": Trouble(
        [[Segment(60), Segment(LONG, width=160, height=128)]], 60 + ENOUGH, event="picture size changed"
    ),
    "other codec": Trouble(
        [[Segment(36), Segment(1000, codec="mpeg2video", fps=25)], [Segment(LONG * 2, codec="mpeg2video", fps=25)]],
        2 * ENOUGH,
        sessions=2,
        message="sends what is no h264 any more",
    ),
    "garbage": Trouble([[NOISE], [Segment(LONG)]], ENOUGH, message="no video, or a damaged one"),
    "garbage between": Trouble([[Segment(60), NOISE[:50_000], Segment(LONG)]], 60 + ENOUGH),
}


def test_streams_that_are_not_what_they_say_are_told_of_and_dated_right() -> None:
    source = SourceConfig(read_timeout_s=2.0, queue_frames=200)
    viewings = {name: Viewing() for name in TROUBLES}
    with capture_logs() as logs, ExitStack() as stack:
        threads = []
        streams = {}
        for name, trouble in TROUBLES.items():
            camera = stack.enter_context(TcpCamera(*trouble.shows))
            stream = streams[name] = CameraStream(CameraConfig(id=name.replace(" ", "-"), url=camera.url), source)
            stream.start()
            stack.callback(stream.stop)
            arguments = (camera, stream, trouble.frames, trouble.sessions)
            threads.append(threading.Thread(target=viewings[name].view, args=arguments))
            threads[-1].start()
        for thread in threads:
            thread.join(3 * PATIENCE_S)
        assert not any(thread.is_alive() for thread in threads)
    for name, trouble in TROUBLES.items():
        late_s = list(viewings[name].late_s.values())[-1]
        worst_s = max(map(abs, late_s[SETTLED_AFTER:]))
        note("cameras", name, worst_time_error_s=round(worst_s, 3), sessions=len(viewings[name].late_s))
        assert worst_s <= 0.2, name
        told = [log["event"] for log in logs if log.get("camera") == name.replace(" ", "-")]
        assert not trouble.event or told.count(trouble.event) == 1, name
        assert sum(trouble.message in message for message in viewings[name].messages) == bool(trouble.message), name


def test_packets_that_the_network_loses_are_counted() -> None:
    need_rtsp()
    pictures = "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=12/1"
    lossy = f"( {pictures} ! jpegenc ! rtpjpegpay ! identity drop-probability=0.05 name=pay0 )"
    server = RtspServer(lossy)
    camera = CameraConfig.model_validate({"id": "cam1", "url": server.url(), "transport": "udp"})
    stream = CameraStream(camera, SourceConfig())
    stream.start()
    try:
        wanted = size(3, 100)
        wait_until(lambda: stream.take_nowait() is not None and stream.counters.packets_lost >= wanted, what="losses")
        counters = stream.counters
        assert counters.reconnects == 0
        note("cameras", "packets lost", packets_lost=counters.packets_lost, frames=counters.decoded, sessions=1)
    finally:
        stream.stop()
        server.kill()
