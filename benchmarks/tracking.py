"""Single-camera IDF1 and HOTA of several trackers on the same detections.

    python benchmarks/tracking.py --data DIR

Matching at IoU 0.5, by the evaluation's ignore rule. The detector has seen the first part of these clips while it
was trained; `--held-out` restricts the comparison to the seconds that it has not. roboflow's `trackers` is compared
where it is installed (`pip install trackers`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from trackeval.metrics import HOTA, Identity

from detector.dataset import HELD_OUT_S
from detector.detections import Detections
from detector.evaluation import judged
from detector.suppression import overlaps
from detector.tracker import VehicleTracker
from detector.truth import FrameTruth, SiteTruth, frames_of, read_site
from detector.yolo import VehicleDetector

#: Numbers (N,) and boxes (N, 4) that a tracker gives for one frame.
Tracked = tuple[NDArray[np.int64], NDArray[np.float32]]
Track = Callable[[Detections], Tracked]
Clip = list[tuple[Detections, FrameTruth]]


def ours(**settings: float) -> Callable[[float], Track]:
    """`VehicleTracker` with these settings."""

    def begin(frame_rate: float) -> Track:
        tracker = VehicleTracker(frame_rate=frame_rate, **settings)

        def track(detections: Detections) -> Tracked:
            seen = tracker.update(detections)
            boxes = np.array([vehicle.box for vehicle in seen], np.float32).reshape(-1, 4)
            return np.array([vehicle.number for vehicle in seen], np.int64), boxes

        return track

    return begin


def ultralytics(name: str, **settings: float | bool | str) -> Callable[[float], Track]:
    """Another of Ultralytics' trackers, without camera motion and re-identification."""

    def begin(frame_rate: float) -> Track:
        from ultralytics.trackers.track import TRACKER_MAP
        from ultralytics.utils import ROOT, YAML

        from detector.tracker import _LibraryBoxes

        arguments = YAML.load(ROOT / "cfg" / "trackers" / f"{name}.yaml")
        arguments |= {"gmc_method": "none", "with_reid": False, "track_buffer": round(2 * frame_rate), **settings}
        tracker = TRACKER_MAP[name](SimpleNamespace(**arguments))

        def track(detections: Detections) -> Tracked:
            rows = np.asarray(tracker.update(_LibraryBoxes.of(detections))).reshape(-1, 8)
            alive = {t.track_id for t in tracker.tracked_stracks if t.frame_id == tracker.frame_id}
            rows = rows[[int(row[4]) in alive for row in rows]] if len(rows) else rows
            return rows[:, 4].astype(np.int64), detections.boxes[rows[:, 7].astype(np.int64)]

        return track

    return begin


def roboflow(name: str, **settings: float) -> Callable[[float], Track]:
    """One of roboflow's trackers."""

    def begin(frame_rate: float) -> Track:
        import supervision
        import trackers

        tracker = getattr(trackers, name)(frame_rate=frame_rate, lost_track_buffer=60, **settings)

        def track(detections: Detections) -> Tracked:
            given = supervision.Detections(
                detections.boxes, confidence=detections.confidences, class_id=detections.class_ids
            )
            found = tracker.update(given)
            numbers = np.asarray(found.tracker_id, np.int64)
            known = numbers >= 0
            return numbers[known], np.asarray(found.xyxy, np.float32)[known]

        return track

    return begin


def candidates() -> dict[str, Callable[[float], Track]]:
    """The trackers to compare, by the name they are printed under."""
    named = {
        "VehicleTracker (OC-SORT, as shipped)": ours(),
        "ultralytics ByteTrack": ultralytics("bytetrack"),
        "ultralytics OC-SORT": ultralytics("ocsort"),
        "ultralytics OC-SORT + low scores": ultralytics("ocsort", use_byte=True),
        "ultralytics BoT-SORT, no camera motion": ultralytics("botsort"),
        "ultralytics TrackTrack, no camera motion": ultralytics("tracktrack"),
    }
    if find_spec("trackers") is not None:
        byte = {"track_activation_threshold": 0.25, "high_conf_det_threshold": 0.25}
        named["roboflow ByteTrack"] = roboflow("ByteTrackTracker", minimum_iou_threshold=0.2, **byte)
        named["roboflow OC-SORT"] = roboflow("OCSORTTracker", high_conf_det_threshold=0.25)
    return named


