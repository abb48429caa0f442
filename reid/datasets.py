"""Pictures of vehicles with names: one row a picture, `samples.csv` that lists them, and their pixels."""

from __future__ import annotations

import csv
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from reid.embedder import prepare_crop
from reid.errors import DatasetError
from reid.modality import Modality

MAX_MEMORY_BYTES = 4 << 30
REQUIRED = ("path", "vehicle", "modality")
ROLES = ("", "query", "gallery")


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of one vehicle in one band. What is not known is empty.

    Attributes:
        path: the picture's file.
        vehicle: identity, unique in its folder and site.
        modality: band of the sensor.
        camera: camera name.
        scene: pictures of one vehicle and scene were taken at one time and place.
        site: vehicles of different sites can't be the same one.
        view: pictures with one vehicle and view show the same side.
        vehicle_class: car, bus, ...
        time: when it was taken, as its source writes it.
        split: as its data set divides itself.
        role: `query` only asks, `gallery` is only asked about, empty is both.
        part: index and count of the equal columns of the file of which this picture is one: data sets that
            put the bands of a shot side by side in one file.
        shot: pictures of one vehicle with one shot were taken at one moment by aligned sensors.
    """

    path: Path
    vehicle: str
    modality: Modality
    camera: str = ""
    scene: str = ""
    site: str = ""
    view: str = ""
    vehicle_class: str = ""
    time: str = ""
    split: str = ""
    role: str = ""
    part: tuple[int, int] = (0, 1)
    shot: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """What names a vehicle within a folder: its site, and its name there."""
        return self.site, self.vehicle

    def __post_init__(self) -> None:
        index, count = self.part
        if not 0 <= index < count:
            raise ValueError(f"{self.path}: part must be (index, count) with 0 <= index < count, got {self.part}")
        if self.role not in ROLES:
            raise ValueError(f"{self.path}: role must be query, gallery or empty, got {self.role!r}")


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Everything a run trains on, decoded once.

    Attributes:
        pictures: (N, H, W, 3) uint8 RGB.
        identities: (N,) int64, 0-based without gaps.
        modalities: N bands.
        views: N labels, the shot or else the view, made unique per source; empty where neither is known.
        repeats: draws per epoch of each identity.
    """

    pictures: NDArray[np.uint8]
    identities: NDArray[np.int64]
    modalities: tuple[Modality, ...]
    views: tuple[str, ...]
    repeats: tuple[int, ...]


def read_samples(folder: Path, split: str | None = None) -> list[Sample]:
    """Read a folder's `samples.csv`.

    Args:
        folder: where `samples.csv` lies; its paths are relative to it.
        split: keep rows whose `split` is this; all rows when None.

    Returns:
        The rows, in the file's order.

    Raises:
        DatasetError: no such file, a column is missing, an unknown modality or role, a picture that does
            not exist, or no row left.
    """
    table = folder / "samples.csv"
    try:
        # Excel writes a mark before the first column's name; other files read the same with and without.
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            missing = [name for name in REQUIRED if name not in (rows.fieldnames or ())]
            if missing:
                raise DatasetError(f"{table}: no column {', '.join(missing)} (wanted: {', '.join(REQUIRED)})")
            if split is not None and "split" not in (rows.fieldnames or ()):
                raise DatasetError(f"{table}: no column split, so no row with split {split!r}")
            samples = [_sample(folder, row, f"{table}:{rows.line_num}") for row in rows if _chosen(row, split)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table}: can't be read: {error}") from error
    if not samples:
        raise DatasetError(f"{table}: no row" + (f" with split {split!r}" if split else ""))
    return samples


def _chosen(row: dict[str, str], split: str | None) -> bool:
    return split is None or row.get("split") == split


