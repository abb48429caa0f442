from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from reid.modality import Modality
from streamer.config import CameraConfig
from streamer.probe import probe, run_probe
from streamer.sources import SourceError
from tests.streamer.fake_camera import FakeContainer, FakeOpener, packets
from tests.streamer.video_files import colours, counts, encode


def printed(url: str) -> tuple[int, str]:
    out = StringIO()
    return run_probe(url, seconds=0.5, console=Console(file=out, width=200)), out.getvalue()


def test_a_file_is_described(tmp_path: Path) -> None:
    path = encode(tmp_path / "[odd] name.mp4", colours(20))
    status, text = printed(str(path))
    assert status == 0
    for shown in ("[odd] name.mp4", "h264", "162x90", "yuv420p", "10.00", "2.0 s", "visible (sensed)", "software"):
        assert shown in text


def test_only_the_asked_seconds_of_a_file_are_read(tmp_path: Path) -> None:
    report = probe(CameraConfig(id="cam1", url=str(encode(tmp_path / "a.mp4", colours(20)))), seconds=0.5)
    assert report.frames == 6
    assert report.fps == pytest.approx(10)


def test_thermal_counts_are_sensed(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", counts(2), codec="ffv1", pixel_format="gray16le")
    report = probe(CameraConfig(id="cam1", url=str(path)))
    assert (report.modality, report.pixel_format) == (Modality.THERMAL, "gray16le")


def test_a_live_source_is_timed_by_arrival() -> None:
    ticks = iter(np.arange(100) * 0.04)
    report = probe(
        CameraConfig(id="cam1", url="rtsp://camera/1"),
        seconds=1.0,
        monotonic=lambda: float(next(ticks)),
        open_container=FakeOpener(FakeContainer(packets(50, chroma=128))),
    )
    assert report.fps == pytest.approx(25)
    assert report.info.fps == 10
    assert report.modality is Modality.NEAR_INFRARED
    assert report.clock == "arrival + timestamps"


@pytest.mark.parametrize(("url", "reason"), [
    ("", "give the address"),
    ("no such.mp4", "no such file"),
    ("rtsp://me:secret@127.0.0.1:1/[x]", "connection refused"),
    ("foo://camera/1", "unknown scheme"),
])  # fmt: skip
def test_what_can_not_be_used_gives_one_line_and_status_2(url: str, reason: str) -> None:
    status, text = printed(url)
    assert status == 2
    assert reason in text
    assert text.count("\n") == 1
    assert "secret" not in text


def test_a_live_source_without_a_picture_says_so() -> None:
    with pytest.raises(SourceError, match="no picture"):
        probe(CameraConfig(id="cam1", url="rtsp://camera/1"), open_container=FakeOpener(FakeContainer([])))
