"""Looks at one source: can it be opened, what is it, how fast and by which clock does it run?"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import av
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamer.config import CameraConfig, SourceConfig
from streamer.dating import SessionClock
from streamer.frame_maker import FrameMaker
from streamer.sources import SourceError, open_source
from streamer.stream import now

if TYPE_CHECKING:
    from collections.abc import Callable

    from reid.modality import Modality
    from streamer.sources import SourceInfo, VideoSource

#: Where the program can't do what was asked.
EXIT_FAILED = 2


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a look at a source found.

    Attributes:
        info: What the source says of itself.
        frames: Decoded in the time looked.
        fps: As measured: of a file by its timestamps, of a live source by arrival; None for fewer than two frames.
        width: Pixels, of the last frame.
        height: Pixels, of the last frame.
        pixel_format: The library's name, of the last frame.
        clock: Where `captured_at` comes from, in words.
        modality: Sensed, of most frames.
        decode_errors: Damaged packets or pictures.
    """

    info: SourceInfo
    frames: int
    fps: float | None
    width: int
    height: int
    pixel_format: str
    clock: str
    modality: Modality
    decode_errors: int


def probe(
    camera: CameraConfig,
    source: SourceConfig | None = None,
    *,
    seconds: float = 3.0,
    monotonic: Callable[[], float] = time.monotonic,
    open_container: Callable[..., Any] = av.open,
) -> ProbeReport:
    """Reads a source for a while: a live one for `seconds`, a file for its first `seconds`, at least one frame.

    Blocks at most the open timeout, `seconds` and twice the read timeout.

    Raises:
        SourceError: It can't be opened or read, or no picture of it can be decoded.
    """
    source = source or SourceConfig()
    opened = open_source(camera, source, open_container=open_container)
    try:
        return _look(camera, opened, SessionClock(camera, source, opened.info, now), seconds, monotonic)
    finally:
        opened.close()


def _look(
    camera: CameraConfig, opened: VideoSource, clock: SessionClock, seconds: float, monotonic: Callable[[], float]
) -> ProbeReport:
    maker = FrameMaker(camera)
    times: list[float] = []
    modalities: Counter[Modality] = Counter()
    picture = None
    for decoded in opened.pictures():
        picture, captured_s = decoded.picture, clock.date(decoded)
        modalities[maker.make(picture, "probe", len(times), captured_s).modality] += 1
        times.append(monotonic() if camera.is_live else captured_s)
        if times[-1] - times[0] >= seconds:
            break
    if picture is None:
        raise SourceError(f"{opened.info.shown}: no picture could be decoded")
    return ProbeReport(
        info=opened.info,
        frames=len(times),
        fps=(len(times) - 1) / (times[-1] - times[0]) if times[-1] > times[0] else None,
        width=picture.width,
        height=picture.height,
        pixel_format=picture.format.name,
        clock=clock.source,
        modality=modalities.most_common(1)[0][0],
        decode_errors=opened.decode_errors,
    )


def render(report: ProbeReport) -> Table:
    """The report as a table for a terminal."""
    info = report.info
    rows = {
        "codec": info.codec,
        "size": f"{report.width}x{report.height}",
        "pixel format": report.pixel_format,
        "frames/s declared": "none" if info.fps is None else f"{info.fps:.2f}",
        "frames/s measured": "too few frames" if report.fps is None else f"{report.fps:.2f}",
        "duration": "live or unknown" if info.duration_s is None else f"{info.duration_s:.1f} s",
        "clock": report.clock,
        "modality": f"{report.modality.value} (sensed)",
        "decoder": info.decoder,
        "frames read": f"{report.frames}, {report.decode_errors} damaged",
    }
    table = Table(title=escape(info.shown), show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table


def run_probe(url: str, *, seconds: float, console: Console | None = None) -> int:
    """The command: prints the report, or in one line why there is none.

    Returns:
        The exit status: 0, or 2 where the source can't be used.
    """
    console = console or Console()
    try:
        if not url.strip():
            raise SourceError("give the address of a camera, or a file")
        report = probe(CameraConfig(id="probe", url=url), seconds=seconds)
    except SourceError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return EXIT_FAILED
    console.print(render(report))
    return 0
