"""Opens and decodes one video source: RTSP, HTTP, file or image sequence. The one file that drives the video library.

Every fault of the library is translated here into a `SourceError` of one line, with the address's password masked.
"""

from __future__ import annotations

import struct
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import structlog
from av.codec.hwaccel import HWAccel
from av.format import Flags

from streamer.config import mask
from streamer.packet_loss import PacketLoss
from streamer.recordings import is_sequence, numbered, sequence_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamer.config import CameraConfig, SourceConfig

_log = structlog.get_logger(__name__)

SEQUENCE_FPS = 10.0
_EARLIEST_RECORDING = datetime(1990, 1, 1, tzinfo=UTC)  # cameras without a clock write 1904 or 1970
_PRODUCER_TIME = struct.Struct("=q")
#: So many packets in a row without a picture, over the read timeout, are a codec that changed, not a bad moment.
_FRUITLESS_PACKETS = 10


class SourceError(Exception):
    """A source can't be opened or read on. One line: the address, its password masked, and why."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source says of itself once it is open.

    Attributes:
        shown: Its address, the password masked.
        codec: The library's name of the codec.
        width: Pixels; 0 where the source says it only with its first frame.
        height: Pixels; likewise.
        pixel_format: The library's name, or "unknown".
        fps: Frames per second as declared; None where it declares none.
        frames: As declared, or the images of a sequence; 0 where unknown.
        duration_s: As declared; None where unknown.
        first_pts_s: The stream's start on its own clock, seconds; None where unknown.
        created_at: When the recording says it was made, aware UTC; None where it doesn't.
        decoder: "software", or the hardware's name, or why the hardware was not taken.
    """

    shown: str
    codec: str
    width: int
    height: int
    pixel_format: str
    fps: float | None
    frames: int
    duration_s: float | None
    first_pts_s: float | None
    created_at: datetime | None
    decoder: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture as it left the decoder.

    Attributes:
        picture: The library's frame.
        pts_s: On the stream's clock, seconds; None where it has none.
        sender_offset_s: What to add to `pts_s` for the sender's wall clock; None where it reports none.
    """

    picture: av.VideoFrame
    pts_s: float | None
    sender_offset_s: float | None


class VideoSource:
    """One open connection. Blocks while it reads, at most twice the read timeout; used by one thread alone.

    Attributes:
        info: What the source says of itself.
        decode_errors: Packets or pictures damaged so far; the stream went on after each.

    Args:
        container: The open connection.
        stream: Its video.
        info: What it says of itself.
        patience_s: A live source whose packets give no picture for so long is given up; None for files.
        loss: Counts what the network loses, where it can lose something.
        is_dated: Whether its timestamps are its own; the library makes some up for formats that have none.
        monotonic: Seconds.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        info: SourceInfo,
        *,
        patience_s: float | None = None,
        loss: PacketLoss | None = None,
        is_dated: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.info = info
        self.decode_errors = 0
        self._container = container
        self._stream = stream
        self._sender_offset_s: float | None = None
        self._patience_s, self._loss, self._is_dated, self._monotonic = patience_s, loss, is_dated, monotonic

    @property
    def packets_lost(self) -> int:
        """That the network lost, so far."""
        return 0 if self._loss is None else self._loss.packets

    def pictures(self) -> Iterator[Decoded]:
        """Decodes to the end of the source.

        Raises:
            SourceError: The source stalled, broke off, can't be read on, or sends what can't be decoded.
        """
        packets = self._container.demux(self._stream)
        fruitless, fruitful_s = 0, self._monotonic()
        while (packet := self._next_packet(packets)) is not None:
            self._sender_offset_s = self._sender_offset(packet)
            pictures = self._decode(packet)
            fruitless = 0 if pictures else fruitless + 1
            if pictures:
                fruitful_s = self._monotonic()
            elif self._is_hopeless(fruitless, self._monotonic() - fruitful_s):
                raise SourceError(f"{self.info.shown}: sends what is no {self.info.codec} any more, or only damaged")
            for picture in pictures:
                self.decode_errors += bool(picture.is_corrupt)
                pts_s = _seconds(picture.pts, self._stream.time_base) if self._is_dated else None
                yield Decoded(picture, pts_s, self._sender_offset_s)

    def close(self) -> None:
        """Lets go of the connection; by the thread that reads it, since the library can't be interrupted."""
        self._container.close()

    def _is_hopeless(self, packets: int, seconds: float) -> bool:
        """Whether a live stream has changed what it sends: its decoder, made for what came first, waits for ever."""
        return self._patience_s is not None and packets >= _FRUITLESS_PACKETS and seconds > self._patience_s

    def _next_packet(self, packets: Iterator[av.Packet]) -> av.Packet | None:
        try:
            with nullcontext() if self._loss is None else self._loss.counting():
                return next(packets, None)
        except av.error.FFmpegError as error:
            raise SourceError(f"{self.info.shown}: {why(error)}") from error

    def _decode(self, packet: av.Packet) -> Sequence[av.VideoFrame]:
        try:
            pictures: Sequence[av.VideoFrame] = packet.decode()
        except av.error.DecoderNotFoundError as error:
            raise SourceError(f"{self.info.shown}: {why(error)}") from error
        except av.error.FFmpegError:
            self.decode_errors += 1
            return ()
        return pictures

    def _sender_offset(self, packet: av.Packet) -> float | None:
        """The sender's clock: by packet once its reports come (RTCP), else of the whole stream, else None."""
        pts_s = _seconds(packet.pts, self._stream.time_base)
        if pts_s is not None and packet.has_sidedata("prft"):
            (micros,) = _PRODUCER_TIME.unpack_from(bytes(packet.get_sidedata("prft")))
            return float(micros / 1e6 - pts_s)
        if self._sender_offset_s is None and self._container.start_time_realtime is not None:
            return float(self._container.start_time_realtime / 1e6)
        return self._sender_offset_s


