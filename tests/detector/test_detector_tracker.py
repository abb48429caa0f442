"""A tracker gives each vehicle one number of its own, and the boxes that were detected."""

from __future__ import annotations

import numpy as np
import pytest

from detector.detections import Detections
from detector.tracker import VehicleTracker
from tests.detector.detector_builders import detections

FRAME_RATE = 10.0


def _car(frame: int, lane: int = 0, speed: float = 6.0) -> list[float]:
    left, top = 20 + frame * speed, 50 + 100 * lane
    return [left, top, left + 60, top + 40]


def _numbers(tracker: VehicleTracker, frame: int, *lanes: int) -> list[int]:
    return sorted(vehicle.number for vehicle in tracker.update(detections(*(_car(frame, lane) for lane in lanes))))


def test_vehicles_that_drive_on_keep_their_numbers() -> None:
    tracker = VehicleTracker(frame_rate=FRAME_RATE)
    seen = [_numbers(tracker, frame, 0, 1, 2) for frame in range(40)]
    assert seen == [[1, 2, 3]] * 40


def test_trackers_know_nothing_of_each_other() -> None:
    first, second = (VehicleTracker(frame_rate=FRAME_RATE) for _ in range(2))
    for frame in range(10):
        assert _numbers(first, frame, 0, 1) == [1, 2]
        assert _numbers(second, frame, 2) == [1]
    assert _numbers(VehicleTracker(frame_rate=FRAME_RATE), 0, 0) == [1]
    assert _numbers(first, 10, 0, 1) == [1, 2]


def test_the_boxes_are_those_of_the_detector() -> None:
    tracker = VehicleTracker(frame_rate=FRAME_RATE)
    rng = np.random.default_rng(0)
    for frame in range(30):
        boxes = np.array([_car(frame, lane) for lane in range(3)]) + rng.normal(0, 2, (3, 4))
        given = detections(*boxes.tolist(), confidence=0.7, class_id=7)
        found = tracker.update(given)
        assert len(found) == 3
        for vehicle in found:
            assert vehicle.box.tolist() in given.boxes.tolist()
            assert vehicle.confidence == pytest.approx(0.7)
            assert vehicle.vehicle_class == "truck"


@pytest.mark.parametrize(("missed_s", "number"), [(1.0, 1), (4.0, 2)])
def test_a_vehicle_is_remembered_for_a_while(missed_s: float, number: int) -> None:
    tracker = VehicleTracker(frame_rate=FRAME_RATE, max_seconds_lost=2.0)
    for _ in range(10):
        tracker.update(detections(_car(0)))
    for _ in range(round(missed_s * FRAME_RATE)):
        assert tracker.update(Detections.empty()) == []
    tracker.update(detections(_car(0)))
    (vehicle,) = tracker.update(detections(_car(0)))
    assert vehicle.number == number


def test_a_single_false_box_is_no_vehicle() -> None:
    tracker = VehicleTracker(frame_rate=FRAME_RATE)
    tracker.update(Detections.empty())
    assert tracker.update(detections(_car(0))) == []
    for _ in range(30):
        assert tracker.update(Detections.empty()) == []
    tracker.update(detections(_car(0, lane=2)))
    assert _numbers(tracker, 1, 2) == [1]


def test_a_weak_detection_keeps_a_vehicle_and_starts_none() -> None:
    tracker = VehicleTracker(frame_rate=FRAME_RATE)
    for frame in range(5):
        tracker.update(detections(_car(frame)))
    for frame in range(5, 15):
        given = detections(_car(frame), _car(frame, lane=3), confidence=0.3)
        assert [vehicle.number for vehicle in tracker.update(given)] == [1]


def test_what_is_hardly_there_is_not_looked_at() -> None:
    tracker = VehicleTracker(frame_rate=FRAME_RATE)
    for frame in range(5):
        tracker.update(detections(_car(frame)))
    assert tracker.update(detections(_car(5), confidence=0.2)) == []


def test_no_number_is_given_twice() -> None:
    tracker = VehicleTracker(frame_rate=FRAME_RATE, max_seconds_lost=0.5)
    begun: list[int] = []
    for _ in range(20):
        now = {vehicle.number for frame in range(5) for vehicle in tracker.update(detections(_car(frame)))}
        begun += sorted(now)
        for _ in range(10):
            tracker.update(Detections.empty())
    assert begun == list(range(1, 21))


def test_a_frame_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="frame_rate"):
        VehicleTracker(frame_rate=0)
