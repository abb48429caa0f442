import itertools
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid.modality import Modality
from streamer.config import CameraConfig, SourceConfig, mask
from streamer.frames import Frame, SessionEnd
from streamer.recordings import file_session, is_sequence
from streamer.sightings import EndReason
from streamer.sources import SourceError, open_source
from streamer.stream import CameraStream
from tests.streamer.fake_camera import FakeContainer, FakeOpener, packets
from tests.streamer.video_files import FPS, colours, counts, encode

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
#: Never reached: what a test waits for comes at once, or the test fails.
PATIENCE_S = 20.0


def read(camera: CameraConfig, source: SourceConfig | None = None) -> tuple[list[Frame], SessionEnd, CameraStream]:
    """Reads a file to its end."""
    stream = CameraStream(camera, source or SourceConfig())
    stream.start()
    frames: list[Frame] = []
    while isinstance(item := stream.take(timeout_s=PATIENCE_S), Frame):
        frames.append(item)
    assert isinstance(item, SessionEnd)
    stream.stop()
    return frames, item, stream


def camera(path: Path | str, **settings: object) -> CameraConfig:
    return CameraConfig.model_validate({"id": "cam1", "url": str(path), "start_time": NOON, **settings})


def test_a_file_gives_every_frame_dated_from_its_start_time(tmp_path: Path) -> None:
    times = [0, 40, 80, 500, 1000, 1040]  # a camera that drops frames: uneven, and no multiple of a frame rate
    path = encode(tmp_path / "a.mkv", colours(6), pts=times)
    frames, end, stream = read(camera(path))
    assert [frame.index for frame in frames] == list(range(6))
    for frame, at_ms in zip(frames, times, strict=True):
        assert abs(frame.captured_at - (NOON + timedelta(milliseconds=at_ms))) <= timedelta(milliseconds=1)
        assert frame.captured_at.tzinfo is UTC
    assert (end.reason, end.is_final, end.session) == (EndReason.SOURCE_ENDED, True, file_session(camera(path)))
    assert stream.counters.clock.startswith("start_time")
    assert stream.counters.last_captured_at == frames[-1].captured_at
    assert stream.session_hint == frames[0].session == end.session


@pytest.mark.parametrize("queue_frames", [1, 4])
def test_a_file_drops_nothing_however_small_its_queue(tmp_path: Path, queue_frames: int) -> None:
    path = encode(tmp_path / "a.mp4", colours(30))
    frames, _, stream = read(camera(path), SourceConfig(queue_frames=queue_frames))
    assert [frame.index for frame in frames] == list(range(30))
    assert (stream.counters.decoded, stream.counters.dropped) == (30, 0)


def test_pictures_are_the_encoded_ones_and_converted_once(tmp_path: Path) -> None:
    pictures = colours(3)
    path = encode(tmp_path / "a.mkv", pictures, codec="ffv1", pixel_format="bgr0")
    frames, _, _ = read(camera(path))
    for frame, expected in zip(frames, pictures, strict=True):
        image = frame.image()
        np.testing.assert_array_equal(image, expected)
        assert image.flags.c_contiguous
        assert frame.image() is image
        assert frame.luma().shape == (90, 162)


def test_luma_is_the_y_plane_without_its_row_padding(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", colours(2))
    frames, _, _ = read(camera(path))
    with av.open(str(path)) as container:
        # yuv420p as one array: the first `height` rows are Y.
        expected = [decoded.to_ndarray()[:90] for decoded in container.decode(video=0)]
    for frame, luma in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.luma(), luma)
        assert frame.luma().flags.c_contiguous
        assert (frame.width, frame.height) == (162, 90)


