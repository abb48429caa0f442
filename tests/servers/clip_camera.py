"""A live camera that shows a clip over and over, packet by packet as it was encoded, to whoever connects over TCP."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import TYPE_CHECKING

import av

from tests.servers.one_client import OneClientCamera, Pipe

if TYPE_CHECKING:
    import socket
    from pathlib import Path

_TICKS = Fraction(1, 90_000)


class ClipCamera(OneClientCamera):
    """Sends a clip without end, one client at a time; used as a context manager.

    Args:
        clip: The video file, H.264.
        fps: At which its frames are sent, however fast it was filmed.
    """

    def __init__(self, clip: Path, fps: float) -> None:
        super().__init__()
        self._clip, self._fps = clip, fps

    def serve_client(self, client: socket.socket) -> None:
        """See `OneClientCamera`."""
        options = {"flush_packets": "1", "omit_video_pes_length": "0"}
        with av.open(Pipe(client), "w", format="mpegts", options=options, buffer_size=1316) as output:
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
