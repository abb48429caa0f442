"""The detectors of a camera worker: one per distinct weights, each shared by all cameras that use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detector.yolo import DetectorError, VehicleDetector
from reid.modality import Modality
from streamer.children import StartError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detector.detections import Detections
    from streamer.config import CameraConfig, DetectorConfig
    from streamer.frames import Frame

#: What fits 16:9 cameras, in steps of 32; models of a fixed size keep theirs.
DEFAULT_SIZE = (384, 640)


class DetectorPool:
    """Batches frames of several cameras by the weights that they want.

    Args:
        config: Weights and thresholds.
        cameras: Those whose frames will come; all weights that they can want are loaded at once.

    Raises:
        StartError: Weights can't be loaded.
    """

    def __init__(self, config: DetectorConfig, cameras: Sequence[CameraConfig]) -> None:
        self._config = config
        self._detectors: dict[str, VehicleDetector] = {}
        self.learn(cameras)

    def learn(self, cameras: Sequence[CameraConfig]) -> None:
        """Loads what these want and is not loaded yet; blocks, and may run beside `detect`.

        Raises:
            StartError: Weights can't be loaded.
        """
        wanted = {name: key for camera in cameras for name, key in self._possible(camera)}
        for name, key in wanted.items():
            if name not in self._detectors:
                self._detectors[name] = self._load(name, key)

    def detect(self, cameras: Sequence[CameraConfig], frames: Sequence[Frame]) -> list[Detections]:
        """Finds the vehicles of each frame, in order. Blocks until the last one is done."""
        names = [self._weights(camera, frame.modality)[0] for camera, frame in zip(cameras, frames, strict=True)]
        results: dict[int, Detections] = {}
        for name in dict.fromkeys(names):
            chosen = [place for place, wanted in enumerate(names) if wanted == name]
            found = self._detectors[name].detect([frames[place].image() for place in chosen])
            results.update(zip(chosen, found, strict=True))
        return [results[place] for place in range(len(frames))]

    def _possible(self, camera: CameraConfig) -> list[tuple[str, str]]:
        bands = list(Modality) if camera.modality == "auto" else [camera.modality]
        return [self._weights(camera, band) for band in bands]

    def _weights(self, camera: CameraConfig, modality: Modality) -> tuple[str, str]:
        """The weights, and the config key that named them."""
        if camera.detector is not None:
            return camera.detector, f"cameras: {camera.id}: detector"
        by_modality = self._config.weights_by_modality
        if modality in by_modality:
            return by_modality[modality], f"detector.weights_by_modality.{modality}"
        return self._config.weights, "detector.weights"

    def _load(self, weights: str, key: str) -> VehicleDetector:
        config = self._config
        try:
            detector = VehicleDetector(
                weights,
                image_size=config.image_size or DEFAULT_SIZE,
                confidence=config.confidence,
                iou=config.iou,
                device=config.device,
                allow_download=config.allow_download,
            )
            detector.warm_up()
        except DetectorError as error:
            raise StartError(f"{key}: {error}") from error
        return detector
