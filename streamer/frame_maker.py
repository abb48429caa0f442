"""Makes a camera's frames of what its decoder gives."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reid.modality import Modality
from streamer.frames import Frame
from streamer.modality_sensor import IrCutSensor, chroma_spread
from streamer.pictures import ThermalPicture, VideoPicture, chroma, gray16, is_gray16
from streamer.thermal import ThermalAgc

if TYPE_CHECKING:
    import av

    from streamer.config import CameraConfig
    from streamer.frames import Picture


class FrameMaker:
    """Makes frames of what one camera's decoder gives: senses the band, and sets the thermal range.

    Args:
        camera: Whose frames they are.
    """

    def __init__(self, camera: CameraConfig) -> None:
        self._camera = camera
        self._sensor = IrCutSensor()
        self._agc = ThermalAgc(camera.id)

    def make(self, decoded: av.VideoFrame, session: str, index: int, captured_s: float) -> Frame:
        """The frame. Each decoded picture once, in order: sensor and range remember."""
        picture, sensed = self._look(decoded, captured_s)
        configured = self._camera.modality
        return Frame(
            camera=self._camera.id,
            session=session,
            index=index,
            captured_at=datetime.fromtimestamp(captured_s, UTC),
            modality=sensed if configured == "auto" else configured,
            width=decoded.width,
            height=decoded.height,
            picture=picture,
        )

    def _look(self, decoded: av.VideoFrame, captured_s: float) -> tuple[Picture, Modality]:
        if is_gray16(decoded):
            counts = gray16(decoded)
            return ThermalPicture(counts, self._agc.measure(counts)), Modality.THERMAL
        if self._camera.modality != "auto":
            return VideoPicture(decoded), Modality(self._camera.modality)
        if decoded.format.name == "gray":
            return VideoPicture(decoded), Modality.NEAR_INFRARED
        return VideoPicture(decoded), self._sensor.sense(chroma_spread(*chroma(decoded)), captured_s)
