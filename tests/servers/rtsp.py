"""A real RTSP server (GStreamer) as a process of its own, and the faults that it can have."""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
from pathlib import Path

from tests.servers.need import absent

SERVER = Path(__file__).with_name("rtsp_server.py")
#: Debian's Python: the one that `python3-gi` is installed for.
SYSTEM_PYTHON = Path("/usr/bin/python3")
_READY_S = 20.0


def mjpeg(fps: int = 25) -> str:
    """A moving test picture, 320 x 240, as each client's own pipeline."""
    pictures = f"videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate={fps}/1"
    return f"( {pictures} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"


@functools.cache
def _is_there() -> bool:
    check = "import gi; gi.require_version('GstRtspServer', '1.0')"
    python = shutil.which(SYSTEM_PYTHON)
    return python is not None and not subprocess.run([python, "-c", check], capture_output=True).returncode


def need_rtsp() -> None:
    """Skips the test where there is no GStreamer RTSP server."""
    if not _is_there():
        absent("no GStreamer RTSP server under the system's Python (gir1.2-gst-rtsp-server-1.0)")


class RtspServer:
    """One camera's server. It can be killed and started again on the same port, stopped, and drop its clients.

    Args:
        launch: A GStreamer pipeline that ends in `pay0`.
        port: 0: a free one, kept from then on.
        path: Of the only stream that it has.
        credentials: User and password that it asks for; none: it asks for none.
    """

    def __init__(self, launch: str, *credentials: str, port: int = 0, path: str = "/camera") -> None:
        self._launch, self.port = launch, port
        self.start(*credentials, path=path)

    def start(self, *credentials: str, path: str = "/camera") -> None:
        """Starts the server; blocks until it listens."""
        command = [str(SYSTEM_PYTHON), str(SERVER), str(self.port), path, self._launch, *credentials]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def url(self, user: str = "", path: str = "camera") -> str:
        """Its address; `user` with a trailing @."""
        return f"rtsp://{user}127.0.0.1:{self.port}/{path}"

    def drop_clients(self) -> None:
        """Breaks off every connection."""
        assert self.process.stdin is not None
        self.process.stdin.write("drop\n")
        self.process.stdin.flush()

    def stop_answering(self) -> None:
        """Connected, but silent."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Ends `stop_answering`."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """At once."""
        self.process.kill()
        self.process.communicate(timeout=_READY_S)