def open_source(
    camera: CameraConfig, source: SourceConfig, *, open_container: Callable[..., Any] = av.open
) -> VideoSource:
    """Opens a camera's source; blocks at most the open timeout (twice that where hardware decoding is refused).

    Raises:
        SourceError: It can't be opened, holds no video, or no decoder knows its codec.
    """
    shown = mask(camera.url)
    if not camera.is_live:
        _check_file(camera.url, shown)
    container, decoder = _open_container(camera, source, open_container)
    try:
        if not container.streams.video:
            raise SourceError(f"{shown}: holds no video")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise SourceError(f"{shown}: no decoder for its codec")
        # More threads gain nothing at these sizes and would delay each frame by one a thread.
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "SLICE"
        return VideoSource(
            container,
            stream,
            _describe(camera, container, stream, decoder),
            patience_s=source.read_timeout_s if camera.is_live else None,
            loss=PacketLoss() if _is_lossy(camera) else None,
            # A file's made up ones count its frames, which is right; a live camera need not keep the rate assumed.
            is_dated=not (camera.is_live and container.format.flags & Flags.no_timestamps.value),
        )
    except BaseException:
        container.close()
        raise


def _is_rtsp(camera: CameraConfig) -> bool:
    return camera.url.lower().startswith(("rtsp://", "rtsps://"))


def _is_lossy(camera: CameraConfig) -> bool:
    return _is_rtsp(camera) and camera.transport == "udp"


def _check_file(url: str, shown: str) -> None:
    """Says what the library says less clearly."""
    if is_sequence(url):
        if not sequence_files(url):
            raise SourceError(f"{shown}: no image of that name")
        return
    path = Path(url.removeprefix("file://"))
    if path.is_file() and not path.stat().st_size:
        raise SourceError(f"{shown}: is empty (0 bytes)")


def _open_container(
    camera: CameraConfig, source: SourceConfig, open_container: Callable[..., Any]
) -> tuple[av.container.InputContainer, str]:
    url = camera.url.removeprefix("file://")
    options = _options(camera, source) | {"timeout": (source.open_timeout_s, source.read_timeout_s)}
    try:
        if camera.hwaccel is None:
            return open_container(url, **options), "software"
        try:
            hardware = HWAccel(camera.hwaccel, allow_software_fallback=True)
            return open_container(url, hwaccel=hardware, **options), camera.hwaccel
        except av.error.PermissionError:
            # The library refuses so when the device is absent, even where a fall-back is allowed.
            return open_container(url, **options), f"software ({camera.hwaccel} is not available here)"
    except av.error.FFmpegError as error:
        raise SourceError(f"{mask(camera.url)}: {why(error)}") from error


