"""One camera's detections, frame by frame -> numbered vehicles, by Ultralytics' OC-SORT.

`benchmarks/tracking.py` compares it with the other trackers of Ultralytics and of roboflow; `weights/detector.md` holds
the figures. Its numbers are kept apart per instance here, whatever counter the library uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.detections import COCO_VEHICLES, Detections, TrackedVehicle
from detector.quiet import quiet_libraries

if TYPE_CHECKING:
    from numpy.typing import NDArray


class VehicleTracker:
    """Tracks the vehicles of one camera. Not for use by two threads at once.

    A vehicle gets its number in the second frame that shows it (in the very first frame at once), so that a single
    false box never becomes a vehicle.

    Args:
        frame_rate: Updates per second: every decoded frame is one, also those that were skipped or dropped.
        max_seconds_lost: A vehicle unseen for longer gets a new number when it comes back.
        min_confidence: Weaker detections are not looked at.
        min_new_confidence: What it takes to begin a new vehicle.
        max_distance: Greatest cost of a match: 1 - IoU (weighted by confidence) between where a vehicle is
            expected and found, plus a fifth of how far its direction turns.

    Raises:
        ValueError: The frame rate is not positive.
    """

    def __init__(
        self,
        *,
        frame_rate: float,
        max_seconds_lost: float = 2.0,
        min_confidence: float = 0.25,
        min_new_confidence: float = 0.4,
        max_distance: float = 0.8,
    ) -> None:
        if frame_rate <= 0:
            raise ValueError(f"frame_rate must be positive, got {frame_rate}")
        quiet_libraries()
        from ultralytics.trackers.oc_sort import OCSORT

        settings = SimpleNamespace(
            track_high_thresh=min_confidence,
            track_low_thresh=min_confidence,
            new_track_thresh=min_new_confidence,
            track_buffer=max(1, round(frame_rate * max_seconds_lost)),
            match_thresh=max_distance,
            fuse_score=True,
            delta_t=3,
            inertia=0.2,
            use_byte=False,
        )
        self._tracker: Any = OCSORT(settings)
        self._numbers: dict[int, int] = {}
        self._next_number = 1

    def update(self, detections: Detections) -> list[TrackedVehicle]:
        """Take the next frame's detections; a frame that was skipped or dropped is `Detections.empty()`.

        Returns:
            The vehicles seen in this frame, each with the box that was detected, not the one that was expected.
        """
        self._tracker.update(_LibraryBoxes.of(detections))
        seen = [
            track
            for track in self._tracker.tracked_stracks
            if track.is_activated and track.frame_id == self._tracker.frame_id
        ]
        self._forget_removed()
        return [self._tracked(track, detections) for track in seen]

    def _tracked(self, track: Any, detections: Detections) -> TrackedVehicle:  # noqa: ANN401  # untyped library
        if track.track_id not in self._numbers:
            self._numbers[track.track_id] = self._next_number
            self._next_number += 1
        index = int(track.idx)
        return TrackedVehicle(
            number=self._numbers[track.track_id],
            box=detections.boxes[index],
            confidence=float(detections.confidences[index]),
            vehicle_class=COCO_VEHICLES[int(detections.class_ids[index])],
        )

    def _forget_removed(self) -> None:
        """Drop the numbers of vehicles that are gone, so that a year of traffic does not fill the memory."""
        alive = {track.track_id for track in (*self._tracker.tracked_stracks, *self._tracker.lost_stracks)}
        self._numbers = {track: number for track, number in self._numbers.items() if track in alive}


@dataclass(frozen=True, slots=True)
class _LibraryBoxes:
    """`Detections` as the library's trackers read them."""

    xywh: NDArray[np.float32]
    conf: NDArray[np.float32]
    cls: NDArray[np.int64]

    @classmethod
    def of(cls, detections: Detections) -> _LibraryBoxes:
        low, high = detections.boxes[:, :2], detections.boxes[:, 2:]
        xywh = np.concatenate([(low + high) / 2, high - low], axis=1)
        return cls(xywh, detections.confidences, detections.class_ids)

    def __len__(self) -> int:
        return len(self.conf)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> _LibraryBoxes:
        return _LibraryBoxes(self.xywh[chosen], self.conf[chosen], self.cls[chosen])
