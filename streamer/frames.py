"""What a camera hands on: `Frame` while it runs, `SessionEnd` when a connection is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    from reid.modality import Modality
    from streamer.sightings import EndReason


class Picture(Protocol):
    """Pixels that are converted when asked for, once. Not for two threads at a time."""

    def luma(self) -> NDArray[np.uint8]:
        """(H, W) brightness, C-contiguous; to be read only."""
        ...

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB, C-contiguous."""
        ...


class ArrayPicture:
    """A picture that is an array already; for pictures made rather than decoded."""

    __slots__ = ("_image",)

    def __init__(self, image: NDArray[np.uint8]) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"picture: wanted (H, W, 3) uint8, got {image.shape} {image.dtype}")
        self._image = np.ascontiguousarray(image)

    def luma(self) -> NDArray[np.uint8]:
        """(H, W) brightness by ITU-R BT.601."""
        return cv2.cvtColor(self._image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB, the array itself."""
        return self._image


@dataclass(slots=True)
class Frame:
    """One decoded frame.

    Attributes:
        camera: The camera's id.
        session: One connection of that camera; a file's is stable across replays.
        index: 0-based, of the decoded source frame in its session, counting those skipped or dropped.
        captured_at: Aware UTC; never falls within a session.
        modality: The sensor's band at that moment.
        width: Pixels; may change within a session.
        height: Pixels; may change within a session.
        picture: The pixels.
    """

    camera: str
    session: str
    index: int
    captured_at: datetime
    modality: Modality
    width: int
    height: int
    picture: Picture

    def luma(self) -> NDArray[np.uint8]:
        """(H, W) uint8 brightness, C-contiguous, to be read only: a view of the decoder's Y plane where there is one.

        Limited-range video keeps its range (16-235): the values serve to compare frames, not to show them.
        """
        return self.picture.luma()

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB uint8, C-contiguous; converted on the first call, then kept."""
        return self.picture.image()


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """A connection is over; every track of the session ends here.

    Attributes:
        camera: The camera's id.
        session: The session that is over; it may have had no frame.
        reason: `source_ended` for a file read to its end, `disconnected` for everything else.
        is_final: Nothing more will come from this camera: a file that ended, broke off or can't be opened.
        message: One line that names the source, its password masked, and says what happened.
    """

    camera: str
    session: str
    reason: EndReason
    is_final: bool
    message: str
