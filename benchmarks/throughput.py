"""Our whole pipeline against `YOLO.track()` on the same clips, and against what the networks alone would allow.

    python benchmarks/throughput.py --data ../shared/data --weights-dir ../shared/weights

Ours decodes, detects, tracks, chooses crops, embeds, publishes, matches and stores, all clips as cameras of one site,
the motion gate off. The rival decodes, detects and tracks with ByteTrack, one clip after the other: as a user would run
it (its own int8 export at 640 x 640), and with our weights at our size. Each part runs in processes of its own,
loading and warming up not counted. Beside wall time stands CPU time, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import yaml

from streamer.config import load_site
from streamer.counters import Board, Field
from streamer.health import Accounts
from streamer.site_plan import EMBEDDER, MATCHER
from streamer.supervisor import Supervisor

MEBIBYTE = 1 << 20
VEHICLES = [2, 3, 5, 7]
OUR_WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "yolo11n-vehicles_int8_openvino_model"
OUR_EMBEDDER = OUR_WEIGHTS.with_name("porsche-small_openvino_model")
OUR_SIZE = (384, 640)
#: Frames kept decoded for measuring the bare networks.
SAMPLE = 64
#: Reading the memory of all processes costs some 50 ms of CPU.
SAMPLE_PERIOD_S = 2.0


@dataclass
class Measured:
    """What one contender took for all clips."""

    frames: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mib: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames a second of wall time."""
        return self.frames / self.wall_s

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds a frame."""
        return 1000 * self.cpu_s / self.frames


class Sampler:
    """Peak memory and CPU time of this process and its children, sampled by a thread; its own time is left out."""

    def __init__(self) -> None:
        self._me, self._own_s = psutil.Process(), 0.0
        self._stopping = threading.Event()
        self._cpu: dict[int, float] = {}
        self.peak_mib = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def cpu_s(self) -> float:
        """CPU seconds so far, of processes that ended too, as of their last sample."""
        self._sample()
        return sum(self._cpu.values()) - self._own_s

    def _run(self) -> None:
        while not self._stopping.wait(SAMPLE_PERIOD_S):
            self._sample()

    def _sample(self) -> None:
        total, began = 0, time.thread_time()
        for process in [self._me, *self._me.children(recursive=True)]:
            try:
                times = process.cpu_times()
                self._cpu[process.pid] = times.user + times.system
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
        self.peak_mib = max(self.peak_mib, total / MEBIBYTE)
        self._own_s += time.thread_time() - began


def clips(data: Path) -> list[Path]:
    """The real clips."""
    found = sorted((data / "video").glob("*.mp4"))
    if not found:
        sys.exit(f"{data / 'video'}: no *.mp4")
    return found


def run_ours(videos: list[Path], workers: int, batch_size: int) -> Measured:
    """The whole pipeline over all clips at once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site = load_site(_site_file(folder, videos, workers, batch_size))
        supervisor = Supervisor(site, trace_folder=folder, log_level=40)
        try:
            with Sampler() as sampler:
                supervisor.start()
                began, cpu_before = time.perf_counter(), sampler.cpu_s()
                supervisor.run()
                wall_s, cpu_s = time.perf_counter() - began, sampler.cpu_s() - cpu_before
        finally:
            supervisor.close()
        board = supervisor.board
        accounts = [Accounts.of(board.camera(camera)) for camera in board.cameras]
        assert all(item.frames_in_flight == item.gated == item.dropped == 0 for item in accounts), accounts
        extra = {
            "crops": sum(item.crops_embedded for item in accounts),
            "sightings": board.stage(MATCHER).count(Field.SIGHTINGS),
            "vehicles": board.stage(MATCHER).count(Field.VEHICLES),
            "latency": _latencies(folder),
            "stages": _stages(board, folder),
            "busy": _busy(board, wall_s),
        }
        return Measured(sum(item.decoded for item in accounts), wall_s, cpu_s, sampler.peak_mib, extra)


