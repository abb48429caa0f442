from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamer.children import StartError
from streamer.config import load_site
from streamer.preflight import check_edge
from streamer.site_plan import Role
from streamer.supervisor import Supervisor
from tests.streamer.site_files import DEMO_CLIPS, write_site
from tests.streamer.video_files import colours, encode


def camera(url: Path | str, name: str = "cam1") -> dict[str, Any]:
    return {"id": name, "url": str(url), "modality": "visible", "start_time": "2026-01-01T12:00:00Z"}


@pytest.fixture
def good(tmp_path: Path) -> dict[str, Any]:
    """A site that could start: weights that exist are all that the check wants of weights."""
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"x")
    return {
        "cameras": [camera(encode(tmp_path / "good.mp4", colours(3)))],
        "detector": {"weights": str(weights)},
        "embedder": {"weights": str(weights)},
    }


def missing(folder: Path) -> Path:
    return folder / "missing.mp4"


def empty(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.write_bytes(b"")
    return path


def truncated(folder: Path) -> Path:
    path = folder / "truncated.mp4"
    path.write_bytes((DEMO_CLIPS / "cam1_rgb.mp4").read_bytes()[:2000])
    return path


def no_video(folder: Path) -> Path:
    path = folder / "text.mp4"
    path.write_text("no video" * 100)
    return path


BAD_FILES = [missing, empty, truncated, no_video]


def problems(path: Path) -> list[str]:
    with pytest.raises(StartError) as caught:
        check_edge(load_site(path))
    return str(caught.value).splitlines()


def test_a_good_site_passes(tmp_path: Path, good: dict[str, Any]) -> None:
    check_edge(load_site(write_site(tmp_path, good)))

    assert (tmp_path / "crops").is_dir()


@pytest.mark.parametrize("make", BAD_FILES)
def test_a_site_whose_only_file_does_not_open_names_it(
    tmp_path: Path, good: dict[str, Any], make: Callable[[Path], Path]
) -> None:
    (line,) = problems(write_site(tmp_path, good | {"cameras": [camera(make(tmp_path))]}))

    assert line.startswith("cameras: cam1: ")
    assert make(tmp_path).name in line


def test_one_bad_file_among_good_ones_stops_nobody(tmp_path: Path, good: dict[str, Any]) -> None:
    cameras = [*good["cameras"], camera(missing(tmp_path), "cam2")]

    check_edge(load_site(write_site(tmp_path, good | {"cameras": cameras})))


def test_a_live_camera_is_not_tried(tmp_path: Path, good: dict[str, Any]) -> None:
    cameras = [camera("rtsp://user:secret@192.0.2.1/stream")]

    check_edge(load_site(write_site(tmp_path, good | {"cameras": cameras})))


def test_each_fault_has_its_line(tmp_path: Path, good: dict[str, Any]) -> None:
    (tmp_path / "crops").write_text("a file")
    changes = {
        "cameras": [camera(missing(tmp_path)), camera(empty(tmp_path), "cam2") | {"detector": "./none.pt"}],
        "detector": good["detector"] | {"weights_by_modality": {"thermal": "./gone.onnx"}},
        "embedder": {"weights": "./nothing_openvino_model"},
    }
    lines = problems(write_site(tmp_path, good | changes))

    keys = ["detector.weights_by_modality.thermal", "cameras: cam2: detector", "embedder.weights", "crops_dir"]
    assert [line.split(": /")[0] for line in lines[:4]] == keys
    assert [line.split(": /")[0] for line in lines[4:]] == ["cameras: cam1", "cameras: cam2"]


def test_a_hub_name_needs_permission_to_download(tmp_path: Path, good: dict[str, Any]) -> None:
    asked_for = {"weights": "yolo11n.pt", "allow_download": True}
    check_edge(load_site(write_site(tmp_path, good | {"detector": asked_for})))

    (line,) = problems(write_site(tmp_path, good | {"detector": {"weights": "yolo11n.pt"}}))
    assert line == "detector.weights: yolo11n.pt: no such file or folder"


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"database": "mysql://tracker@localhost/x"}, "database"),
        ({"database": "sqlite:///crops/../site.yaml"}, "database"),
        ({"outbox": {"path": "."}}, "outbox"),
    ],
    ids=["unknown database", "no database file", "outbox is a folder"],
)
def test_what_can_not_be_stored_stops_the_start(
    tmp_path: Path, good: dict[str, Any], changes: dict[str, Any], culprit: str
) -> None:
    supervisor = Supervisor(load_site(write_site(tmp_path, good | changes)), Role.ALL)
    try:
        with pytest.raises(StartError) as caught:
            supervisor.start()
    finally:
        supervisor.close()

    assert str(caught.value).startswith(culprit)
    assert "\n" not in str(caught.value)
