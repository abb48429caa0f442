"""Searching by looks as a person does: with a picture, or a part of it, or with a stop that is known."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from reid.modality import Modality
from storage.explanation import explain
from storage.likeness import LikenessFilter
from web.uploads import MIN_SIDE, read_picture

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    from storage.likeness import Likeness
    from web.callers import Caller
    from web.services import Services

#: Vehicles that a search answers with.
LIMIT = 50
#: A picture is shown to whoever sent it with so many pixels at most each way.
PREVIEW_SIDE = 960
#: By so much the channels of a grey picture differ on average, 0-255: what a JPEG makes of grey.
_GREY = 3.0


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a picture, as fractions of its width and height from its upper left corner."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(h, w, 3) -> what lies inside, `MIN_SIDE` pixels at least where the picture has them."""
        height, width = image.shape[:2]
        left, right = _bounds(self.left, self.right, width)
        top, bottom = _bounds(self.top, self.bottom, height)
        return np.ascontiguousarray(image[top:bottom, left:right])


#: All of a picture.
WHOLE = Part()


def _bounds(first: float, last: float, size: int) -> tuple[int, int]:
    low, high = sorted((min(max(first, 0.0), 1.0), min(max(last, 0.0), 1.0)))
    begin = min(int(low * size), max(size - MIN_SIDE, 0))
    return begin, min(max(round(high * size), begin + MIN_SIDE), size)


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """A picture that somebody sent.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        band: That it may be of.
        preview: An address that carries it, made small.
    """

    image: NDArray[np.uint8]
    band: Modality
    preview: str


@dataclass(frozen=True, slots=True)
class KnownStop:
    """A stop that a search begins with.

    Attributes:
        tracklet_id: Its whole id.
        vehicle_id: Whose it is by now; None while it has none.
        camera: Where.
        started_at: First frame.
        crop_images: Its pictures, below the crop store.
    """

    tracklet_id: str
    vehicle_id: str | None
    camera: str
    started_at: datetime
    crop_images: tuple[str, ...]


def band_guess(image: NDArray[np.uint8]) -> Modality:
    """The band that a picture (h, w, 3) may be of: without colours near infrared. Thermal pictures are grey too."""
    spread = image.max(axis=2).astype(np.int16) - image.min(axis=2)
    return Modality.NEAR_INFRARED if float(spread.mean()) < _GREY else Modality.VISIBLE


def received(data: bytes, *, max_bytes: int, max_pixels: int) -> Sent:
    """A picture of a file that somebody sent; bounds and errors as of `read_picture`."""
    image = read_picture(data, max_bytes=max_bytes, max_pixels=max_pixels)
    picture = Image.fromarray(image)
    picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=88)
    address = f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"
    return Sent(image, band_guess(image), address)


def known_stop(services: Services, caller: Caller, tracklet_id: str) -> KnownStop:
    """The stop of that id, or of a part of it.

    Raises:
        TrackletNotFoundError: None, several, or one that the caller may not see.
    """
    with services.asking(caller, "tracklet", tracklet_id) as session:
        found = explain(session, tracklet_id, visible=caller.cameras)
    vehicle_id = found.decisions[0].said.vehicle_id if found.decisions else None
    crops = found.crops.get(found.tracklet_id, ())
    return KnownStop(found.tracklet_id, vehicle_id, found.camera, found.started_at, tuple(crops))


def like_picture(
    services: Services, caller: Caller, image: NDArray[np.uint8], modality: Modality, *, chosen: LikenessFilter
) -> list[Likeness]:
    """Vehicles that look like the one in a picture (h, w, 3) RGB, most alike first. The picture is not kept.

    Raises:
        StorageError: Pictures can't be described, looks can't be compared, or the database can't be read.
    """
    with services.searching():
        # Before the session: the first time it takes longer than a server lets a transaction stand still.
        vector, model_id = services.pictures.describe(image, modality)
        with services.asking(caller, "similar", "", picture=modality.value, **_told(chosen)) as session:
            return services.likeness.similar_to_vector(
                session, vector, modality.value, model_id, chosen=chosen, limit=LIMIT
            )


def like_tracklet(services: Services, caller: Caller, tracklet_id: str, *, chosen: LikenessFilter) -> list[Likeness]:
    """Vehicles that look like a stop's, most alike first; its own is left out.

    Raises:
        StorageError: As `like_picture`; and where no such stop is for the caller to see.
    """
    with services.searching(), services.asking(caller, "similar", tracklet_id, **_told(chosen)) as session:
        return services.likeness.similar_to_tracklet(session, tracklet_id, chosen=chosen, limit=LIMIT)


def _told(chosen: LikenessFilter) -> dict[str, str]:
    """What was filtered by, as it is noted; of the caller's own cameras nothing."""
    values = {field.name: getattr(chosen, field.name) for field in fields(LikenessFilter) if field.name != "visible"}
    return {name: str(value) for name, value in values.items() if value is not None}
