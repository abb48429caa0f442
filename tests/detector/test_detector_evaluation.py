"""The evaluation's rule, worked by hand."""

from __future__ import annotations

import math

import numpy as np

from detector.evaluation import Counts, count, judged, match
from tests.detector.detector_builders import detections, truth

CAR = [0, 0, 40, 40]
SHIFTED = [10, 0, 50, 40]  # overlaps CAR by 30/50 = 0.6
FAR = [200, 200, 240, 240]


def test_matches_are_one_to_one_and_as_many_as_possible() -> None:
    # Greedy matching of the first box to its best truth would leave the second box without one.
    boxes = detections([5, 0, 45, 40], [0, 0, 40, 40]).boxes
    truths = detections([0, 0, 40, 40], [15, 0, 55, 40]).boxes
    assert match(boxes, truths) == Counts(truths=2, boxes=2, matches=2)


def test_recall_precision_and_f1() -> None:
    counts = match(detections(CAR, FAR).boxes, detections(SHIFTED).boxes)
    assert (counts.recall, counts.precision, counts.f1) == (1.0, 0.5, 2 / 3)
    assert match(detections(CAR).boxes, detections(SHIFTED).boxes, min_iou=0.7).matches == 0


def test_nothing_to_count_is_not_a_success() -> None:
    nothing = match(detections().boxes, detections().boxes)
    assert all(math.isnan(figure) for figure in (nothing.recall, nothing.precision, nothing.f1))


def test_hidden_truncated_and_small_vehicles_do_not_count() -> None:
    scene = truth(CAR, CAR, CAR, [0, 0, 40, 23], FAR, visible=[0.49, 1, 0.5, 1, 1], truncated=[0, 0.51, 0.5, 0, 0])
    assert scene.counted.tolist() == [False, False, True, False, True]


def test_a_box_on_what_does_not_count_is_no_mistake() -> None:
    scene = truth(CAR, FAR, visible=[0.2, 1])
    assert judged(detections(SHIFTED, FAR, [500, 500, 540, 540]).boxes, scene).tolist() == [False, True, True]
    assert count(detections(SHIFTED, FAR).boxes, scene) == Counts(truths=1, boxes=1, matches=1)


def test_a_box_on_both_counts() -> None:
    scene = truth(CAR, [5, 0, 45, 40], visible=[0.2, 1])
    assert count(detections(CAR).boxes, scene) == Counts(truths=1, boxes=1, matches=1)


def test_counts_add_up() -> None:
    total = sum([Counts(1, 2, 1), Counts(3, 2, 1)], Counts())
    assert total == Counts(truths=4, boxes=4, matches=2)
    assert np.isclose(total.f1, 0.5)
