"""Tiny folders in the layouts of published data sets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from reid.modality import Modality

#: Level of the red, green and blue of a picture in each band, so that a test sees which band it got.
LEVELS = {Modality.VISIBLE: (200, 60, 20), Modality.NEAR_INFRARED: (120, 120, 120), Modality.THERMAL: (30, 30, 30)}
BANDS = {"vis": Modality.VISIBLE, "ni": Modality.NEAR_INFRARED, "th": Modality.THERMAL}
TRAIN_VEHICLES = tuple(range(1, 21))
TEST_VEHICLES = (21, 22)


def write_picture(path: Path, modalities: tuple[Modality, ...] = (Modality.VISIBLE,), part_width: int = 16) -> Path:
    """Write a JPEG, eight pixels high, of one column of plain colour a band."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [np.full((8, part_width, 3), LEVELS[modality][::-1], dtype=np.uint8) for modality in modalities]
    assert cv2.imwrite(str(path), np.concatenate(columns, axis=1))
    return path


def msvr310(root: Path, train: str = "train", gallery: str = "test") -> Path:
    """Two scenes of one view for each vehicle; the queries are copies of the gallery's first scene."""
    for folder, vehicles, scenes in (
        (train, TRAIN_VEHICLES, (1, 2)),
        ("query3", TEST_VEHICLES, (1,)),
        (gallery, TEST_VEHICLES, (1, 2)),
    ):
        for vehicle in vehicles:
            for scene in scenes:
                name = f"{vehicle:04d}_s{scene:03d}_v{vehicle % 8}_004.jpg"
                for band, modality in BANDS.items():
                    write_picture(root / folder / f"{vehicle:04d}" / band / name, (modality,))
    return root


def wmveid863(root: Path, train: str = "bounding_box_train", gallery: str = "bounding_box_test") -> Path:
    """One scene, two cameras for each vehicle; a query is of camera 1, the gallery of camera 2."""
    for folder, vehicles, cameras in (
        (train, TRAIN_VEHICLES, (1, 2)),
        ("query", TEST_VEHICLES, (1,)),
        (gallery, TEST_VEHICLES, (2,)),
    ):
        for vehicle in vehicles:
            for camera in cameras:
                for band, modality in BANDS.items():
                    name = f"v{camera}_n0_s{vehicle:03d}_000.jpg"
                    write_picture(root / folder / f"{vehicle:04d}" / band / name, (modality,))
    return root


def joined(root: Path, modalities: tuple[Modality, ...]) -> Path:
    """RGBN300 with two bands, RGBNT100 with three: side by side in one file."""
    for folder, vehicles, cameras in (
        ("bounding_box_train", TRAIN_VEHICLES, (1, 2)),
        ("query", TEST_VEHICLES, (1,)),
        ("bounding_box_test", TEST_VEHICLES, (2, 8)),
    ):
        for vehicle in vehicles:
            for camera in cameras:
                write_picture(root / "rgbir" / folder / f"{vehicle:04d}_c{camera}_000.jpg", modalities)
    return root


def listed(root: Path) -> Path:
    """Colour pictures from two cameras; a car and a bus share their number."""
    names = {"train": ("car_0001", "bus_0001", "truck_0003"), "val": ("car_0002",)}
    for split, vehicles in names.items():
        files = [f"{vehicle}_cam{camera}.jpg" for vehicle in vehicles for camera in (1, 2)]
        for file in files:
            write_picture(root / "images" / file)
        (root / f"{split}.txt").write_text("\n".join(files), encoding="utf-8")
    return root
