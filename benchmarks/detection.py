"""What the shipped detector finds, beside zero-shot YOLO11n, and what it costs.

    python benchmarks/detection.py --data DIR --zero-shot DIR/../weights/yolo11n_int8_openvino_model
    python benchmarks/detection.py --data DIR --choose-confidence
    python benchmarks/detection.py --data DIR --speed

The first prints recall and precision at IoU 0.5 per camera of `site` and `site_gaps`, which trained and tuned nothing,
by the evaluation's ignore rule, and the agreement with the zero-shot model on the last third of each real clip. The
second looks at the held-out seconds of the training sites: that is where the confidence threshold comes from.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from detector.dataset import HELD_OUT_S, TRAINED_PART_OF_CLIP
from detector.detections import Detections
from detector.evaluation import Counts, count, match
from detector.letterbox import Letterbox
from detector.truth import FrameTruth, frame_count, frames_of, read_site
from detector.yolo import VehicleDetector

WEIGHTS = Path("weights/yolo11n-vehicles_int8_openvino_model")
CONFIDENCES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)

Image = NDArray[np.uint8]
Frame = tuple[str, Image, FrameTruth]


def site_frames(site: Path, *, every: int, last_s: float | None = None) -> Iterator[Frame]:
    """(camera, picture, truth) of a rendered site, or of its last seconds."""
    truth = read_site(site)
    start = 0 if last_s is None else round((truth.duration_s - last_s) * truth.fps)
    for clip in sorted(site.glob("*.mp4")):
        for frame, image in frames_of(clip, every=every, start=start):
            yield clip.stem, image, truth.at(clip.stem, frame)


def confident(found: Detections, confidence: float) -> NDArray[np.float32]:
    """The boxes of detections that are at least this confident."""
    return found.boxes[found.confidences >= confidence]


def recall_table(sites: list[Path], detectors: dict[str, VehicleDetector], confidence: float, every: int) -> Table:
    """Recall and precision of each detector on each camera."""
    table = Table("site", "camera", "truths", *(f"{what} {name}" for name in detectors for what in ("recall", "prec.")))
    for site in sites:
        found: dict[str, dict[str, Counts]] = defaultdict(lambda: dict.fromkeys(detectors, Counts()))
        for camera, image, truth in site_frames(site, every=every):
            for name, detector in detectors.items():
                counts = count(confident(detector.detect([image])[0], confidence), truth)
                for row in (camera, "all"):
                    found[row][name] += counts
        for camera in sorted(found, key=lambda row: (row == "all", row)):
            figures = [f"{x:.3f}" for c in found[camera].values() for x in (c.recall, c.precision)]
            table.add_row(site.name, camera, str(next(iter(found[camera].values())).truths), *figures)
    return table


def confidence_table(sites: list[Path], detector: VehicleDetector, every: int) -> Table:
    """Recall, precision and F1 on the held-out seconds, by confidence threshold."""
    found = dict.fromkeys(CONFIDENCES, Counts())
    for site in sites:
        for _, image, truth in site_frames(site, every=every, last_s=HELD_OUT_S):
            detections = detector.detect([image])[0]
            for confidence in CONFIDENCES:
                found[confidence] += count(confident(detections, confidence), truth)
    table = Table("confidence", "recall", "precision", "F1")
    for confidence, counts in found.items():
        table.add_row(str(confidence), *(f"{x:.3f}" for x in (counts.recall, counts.precision, counts.f1)))
    return table


def agreement_table(
    clips: list[Path], ours: VehicleDetector, theirs: VehicleDetector, confidence: float, pictures: int
) -> Table:
    """F1 of our boxes against the zero-shot model's on pictures that trained nothing."""
    table = Table("clip", "zero-shot boxes", "our boxes", "F1 IoU .5", "F1 IoU .7")
    totals = {0.5: Counts(), 0.7: Counts()}
    for clip in clips:
        frames = frame_count(clip)
        start = int(frames * TRAINED_PART_OF_CLIP) + 1
        counts = {0.5: Counts(), 0.7: Counts()}
        for _, image in frames_of(clip, start=start, every=max(1, (frames - start) // pictures)):
            given, wanted = (confident(d.detect([image])[0], confidence) for d in (ours, theirs))
            for min_iou in counts:
                counts[min_iou] += match(given, wanted, min_iou)
        totals = {min_iou: totals[min_iou] + counts[min_iou] for min_iou in counts}
        table.add_row(clip.stem, *_agreement(counts))
    table.add_row("all", *_agreement(totals))
    return table


def _agreement(counts: dict[float, Counts]) -> list[str]:
    some = counts[0.5]
    return [str(some.truths), str(some.boxes), *(f"{c.f1:.3f}" for c in counts.values())]


def speed_table(detector: VehicleDetector, image: Image, rounds: int) -> Table:
    """Milliseconds per picture of each stage, and pictures per second in batches of several sizes."""
    table = Table("stage", "ms per picture", "pictures/s")
    place = Letterbox.fit((image.shape[0], image.shape[1]), detector.image_size)
    canvas = np.empty((*detector.image_size, 3), np.uint8)
    network = detector._network
    output = next(iter(network.run([image], [place]))).copy()
    size = (image.shape[0], image.shape[1])
    stages: dict[str, tuple[int, Callable[[], object]]] = {
        "letterbox": (1, lambda: place.draw(image, canvas)),
        "read output, suppress": (1, lambda: detector._read(output, place, size)),
        "network, 1 at a time": (
            1,
            lambda: list(network.run([canvas], [Letterbox.fit(detector.image_size, detector.image_size)])),
        ),
    }
    for batch in (1, 2, 4, 8):
        stages[f"detect(), {batch} pictures"] = (batch, partial(detector.detect, [image] * batch))
    for name, (pictures, call) in stages.items():
        seconds = _best_of(call, max(1, rounds // pictures)) / pictures
        table.add_row(name, f"{1000 * seconds:.2f}", f"{1 / seconds:.0f}")
    return table


def openvino_table(folder: Path, image_size: tuple[int, int], rounds: int) -> Table:
    """The bare network in OpenVINO's two modes, which bounds what any pipeline can reach."""
    import openvino

    table = Table("bare network", "pictures/s")
    model = openvino.Core().read_model(next(folder.glob("*.xml")))
    picture = np.zeros((1, 3, *image_size), np.float32)
    for mode in ("LATENCY", "THROUGHPUT"):
        compiled = openvino.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": mode})
        count = 1 if mode == "LATENCY" else int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        requests = [compiled.create_infer_request() for _ in range(count)]

        def all_at_once(requests: list[object] = requests) -> None:
            for request in requests:
                request.start_async({0: picture})  # type: ignore[attr-defined]  # OpenVINO is untyped
            for request in requests:
                request.wait()  # type: ignore[attr-defined]  # OpenVINO is untyped

        seconds = _best_of(all_at_once, rounds) / count
        table.add_row(f"{mode.lower()}, {count} in flight", f"{1 / seconds:.0f}")
    return table


def _best_of(call: Callable[[], object], rounds: int, *, tries: int = 3) -> float:
    """Seconds per call, the best of some tries: other work on the machine can only make it slower."""
    call()
    best = float("inf")
    for _ in range(tries):
        begun = time.perf_counter()
        for _ in range(rounds):
            call()
        best = min(best, (time.perf_counter() - begun) / rounds)
    return best


def main(
    data: Annotated[Path, typer.Option(help="The folder that holds the sites and `video`.")],
    weights: Annotated[Path, typer.Option(help="The detector to look at.")] = WEIGHTS,
    zero_shot: Annotated[Path | None, typer.Option(help="A detector with COCO's classes to compare with.")] = None,
    confidence: Annotated[float, typer.Option(help="Detections below it do not count.")] = 0.25,
    every: Annotated[int, typer.Option(help="Look at each so-many-th frame.")] = 3,
    choose_confidence: Annotated[bool, typer.Option("--choose-confidence", help="On the held-out seconds.")] = False,
    speed: Annotated[bool, typer.Option("--speed", help="Time the stages instead.")] = False,
) -> None:
    """Print recall, precision, agreement or speed of a detector."""
    console = Console(width=150)
    ours = VehicleDetector(weights)
    if speed:
        image = next(iter(frames_of(data / "site_train" / "cam1_rgb.mp4")))[1]
        console.print(speed_table(ours, image, rounds=60))
        if weights.is_dir():
            console.print(openvino_table(weights, ours.image_size, rounds=60))
    elif choose_confidence:
        console.print(confidence_table([data / "site_train", data / "site_train_gaps"], ours, every))
    else:
        detectors = {"ours": ours}
        if zero_shot is not None:
            detectors["zero-shot"] = VehicleDetector(zero_shot)
        console.print(recall_table([data / "site", data / "site_gaps"], detectors, confidence, every))
        if zero_shot is not None:
            clips = sorted((data / "video").glob("*.mp4"))
            console.print(agreement_table(clips, ours, detectors["zero-shot"], confidence, pictures=60))


if __name__ == "__main__":
    typer.run(main)
