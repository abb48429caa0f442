"""Live sources against real servers on this machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streamer.config import CameraConfig, SourceConfig
from streamer.frames import Frame, SessionEnd
from streamer.probe import probe
from streamer.sightings import EndReason
from streamer.sources import SourceError
from streamer.stream import CameraStream
from tests.servers.rtsp import RtspServer, mjpeg, need_rtsp
from tests.streamer.video_files import colours, encode

pytestmark = pytest.mark.integration

PATIENCE_S = 20.0
MJPEG = mjpeg()
QUICK = SourceConfig(open_timeout_s=5, read_timeout_s=1, reconnect_min_s=0.01, reconnect_max_s=0.02, queue_frames=50)


def items(stream: CameraStream) -> Iterator[Frame | SessionEnd]:
    while (item := stream.take(timeout_s=PATIENCE_S)) is not None:
        yield item
    raise AssertionError(f"nothing came within {PATIENCE_S:g} s: {stream.counters}")


@contextmanager
def streaming(url: str, source: SourceConfig = QUICK) -> Iterator[CameraStream]:
    stream = CameraStream(CameraConfig(id="cam1", url=url), source)
    stream.start()
    try:
        yield stream
    finally:
        stream.stop()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web_folder(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *arguments: _QuietHandler(*arguments, directory=str(tmp_path))
    ) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield tmp_path, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_http_ends_disconnects_and_is_opened_again(web_folder: tuple[Path, str]) -> None:
    folder, address = web_folder
    encode(folder / "a.ts", colours(8), container="mpegts")
    with streaming(f"{address}/a.ts") as stream:
        sessions: list[str] = []
        for item in items(stream):
            if isinstance(item, SessionEnd):
                assert (item.reason, item.is_final) == (EndReason.DISCONNECTED, False)
                sessions.append(item.session)
            if len(sessions) == 3:
                break
    assert len(set(sessions)) == 3
    assert stream.counters.decoded >= 24


def test_http_404_is_told_and_retried(web_folder: tuple[Path, str]) -> None:
    with streaming(f"{web_folder[1]}/missing.ts") as stream:
        end = next(items(stream))
        assert isinstance(end, SessionEnd)
        assert end.message.endswith("no such stream on the server (404)")
        assert isinstance(next(items(stream)), SessionEnd)


@pytest.fixture(scope="module")
def _gstreamer() -> None:
    need_rtsp()


@contextmanager
def serving(launch: str, *credentials: str) -> Iterator[RtspServer]:
    server = RtspServer(launch, *credentials)
    try:
        yield server
    finally:
        server.kill()


@pytest.mark.usefixtures("_gstreamer")
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_is_dated_by_its_sender(transport: str) -> None:
    with serving(MJPEG) as server:
        camera = CameraConfig.model_validate({"id": "cam1", "url": server.url(), "transport": transport})
        stream = CameraStream(camera, QUICK)
        stream.start()
        for item in items(stream):
            assert isinstance(item, Frame), item
            assert abs(item.captured_at - datetime.now(UTC)) < timedelta(seconds=2)
            if stream.counters.clock == "sender report (RTCP)":
                break
        stream.stop()
    assert stream.counters.fps == 25


@pytest.mark.usefixtures("_gstreamer")
def test_rtsp_whose_server_dies_is_a_disconnect() -> None:
    with serving(MJPEG) as server, streaming(server.url()) as stream:
        assert isinstance(next(items(stream)), Frame)
        server.kill()
        end = next(item for item in items(stream) if isinstance(item, SessionEnd))
        assert (end.reason, end.is_final) == (EndReason.DISCONNECTED, False)
        refused = next(item for item in items(stream) if isinstance(item, SessionEnd) and "refused" in item.message)
        assert not refused.is_final


@pytest.mark.usefixtures("_gstreamer")
def test_rtsp_that_stalls_is_a_disconnect_within_the_bound() -> None:
    with serving(MJPEG) as server, streaming(server.url()) as stream:
        assert isinstance(next(items(stream)), Frame)
        server.stop_answering()
        end = next(item for item in items(stream) if isinstance(item, SessionEnd))
        assert "timeout" in end.message


@pytest.mark.usefixtures("_gstreamer")
def test_rtsp_asks_for_the_right_password_and_never_shows_it() -> None:
    with serving(MJPEG, "me", "se:c@ret") as server:
        for user, reason in (("me:wr@ng@", "401"), ("", "401")):
            with pytest.raises(SourceError, match=reason) as caught:
                probe(CameraConfig(id="cam1", url=server.url(user)), QUICK)
            assert "wr@ng" not in str(caught.value)
        assert probe(CameraConfig(id="cam1", url=server.url("me:se:c@ret@")), QUICK, seconds=0.2).frames > 1
        with pytest.raises(SourceError, match="404"):
            probe(CameraConfig(id="cam1", url=server.url("me:se:c@ret@", "nothing")), QUICK)
