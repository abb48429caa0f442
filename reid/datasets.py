"""Folders of crops with a `samples.csv`: path, vehicle, modality, and what else is known."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from reid.embedder import prepare_crop
from reid.errors import DatasetError
from reid.modality import Modality

REQUIRED = ("path", "vehicle", "modality")


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of `samples.csv`. Columns the file lacks are empty.

    Attributes:
        path: the picture.
        vehicle: identity, unique in its folder.
        modality: band of the sensor.
        camera: camera name.
        scene: pictures of one vehicle and scene were taken at one time and place.
        site: vehicles of different sites can't be the same one.
        view: shots with one vehicle and view show the same side.
        vehicle_class: car, bus, ...
    """

    path: Path
    vehicle: str
    modality: Modality
    camera: str = ""
    scene: str = ""
    site: str = ""
    view: str = ""
    vehicle_class: str = ""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Everything a run trains on, decoded once.

    Attributes:
        pictures: (N, H, W, 3) uint8 RGB.
        identities: (N,) int64, 0-based without gaps.
        modalities: N bands.
        views: N view labels, made unique per source; empty where unknown.
        repeats: draws per epoch of each identity.
    """

    pictures: NDArray[np.uint8]
    identities: NDArray[np.int64]
    modalities: tuple[Modality, ...]
    views: tuple[str, ...]
    repeats: tuple[int, ...] = field(default=())


def read_samples(folder: Path, split: str | None = None) -> list[Sample]:
    """Read a folder's `samples.csv`.

    Args:
        folder: where `samples.csv` lies; its paths are relative to it.
        split: keep rows whose `split` is this; all rows when None.

    Returns:
        The rows, in the file's order.

    Raises:
        DatasetError: no such file, a column is missing, an unknown modality, or no row left.
    """
    table = folder / "samples.csv"
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            missing = [name for name in REQUIRED if name not in (rows.fieldnames or ())]
            if missing:
                raise DatasetError(f"{table}: no column {', '.join(missing)} (wanted: {', '.join(REQUIRED)})")
            samples = [_sample(folder, row, table, rows.line_num) for row in rows if _chosen(row, split)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table}: can't be read: {error}") from error
    if not samples:
        raise DatasetError(f"{table}: no row" + (f" with split {split!r}" if split else ""))
    return samples


def _chosen(row: dict[str, str], split: str | None) -> bool:
    return split is None or row.get("split") == split


def _sample(folder: Path, row: dict[str, str], table: Path, line: int) -> Sample:
    try:
        modality = Modality(row["modality"])
    except ValueError as error:
        wanted = ", ".join(Modality)
        raise DatasetError(f"{table}:{line}: modality {row['modality']!r} is none of {wanted}") from error
    known = {name: row.get(name) or "" for name in ("camera", "scene", "site", "view")}
    return Sample(folder / row["path"], row["vehicle"], modality, vehicle_class=row.get("class") or "", **known)


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


def load_pictures(samples: Sequence[Sample], height: int, width: int) -> NDArray[np.uint8]:
    """Decode and resize pictures once, so that training spends its cores on the network.

    Args:
        samples: N rows.
        height: pixels.
        width: pixels.

    Returns:
        (N, height, width, 3) uint8 RGB.
    """
    pictures = np.empty((len(samples), height, width, 3), dtype=np.uint8)
    for index, sample in enumerate(samples):
        pictures[index] = prepare_crop(read_picture(sample.path), height, width)
    return pictures


def training_set(sources: Iterable[tuple[Sequence[Sample], int]], height: int, width: int) -> TrainingSet:
    """Join several folders; their vehicles stay apart even where their names agree.

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
        names = sorted({sample.vehicle for sample in samples})
        index = {name: len(repeats) + i for i, name in enumerate(names)}
        identities += [index[sample.vehicle] for sample in samples]
        views += [f"{number}/{sample.view}" if sample.view else "" for sample in samples]
        repeats += [draws] * len(names)
        rows += samples
    modalities = tuple(sample.modality for sample in rows)
    numbers = np.asarray(identities, dtype=np.int64)
    return TrainingSet(load_pictures(rows, height, width), numbers, modalities, tuple(views), tuple(repeats))
