"""A YOLO training set from rendered sites with truth, and from real clips that a model has labelled.

Every picture is letterboxed once to the size the network will see, so that training batches all have one shape
and decoding costs little. The last part of every clip is never trained on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from detector.detections import COCO_VEHICLES, VehicleClass
from detector.letterbox import Letterbox
from detector.truth import frame_count, frames_of, read_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from detector.detections import Detections
    from detector.truth import FrameTruth

    Label = Callable[[NDArray[np.uint8]], Detections]

#: Class numbers of the trained head, in this order.
TRAINED_CLASSES = tuple(VehicleClass)

#: What COCO calls each body of the rendered sites; van and pickup are what zero-shot YOLO11n mostly calls them.
COCO_CLASS_OF_BODY = {
    "hatchback": VehicleClass.CAR,
    "sedan": VehicleClass.CAR,
    "suv": VehicleClass.CAR,
    "wagon": VehicleClass.CAR,
    "van": VehicleClass.CAR,
    "pickup": VehicleClass.CAR,
    "motorcycle": VehicleClass.MOTORCYCLE,
    "bus": VehicleClass.BUS,
    "truck": VehicleClass.TRUCK,
    "boxtruck": VehicleClass.TRUCK,
    "flatbed": VehicleClass.TRUCK,
}

#: Seconds at the end of each rendered site that only validation sees.
HELD_OUT_S = 20.0
#: Part of each real clip, from its start, that may be trained on.
TRAINED_PART_OF_CLIP = 2 / 3
#: Vehicles less visible or smaller than this are not shown to the network as vehicles.
MIN_VISIBLE = 0.3
MIN_SIDE_PX = 8.0
#: Every so many pictures one is written gray, so that colour is never what makes a vehicle.
GRAY_EVERY = 3


@dataclass(frozen=True, slots=True)
class LabelledBoxes:
    """What a picture shows: boxes (N, 4) xyxy in source pixels, and indices (N,) into `TRAINED_CLASSES`."""

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PictureWriter:
    """Writes letterboxed pictures and their YOLO label files.

    Attributes:
        root: Folder that gets `images/SPLIT` and `labels/SPLIT`.
        size: (height, width) of every picture.
    """

    root: Path
    size: tuple[int, int]

    def write(self, split: str, name: str, image: NDArray[np.uint8], labels: LabelledBoxes) -> None:
        """Write one picture (H, W, 3), RGB, with its labels."""
        place = Letterbox.fit((image.shape[0], image.shape[1]), self.size)
        canvas = np.empty((*self.size, 3), np.uint8)
        place.draw(image, canvas)
        pictures, texts = self.root / "images" / split, self.root / "labels" / split
        pictures.mkdir(parents=True, exist_ok=True)
        texts.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(pictures / f"{name}.jpg"), canvas[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        lines = yolo_lines(place.from_source(labels.boxes), labels.classes, self.size)
        (texts / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")


def add_site(site: Path, writer: PictureWriter, *, every: int) -> int:
    """Write every `every`-th frame of a rendered site's cameras; of the last `HELD_OUT_S`, half as many, to `val`.

    Returns:
        How many pictures were written for training.
    """
    truth = read_site(site)
    first_held_out = round((truth.duration_s - HELD_OUT_S) * truth.fps)
    written = 0
    for clip in sorted(site.glob("*.mp4")):
        for frame, image in frames_of(clip, every=every):
            split = "train" if frame < first_held_out else "val"
            if split == "val" and frame % (2 * every):
                continue
            labels = labels_of(truth.at(clip.stem, frame), truth.bodies)
            shown = _sometimes_gray(image, frame // every)
            writer.write(split, f"{site.name}_{clip.stem}_{frame:05d}", shown, labels)
            written += split == "train"
    return written


def add_real_clip(clip: Path, label: Label, writer: PictureWriter, *, pictures: int) -> int:
    """Write at most `pictures` frames of the first two thirds of a clip, labelled by `label`.

    Returns:
        How many pictures were written.
    """
    usable = int(frame_count(clip) * TRAINED_PART_OF_CLIP)
    every = max(1, -(-usable // pictures))
    written = 0
    for frame, image in frames_of(clip, every=every):
        if frame >= usable:
            break
        found = label(image)
        classes = [TRAINED_CLASSES.index(COCO_VEHICLES[int(number)]) for number in found.class_ids]
        labels = LabelledBoxes(found.boxes, np.array(classes, np.int64))
        writer.write("train", f"{clip.stem}_{frame:05d}", _sometimes_gray(image, written), labels)
        written += 1
    return written


def write_description(writer: PictureWriter) -> Path:
    """Write the data.yaml that tells Ultralytics where the pictures are and what the classes are called."""
    description = {
        "path": str(writer.root.resolve()),
        "train": "images/train",
        "val": "images/val",
        "names": {number: str(name) for number, name in enumerate(TRAINED_CLASSES)},
    }
    path = writer.root / "data.yaml"
    path.write_text(json.dumps(description), encoding="utf-8")  # JSON is YAML
    return path


def labels_of(truth: FrameTruth, bodies: dict[int, str]) -> LabelledBoxes:
    """The vehicles of a frame that are worth learning: visible enough and not tiny."""
    sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
    learned = (truth.visible >= MIN_VISIBLE) & (sides.min(axis=1, initial=np.inf) >= MIN_SIDE_PX)
    names = [COCO_CLASS_OF_BODY[bodies[int(vehicle)]] for vehicle in truth.vehicles[learned]]
    classes = np.array([TRAINED_CLASSES.index(name) for name in names], np.int64)
    return LabelledBoxes(truth.boxes[learned], classes)


def yolo_lines(boxes: NDArray[np.float32], classes: NDArray[np.int64], size: tuple[int, int]) -> list[str]:
    """Boxes in a picture of `size` (height, width) as YOLO's text: class, centre, size, in parts of the picture."""
    limits = np.array([size[1], size[0]] * 2, np.float32)
    inside = np.clip(boxes, 0, limits) / limits
    centres, sides = (inside[:, :2] + inside[:, 2:]) / 2, inside[:, 2:] - inside[:, :2]
    return [
        f"{number} {x:.6f} {y:.6f} {w:.6f} {h:.6f}"
        for number, (x, y), (w, h) in zip(classes, centres, sides, strict=True)
    ]


def _sometimes_gray(image: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    if count % GRAY_EVERY:
        return image
    return np.repeat(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[..., None], 3, axis=2)
