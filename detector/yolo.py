"""Images -> `Detections`, by any model that Ultralytics loads: torch, ONNX, OpenVINO, TensorRT.

The library is used for its model formats only. Its `predict` spends more time around the network than a small
network spends inside, so letterbox and non-maximum suppression are done here, in a few array operations.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.detections import COCO_VEHICLES, Detections
from detector.letterbox import Letterbox
from detector.suppression import suppress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_COCO_IDS = {str(name): number for number, name in COCO_VEHICLES.items()}


class DetectorError(Exception):
    """A detector that cannot be had: the message is one line that names the file."""


def quiet_library() -> None:
    """Keep Ultralytics off the network and away from pip; call it before the library is first imported.

    A variable that the user has set stays as it is.
    """
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")


class VehicleDetector:
    def __init__(
        self,
        weights: Path | str,
        *,
        image_size: tuple[int, int] | None = (384, 640),
        confidence: float = 0.1,
        iou: float = 0.6,
        device: str | None = None,
    ) -> None:
        quiet_library()
        import torch
        from ultralytics.nn.autobackend import AutoBackend

        self._model: Any = AutoBackend(model=str(weights), device=torch.device(device or "cpu"), verbose=False)
        self._model.eval()
        self.image_size = image_size or tuple(self._model.imgsz)
        self._confidence, self._iou = confidence, iou
        self._torch = torch
        names = self._model.names
        self._rows = [i for i, n in names.items() if n in _COCO_IDS]
        self._ids = np.array([_COCO_IDS[names[i]] for i in self._rows], np.int64)

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        h, w = self.image_size
        canvas = np.empty((len(images), h, w, 3), np.uint8)
        boxes = [Letterbox.fit(im.shape[:2], (h, w)) for im in images]
        for box, image, c in zip(boxes, images, canvas, strict=True):
            box.draw(image, c)
        x = self._torch.from_numpy(canvas).permute(0, 3, 1, 2).float().div_(255)
        with self._torch.inference_mode():
            y = self._model(x)
        y = y[0] if isinstance(y, (list, tuple)) else y
        y = y.cpu().numpy()
        return [self._one(p, b, im.shape[:2]) for p, b, im in zip(y, boxes, images, strict=True)]

    def _one(self, p, box, shape):
        scores = p[4:][self._rows]
        best = scores.argmax(0)
        conf = scores.max(0)
        keep = np.flatnonzero(conf >= self._confidence)
        conf, best = conf[keep], best[keep]
        xywh = p[:4, keep].T
        xyxy = np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2], 1).astype(np.float32)
        kept = suppress(xyxy, conf, self._iou)
        return Detections(box.to_source(xyxy[kept], shape), conf[kept].astype(np.float32), self._ids[best[kept]])
