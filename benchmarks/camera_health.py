"""Whether faults of cameras' pictures are told, and how often good pictures are called bad.

    python benchmarks/camera_health.py --data ../shared/data

Each clip is shown again and again, a look a second as at the default settings, until `--clean-s` have passed without a
fault; then a fault is put in for `--fault-s`. A clip's end joins its beginning as a jump in the traffic. False alarms
are counted in the time without a fault. Thresholds were chosen on `site_train*` and `video`; `site` and `site_gaps`
are only measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from streamer.camera_health import PictureHealth, PictureWatch
from streamer.config import CameraHealthConfig

Luma = NDArray[np.uint8]
Fault = Callable[[Luma], Luma]
GROUPS = {"chosen on": ("video", "site_train", "site_train_gaps"), "measured only": ("site", "site_gaps")}
#: A hand over the lens, or paint: this share of the contrast is left.
_LEFT_OF_CONTRAST = 0.02


@dataclass(frozen=True, slots=True)
class Told:
    """What was told of one clip with one fault, and seconds until it was; None where it was missed."""

    kind: PictureHealth | None
    after_s: float | None


def blurred(luma: Luma, sigma: float) -> Luma:
    """Out of focus: sigma in pixels of a picture 960 wide."""
    return cv2.GaussianBlur(luma, (0, 0), sigma * luma.shape[1] / 960).astype(np.uint8, copy=False)


def moved(luma: Luma, *, share: float = 0.0, degrees: float = 0.0) -> Luma:
    """Shifted by a share of the width, or turned; what comes into view is mirrored."""
    height, width = luma.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    matrix[0, 2] += share * width
    picture = cv2.warpAffine(luma, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    return picture.astype(np.uint8, copy=False)


def faults(still: Luma) -> dict[str, tuple[PictureHealth, Fault]]:
    """By name what it should be called, and how it is made."""
    dimmed = still.mean() + _LEFT_OF_CONTRAST * (still.astype(np.float32) - still.mean())
    return {
        "freeze": (PictureHealth.FROZEN, lambda _: still),
        "black": (PictureHealth.COVERED, np.zeros_like),
        "paint": (PictureHealth.COVERED, lambda _: dimmed.astype(np.uint8)),
        "blur, sigma 2": (PictureHealth.DEFOCUSED, lambda luma: blurred(luma, 2)),
        "blur, sigma 4": (PictureHealth.DEFOCUSED, lambda luma: blurred(luma, 4)),
        "shift by 2 %": (PictureHealth.MOVED, lambda luma: moved(luma, share=0.02)),
        "shift by 5 %": (PictureHealth.MOVED, lambda luma: moved(luma, share=0.05)),
        "turn by 3 degrees": (PictureHealth.MOVED, lambda luma: moved(luma, degrees=3)),
    }


def lumas(video: Path, period_s: float) -> Iterator[Luma]:
    """A luma picture every `period_s` of a clip."""
    due_s = 0.0
    with av.open(str(video)) as clip:
        for picture in clip.decode(video=0):
            if picture.time is not None and picture.time >= due_s:
                due_s = picture.time + period_s
                yield np.ascontiguousarray(picture.to_ndarray(format="gray"))


class Trial:
    """One clip, without a fault first and then with each.

    Args:
        video: The clip.
        rules: As configured.
        clean_s: Without a fault, to learn and to count false alarms.
        fault_s: With one.
    """

    def __init__(self, video: Path, rules: CameraHealthConfig, clean_s: float, fault_s: float) -> None:
        self._rules, self._clean_s, self._fault_s = rules, clean_s, fault_s
        self._pictures = list(lumas(video, rules.period_s))
        self.look_s: list[float] = []

    def run(self) -> tuple[list[PictureHealth], dict[str, Told]]:
        """False alarms of the time without a fault, and what was told of each fault."""
        looks = int(self._clean_s / self._rules.period_s)
        false_alarms: list[PictureHealth] = []
        watch = self._learned(looks, false_alarms)
        told = {}
        for name, (_, fault) in faults(self._pictures[looks % len(self._pictures)]).items():
            watch = self._learned(looks // 2, [])
            told[name] = self._faulty(watch, looks // 2, fault)
        return false_alarms, told

    def _learned(self, looks: int, alarms: list[PictureHealth]) -> PictureWatch:
        watch, before = PictureWatch(self._rules.period_s, self._rules.persist_s), PictureHealth.UNKNOWN
        for number, luma in enumerate(islice(cycle(self._pictures), looks)):
            began_s = time.perf_counter()
            health = watch.look(luma, number * self._rules.period_s)
            self.look_s.append(time.perf_counter() - began_s)
            if health is not before and health.is_trouble:
                alarms.append(health)
            before = health
        return watch

    def _faulty(self, watch: PictureWatch, begun: int, fault: Fault) -> Told:
        for number in range(int(self._fault_s / self._rules.period_s)):
            luma = fault(self._pictures[(begun + number) % len(self._pictures)])
            health = watch.look(luma, (begun + number) * self._rules.period_s)
            if health.is_trouble:
                return Told(health, number * self._rules.period_s)
        return Told(None, None)


def _row(name: str, told: Sequence[Told]) -> tuple[str, ...]:
    wanted = faults(np.zeros((1, 1), np.uint8))[name][0]
    after_s = [one.after_s for one in told if one.after_s is not None]
    right = sum(one.kind is wanted for one in told)
    middle = f"{np.median(after_s):.0f}" if after_s else ""
    return name, f"{len(after_s)}/{len(told)}", f"{right}/{len(told)}", middle, f"{max(after_s):.0f}" if after_s else ""


def main() -> None:
    """Runs all clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clean-s", type=float, default=600.0)
    parser.add_argument("--fault-s", type=float, default=60.0)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    look_s: list[float] = []
    for title, folders in GROUPS.items():
        videos = [video for folder in folders for video in sorted((given.data / folder).glob("*.mp4"))]
        if not videos:
            sys.exit(f"{given.data}: no *.mp4 in {', '.join(folders)}")
        alarms: list[PictureHealth] = []
        told: dict[str, list[Told]] = {}
        for video in videos:
            trial = Trial(video, CameraHealthConfig(), given.clean_s, given.fault_s)
            found, of_faults = trial.run()
            alarms += found
            look_s += trial.look_s
            for name, one in of_faults.items():
                told.setdefault(name, []).append(one)
        hours = len(videos) * given.clean_s / 3600
        table = Table("fault", "told", "by its name", "s, median", "s, longest", title=f"{title}: {len(videos)} clips")
        for name, of_fault in told.items():
            table.add_row(*_row(name, of_fault))
        Console(width=120).print(table)
        print(f"false alarms: {len(alarms)} in {hours:.2f} hours {[one.name.lower() for one in alarms]}")
    middle, high = 1000 * np.percentile(look_s, [50, 95])
    print(f"a look: {middle:.2f} ms in the median, {high:.2f} ms at the 95th percentile")


if __name__ == "__main__":
    main()