def test_a_session_is_stable_and_its_own_per_camera_start_and_content(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", colours(2))
    first = file_session(camera(path))
    moved = tmp_path / "elsewhere" / "a.mp4"
    moved.parent.mkdir()
    moved.write_bytes(path.read_bytes())
    berlin = datetime.fromisoformat("2026-01-01T13:00:00+01:00")
    assert file_session(camera(moved)) == file_session(camera(f"file://{path}")) == first
    assert file_session(camera(path, start_time=berlin)) == first
    longer = encode(tmp_path / "elsewhere" / "b.mp4", colours(9)).rename(moved)
    others = [camera(path, id="cam2"), camera(path, start_time=NOON + timedelta(seconds=1)), camera(longer)]
    assert len({first, *map(file_session, others)}) == 4


def test_without_a_start_time_the_recording_dates_itself(tmp_path: Path) -> None:
    stamped = encode(tmp_path / "a.mp4", colours(3), metadata={"creation_time": "2025-05-05T05:05:05Z"})
    frames, _, stream = read(camera(stamped, start_time=None))
    assert frames[0].captured_at == datetime(2025, 5, 5, 5, 5, 5, tzinfo=UTC)
    assert stream.counters.clock.startswith("creation_time")


def test_without_any_date_the_file_was_written_as_it_ended(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", colours(20))
    os.utime(path, (NOON.timestamp(), NOON.timestamp()))
    frames, _, stream = read(camera(path, start_time=None))
    assert frames[0].captured_at == NOON - timedelta(seconds=2)
    assert stream.counters.clock.startswith("modification time")


@pytest.mark.parametrize(("name", "codec", "pixel_format"), [
    ("%06d.tiff", "tiff", "gray16le"), ("cam_%d.png", "png", "gray16be"), ("*.tiff", "tiff", "gray16le"),
])  # fmt: skip
def test_numbered_images_are_a_thermal_video(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    pictures = counts(12)
    written = tmp_path / name.replace("*", "%06d")
    encode(written, pictures, codec=codec, pixel_format=pixel_format, container="image2",
           options={"start_number": "95"})  # fmt: skip
    frames, end, _ = read(camera(tmp_path / name, fps=4))
    assert len(frames) == 12
    assert {frame.modality for frame in frames} == {Modality.THERMAL}
    assert frames[-1].captured_at == NOON + timedelta(seconds=11 / 4)
    assert end.is_final


def test_thermal_counts_survive_ffv1_and_become_gray(tmp_path: Path) -> None:
    pictures = counts(3)
    path = encode(tmp_path / "a.mkv", pictures, codec="ffv1", pixel_format="gray16le")
    frames, _, _ = read(camera(path))
    gray = frames[0].luma()
    low, high = np.percentile(pictures[0][::4, ::4], (1.0, 99.5))
    expected = np.clip((pictures[0].astype(float) - low) * 255 / (high - low), 0, 255)
    assert np.abs(gray - expected).max() <= 1
    np.testing.assert_array_equal(frames[0].image(), np.stack([gray] * 3, axis=2))
    assert frames[0].image().flags.c_contiguous


@pytest.mark.parametrize(("chroma", "sensed"), [(60, Modality.VISIBLE), (128, Modality.NEAR_INFRARED)])
def test_auto_senses_colour(chroma: int, sensed: Modality) -> None:
    frame = _first_live_frame("auto", chroma)
    assert frame.modality is sensed


def test_a_configured_modality_tags_every_frame() -> None:
    assert _first_live_frame("thermal", 60).modality is Modality.THERMAL


def _first_live_frame(modality: str, chroma: int) -> Frame:
    opener = FakeOpener(FakeContainer(packets(1, chroma=chroma)))
    stream = CameraStream(
        camera("rtsp://camera/1", modality=modality), SourceConfig(), open_container=opener, pause=lambda _: True
    )
    stream.start()
    frame = stream.take(timeout_s=PATIENCE_S)
    stream.stop()
    assert isinstance(frame, Frame)
    return frame


def test_a_size_that_changes_midway_is_carried_by_the_frames(tmp_path: Path) -> None:
    first = encode(tmp_path / "a.ts", colours(5), container="mpegts")
    second = encode(tmp_path / "b.ts", colours(5, width=90, height=60), container="mpegts")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    frames, end, stream = read(camera(joined))
    assert [(frame.width, frame.height) for frame in frames] == [(162, 90)] * 5 + [(90, 60)] * 5
    assert [frame.image().shape for frame in frames[4:6]] == [(90, 162, 3), (60, 90, 3)]
    assert stream.counters.size_changes == 1
    assert end.reason is EndReason.SOURCE_ENDED
    # The second recording's clock begins anew; the stream's goes on.
    steps = {after.captured_at - before.captured_at for before, after in itertools.pairwise(frames)}
    assert steps == {timedelta(seconds=1 / FPS)}


def test_a_damaged_packet_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", colours(9), codec="mjpeg", pixel_format="yuvj420p", damaged=frozenset({3, 4}))
    frames, end, stream = read(camera(path))
    assert (len(frames), stream.counters.decode_errors) == (7, 2)
    assert [frame.index for frame in frames] == list(range(7))
    assert frames[3].captured_at == NOON + timedelta(seconds=5 / FPS)
    assert end.message.endswith("ended after 7 frames, 2 damaged")


def test_a_truncated_video_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.mp4", colours(30), options={"movflags": "faststart"})
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    frames, end, _ = read(camera(whole))
    assert 0 < len(frames) < 30
    assert f"ended after {len(frames)} of the 30 frames" in end.message


def _unreadable(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.mkv"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(50_000))
    elif kind == "index lost":
        path = encode(folder / "a.mp4", colours(20))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "unknown codec":
        encode(path, counts(2), codec="ffv1", pixel_format="gray16le")
        path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_NONE"))
    elif kind == "all damaged":
        encode(path, colours(3), codec="mjpeg", pixel_format="yuvj420p", damaged=frozenset(range(3)))
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(("kind", "reason"), [
    ("missing", "no such file"),
    ("empty", "is empty (0 bytes)"),
    ("garbage", "no video, or a damaged one"),
    ("index lost", "no video, or a damaged one"),
    ("unknown codec", "no decoder for its codec"),
    ("all damaged", "no picture could be decoded, 3 damaged"),
    ("folder", "is a folder"),
])  # fmt: skip
def test_a_file_that_gives_no_frame_ends_with_one_clear_line(tmp_path: Path, kind: str, reason: str) -> None:
    path = _unreadable(tmp_path, kind)
    frames, end, stream = read(camera(path))
    assert frames == []
    assert (end.reason, end.is_final) == (EndReason.DISCONNECTED, True)
    assert end.message.startswith(f"{path}: ")
    assert reason in end.message
    assert "\n" not in end.message
    assert stream.counters.message == end.message


def test_a_sequence_without_images_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no image of that name"):
        open_source(camera(tmp_path / "%06d.tiff"), SourceConfig())


def test_a_gap_in_the_numbering_ends_a_sequence_and_is_told(tmp_path: Path) -> None:
    encode(tmp_path / "%06d.tiff", counts(9), codec="tiff", pixel_format="gray16le", container="image2")
    (tmp_path / "000005.tiff").unlink()
    frames, end, _ = read(camera(tmp_path / "%06d.tiff"))
    assert len(frames) == 4
    assert "ended after 4 of the 8 frames" in end.message


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        output.mux(list(stream.encode(sound)))
    with pytest.raises(SourceError, match="holds no video"):
        open_source(camera(path), SourceConfig())


@pytest.mark.parametrize("name", ["cuda", "no_such_hardware"])
def test_hardware_that_is_absent_is_replaced_and_named(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / "a.mp4", colours(2))
    opened: list[dict[str, object]] = []

    def without_hardware(url: str, **arguments: object) -> object:
        opened.append(arguments)
        if "hwaccel" in arguments:
            raise av.error.PermissionError(1, "Operation not permitted")
        return av.open(url, **arguments)

    source = open_source(camera(path, hwaccel=name), SourceConfig(), open_container=without_hardware)
    assert source.info.decoder == f"software ({name} is not available here)"
    assert len(list(source.pictures())) == 2
    source.close()
    assert [("hwaccel" in arguments) for arguments in opened] == [True, False]


@pytest.mark.parametrize(("url", "expected"), [
    ("thermal/%06d.tiff", True), ("thermal/*.png", True), ("a.mp4", False), ("rtsp://camera/%06d", False),
    ("100%.mp4", False), ("file:///data/%d.tiff", True),
])  # fmt: skip
def test_sequences_are_known_by_their_name(url: str, expected: bool) -> None:
    assert is_sequence(url) is expected


# Whatever a password may hold, but for what ends the address in the text around it.
CHARACTERS = st.characters(codec="utf-8", exclude_categories=("Z", "C"))
PASSWORDS = st.text(CHARACTERS, min_size=1).map(lambda text: f"§{text}§")


@settings(deadline=None)
@given(PASSWORDS)
def test_a_password_never_shows(password: str) -> None:
    url = f"rtsp://admin:{password}@camera.local:554/stream"
    assert password not in mask(f"cannot open {url}: refused")
    fault = av.error.ConnectionRefusedError(111, "Connection refused", url)
    with pytest.raises(SourceError) as caught:
        open_source(camera(url), SourceConfig(), open_container=FakeOpener(fault))
    assert password not in str(caught.value)
    assert "admin:***@camera.local" in str(caught.value)


def test_a_password_in_the_query_never_shows() -> None:
    assert mask("http://cam/video?user=a&pwd=secret&x=1") == "http://cam/video?user=a&pwd=***&x=1"


def test_the_library_stays_silent_about_bad_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        read(camera(_unreadable(tmp_path, "garbage")))
    assert caplog.records == []