def _site_file(folder: Path, videos: list[Path], workers: int, batch_size: int) -> Path:
    start = datetime(2026, 1, 1, 12, tzinfo=UTC).isoformat()
    cameras = [
        {"id": video.stem, "url": str(video.resolve()), "modality": "visible", "start_time": start} for video in videos
    ]
    document = {
        "site": "throughput",
        "database": "sqlite:///throughput.db",
        "cameras": cameras,
        "workers": workers,
        "detector": {"motion_gate": False, "batch_size": batch_size},
    }
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def _latencies(folder: Path) -> dict[str, tuple[float, float]]:
    """p50 and p95 by kind: from a frame's leaving the decoder to the commit of the sighting that speaks of it."""
    committed = {row[0]: float(row[1]) for row in _rows(folder / "commits.csv")}
    by_kind: dict[str, list[float]] = {}
    for path in sorted(folder.glob("cameras-?.csv")):
        for sighting_id, kind, taken, _ in _rows(path):
            if sighting_id in committed:
                by_kind.setdefault(kind, []).append(committed[sighting_id] - float(taken))
    return {
        kind: (float(np.percentile(values, 50)), float(np.percentile(values, 95))) for kind, values in by_kind.items()
    }


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _stages(board: Board, folder: Path) -> dict[str, float]:
    """CPU seconds by stage."""
    names = {"MainThread": "track, crops, publish", "stage_0": "take, convert", "stage_1": "detect (Python's part)"}
    names |= {"native": "detect (network)", "embedding-client": "ask the embedder", "ended": "decode"}
    seconds: dict[str, float] = {}
    for path in sorted(folder.glob("cameras-*.threads.csv")):
        for thread, cpu_s in _rows(path):
            name = "decode" if thread.startswith("decode-") else names.get(thread, thread)
            seconds[name] = seconds.get(name, 0.0) + float(cpu_s)
    seconds["embed"] = board.stage(EMBEDDER)[Field.WORK_S]
    seconds["match, store"] = board.stage(MATCHER)[Field.WORK_S]
    return seconds


def _busy(board: Board, wall_s: float) -> dict[str, float]:
    """Share of the time in which each of the camera workers' stages was at work, or held up by a full machine."""
    rows = [board.stage(name) for name in board.stages if name.startswith("cameras-")]
    fields = {"take, convert": Field.PREPARE_S, "detect": Field.DETECT_S, "track, crops, publish": Field.TRACK_S}
    return {name: sum(row[field] for row in rows) / wall_s / len(rows) for name, field in fields.items()}


def run_rival(videos: list[Path], weights: Path, size: tuple[int, int]) -> Measured:
    """`YOLO.track()` over each clip; in this process, which was made for it."""
    from detector.quiet import quiet_libraries

    quiet_libraries()
    from ultralytics import YOLO

    settings = {"imgsz": list(size), "classes": VEHICLES, "tracker": "bytetrack.yaml", "verbose": False, "stream": True}
    warm = YOLO(str(weights), task="detect")
    next(iter(warm.track(str(videos[0]), **settings)))
    measured = Measured()
    with Sampler() as sampler:
        for video in videos:
            model = YOLO(str(weights), task="detect")
            model.predict(np.zeros((*size, 3), np.uint8), imgsz=list(size), verbose=False)
            began, before = time.perf_counter(), time.process_time()
            measured.frames += sum(1 for _ in model.track(str(video), **settings))
            measured.wall_s += time.perf_counter() - began
            measured.cpu_s += time.process_time() - before
    measured.peak_mib = sampler.peak_mib
    return measured


def run_networks(videos: list[Path], frames: int, crops: int) -> Measured:
    """The time that the networks alone take for that many frames and crops, each with all cores to itself."""
    images = _sample_frames(videos)
    detector_s, detector_cpu_s = _time_detector(images)
    embedder_s, embedder_cpu_s = _time_embedder(images)
    measured = Measured(frames)
    measured.wall_s = frames * detector_s + crops * embedder_s
    measured.cpu_s = frames * detector_cpu_s + crops * embedder_cpu_s
    measured.extra = {"detector_fps": 1 / detector_s, "embedder_crops_per_s": 1 / embedder_s}
    return measured