def _options(camera: CameraConfig, source: SourceConfig) -> dict[str, Any]:
    """Arguments of the library's `open`, but for the timeouts that it takes itself."""
    if is_sequence(camera.url):
        return _sequence_options(camera)
    if not camera.is_live:
        return {}
    options = {"timeout": str(int(source.read_timeout_s * 1e6))}
    if _is_rtsp(camera):
        # The session description names the codec: probing would only cost a second at each reconnect.
        options |= {"rtsp_transport": camera.transport, "analyzeduration": "0", "probesize": "32"}
        # Sound and the cameras' own metadata would be fetched too, and could fail.
        options["allowed_media_types"] = "video"
    else:
        # A live MJPEG stream declares no frame rate; the library would look for it for 5 s.
        options["analyzeduration"] = "1000000"
    return {"options": options}


def _sequence_options(camera: CameraConfig) -> dict[str, Any]:
    options = {"framerate": str(camera.fps or SEQUENCE_FPS)}
    if "*" in Path(camera.url).name:
        options["pattern_type"] = "glob"
    elif numbers := numbered(Path(camera.url.removeprefix("file://"))):
        # The library itself looks for a first number up to 4 only.
        options["start_number"] = str(min(numbers))
    return {"format": "image2", "options": options}


def _describe(
    camera: CameraConfig, container: av.container.InputContainer, stream: av.VideoStream, decoder: str
) -> SourceInfo:
    context = stream.codec_context
    if decoder != "software" and "(" not in decoder and not context.is_hwaccel:
        decoder = f"software ({decoder} does not decode this codec here)"
    if decoder.startswith("software ("):
        _log.warning("hardware decoding refused", source=mask(camera.url), decoder=decoder)
    rate = stream.average_rate or stream.guessed_rate
    return SourceInfo(
        shown=mask(camera.url),
        codec=context.name,
        width=context.width,
        height=context.height,
        pixel_format=context.pix_fmt or "unknown",
        fps=float(rate) if rate else None,
        frames=stream.frames or (len(sequence_files(camera.url)) if is_sequence(camera.url) else 0),
        duration_s=_seconds(stream.duration, stream.time_base),
        first_pts_s=_seconds(stream.start_time, stream.time_base),
        created_at=_created_at({**stream.metadata, **container.metadata}),
        decoder=decoder,
    )


def _created_at(metadata: dict[str, str]) -> datetime | None:
    try:
        created = datetime.fromisoformat(metadata.get("creation_time", ""))
    except ValueError:
        return None
    created = created if created.tzinfo else created.replace(tzinfo=UTC)
    return created.astimezone(UTC) if created >= _EARLIEST_RECORDING else None


def _seconds(ticks: int | None, time_base: Fraction | None) -> float | None:
    return None if ticks is None or time_base is None else float(ticks * time_base)


#: First match wins: subclasses before their bases.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (av.error.HTTPUnauthorizedError, "wrong user name or password (401)"),
    (av.error.HTTPForbiddenError, "access denied (403)"),
    (av.error.HTTPNotFoundError, "no such stream on the server (404)"),
    (av.error.FileNotFoundError, "no such file"),
    (av.error.IsADirectoryError, "is a folder, wanted a video file"),
    (av.error.ConnectionRefusedError, "connection refused: nothing listens on that port"),
    (av.error.ConnectionResetError, "connection reset by the camera"),
    (av.error.BrokenPipeError, "connection broken off by the camera"),
    (av.error.ProtocolNotFoundError, "unknown scheme, wanted rtsp, http, https, tcp or a file"),
    (av.error.DecoderNotFoundError, "no decoder for its codec"),
    (av.error.DemuxerNotFoundError, "unknown container format"),
    (av.error.InvalidDataError, "what is there is no video, or a damaged one"),
    (av.error.ExitError, "no answer within the timeout"),
    (av.error.TimeoutError, "no answer within the timeout"),
    (av.error.EOFError, "ended before it began"),
)


def why(error: av.error.FFmpegError) -> str:
    """The library's error in one phrase without the address, which may hold a password."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return f"{error.strerror or type(error).__name__}".lower()
