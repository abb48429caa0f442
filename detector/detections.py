"""The values that leave this room: `Detections` of one image and the `TrackedVehicle` of one frame."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class VehicleClass(StrEnum):
    """The four road vehicles of COCO, by COCO's names and meaning (a van or pickup is what COCO calls it)."""

    CAR = "car"
    MOTORCYCLE = "motorcycle"
    BUS = "bus"
    TRUCK = "truck"


#: COCO's class ids of the vehicles that we keep; `Detections.class_ids` holds these numbers.
COCO_VEHICLES: dict[int, VehicleClass] = {
    2: VehicleClass.CAR,
    3: VehicleClass.MOTORCYCLE,
    5: VehicleClass.BUS,
    7: VehicleClass.TRUCK,
}


@dataclass(frozen=True, slots=True)
class Detections:
    """Vehicles found in one image, most confident first.

    Attributes:
        boxes: (N, 4) float32, xyxy in source pixels, half-open.
        confidences: (N,) float32 in 0-1.
        class_ids: (N,) int64, keys of `COCO_VEHICLES`.
    """

    boxes: NDArray[np.float32]
    confidences: NDArray[np.float32]
    class_ids: NDArray[np.int64]

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or self.boxes.dtype != np.float32:
            raise ValueError(f"boxes must be (N, 4) float32, got {self.boxes.shape} {self.boxes.dtype}")
        if self.confidences.shape != (count,):
            raise ValueError(f"confidences must be ({count},), got {self.confidences.shape}")
        if self.class_ids.shape != (count,):
            raise ValueError(f"class_ids must be ({count},), got {self.class_ids.shape}")

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls) -> Detections:
        """An image without vehicles."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class TrackedVehicle:
    """One tracked vehicle as seen in one frame of one camera.

    Attributes:
        number: The tracker's number for this vehicle, from 1, unique within one tracker instance.
        box: (4,) float32, xyxy in source pixels, half-open, as detected in this frame.
        confidence: Of this frame's detection, 0-1.
        vehicle_class: The detector's class in this frame.
    """

    number: int
    box: NDArray[np.float32]
    confidence: float
    vehicle_class: VehicleClass
