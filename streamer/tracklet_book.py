"""The tracklets of one camera session: which crops are asked for, and which sightings are made of them.

Decisions follow from frames and event time alone. An answer of the embedder only releases what was decided long before,
so that a file gives the same sightings however slow the embedder was.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import cv2
import numpy as np

from streamer.blur import blurred_crop
from streamer.crops import Scene, VehicleCrop, cut, encode_crop, geometric_qualities, sharpness
from streamer.sightings import EndReason, SightingKind
from streamer.tracklets import AskedCrop, Draft, Moment, SessionKey, Tracklet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from detector.detections import TrackedVehicle
    from streamer.config import CameraConfig, CropsConfig
    from streamer.crops import Choice
    from streamer.sightings import Sighting

#: A tracker counts frames where a book counts seconds; the slack keeps the book from ending what the tracker still has.
LOST_SLACK_S = 0.2
#: A vehicle without any usable crop is told of after this long.
FIRST_WITHOUT_CROP_S = 3.0

_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BookRules:
    """What is followed, and for how long.

    Attributes:
        crops: When crops are chosen, and how they are encoded.
        max_seconds_lost: A vehicle not seen for longer has left.
        min_box_height_px: Lower boxes are not followed.
        ignore: Polygons (N, 2) in source pixels; boxes whose bottom centre lies inside one are not followed.
        blur: Whether pictures for people are blurred where windows and plates are; the embedder sees them as they are.
    """

    crops: CropsConfig
    max_seconds_lost: float
    min_box_height_px: int = 1
    ignore: tuple[NDArray[np.float32], ...] = ()
    blur: bool = False

    @classmethod
    def of_camera(
        cls, camera: CameraConfig, crops: CropsConfig, max_seconds_lost: float, *, blur: bool = False
    ) -> BookRules:
        """The rules of one camera."""
        polygons = tuple(np.array(polygon, np.float32) for polygon in camera.ignore)
        return cls(crops, max_seconds_lost, camera.min_box_height_px, polygons, blur)

    def follows(self, box: NDArray[np.float32]) -> bool:
        """Whether a vehicle with this box is followed."""
        if box[3] - box[1] < self.min_box_height_px:
            return False
        foot = (float(box[0] + box[2]) / 2, float(box[3]))
        return all(cv2.pointPolygonTest(polygon, foot, measureDist=False) < 0 for polygon in self.ignore)


@dataclass(frozen=True, slots=True)
class Question:
    """A crop for the embedder; `TrackletBook.answer` wants its id back.

    Attributes:
        id: The book's.
        image: (h, w, 3) uint8 RGB.
        modality: The band of the crop.
        is_best: Whether it is its tracklet's best so far in that band, and so may be the one whose points are told.
    """

    id: int
    image: NDArray[np.uint8]
    modality: str
    is_best: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """A file for `crops_dir`, by its path below it."""

    path: str
    jpeg: bytes


class TrackletBook:
    """All tracklets of one camera session.

    Args:
        key: Whose they are.
        rules: What is followed.
        model_id: The embedder that answers.
    """

    def __init__(self, key: SessionKey, rules: BookRules, model_id: str) -> None:
        self.key, self._rules, self._model_id = key, rules, model_id
        #: Tracklets so far, and those of them that ended without ever being told of.
        self.begun = 0
        self.ignored = 0
        self._open: dict[int, Tracklet] = {}
        self._last_number = 0
        #: Vehicles that are not followed, by the tracker's number: when they were last seen.
        self._outside: dict[int, float] = {}
        self._now: Moment | None = None
        self._asked: dict[int, AskedCrop] = {}
        self._next_question = 0
        self._questions: list[Question] = []
        self._pictures: list[Picture] = []
        self._drafts: deque[Draft] = deque()

    def observe(
        self,
        moment: Moment,
        image: NDArray[np.uint8],
        vehicles: Sequence[TrackedVehicle],
        *,
        detected: NDArray[np.float32] | None = None,
    ) -> None:
        """A frame that the detector saw.

        Args:
            moment: When it was, and what light made it; later than all before.
            image: (H, W, 3) uint8 RGB; it may be kept, so it must not be written to afterwards.
            vehicles: What the tracker made of it.
            detected: (N, 4) float32 xyxy, what the detector found: where it is to be blurred, a vehicle that the
                tracker doesn't follow is too.
        """
        self._now = moment
        self._end_lost(moment)
        if not vehicles:
            return
        boxes = np.stack([vehicle.box for vehicle in vehicles])
        confidences = np.array([vehicle.confidence for vehicle in vehicles], np.float32)
        bounds = geometric_qualities(boxes, confidences, image.shape[:2])
        hidden = boxes if detected is None else np.concatenate([boxes, detected])
        crops = self._rules.crops
        scene = Scene(image, crops.context_width_px, crops.jpeg_quality, hidden if self._rules.blur else None)
        for vehicle, bound in zip(vehicles, bounds, strict=True):
            if not self._rules.follows(vehicle.box):
                self._see_outside(moment, vehicle)
                continue
            tracklet = self._tracklet(moment, vehicle)
            tracklet.see(moment, vehicle)
            self._offer(tracklet, vehicle.box, float(bound), image, scene)
            self._decide(tracklet)

    def skip(self, moment: Moment) -> None:
        """A frame that was dropped, or in which nothing moved: only time goes on."""
        self._now = moment
        self._end_lost(moment)

    def finish(self, reason: EndReason) -> None:
        """Ends every open tracklet."""
        for number in list(self._open):
            self._end(number, reason)

    def answer(self, question_id: int, vector: NDArray[np.float32] | None, tokens: bytes | None = None) -> None:
        """The embedder's answer: a (D,) unit vector, or None for a crop that was dropped. Unknown ids are an error."""
        self._asked.pop(question_id).answer(vector, tokens)

    def take_questions(self) -> list[Question]:
        """Crops to be embedded, in order; each is given once."""
        questions, self._questions = self._questions, []
        return questions

    def take_pictures(self) -> list[Picture]:
        """Pictures to be stored; a later one of the same path replaces the earlier."""
        pictures, self._pictures = self._pictures, []
        return pictures

    def take_sightings(self) -> list[Sighting]:
        """Sightings whose crops are all answered; in order for each tracklet."""
        ready: list[Sighting] = []
        waiting: deque[Draft] = deque()
        blocked: set[int] = set()
        for draft in self._drafts:
            if draft.sighting.number in blocked or not draft.is_ready:
                blocked.add(draft.sighting.number)
                waiting.append(draft)
            else:
                ready.append(draft.complete())
        self._drafts = waiting
        return ready

    @property
    def is_settled(self) -> bool:
        """Whether nothing is open, asked or waiting."""
        return not (self._open or self._asked or self._drafts or self._questions)

    @property
    def watermark(self) -> datetime | None:
        """Event time up to which nothing more will come, once what `take_sightings` gave is published.

        Whatever is open may end without being seen again, and its end then speaks of the moment when it was last seen.
        """
        if self._now is None:
            return None
        held = [item.last.captured_at for item in self._open.values()]
        held += [draft.sighting.occurred_at for draft in self._drafts]
        return min([self._now.captured_at, *(moment - _INSTANT for moment in held)])

    def _see_outside(self, moment: Moment, vehicle: TrackedVehicle) -> None:
        if vehicle.number not in self._open:
            self._outside[vehicle.number] = moment.time_s

    def _tracklet(self, moment: Moment, vehicle: TrackedVehicle) -> Tracklet:
        tracklet = self._open.get(vehicle.number)
        if tracklet is None:
            self._outside.pop(vehicle.number, None)
            # Numbered here, not by the tracker, which may find a vehicle again after the book has closed it.
            self.begun += 1
            self._last_number += 1
            tracklet = self._open[vehicle.number] = Tracklet(self._last_number, moment, self._rules.crops)
        return tracklet

    def _offer(
        self, tracklet: Tracklet, box: NDArray[np.float32], bound: float, image: NDArray[np.uint8], scene: Scene
    ) -> None:
        moment = tracklet.last
        wanted = tracklet.selector.wanted_quality(moment.modality, box)
        if bound <= wanted or box[3] - box[1] < self._rules.crops.min_height_px:
            return
        view = cut(image, box)
        quality = bound * sharpness(view)
        if quality > wanted:
            x1, y1, x2, y2 = box.tolist()
            crop = VehicleCrop(
                view.copy(), quality, moment.captured_at, moment.modality, (x1, y1, x2, y2), scene.hold()
            )
            tracklet.selector.offer(crop)

    def _decide(self, tracklet: Tracklet) -> None:
        if not tracklet.is_confirmed:
            return
        now_s = tracklet.last.time_s
        choice = tracklet.selector.choose(now_s)
        asked = None if choice is None else self._ask(tracklet, choice)
        if tracklet.sequence == 0:
            if asked is not None or now_s - tracklet.started.time_s >= FIRST_WITHOUT_CROP_S:
                self._say(tracklet, SightingKind.FIRST, asked)
        elif choice is not None and choice.is_better:
            self._say(tracklet, SightingKind.UPDATE, asked)
        elif tracklet.is_update_due:
            self._say(tracklet, SightingKind.UPDATE, None)

    def _ask(self, tracklet: Tracklet, choice: Choice) -> AskedCrop:
        crop = choice.crop
        picture = blurred_crop(crop.image, whole=crop.scene.cuts(crop.box)) if self._rules.blur else crop.image
        asked = AskedCrop.of(crop, encode_crop(picture, self._rules.crops.jpeg_quality))
        is_best = not tracklet.has_better_than(crop)
        tracklet.crops.append(asked)
        self._asked[self._next_question] = asked
        self._questions.append(Question(self._next_question, crop.image, crop.modality, is_best))
        self._next_question += 1
        if choice.is_better:
            path = f"context/{self.key.camera}/{self.key.session}/{tracklet.number}.jpg"
            self._pictures.append(Picture(path, crop.scene.jpeg()))
            tracklet.context_image = path
        return asked

    def _say(self, tracklet: Tracklet, kind: SightingKind, asked: AskedCrop | None) -> None:
        crops = () if asked is None else (asked,)
        self._drafts.append(Draft(tracklet.say(kind, self.key), crops, self._model_id))

    def _end_lost(self, moment: Moment) -> None:
        limit_s = moment.time_s - self._rules.max_seconds_lost - LOST_SLACK_S
        for number in [number for number, item in self._open.items() if item.last.time_s < limit_s]:
            self._end(number, EndReason.LEFT)
        for number in [number for number, seen_s in self._outside.items() if seen_s < limit_s]:
            del self._outside[number]
            self.begun += 1
            self.ignored += 1

    def _end(self, number: int, reason: EndReason) -> None:
        tracklet = self._open.pop(number)
        if not tracklet.is_confirmed:
            self.ignored += 1
            return
        choice = tracklet.selector.choose_last(tracklet.last.time_s)
        asked = None if choice is None else self._ask(tracklet, choice)
        if tracklet.sequence == 0:
            self._say(tracklet, SightingKind.FIRST, asked)
        self._drafts.append(
            Draft(tracklet.say(SightingKind.END, self.key, reason), tuple(tracklet.crops), self._model_id)
        )
