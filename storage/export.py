"""Files made from the database: boxes as CSV, crops as a folder that `reid.train` reads."""

from __future__ import annotations

import csv
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from storage.crop_store import CropStore
from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import TextIO

    from storage.answers import BoxRow, CropRow

BOX_COLUMNS = ("camera", "t", "captured_at", "frame", "vehicle", "x1", "y1", "x2", "y2")
SAMPLE_COLUMNS = ("path", "vehicle", "camera", "modality", "class", "time")


@dataclass(frozen=True, slots=True)
class CropExport:
    """What became of the crops.

    Attributes:
        written: Those that lie in the folder now.
        missing: Those whose picture was not in the crop store.
        paths: Where each lies below the folder, by where it lies below the crop store.
    """

    written: int
    missing: int
    paths: dict[str, str] = field(default_factory=dict)


def utc_text(moment: datetime, timespec: str = "microseconds") -> str:
    """A moment as ISO 8601 in UTC, such as `2026-01-01T12:00:00.040000Z`."""
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def write_boxes(rows: Iterable[BoxRow], path: Path) -> int:
    """Writes boxes as CSV, with `BOX_COLUMNS` as its header; whole or not at all.

    Coordinates have three decimals at most, `t` six.

    Returns:
        How many rows it holds.

    Raises:
        StorageError: The file can't be written.
    """
    count = 0
    with whole_file(path) as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(BOX_COLUMNS)
        for count, row in enumerate(rows, start=1):  # noqa: B007 - the last one is the number of rows
            table.writerow(_box_values(row))
    return count


def write_crops(rows: Iterable[CropRow], source: CropStore, folder: Path) -> CropExport:
    """Copies crops to `images/VEHICLE/MODALITY/NUMBER.jpg` below a folder, and lists them in its `samples.csv`.

    Args:
        rows: The crops.
        source: Where their pictures lie. One that isn't there is left out and counted.
        folder: New or empty.

    Raises:
        StorageError: The folder holds something, or can't be written.
    """
    _check_empty(folder)
    target = CropStore(folder)
    numbers: Counter[tuple[str, str]] = Counter()
    missing, paths = 0, {}
    with whole_file(folder / "samples.csv") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(SAMPLE_COLUMNS)
        for row in rows:
            if not source.path(row.crop_image).is_file():
                missing += 1
                continue
            series = (row.vehicle, row.modality)
            path = target.save(
                f"images/{row.vehicle}/{row.modality}/{numbers[series]:04d}.jpg", source.load(row.crop_image)
            )
            numbers[series] += 1
            paths[row.crop_image] = path
            time = utc_text(row.captured_at)
            table.writerow((path, row.vehicle, row.camera, row.modality, row.vehicle_class, time))
    return CropExport(numbers.total(), missing, paths)


def _box_values(row: BoxRow) -> tuple[object, ...]:
    sides = (round(side, 3) for side in (row.x1, row.y1, row.x2, row.y2))
    return (row.camera, row.t, utc_text(row.captured_at), row.frame, row.vehicle, *sides)


def _check_empty(folder: Path) -> None:
    try:
        is_empty = not folder.exists() or not any(folder.iterdir())
    except OSError as error:
        raise StorageError(f"export {folder}: {error.strerror or error}") from error
    if not is_empty:
        raise StorageError(f"export {folder}: wanted a new or an empty folder, this one holds something")


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that appears under its name once everything is in it.

    Raises:
        StorageError: It can't be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                yield stream
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"export {path}: {error.strerror or error}") from error
