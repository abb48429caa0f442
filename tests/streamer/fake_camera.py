"""A camera without a network: what the video library's `open` gives, from a script."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np

from streamer.frames import Frame, SessionEnd

TIME_BASE = Fraction(1, 1000)
PRODUCER_TIME = np.dtype([("micros", "<i8"), ("flags", "<i4")])


def picture(pts_ms: int | None, *, width: int = 64, height: int = 48, chroma: int = 90) -> av.VideoFrame:
    """A picture whose left half has a colour, unless `chroma` is 128."""
    luma = np.full((height, width), 100, np.uint8)
    blocks = np.full((height // 4, width), 128, np.uint8)
    blocks[:, : width // 4] = chroma
    frame = av.VideoFrame.from_ndarray(np.concatenate([luma, blocks, blocks]), format="yuv420p")
    frame.pts = pts_ms
    return frame


@dataclass
class FakePacket:
    """One packet; decoding raises its fault if it has one."""

    pictures: Sequence[av.VideoFrame]
    pts: int | None = None
    fault: Exception | None = None
    sender_time_us: int | None = None

    def decode(self) -> Sequence[av.VideoFrame]:
        if self.fault is not None:
            raise self.fault
        return self.pictures

    def has_sidedata(self, kind: str) -> bool:
        return kind == "prft" and self.sender_time_us is not None

    def get_sidedata(self, kind: str) -> bytes:
        assert kind == "prft"
        return np.array([(self.sender_time_us, 24)], PRODUCER_TIME).tobytes()


def packets(count: int, *, first_ms: int = 0, step_ms: int = 100, **shape: int) -> list[FakePacket]:
    """Packets of one picture each."""
    times = [first_ms + number * step_ms for number in range(count)]
    return [FakePacket([picture(at, **shape)], at) for at in times]


@dataclass
class FakeContainer:
    """One connection: its packets, then its fault, or a quiet end."""

    packets: Sequence[FakePacket]
    fault: Exception | None = None
    start_time_realtime: int | None = None
    before_packet: Callable[[int], None] = lambda _: None
    is_closed: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    format: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(flags=0))

    def __post_init__(self) -> None:
        context = SimpleNamespace(name="h264", width=64, height=48, pix_fmt="yuv420p", is_hwaccel=False)
        stream = SimpleNamespace(
            codec_context=context, average_rate=Fraction(10), guessed_rate=None, time_base=TIME_BASE,
            start_time=None, duration=None, frames=0, metadata={},
        )  # fmt: skip
        self.streams = SimpleNamespace(video=[stream])

    def demux(self, _stream: object) -> Iterator[FakePacket]:
        for number, packet in enumerate(self.packets):
            self.before_packet(number)
            yield packet
        if self.fault is not None:
            raise self.fault

    def close(self) -> None:
        self.is_closed = True


class FakeOpener:
    """Gives one scripted connection, or fault, per call, and remembers with what it was called."""

    def __init__(self, *script: FakeContainer | Exception) -> None:
        self.script = list(script)
        self.calls: list[dict[str, Any]] = []

    def __call__(self, url: str, **arguments: object) -> FakeContainer:
        self.calls.append({"url": url, **arguments})
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


def drain(take: Callable[[], Frame | SessionEnd | None]) -> list[Frame | SessionEnd]:
    """All that waits."""
    items: list[Frame | SessionEnd] = []
    while (item := take()) is not None:
        items.append(item)
    return items