def detect(site: Path, truth: SiteTruth, detector: VehicleDetector, *, start_s: float) -> dict[str, Clip]:
    """Run the detector once over every camera of a site."""
    clips: dict[str, Clip] = {}
    for clip in sorted(site.glob("*.mp4")):
        frames = frames_of(clip, start=round(start_s * truth.fps))
        clips[clip.stem] = [(detector.detect([image])[0], truth.at(clip.stem, frame)) for frame, image in frames]
    return clips


def judge(clip: Clip, track: Track) -> tuple[dict[str, Any], float]:
    """Track one clip; TrackEval's input and the seconds that tracking took."""
    truths: list[FrameTruth] = []
    tracked: list[Tracked] = []
    spent = 0.0
    for detections, truth in clip:
        begun = time.perf_counter()
        numbers, boxes = track(detections)
        spent += time.perf_counter() - begun
        kept = judged(boxes, truth)
        truths.append(truth)
        tracked.append((numbers[kept], boxes[kept]))
    return sequence(truths, tracked), spent


def sequence(truths: Sequence[FrameTruth], tracked: Sequence[Tracked]) -> dict[str, Any]:
    """TrackEval's description of one clip: numbers from 0, and overlaps per frame."""
    counted = [truth.vehicles[truth.counted] for truth in truths]
    vehicles, numbers = np.unique(np.concatenate(counted)), np.unique(np.concatenate([n for n, _ in tracked]))
    similar = [overlaps(truth.boxes[truth.counted], boxes) for truth, (_, boxes) in zip(truths, tracked, strict=True)]
    return {
        "num_timesteps": len(truths),
        "num_gt_ids": len(vehicles),
        "num_tracker_ids": len(numbers),
        "num_gt_dets": sum(map(len, counted)),
        "num_tracker_dets": sum(len(n) for n, _ in tracked),
        "gt_ids": [np.searchsorted(vehicles, found) for found in counted],
        "tracker_ids": [np.searchsorted(numbers, found) for found, _ in tracked],
        "similarity_scores": similar,
    }


def compare(clips: dict[str, dict[str, Clip]], frame_rate: float, chosen: dict[str, Callable[[float], Track]]) -> Table:
    """Print-ready figures of each tracker over all clips, and per site."""
    table = Table(*("tracker", *(f"IDF1 {site}" for site in clips), "IDF1", "HOTA", "tracks per vehicle", "ms/frame"))
    for name, begin in chosen.items():
        identity: dict[str, dict[str, Any]] = defaultdict(dict)
        hota: dict[str, Any] = {}
        spent, frames, tracks, vehicles = 0.0, 0, 0, 0
        for site, cameras in clips.items():
            for camera, clip in cameras.items():
                data, seconds = judge(clip, begin(frame_rate))
                identity[site][camera] = Identity({"PRINT_CONFIG": False}).eval_sequence(data)
                hota[f"{site} {camera}"] = HOTA().eval_sequence(data)
                spent, frames = spent + seconds, frames + len(clip)
                tracks, vehicles = tracks + data["num_tracker_ids"], vehicles + data["num_gt_ids"]
        per_site = [_idf1(cameras) for cameras in identity.values()]
        everything = _idf1({f"{s} {c}": r for s, cameras in identity.items() for c, r in cameras.items()})
        mean_hota = float(np.mean(HOTA().combine_sequences(hota)["HOTA"]))
        figures = [*per_site, everything, mean_hota, tracks / vehicles]
        table.add_row(name, *(f"{figure:.3f}" for figure in figures), f"{1000 * spent / frames:.2f}")
    return table


def _idf1(results: dict[str, Any]) -> float:
    return float(Identity({"PRINT_CONFIG": False}).combine_sequences(results)["IDF1"])


def main(
    data: Annotated[Path, typer.Option(help="The folder that holds site_train and site_train_gaps.")],
    weights: Annotated[Path, typer.Option(help="The detector.")] = Path("weights/yolo11n-vehicles_int8_openvino_model"),
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only the seconds that the detector was not trained on.")
    ] = False,
) -> None:
    """Compare trackers by single-camera IDF1 on the sites that are there for tuning."""
    detector = VehicleDetector(weights)
    clips: dict[str, dict[str, Clip]] = {}
    frame_rate = 10.0
    for name in ("site_train", "site_train_gaps"):
        truth = read_site(data / name)
        frame_rate = truth.fps
        start = truth.duration_s - HELD_OUT_S if held_out else 0.0
        clips[name] = detect(data / name, truth, detector, start_s=start)
    Console(width=150).print(compare(clips, frame_rate, candidates()))


if __name__ == "__main__":
    typer.run(main)
