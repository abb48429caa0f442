"""Cuts the demo clips in `tests/data/site` out of a rendered site: the last seconds, which no training sees.

    python benchmarks/cut_site.py --data ../shared/data/site_train_gaps

A second run on the same machine writes the same bytes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import av.video
import typer

ROOT = Path(__file__).resolve().parent.parent
CAMERAS = ("cam1_rgb", "cam2_thermal", "cam3_rgb", "cam4_nir")
EDGES = {"x1": 0, "y1": 1, "x2": 0, "y2": 1}
KEYFRAME_EVERY_S = 2


def fitted(width: int, height: int, max_width: int) -> tuple[int, int]:
    """The largest size of the same shape that is at most `max_width` wide; even, as 4:2:0 video needs."""
    if width <= max_width:
        return width, height
    return max_width // 2 * 2, round(height * max_width / width / 2) * 2


def _frames(source: Path, first: int, count: int) -> Iterator[av.VideoFrame]:
    with av.open(str(source)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index >= first + count:
                return
            if index >= first:
                yield frame


def cut_video(
    source: Path, target: Path, *, first: int, count: int, fps: int, max_width: int, crf: int
) -> tuple[float, float]:
    """Re-encodes `count` frames from frame `first` on.

    Returns:
        Target size over source size: across, down.

    Raises:
        ValueError: The source holds fewer frames than that.
    """
    written, scale = 0, (1.0, 1.0)
    with av.open(str(target), "w", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        # One thread and no dispatch by CPU: the same bytes wherever it runs.
        options = {"crf": str(crf), "preset": "slow", "threads": "1", "x264-params": "cpu-independent=1:threads=1"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.pix_fmt = "yuv420p"
        stream.gop_size = KEYFRAME_EVERY_S * fps
        for written, frame in enumerate(_frames(source, first, count), start=1):
            width, height = fitted(frame.width, frame.height, max_width)
            if written == 1:
                stream.width, stream.height = width, height
                scale = (width / frame.width, height / frame.height)
            picture = frame.reformat(width=width, height=height, format="yuv420p", interpolation="AREA")
            picture.pts, picture.time_base = written - 1, Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    if written != count:
        raise ValueError(f"{source}: wanted {count} frames from frame {first} on, got {written}")
    return scale


def cut_truth(
    source: Path, target: Path, *, first: int, count: int, fps: int, scales: dict[str, tuple[float, float]]
) -> int:
    """Copies the rows of the cut: frame and t from zero on, boxes in the new pixels.

    Returns:
        How many rows it wrote.
    """
    rows = 0
    with source.open(newline="") as given, target.open("w", newline="") as out:
        reader = csv.DictReader(given)
        writer = csv.DictWriter(out, reader.fieldnames or (), lineterminator="\n")
        writer.writeheader()
        for row in reader:
            frame = int(row["frame"]) - first
            if row["camera"] not in scales or not 0 <= frame < count:
                continue
            scale = scales[row["camera"]]
            boxes = {edge: f"{float(row[edge]) * scale[axis]:.2f}" for edge, axis in EDGES.items()}
            writer.writerow({**row, **boxes, "frame": frame, "t": f"{float(row['t']) - first / fps:.1f}"})
            rows += 1
    return rows


def main(
    data: Annotated[Path, typer.Option(help="Folder of a rendered site: clips and truth.csv.")],
    out: Annotated[Path, typer.Option(help="Where the cut goes.")] = ROOT / "tests" / "data" / "site",
    start_s: Annotated[int, typer.Option(help="First second of the cut.")] = 40,
    seconds: Annotated[int, typer.Option(help="How long it is.")] = 20,
    fps: Annotated[int, typer.Option(help="Frame rate of the clips, before and after.")] = 10,
    max_width: Annotated[int, typer.Option(help="Wider clips are scaled down to this.")] = 640,
    crf: Annotated[int, typer.Option(help="x264's quality, lower is better.")] = 23,
) -> None:
    """Cut a site's clips and its truth."""
    out.mkdir(parents=True, exist_ok=True)
    first, count = start_s * fps, seconds * fps
    scales: dict[str, tuple[float, float]] = {}
    for camera in CAMERAS:
        target = out / f"{camera}.mp4"
        scales[camera] = cut_video(
            data / f"{camera}.mp4", target, first=first, count=count, fps=fps, max_width=max_width, crf=crf
        )
        print(f"{target.name}: {count} frames, scale {scales[camera][0]:.4g}, {target.stat().st_size / 1e6:.2f} MB")
    rows = cut_truth(data / "truth.csv", out / "truth.csv", first=first, count=count, fps=fps, scales=scales)
    print(f"truth.csv: {rows} rows")


if __name__ == "__main__":
    typer.run(main)
