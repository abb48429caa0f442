"""A live camera that shows a clip over and over, packet by packet as it was encoded, to whoever connects over TCP."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from fractions import Fraction
from typing import TYPE_CHECKING

import av

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_TICKS = Fraction(1, 90_000)
_PATIENCE_S = 10.0


class _Pipe(io.RawIOBase):
    def __init__(self, client: socket.socket) -> None:
        self._client = client

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._client.sendall(data)
        return len(data)


class ClipCamera:
    """Sends a clip without end, one client at a time; used as a context manager.

    Args:
        clip: The video file, H.264.
        fps: At which its frames are sent, however fast it was filmed.
    """

    def __init__(self, clip: Path, fps: float) -> None:
        #: Times that somebody connected.
        self.connections = 0
        self._clip, self._fps = clip, fps
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._thread = threading.Thread(target=self._serve, name="clip-camera", daemon=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(_PATIENCE_S)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            client.settimeout(1.0)
            with client, contextlib.suppress(OSError, av.error.FFmpegError):
                self._send(client)

    def _send(self, client: socket.socket) -> None:
        options = {"flush_packets": "1", "omit_video_pes_length": "0"}
        with av.open(_Pipe(client), "w", format="mpegts", options=options, buffer_size=1316) as output:
            with av.open(str(self._clip)) as source:
                stream = output.add_stream_from_template(source.streams.video[0])
            began, sent = time.monotonic(), 0
            while True:
                sent = self._play(output, stream, began, sent)
                if self._stopping.is_set():
                    return

    def _play(self, output: av.container.OutputContainer, stream: av.VideoStream, began: float, sent: int) -> int:
        """Sends the clip once; how many frames were sent by then."""
        step = round(1 / self._fps / _TICKS)
        with av.open(str(self._clip)) as source:
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is None or self._stopping.wait(max(0.0, began + sent / self._fps - time.monotonic())):
                    continue
                packet.stream, packet.time_base = stream, _TICKS
                # The demo's clips have no B-frames: what is decoded first is shown first.
                packet.pts = packet.dts = sent * step
                output.mux(packet)
                sent += 1
        return sent