def _sample_frames(videos: list[Path]) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    import av

    images = []
    for video in videos:
        with av.open(str(video)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number % 20 == 0:
                    images.append(frame.to_ndarray(format="rgb24"))
    return images[:SAMPLE]


def _time_detector(images: list[np.ndarray[Any, np.dtype[np.uint8]]], seconds: float = 10.0) -> tuple[float, float]:
    """Seconds of wall and of CPU a frame: OpenVINO's own queue, as many requests as it likes, no pre-processing."""
    import openvino

    core = openvino.Core()
    model = core.read_model(next(OUR_WEIGHTS.glob("*.xml")))
    if model.is_dynamic():
        model.reshape([1, 3, *OUR_SIZE])
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    shape = tuple(compiled.input(0).shape)
    inputs = [np.resize(image, shape).astype(np.float32) / 255 for image in images[:8]]
    requests = openvino.AsyncInferQueue(compiled)
    return _time(lambda number: requests.start_async({0: inputs[number % len(inputs)]}), requests.wait_all, seconds)


def _time_embedder(images: list[np.ndarray[Any, np.dtype[np.uint8]]], seconds: float = 5.0) -> tuple[float, float]:
    from reid.embedder import Embedder
    from reid.modality import Modality

    embedder = Embedder(OUR_EMBEDDER, max_batch=16)
    crops = [image[:128, :256] for image in images[:16]]
    wall_s, cpu_s = _time(lambda _: embedder.embed(crops, [Modality.VISIBLE] * len(crops)), lambda: None, seconds)
    return wall_s / len(crops), cpu_s / len(crops)


def _time(work: Any, finish: Any, seconds: float) -> tuple[float, float]:  # noqa: ANN401
    for number in range(8):
        work(number)
    finish()
    began, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        work(count)
        count += 1
    finish()
    return (time.perf_counter() - began) / count, (time.process_time() - cpu) / count


def in_a_process(part: str, arguments: list[str]) -> Measured:
    """Runs one part of this script by itself, and reads what it measured."""
    command = [sys.executable, __file__, "--part", part, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def report(ours: Measured, rivals: dict[str, Measured], bound: Measured) -> None:
    """Prints the figures and the ratios."""
    print(f"{'':44} frames   fps  CPU ms/frame  peak MiB   ours / it: wall  CPU")
    for name, measured in {"ours, whole pipeline": ours, **rivals, "bound: our networks alone": bound}.items():
        ratio = f"{ours.fps / measured.fps:.2f}  {measured.cpu_ms / ours.cpu_ms:.2f}"
        print(
            f"{name:44} {measured.frames:6d} {measured.fps:6.1f} {measured.cpu_ms:12.1f} {measured.peak_mib:9.0f}"
            f"   {'' if measured is ours else ratio:>20}"
        )
    print(f"bound made of: {', '.join(f'{key} {value:.0f}' for key, value in bound.extra.items())}")
    extra = ours.extra
    print(f"ours: {extra['crops']} crops, {extra['sightings']} sightings, {extra['vehicles']} vehicles")
    for kind, (half, most) in extra["latency"].items():
        print(f"from decoded frame to database, {kind:6}: p50 {1000 * half:6.0f} ms   p95 {1000 * most:6.0f} ms")
    print("at work: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in extra["busy"].items()))
    total = sum(extra["stages"].values())
    for name, seconds in sorted(extra["stages"].items(), key=lambda pair: -pair[1]):
        print(f"{name:28} {seconds:7.1f} s  {100 * seconds / total:5.1f} %")


def main() -> None:
    """Measures every part in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1, help="camera worker processes of ours")
    parser.add_argument("--batch-size", type=int, default=16, help="frames that our detector sees at once")
    parser.add_argument("--part", choices=["ours", "rival", "rival-ours", "networks"])
    parser.add_argument("--frames", type=int, default=0)
    parser.add_argument("--crops", type=int, default=0)
    given = parser.parse_args()
    videos = clips(given.data)
    if given.part is not None:
        print(json.dumps(asdict(_run_part(given, videos))))
        return
    common = ["--data", str(given.data), "--weights-dir", str(given.weights_dir), "--workers", str(given.workers)]
    common += ["--batch-size", str(given.batch_size)]
    ours = in_a_process("ours", common)
    rivals = {
        "rival: YOLO.track, its int8 at 640 x 640": in_a_process("rival", common),
        "rival: YOLO.track, our weights and size": in_a_process("rival-ours", common),
    }
    load = ["--frames", str(ours.frames), "--crops", str(ours.extra["crops"])]
    report(ours, rivals, in_a_process("networks", [*common, *load]))


def _run_part(given: argparse.Namespace, videos: list[Path]) -> Measured:
    if given.part == "ours":
        return run_ours(videos, given.workers, given.batch_size)
    if given.part == "networks":
        return run_networks(videos, given.frames, given.crops)
    if given.part == "rival":
        return run_rival(videos, given.weights_dir / "yolo11n_int8_openvino_model", (640, 640))
    return run_rival(videos, OUR_WEIGHTS, OUR_SIZE)


if __name__ == "__main__":
    main()
