"""Cut training crops from videos with known boxes: `python -m reid.site_crops SITE... --out DIR`."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from reid.command import run_command
from reid.errors import DatasetError
from reid.modality import Modality

COLUMNS = ("path", "vehicle", "modality", "camera", "site", "time", "split")
BANDS = {"rgb": Modality.VISIBLE, "nir": Modality.NEAR_INFRARED, "thermal": Modality.THERMAL}


@dataclass(frozen=True, slots=True)
class Rules:
    """Which boxes become crops.

    Attributes:
        every: of the frames of a vehicle, one in so many.
        until_s: seconds of the video to use.
        min_visible: least visible part of the vehicle, 0-1.
        max_truncated: largest part outside the picture, 0-1.
        min_height: pixels.
        jitter: shift of each side, part of the box's side: detectors are off by as much.
        hold_out: of the vehicles, one in so many goes to split `val`.
    """

    every: int = 3
    until_s: float = float("inf")
    min_visible: float = 0.6
    max_truncated: float = 0.3
    min_height: float = 20.0
    jitter: float = 0.05
    hold_out: int = 4


@dataclass(frozen=True, slots=True)
class Box:
    """One row of `truth.csv`: vehicle, frame, second, (4,) xyxy in pixels."""

    vehicle: str
    frame: int
    time: float
    corners: NDArray[np.float32]


def read_boxes(truth: Path, rules: Rules) -> dict[str, list[Box]]:
    """Read the boxes worth cutting, per camera, every n-th of each vehicle.

    Raises:
        DatasetError: no such file, or not a truth table.
    """
    seen: dict[tuple[str, str], int] = defaultdict(int)
    boxes: dict[str, list[Box]] = defaultdict(list)
    try:
        with truth.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                box = _box(row)
                if _usable(row, box, rules):
                    key = (row["camera"], box.vehicle)
                    if seen[key] % rules.every == 0:
                        boxes[row["camera"]].append(box)
                    seen[key] += 1
    except (OSError, KeyError, ValueError) as error:
        raise DatasetError(f"{truth}: not a truth table: {error}") from error
    return boxes


def _box(row: dict[str, str]) -> Box:
    corners = np.array([float(row[name]) for name in ("x1", "y1", "x2", "y2")], dtype=np.float32)
    return Box(row["vehicle"], int(row["frame"]), float(row["t"]), corners)


def _usable(row: dict[str, str], box: Box, rules: Rules) -> bool:
    return (
        box.time < rules.until_s
        and float(row["visible_fraction"]) >= rules.min_visible
        and float(row["truncated"]) <= rules.max_truncated
        and float(box.corners[3] - box.corners[1]) >= rules.min_height
    )


def cut_site(site: Path, out: Path, rules: Rules, generator: np.random.Generator) -> list[dict[str, str]]:
    """Cut one site's crops into `out / images`.

    Args:
        site: folder with `truth.csv` and one `<camera>_<band>.mp4` a camera.
        out: folder to write to.
        rules: which boxes.
        generator: for the jitter.

    Returns:
        Rows for `samples.csv`.
    """
    boxes = read_boxes(site / "truth.csv", rules)
    names = sorted({box.vehicle for of_camera in boxes.values() for box in of_camera}, key=lambda v: (len(v), v))
    held_out = set(names[:: rules.hold_out])
    rows = []
    for camera, of_camera in sorted(boxes.items()):
        modality = BANDS.get(camera.rpartition("_")[2])
        if modality is None:
            raise DatasetError(f"{site}: camera {camera!r} ends in none of {', '.join(BANDS)}")
        for box, crop in _crops(site / f"{camera}.mp4", of_camera, rules.jitter, generator):
            path = Path("images") / f"{site.name}-{box.vehicle}" / f"{camera}-{box.frame:05d}.jpg"
            _write(out / path, crop)
            split = "val" if box.vehicle in held_out else "train"
            values = (path, f"{site.name}-{box.vehicle}", modality, camera, site.name, f"{box.time:.2f}", split)
            rows.append(dict(zip(COLUMNS, map(str, values), strict=True)))
    return rows


def _crops(
    video: Path, boxes: list[Box], jitter: float, generator: np.random.Generator
) -> list[tuple[Box, NDArray[np.uint8]]]:
    """Decode a video once and cut its boxes, BGR."""
    wanted: dict[int, list[Box]] = defaultdict(list)
    for box in boxes:
        wanted[box.frame].append(box)
    capture = cv2.VideoCapture(str(video))
    crops = []
    for frame in range(max(wanted) + 1):
        decoded, picture = capture.read()
        if not decoded:
            raise DatasetError(f"{video}: no frame {frame}")
        crops += [(box, cut(np.asarray(picture, np.uint8), box.corners, jitter, generator)) for box in wanted[frame]]
    return crops


def cut(
    picture: NDArray[np.uint8], corners: NDArray[np.float32], jitter: float, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Cut a box out, each side moved by up to `jitter` of the box's length, inside the picture."""
    size = np.tile(corners[2:] - corners[:2], 2)
    moved = corners + generator.uniform(-jitter, jitter, 4) * size
    height, width = picture.shape[:2]
    left, top = np.clip(np.floor(moved[:2]).astype(int), 0, (width - 2, height - 2))
    right, bottom = np.clip(np.ceil(moved[2:]).astype(int), (left + 2, top + 2), (width, height))
    return np.ascontiguousarray(picture[top:bottom, left:right])


def _write(path: Path, crop: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), crop, [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise DatasetError(f"{path}: can't be written")


def main(
    sites: Annotated[list[Path], typer.Argument(help="Folders with truth.csv and videos.")],
    out: Annotated[Path, typer.Option(help="Folder to write images and samples.csv to.")],
    until_s: Annotated[float, typer.Option(help="Use only the videos' first seconds.")] = float("inf"),
    every: Annotated[int, typer.Option(help="Of a vehicle's frames, one in so many.", min=1)] = 3,
    append: Annotated[bool, typer.Option(help="Add to the folder's samples.csv.")] = False,
    seed: Annotated[int, typer.Option(help="Of the jitter.", min=0)] = 0,
) -> None:
    """Cut crops with identities from rendered or labelled videos into a folder `reid.train` reads."""
    generator = np.random.default_rng(seed)
    rules = Rules(every=every, until_s=until_s)
    rows = [row for site in sites for row in cut_site(site, out, rules, generator)]
    table = out / "samples.csv"
    fresh = not (append and table.exists())
    with table.open("w" if fresh else "a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        if fresh:
            writer.writeheader()
        writer.writerows(rows)
    typer.echo(f"{len(rows)} crops of {len({row['vehicle'] for row in rows})} vehicles in {out}")


if __name__ == "__main__":
    run_command(main)