def _sample(folder: Path, row: dict[str, str], place: str) -> Sample:
    absent = [name for name in REQUIRED if not row[name]]
    if absent:
        raise DatasetError(f"{place}: no {' and no '.join(absent)}")
    try:
        modality = Modality(row["modality"])
    except ValueError as error:
        wanted = ", ".join(Modality)
        raise DatasetError(f"{place}: modality {row['modality']!r} is none of {wanted}") from error
    role = row.get("role") or ""
    if role not in ROLES:
        raise DatasetError(f"{place}: role {role!r} is neither query nor gallery nor empty")
    return Sample(
        existing_picture(folder / row["path"], place),
        row["vehicle"],
        modality,
        camera=row.get("camera") or "",
        scene=row.get("scene") or "",
        site=row.get("site") or "",
        view=row.get("view") or "",
        vehicle_class=row.get("class") or "",
        time=row.get("time") or "",
        split=row.get("split") or "",
        role=role,
        shot=row.get("shot") or "",
    )


def existing_picture(path: Path, place: str) -> Path:
    """The path itself, if there is such a file: a run should not end hours later at a wrong line.

    Args:
        path: of a picture.
        place: the file, and line, that names it.

    Raises:
        DatasetError: no such file.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: no such picture, but {place} names it")
    return path


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Decode a picture to RGB uint8 (H, W, 3); gray is replicated.

    Raises:
        DatasetError: no such file, or not a picture.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise DatasetError(f"{path}: not a picture that can be decoded")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def read_sample(sample: Sample) -> NDArray[np.uint8]:
    """Decode the picture of a sample: its file, or its columns of the file.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DatasetError: no such file, not a picture, or its columns don't divide into the sample's parts.
    """
    return _part(read_picture(sample.path), sample)


def _part(picture: NDArray[np.uint8], sample: Sample) -> NDArray[np.uint8]:
    """(H, W, 3) -> (H, W / parts, 3)."""
    index, count = sample.part
    width, rest = divmod(picture.shape[1], count)
    if rest or not width:
        raise DatasetError(f"{sample.path}: {picture.shape[1]} columns don't divide into {count} equal parts")
    return np.ascontiguousarray(picture[:, index * width : (index + 1) * width])


def load_pictures(samples: Sequence[Sample], height: int, width: int) -> NDArray[np.uint8]:
    """Decode and resize pictures once, so that training spends its cores on the network.

    Args:
        samples: N rows.
        height: pixels.
        width: pixels.

    Returns:
        (N, height, width, 3) uint8 RGB; above 4 GiB a file of the temporary folder, mapped, that goes with it.

    Raises:
        DatasetError: a picture that `read_sample` can't read.
    """
    pictures = _room((len(samples), height, width, 3))
    # The parts of a file stand in neighbouring rows: decoding it once for all of them is two to three times as fast.
    decoded, path = np.empty((0, 0, 3), dtype=np.uint8), None
    for index, sample in enumerate(samples):
        if sample.path != path:
            decoded, path = read_picture(sample.path), sample.path
        pictures[index] = prepare_crop(_part(decoded, sample), height, width)
    return pictures


def _room(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array in memory; a large one in a nameless file, so that the system may drop what nobody reads."""
    if math.prod(shape) <= MAX_MEMORY_BYTES:
        return np.empty(shape, dtype=np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)


def training_set(sources: Iterable[tuple[Sequence[Sample], int]], height: int, width: int) -> TrainingSet:
    """Join several folders; vehicles of two folders or sites stay apart even where their names agree.

    Args:
        sources: per folder its rows and how often an epoch draws each of its vehicles.
        height: pixels.
        width: pixels.

    Returns:
        All pictures, in memory.
    """
    identities: list[int] = []
    repeats: list[int] = []
    rows: list[Sample] = []
    views: list[str] = []
    for number, (samples, draws) in enumerate(sources):
        names = sorted({sample.identity for sample in samples})
        index = {name: len(repeats) + i for i, name in enumerate(names)}
        identities += [index[sample.identity] for sample in samples]
        views += [_aligned(number, sample) for sample in samples]
        repeats += [draws] * len(names)
        rows += samples
    modalities = tuple(sample.modality for sample in rows)
    numbers = np.asarray(identities, dtype=np.int64)
    return TrainingSet(load_pictures(rows, height, width), numbers, modalities, tuple(views), tuple(repeats))


def _aligned(source: int, sample: Sample) -> str:
    """Label of the pictures that show the same side; a shot says it more strictly than a view."""
    if sample.shot:
        return f"{source}/shot {sample.shot}"
    return f"{source}/view {sample.view}" if sample.view else ""
