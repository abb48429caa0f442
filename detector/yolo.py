"""Images -> `Detections`, by any model that Ultralytics loads: torch, ONNX, OpenVINO, TensorRT.

The library is used for its model formats only. Its `predict` spends more time around a small network than the
network takes, so letterbox and non-maximum suppression are done here, in a few array operations; OpenVINO models,
the default on a CPU, are run by `openvino_backend` and need neither the library nor torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.detections import COCO_VEHICLES, Detections
from detector.letterbox import Letterbox
from detector.networks import LOADER_ERRORS, DetectorError, Network
from detector.openvino_backend import OpenVinoNetwork
from detector.quiet import quiet_libraries
from detector.suppression import suppress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["DetectorError", "VehicleDetector"]

_COCO_IDS = {str(name): number for number, name in COCO_VEHICLES.items()}


class VehicleDetector:
    """Finds cars, motorcycles, buses and trucks in pictures. Not for use by two threads at once.

    Args:
        weights: A model that Ultralytics loads: a .pt, .onnx or .engine file or a `*_openvino_model` folder, with
            COCO's classes or any that include some of COCO's vehicle names.
        image_size: (height, width) that pictures are letterboxed to, multiples of 32. A model exported with a
            fixed size keeps its own; None takes the size the model says it was made for.
        confidence: Detections below it are not returned; the tracker has use for weak ones.
        iou: Boxes, of any class, that overlap a better one by more are the same vehicle.
        device: torch's name of the device (`cpu`, `cuda:0`), or `intel:gpu` for OpenVINO's; None: the GPU
            where torch has one and the model can use it, else the CPU.
        allow_download: Fetch `weights` with the library where it is the name of a published model and not a
            file. This goes to the internet.

    Raises:
        DetectorError: The weights are missing, of the wrong kind, or know no vehicle.
    """

    def __init__(
        self,
        weights: Path | str,
        *,
        image_size: tuple[int, int] | None = (384, 640),
        confidence: float = 0.1,
        iou: float = 0.6,
        device: str | None = None,
        allow_download: bool = False,
    ) -> None:
        path = _present(Path(weights), allow_download=allow_download)
        self._network = _load(path, image_size, device)
        self._confidence, self._iou = confidence, iou
        known = {row: name for row, name in self._network.names.items() if name in _COCO_IDS}
        if not known:
            raise DetectorError(f"{path}: knows none of the classes {', '.join(_COCO_IDS)}")
        self._rows = np.array(list(known), np.int64)
        self._coco_ids = np.array([_COCO_IDS[name] for name in known.values()], np.int64)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) that pictures are letterboxed to."""
        return self._network.image_size

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Find the vehicles of each picture. Blocks until the last one is done.

        Args:
            images: RGB uint8, (h, w, 3) each; sizes may differ.

        Returns:
            One `Detections` per picture, in order, in that picture's own pixels.
        """
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        places = [Letterbox.fit(size, self.image_size) for size in sizes]
        outputs = self._network.run(images, places)
        return [self._read(output, place, size) for output, place, size in zip(outputs, places, sizes, strict=True)]

    def warm_up(self) -> None:
        """Run once on a gray picture, so that the first real one does not pay for allocations."""
        self.detect([np.full((*self.image_size, 3), 114, np.uint8)])

    def _read(self, output: NDArray[np.float32], place: Letterbox, size: tuple[int, int]) -> Detections:
        ready = output.shape[-1] == 6
        boxes, scores, rows = self._ready(output) if ready else self._candidates(output)
        kept = suppress(boxes, scores, self._iou)
        return Detections(place.to_source(boxes[kept], size), scores[kept], self._coco_ids[rows[kept]])

    def _candidates(self, output: NDArray[np.float32]) -> _Candidates:
        """Read (4 + classes, candidates): each candidate has its best vehicle class."""
        scores = output[4 + self._rows]  # (V, A)
        likely = np.flatnonzero(scores.max(axis=0) >= self._confidence)
        scores = scores[:, likely]  # (V, N)
        centres, halves = output[:2, likely], output[2:4, likely] / 2  # (2, N) each
        boxes = np.concatenate([centres - halves, centres + halves]).T  # (N, 4)
        return boxes.astype(np.float32), scores.max(axis=0), scores.argmax(axis=0)

    def _ready(self, output: NDArray[np.float32]) -> _Candidates:
        """Read (candidates, 6): xyxy, score, class."""
        classes = output[:, 5].astype(np.int64)
        wanted = (output[:, 4] >= self._confidence) & np.isin(classes, self._rows)
        rows = np.searchsorted(self._rows, classes[wanted])
        return output[wanted, :4].copy(), output[wanted, 4].copy(), rows


#: Boxes (N, 4) xyxy, scores (N,), and the position (N,) of each one's class among the vehicle classes.
_Candidates = tuple["NDArray[np.float32]", "NDArray[np.float32]", "NDArray[np.int64]"]


class _UltralyticsNetwork:
    """A `Network` of any format that the library loads, on the device given."""

    def __init__(self, weights: Path, *, image_size: tuple[int, int] | None, device: str | None) -> None:
        quiet_libraries()
        import torch
        from ultralytics.nn.autobackend import AutoBackend

        self._torch = torch
        chosen = torch.device(device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
        try:
            self._model: Any = AutoBackend(
                model=str(weights), device=chosen, fp16=chosen.type != "cpu", verbose=False
            ).eval()
        except LOADER_ERRORS as error:
            line = next(iter(str(error).splitlines()), type(error).__name__)
            raise DetectorError(f"{weights}: not a detector that Ultralytics can load: {line}") from error
        self.names: dict[int, str] = {int(row): str(name) for row, name in self._model.names.items()}
        self.image_size = self._size(image_size)

    def run(self, images: Sequence[NDArray[np.uint8]], places: Sequence[Letterbox]) -> Iterator[NDArray[np.float32]]:
        """See `Network.run`; all pictures are one batch."""
        if not images:
            return
        canvas = np.empty((len(images), *self.image_size, 3), np.uint8)
        for place, image, target in zip(places, images, canvas, strict=True):
            place.draw(image, target)
        batch = self._torch.from_numpy(canvas).to(self._model.device)
        with self._torch.inference_mode():
            pictures = batch.permute(0, 3, 1, 2)  # (N, 3, H, W)
            outputs = self._model((pictures.half() if self._model.fp16 else pictures.float()) / 255)
        found = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        yield from found.float().cpu().numpy()

    def _size(self, wanted: tuple[int, int] | None) -> tuple[int, int]:
        model = self._model
        fixed = model.format != "pt" and not getattr(model, "dynamic", False)
        if wanted is not None and not fixed:
            return wanted
        height, width = getattr(model, "imgsz", None) or (640, 640)
        return int(height), int(width)


def _load(weights: Path, image_size: tuple[int, int] | None, device: str | None) -> Network:
    if weights.is_dir() and weights.name.endswith("_openvino_model"):
        return OpenVinoNetwork(weights, image_size=image_size, device=_openvino_device(device))
    return _UltralyticsNetwork(weights, image_size=image_size, device=device)


def _openvino_device(device: str | None) -> str:
    kind, _, name = (device or "cpu").partition(":")
    return name.upper() or "AUTO" if kind == "intel" else "CPU"


def _present(weights: Path, *, allow_download: bool) -> Path:
    """The local path of `weights`, fetched first where that is asked for and needed."""
    if weights.exists():
        return weights
    if not allow_download:
        raise DetectorError(f"{weights}: no such weights file; downloads are off unless asked for")
    quiet_libraries()
    from ultralytics.utils.downloads import attempt_download_asset

    try:
        found = Path(attempt_download_asset(weights))
    except (*LOADER_ERRORS, ConnectionError) as error:
        raise DetectorError(f"{weights}: no such weights file, and it cannot be fetched: {error}") from error
    if not found.exists():
        raise DetectorError(f"{weights}: no such weights file, and Ultralytics publishes none of that name")
    return found
