"""OpenVINO models without Ultralytics and torch: several requests in flight, drawn into in place.

Ultralytics runs OpenVINO synchronously in latency mode and wants float pictures. Here each picture is drawn as bytes
straight into the request's input, the scaling to 0-1 is part of the compiled network, and as many requests run
at once as the device likes best; `benchmarks/detection.py --speed` prints what that gains. Requests are waited for in
order rather than by OpenVINO's own queue with callbacks, which can hang (ultralytics issue 25923).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from detector.networks import DetectorError
from detector.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from detector.letterbox import Letterbox


class OpenVinoNetwork:
    """A `Network` from a folder `*_openvino_model` with one .xml, one .bin and the exporter's metadata.yaml.

    Not for use by two threads at once.
    """

    def __init__(self, folder: Path, *, image_size: tuple[int, int] | None, device: str = "CPU") -> None:
        quiet_libraries()
        import openvino

        self.names = _read_names(folder)
        try:
            core = openvino.Core()
            model = _sized(core.read_model(_only_xml(folder)), image_size)
            _, _, height, width = model.input().shape
            self.image_size = (int(height), int(width))
            # Compiled with one request per stream; latency mode leaves one core of two idle at every layer's end.
            compiled = core.compile_model(_taking_bytes(model), device, {"PERFORMANCE_HINT": "THROUGHPUT"})
            count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        except RuntimeError as error:
            raise DetectorError(f"{folder}: OpenVINO cannot load it: {_first_line(error)}") from error
        self._requests = [compiled.create_infer_request() for _ in range(max(1, count))]

    def run(self, images: Sequence[NDArray[np.uint8]], places: Sequence[Letterbox]) -> Iterator[NDArray[np.float32]]:
        """See `Network.run`; while one picture is computed, the next is drawn."""
        free = deque(self._requests)
        running: deque[Any] = deque()
        try:
            for image, place in zip(images, places, strict=True):
                if not free:
                    yield from _finish(running, free)
                request = free.popleft()
                place.draw(image, request.get_input_tensor().data[0])
                request.start_async()
                running.append(request)
            while running:
                yield from _finish(running, free)
        finally:
            for request in running:
                request.wait()


def _finish(running: deque[Any], free: deque[Any]) -> Iterator[NDArray[np.float32]]:
    """Wait for the oldest request and hand out its output before the request is used again."""
    request = running.popleft()
    request.wait()
    yield request.get_output_tensor(0).data[0]
    free.append(request)


def _sized(model: Any, image_size: tuple[int, int] | None) -> Any:  # noqa: ANN401  # OpenVINO is untyped
    """Fix a dynamic model to one picture of `image_size`; a static one keeps its own size."""
    if model.is_dynamic():
        if image_size is None:
            raise RuntimeError("its input size is dynamic, so an image size must be given")
        model.reshape([1, 3, *image_size])
    return model


def _taking_bytes(model: Any) -> Any:  # noqa: ANN401  # OpenVINO is untyped
    """Make (1, H, W, 3) bytes the model's input, and the conversion a part of its graph."""
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    steps.input().model().set_layout(Layout("NCHW"))
    steps.input().preprocess().convert_element_type(Type.f32).scale(255.0)
    return steps.build()


def _only_xml(folder: Path) -> Path:
    found = sorted(folder.glob("*.xml"))
    if len(found) != 1:
        raise DetectorError(f"{folder}: wanted one OpenVINO .xml in the folder, found {len(found)}")
    return found[0]


def _read_names(folder: Path) -> dict[int, str]:
    path = folder / "metadata.yaml"
    try:
        names = yaml.safe_load(path.read_text(encoding="utf-8"))["names"]
        return {int(number): str(name) for number, name in names.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DetectorError(f"{path}: no class names can be read from it: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
