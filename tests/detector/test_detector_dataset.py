"""A training set holds what may be trained on, and labels that say where the vehicles are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.dataset import (
    HELD_OUT_S,
    PictureWriter,
    add_real_clip,
    add_site,
    labels_of,
    write_description,
    yolo_lines,
)
from tests.detector.detector_builders import detections, truth

FPS = 2
SECONDS = 30
SIZE = (64, 96)


def _clip(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (SIZE[1], SIZE[0]))
    for frame in range(frames):
        writer.write(np.full((*SIZE, 3), frame * 4, np.uint8))
    writer.release()
    return path


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "crossing"
    folder.mkdir()
    _clip(folder / "cam1.mp4", FPS * SECONDS)
    vehicles = {"4": {"cls": "van"}, "9": {"cls": "boxtruck"}}
    (folder / "gt.json").write_text(json.dumps({"fps": FPS, "vehicles": vehicles}), encoding="utf-8")
    with (folder / "truth.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["camera", "frame", "t", "vehicle", "x1", "y1", "x2", "y2", "visible_fraction", "truncated"])
        for frame in range(FPS * SECONDS):
            rows.writerow(["cam1", frame, frame / FPS, 4, 0, 16, 48, 48, 1, 0])
            rows.writerow(["cam1", frame, frame / FPS, 9, 60, 16, 90, 48, 0.1, 0])
    return folder


def _frame_of(path: Path) -> int:
    return int(path.stem.rsplit("_", 1)[1])


def test_the_last_seconds_train_nothing(site: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    written = add_site(site, PictureWriter(root, SIZE), every=2)
    train = sorted(_frame_of(path) for path in (root / "images" / "train").iterdir())
    held_out = [_frame_of(path) for path in (root / "images" / "val").iterdir()]
    limit = FPS * (SECONDS - HELD_OUT_S)
    assert train == list(range(0, int(limit), 2))
    assert written == len(train)
    assert held_out
    assert min(held_out) >= limit


def test_every_picture_has_the_labels_of_its_visible_vehicles(site: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    add_site(site, PictureWriter(root, SIZE), every=2)
    for split in ("train", "val"):
        for picture in (root / "images" / split).iterdir():
            text = (root / "labels" / split / f"{picture.stem}.txt").read_text(encoding="utf-8")
            assert text == "0 0.250000 0.500000 0.500000 0.500000"  # the van, a car to COCO; the truck is hidden


def test_a_real_clips_end_trains_nothing(tmp_path: Path) -> None:
    root = tmp_path / "set"
    clip = _clip(tmp_path / "street.mp4", 30)
    written = add_real_clip(
        clip, lambda _: detections([0, 0, 48, 32], class_id=5), PictureWriter(root, SIZE), pictures=7
    )
    frames = [_frame_of(path) for path in (root / "images" / "train").iterdir()]
    assert len(frames) == written <= 7
    assert max(frames) < 20
    lines = {path.read_text(encoding="utf-8") for path in (root / "labels" / "train").iterdir()}
    assert lines == {"2 0.250000 0.250000 0.500000 0.500000"}


def test_some_pictures_are_gray_and_no_label_changes(site: Path, tmp_path: Path) -> None:
    add_site(site, PictureWriter(tmp_path / "set", SIZE), every=1)
    description = json.loads(write_description(PictureWriter(tmp_path / "set", SIZE)).read_text(encoding="utf-8"))
    assert description["names"] == {"0": "car", "1": "motorcycle", "2": "bus", "3": "truck"}
    assert (Path(description["path"]) / description["train"]).is_dir()


def test_tiny_and_hidden_vehicles_are_not_learned() -> None:
    scene = truth([0, 0, 40, 40], [0, 0, 7, 40], [0, 0, 40, 40], visible=[1, 1, 0.2])
    learned = labels_of(scene, {0: "bus", 1: "bus", 2: "bus"})
    assert learned.boxes.tolist() == [[0, 0, 40, 40]]
    assert learned.classes.tolist() == [2]


def test_boxes_end_where_the_picture_ends() -> None:
    lines = yolo_lines(np.array([[-10, -10, 20, 20]], np.float32), np.array([3]), (40, 40))
    assert lines == ["3 0.250000 0.250000 0.500000 0.500000"]
