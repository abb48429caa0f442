"""A reference shows the street, not who drives on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from streamer.config import CameraConfig, CameraHealthConfig, SiteConfig
from streamer.reference import ReferencePictureError, load_reference, run_reference, write_references

if TYPE_CHECKING:
    from pathlib import Path


def _film(path: Path) -> None:
    """Two seconds of a grey ramp, with a white vehicle that never stands still."""
    ramp = np.tile(np.linspace(40, 180, 320).astype(np.uint8), (180, 1))
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for index in range(20):
            picture = ramp.copy()
            picture[80:110, 15 * index : 15 * index + 15] = 250
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        output.mux(stream.encode())


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    _film(tmp_path / "gate.mp4")
    cameras = (
        CameraConfig(id="gate", url=str(tmp_path / "gate.mp4")),
        CameraConfig(id="gone", url=str(tmp_path / "gone.mp4")),
    )
    health = CameraHealthConfig(references=tmp_path / "references")
    return SiteConfig(site="site", database="sqlite:///x.db", cameras=cameras, camera_health=health)


def test_what_drives_by_is_left_out_and_what_is_away_is_told(site: SiteConfig, tmp_path: Path) -> None:
    (problem,) = write_references(site, tmp_path / "references", seconds=1.8)
    assert "gone.mp4" in problem
    found = load_reference(tmp_path / "references", "gate")
    assert found is not None
    assert found.shape == (180, 320)
    assert float(np.ptp(found, axis=0).max()) < 12


def test_a_camera_without_a_reference_has_none(tmp_path: Path) -> None:
    assert load_reference(tmp_path, "gate") is None


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "gate.png").write_text("no picture")
    with pytest.raises(ReferencePictureError, match=r"gate\.png"):
        load_reference(tmp_path, "gate")


def test_the_command_wants_a_folder_and_every_camera(site: SiteConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_reference(site, seconds=0.5) == 2
    assert "gone.mp4" in capsys.readouterr().err
    assert run_reference(site.model_copy(update={"camera_health": CameraHealthConfig()}), seconds=0.5) == 2
    assert "camera_health.references" in capsys.readouterr().err
