"""A detector answers in the pictures' own pixels, in COCO's numbers, and says clearly when it cannot be had."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from detector.detections import COCO_VEHICLES, Detections
from detector.evaluation import match
from detector.suppression import overlaps
from detector.truth import frames_of
from detector.yolo import DetectorError, VehicleDetector
from tests.detector.detector_builders import COCO_NAMES, VEHICLE_NAMES, model_that_answers, raw_output

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "weights" / "yolo11n-vehicles_int8_openvino_model"
SHIPPED_TORCH = ROOT / "weights" / "yolo11n-vehicles.pt"
CLIPS = ROOT / "tests" / "data" / "site"
GRAY = np.full((64, 64, 3), 114, np.uint8)

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def shipped() -> VehicleDetector:
    return VehicleDetector(SHIPPED)


@pytest.fixture(scope="module")
def road() -> tuple[Image, NDArray[np.float32]]:
    """A demo picture with several vehicles in plain sight, and their boxes."""
    rows: dict[int, list[list[float]]] = {}
    with (CLIPS / "truth.csv").open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            box = [float(row[side]) for side in ("x1", "y1", "x2", "y2")]
            if row["camera"] == "cam1_rgb" and float(row["visible_fraction"]) > 0.9 and box[3] - box[1] > 40:
                rows.setdefault(int(row["frame"]), []).append(box)
    frame = max(rows, key=lambda number: len(rows[number]))
    image = next(image for number, image in frames_of(CLIPS / "cam1_rgb.mp4") if number == frame)
    return image, np.array(rows[frame], np.float32)


def _same(first: Detections, second: Detections) -> bool:
    return (
        np.array_equal(first.boxes, second.boxes)
        and np.array_equal(first.confidences, second.confidences)
        and np.array_equal(first.class_ids, second.class_ids)
    )


# --- What an output means.


@pytest.mark.parametrize(
    ("names", "car", "bus"), [(COCO_NAMES, 2, 5), (VEHICLE_NAMES, 0, 2)], ids=["COCO", "four classes"]
)
def test_classes_are_known_by_name_and_told_in_cocos_numbers(
    tmp_path: Path, names: dict[int, str], car: int, bus: int
) -> None:
    candidates = [((10, 10, 8, 8), car, 0.9), ((40, 40, 8, 8), bus, 0.8)]
    weights = model_that_answers(tmp_path / "x_openvino_model", raw_output(candidates, len(names)), names)
    (found,) = VehicleDetector(weights, image_size=None).detect([GRAY])
    assert found.class_ids.tolist() == [2, 5]
    assert found.boxes.tolist() == [[6, 6, 14, 14], [36, 36, 44, 44]]


def test_what_is_no_vehicle_is_not_told(tmp_path: Path) -> None:
    candidates = [((10, 10, 8, 8), 0, 0.9)]
    weights = model_that_answers(tmp_path / "x_openvino_model", raw_output(candidates, 80), COCO_NAMES)
    (found,) = VehicleDetector(weights, image_size=None).detect([GRAY])
    assert len(found) == 0


def test_one_vehicle_of_two_classes_is_one_vehicle(tmp_path: Path) -> None:
    candidates = [((10, 10, 8, 8), 0, 0.5), ((10, 10, 8, 8), 3, 0.6), ((40, 40, 8, 8), 0, 0.05)]
    weights = model_that_answers(tmp_path / "x_openvino_model", raw_output(candidates, 4), VEHICLE_NAMES)
    (found,) = VehicleDetector(weights, image_size=None).detect([GRAY])
    assert [COCO_VEHICLES[int(number)] for number in found.class_ids] == ["truck"]


def test_a_network_without_suppression_is_read_too(tmp_path: Path) -> None:
    rows = np.array([[6, 6, 14, 14, 0.9, 7], [0, 0, 9, 9, 0.9, 1], [36, 36, 44, 44, 0.5, 2]], np.float32)
    weights = model_that_answers(tmp_path / "x_openvino_model", rows, COCO_NAMES)
    (found,) = VehicleDetector(weights, image_size=None).detect([GRAY])
    assert found.class_ids.tolist() == [7, 2]
    assert found.boxes.tolist() == [[6, 6, 14, 14], [36, 36, 44, 44]]


def test_boxes_are_in_source_pixels_and_inside_the_picture(tmp_path: Path) -> None:
    candidates = [((32, 32, 16, 16), 0, 0.9), ((62, 32, 16, 16), 0, 0.8)]
    weights = model_that_answers(tmp_path / "x_openvino_model", raw_output(candidates, 4), VEHICLE_NAMES)
    # 128x64 in a square of 64: half the size, 16 gray rows above.
    (found,) = VehicleDetector(weights, image_size=None).detect([np.zeros((64, 128, 3), np.uint8)])
    assert found.boxes.tolist() == [[48, 16, 80, 48], [108, 16, 128, 48]]


# --- The shipped model.


def test_pictures_of_a_batch_do_not_see_each_other(
    shipped: VehicleDetector, road: tuple[Image, NDArray[np.float32]]
) -> None:
    image = road[0]
    others = [image, np.full((480, 640, 3), 90, np.uint8), np.ascontiguousarray(image[:, ::-1])] * 2
    for alone, together in zip(others, shipped.detect(others), strict=True):
        assert _same(shipped.detect([alone])[0], together)


def test_no_pictures_no_answers(shipped: VehicleDetector) -> None:
    assert shipped.detect([]) == []


def test_vehicles_in_plain_sight_are_found(shipped: VehicleDetector, road: tuple[Image, NDArray[np.float32]]) -> None:
    image, vehicles = road
    (found,) = shipped.detect([image])
    assert match(found.boxes, vehicles).recall == 1
    assert np.all(np.diff(found.confidences) <= 0)


def test_a_bigger_picture_of_the_same_has_bigger_boxes(
    shipped: VehicleDetector, road: tuple[Image, NDArray[np.float32]]
) -> None:
    image, _ = road
    doubled = np.asarray(cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)
    small, big = (found.boxes[found.confidences > 0.5] for found in shipped.detect([image, doubled]))
    assert len(small) == len(big) > 0
    assert overlaps(small * 2, big).max(axis=1).min() > 0.8


def test_torch_and_openvino_agree(road: tuple[Image, NDArray[np.float32]], shipped: VehicleDetector) -> None:
    (ours,), (theirs,) = shipped.detect([road[0]]), VehicleDetector(SHIPPED_TORCH).detect([road[0]])
    quantised, exact = (found.boxes[found.confidences > 0.5] for found in (ours, theirs))
    assert match(quantised, exact, min_iou=0.8).f1 == 1


# --- What cannot be had.


def test_a_missing_file_is_named_and_not_fetched() -> None:
    with pytest.raises(DetectorError, match=r"yolo11n-nowhere\.pt.*downloads are off"):
        VehicleDetector("yolo11n-nowhere.pt")


def test_a_file_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    weights = tmp_path / "holiday.pt"
    weights.write_bytes(b"not a checkpoint" * 100)
    with pytest.raises(DetectorError, match=r"holiday\.pt") as caught:
        VehicleDetector(weights)
    assert "\n" not in str(caught.value)


def test_a_folder_without_model_is_named(tmp_path: Path) -> None:
    weights = tmp_path / "empty_openvino_model"
    weights.mkdir()
    with pytest.raises(DetectorError, match="empty_openvino_model"):
        VehicleDetector(weights)


def test_a_broken_model_is_named(tmp_path: Path) -> None:
    weights = model_that_answers(tmp_path / "x_openvino_model", raw_output([], 4), VEHICLE_NAMES)
    (weights / "known.xml").write_text("<net", encoding="utf-8")
    with pytest.raises(DetectorError, match="x_openvino_model") as caught:
        VehicleDetector(weights)
    assert "\n" not in str(caught.value)


def test_a_model_that_knows_no_vehicle_is_refused(tmp_path: Path) -> None:
    weights = model_that_answers(tmp_path / "x_openvino_model", raw_output([], 2), {0: "cat", 1: "dog"})
    with pytest.raises(DetectorError, match=r"x_openvino_model: knows none of the classes car"):
        VehicleDetector(weights, image_size=None)


# --- What it costs besides.


@pytest.mark.parametrize(("weights", "loads_torch"), [(SHIPPED, False), (SHIPPED_TORCH, True)], ids=["int8", "torch"])
def test_no_socket_is_opened(weights: Path, loads_torch: bool) -> None:
    probe = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto'):\n"
        "        print('socket:', event, arguments)\n"
        "sys.addaudithook(watch)\n"
        "from detector.yolo import VehicleDetector\n"
        f"VehicleDetector({str(weights)!r}).warm_up()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(loads_torch)]
