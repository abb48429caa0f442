"""Published data sets: every layout gives what its names say, and wrong folders say what is wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reid.datasets import Sample, load_pictures, read_sample, training_set
from reid.errors import DatasetError
from reid.layouts import read_dataset, training_split, validation_vehicles
from reid.modality import Modality
from tests.reid.layout_builders import LEVELS, TEST_VEHICLES, joined, listed, msvr310, wmveid863, write_picture
from tests.reid.reid_builders import dataset, write_table

TWO = (Modality.VISIBLE, Modality.NEAR_INFRARED)
THREE = (*TWO, Modality.THERMAL)
KHOA = Path(__file__).resolve().parents[3] / "shared" / "data" / "reid_khoa"

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "MSVR310": msvr310,
    "WMVeID863": wmveid863,
    "RGBN300": lambda root: joined(root, TWO),
    "RGBNT100": lambda root: joined(root, THREE),
}


@pytest.fixture(params=BUILDERS)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of a tiny published set."""
    return BUILDERS[request.param](tmp_path / request.param)


def vehicles(samples: list[Sample]) -> set[str]:
    return {sample.vehicle for sample in samples}


# --- Laws of all published sets.


def test_a_set_is_found_in_its_folder_and_above_it(published: Path) -> None:
    assert read_dataset(published) == read_dataset(published.parent)


def test_training_and_test_together_are_the_set(published: Path) -> None:
    train, test = read_dataset(published, "train"), read_dataset(published, "test")
    assert train + test == read_dataset(published)
    assert {(sample.split, sample.role) for sample in train} == {("train", "")}
    assert {(sample.split, sample.role) for sample in test} == {("test", "query"), ("test", "gallery")}
    assert vehicles(test) == {f"{vehicle:04d}" for vehicle in TEST_VEHICLES}
    assert not vehicles(train) & vehicles(test)


def test_fit_and_val_divide_the_training_vehicles(published: Path) -> None:
    train, fit, val = (read_dataset(published, split) for split in ("train", "fit", "val"))
    assert not vehicles(fit) & vehicles(val)
    assert vehicles(fit) | vehicles(val) == vehicles(train)
    assert len(fit) + len(val) == len(train)
    assert len(vehicles(val)) == 2


def test_the_pixels_of_a_sample_are_of_its_band(published: Path) -> None:
    for sample in read_dataset(published, "test"):
        picture = read_sample(sample)
        assert picture.shape == (8, 16, 3)
        assert np.abs(picture.mean(axis=(0, 1)) - LEVELS[sample.modality]).max() < 20


def test_a_shot_has_one_picture_in_each_band(published: Path) -> None:
    shots = defaultdict(list)
    for sample in read_dataset(published, "train"):
        shots[sample.vehicle, sample.shot].append(sample.modality)
    present = sorted(TWO if published.name == "RGBN300" else THREE)
    assert {tuple(sorted(bands)) for bands in shots.values()} == {tuple(present)}
    assert all(shot for _, shot in shots)


def test_pictures_load_as_one_by_one(published: Path) -> None:
    samples = read_dataset(published, "val")
    pictures = load_pictures(samples, 8, 16)
    assert all(np.array_equal(picture, read_sample(sample)) for picture, sample in zip(pictures, samples, strict=True))


def test_an_unknown_split_is_refused(published: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split 'tests' \(wanted: train, test, fit, val\)"):
        read_dataset(published, "tests")


# --- What names say.


def test_msvr310_names_say_vehicle_scene_and_view(tmp_path: Path) -> None:
    samples = read_dataset(msvr310(tmp_path), "test")
    assert {(s.vehicle, s.scene, s.view, s.camera) for s in samples if s.role == "query"} == {
        ("0021", "001", "5", ""),
        ("0022", "001", "6", ""),
    }
    queries, gallery = ({(s.vehicle, s.shot) for s in samples if s.role == role} for role in ("query", "gallery"))
    assert queries < gallery


def test_wmveid863_names_say_camera_and_scene(tmp_path: Path) -> None:
    samples = read_dataset(wmveid863(tmp_path), "test")
    assert {(s.vehicle, s.camera, s.scene) for s in samples} == {
        ("0021", "1", "021"),
        ("0021", "2", "021"),
        ("0022", "1", "022"),
        ("0022", "2", "022"),
    }


def test_joined_names_say_vehicle_and_camera(tmp_path: Path) -> None:
    samples = read_dataset(joined(tmp_path, THREE), "test")
    assert {(s.vehicle, s.camera) for s in samples} == {(v, c) for v in ("0021", "0022") for c in "128"}
    assert {(s.modality, s.part) for s in samples} == {(m, (index, 3)) for index, m in enumerate(THREE)}


def test_folders_named_as_in_other_archives_are_read_too(tmp_path: Path) -> None:
    other = msvr310(tmp_path / "a", "bounding_box_train", "bounding_box_test")
    assert len(read_dataset(other)) == len(read_dataset(msvr310(tmp_path / "b")))
    other = wmveid863(tmp_path / "c", "train", "test")
    assert len(read_dataset(other)) == len(read_dataset(wmveid863(tmp_path / "d")))


def test_views_for_training_are_shots(tmp_path: Path) -> None:
    samples = read_dataset(msvr310(tmp_path), "val")
    data = training_set([(samples, 1), (samples, 1)], 8, 16)
    half = len(samples)
    assert not set(data.views[:half]) & set(data.views[half:])
    for first in range(half):
        for second in range(half):
            are_one = samples[first].shot == samples[second].shot
            assert (data.views[first] == data.views[second]) == are_one


# --- The division.


def test_the_division_depends_on_names_alone() -> None:
    names = [f"{number:04d}" for number in range(155)]
    chosen = validation_vehicles(names)
    assert chosen == validation_vehicles([*reversed(names), *names])
    assert chosen < set(names)
    assert len(chosen) == 16
    assert chosen != validation_vehicles(names, seed=1)


def test_the_division_never_changes() -> None:
    # Measured figures name the split `val`: another choice under the same name would make them incomparable.
    assert validation_vehicles(f"{number:04d}" for number in range(20)) == {"0005", "0008"}


def test_one_vehicle_can_not_be_divided(tmp_path: Path) -> None:
    write_picture(tmp_path / "bounding_box_train" / "0001_c1_0.jpg", TWO)
    assert vehicles(read_dataset(tmp_path, "val")) == {"0001"}
    with pytest.raises(DatasetError, match="split 'fit' is empty"):
        read_dataset(tmp_path, "fit")


# --- What may be missing, and what may not.


def test_a_band_or_a_picture_of_a_shot_may_be_missing(tmp_path: Path) -> None:
    root = msvr310(tmp_path)
    complete = read_dataset(root, "train")
    for path in (root / "train" / "0001" / "th").iterdir():
        path.unlink()
    (root / "train" / "0001" / "th").rmdir()
    (root / "train" / "0002" / "vis" / "0002_s001_v2_004.jpg").unlink()
    remaining = read_dataset(root, "train")
    assert len(remaining) == len(complete) - 3
    assert set(remaining) < set(complete)


def test_other_files_are_no_pictures(tmp_path: Path) -> None:
    root = msvr310(tmp_path)
    complete = read_dataset(root)
    (root / "train" / "readme.txt").write_text("not a vehicle")
    (root / "train" / "0001" / "vis" / "Thumbs.db").write_bytes(b"")
    (root / "train" / "0001" / "vis" / "._0001_s001_v1_004.jpg").write_bytes(b"")
    assert read_dataset(root) == complete


def test_test_pictures_need_no_training_pictures(tmp_path: Path) -> None:
    root = joined(tmp_path, TWO)
    (root / "rgbir" / "bounding_box_train").rename(root / "rgbir" / "elsewhere")
    assert vehicles(read_dataset(root, "test")) == {"0021", "0022"}
    with pytest.raises(DatasetError, match=r"rgbir: no folder bounding_box_train or train"):
        read_dataset(root, "train")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    root = joined(tmp_path, TWO)
    for path in (root / "rgbir" / "query").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"query: no picture"):
        read_dataset(root, "test")


@pytest.mark.parametrize(
    ("build", "path"),
    [
        (msvr310, "train/0001/vis/0001_s001.jpg"),
        (msvr310, "train/0001/vis/front.jpg"),
        (msvr310, "train/0001/ni/0002_s001_v1_004.jpg"),
        (wmveid863, "bounding_box_train/0001/vis/0001_s001_v1_004.jpg"),
        (BUILDERS["RGBN300"], "rgbir/bounding_box_train/0001_1.jpg"),
    ],
)
def test_a_name_that_says_something_else_is_refused(tmp_path: Path, build: Callable[[Path], Path], path: str) -> None:
    root = build(tmp_path)
    write_picture(root / path)
    with pytest.raises(DatasetError) as caught:
        read_dataset(root, "train")
    assert str(caught.value).startswith(str(root / path))
    assert "\n" not in str(caught.value)


def test_a_joined_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "query" / "0001_c1_0.jpg")
    write_picture(tmp_path / "bounding_box_test" / "0001_c2_0.jpg", TWO)
    with pytest.raises(DatasetError, match=r"0001_c1_0\.jpg: 16x8 \(wanted: 4:1"):
        read_dataset(tmp_path, "test")


def test_columns_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "odd.jpg", part_width=17)
    with pytest.raises(DatasetError, match=r"odd\.jpg: 17 columns don't divide into 2 equal parts"):
        read_sample(Sample(path, "1", Modality.VISIBLE, part=(0, 2)))


def test_nothing_known_and_too_much_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no known data set \(wanted: samples\.csv, the folders of MSVR310"):
        read_dataset(tmp_path)
    with pytest.raises(DatasetError, match="nowhere: can't be listed"):
        read_dataset(tmp_path / "nowhere")
    for name in ("MSVR310", "RGBN300"):
        BUILDERS[name](tmp_path / name)
    with pytest.raises(DatasetError, match=r"several data sets \(MSVR310, RGBN300.rgbir\)"):
        read_dataset(tmp_path)


# --- Listed images.


def test_class_and_number_name_a_listed_vehicle(tmp_path: Path) -> None:
    root = listed(tmp_path)
    train, val = (read_dataset(root, split) for split in ("train", "val"))
    assert vehicles(train) == {"car_0001", "bus_0001", "truck_0003"}
    assert {(s.vehicle, s.vehicle_class, s.camera, s.split) for s in val} == {
        ("car_0002", "car", "cam1", "val"),
        ("car_0002", "car", "cam2", "val"),
    }
    assert read_dataset(root) == train + val
    with pytest.raises(DatasetError, match=r"no split 'test' \(wanted: train, val, fit, tune\)"):
        read_dataset(root, "test")


def listed_training(root: Path, count: int) -> Path:
    """A folder of listed images with so many training vehicles, each in two cameras."""
    names = [f"car_{vehicle:04d}_cam{camera}.jpg" for vehicle in range(count) for camera in (1, 2)]
    for name in names:
        write_picture(root / "images" / name)
    (root / "train.txt").write_text("\n".join(names), encoding="utf-8")
    return root


def test_fit_and_tune_divide_the_listed_training_vehicles(tmp_path: Path) -> None:
    root = listed_training(tmp_path, 20)
    train, fit, tune = (read_dataset(root, split) for split in ("train", "fit", "tune"))
    assert not vehicles(fit) & vehicles(tune)
    assert sorted(fit + tune, key=train.index) == train
    assert (len(vehicles(fit)), len(vehicles(tune))) == (16, 4)
    assert vehicles(tune) == validation_vehicles(vehicles(train), one_in=5)


def test_one_listed_vehicle_can_not_be_divided(tmp_path: Path) -> None:
    root = listed_training(tmp_path, 1)
    assert vehicles(read_dataset(root, "tune")) == {"car_0000"}
    with pytest.raises(DatasetError, match="split 'fit' is empty"):
        read_dataset(root, "fit")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("car_0009_cam1.jpg", r"car_0009_cam1\.jpg: no such picture, but .*val\.txt:2 names it"),
        ("car9.jpg", r"val\.txt:2: 'car9\.jpg' is not a name like"),
    ],
)
def test_a_wrong_line_of_a_list_is_refused(tmp_path: Path, line: str, complaint: str) -> None:
    root = listed(tmp_path)
    (root / "val.txt").write_text(f"car_0002_cam1.jpg\n{line}\n")
    with pytest.raises(DatasetError, match=complaint):
        read_dataset(root)


def test_an_empty_or_missing_list_is_refused(tmp_path: Path) -> None:
    root = listed(tmp_path)
    (root / "val.txt").write_text("\n")
    with pytest.raises(DatasetError, match=r"val\.txt: names no picture"):
        read_dataset(root, "val")
    (root / "val.txt").unlink()
    with pytest.raises(DatasetError, match=r"val\.txt: can't be read"):
        read_dataset(root, "val")
    assert len(read_dataset(root)) == 6


@pytest.mark.skipif(not KHOA.is_dir(), reason="needs shared/data/reid_khoa beside the checkout")
def test_the_real_listed_set_is_read() -> None:
    train, val = (read_dataset(KHOA, split) for split in ("train", "val"))
    assert len(train) + len(val) == 1014
    assert not vehicles(train) & vehicles(val)
    assert {sample.camera for sample in train} == {"cam1", "cam2"}
    assert {sample.vehicle_class for sample in train} == {"bus", "car", "motorcycle", "truck"}
    assert read_sample(val[0]).shape[2] == 3


def test_a_table_without_splits_is_divided_by_vehicle(tmp_path: Path) -> None:
    for number in range(12):
        write_picture(tmp_path / f"{number}.png")
    rows = [{"path": f"{n}.png", "vehicle": str(n // 2), "modality": "visible"} for n in range(12)]
    write_table(tmp_path, rows)
    fit, val = read_dataset(tmp_path, "fit"), read_dataset(tmp_path, "val")
    assert len(val) == 2
    assert not vehicles(fit) & vehicles(val)
    assert len(fit) + len(val) == 12
    assert training_split(tmp_path) == "fit"
    with pytest.raises(DatasetError, match="no column split"):
        read_dataset(tmp_path, "train")


def test_a_vehicle_of_one_site_is_divided_apart_from_its_namesakes(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png").name
    named = [(str(vehicle), site) for vehicle in range(10) for site in ("north", "south")]
    write_table(tmp_path, [{"path": path, "vehicle": v, "site": s, "modality": "visible"} for v, s in named])
    fit, val = ({(s.site, s.vehicle) for s in read_dataset(tmp_path, split)} for split in ("fit", "val"))
    assert len(val) == 2
    assert not fit & val
    assert len(fit | val) == 20
    assert {vehicle for _, vehicle in val} <= {vehicle for _, vehicle in fit}


def test_training_leaves_out_what_validation_takes(tmp_path: Path) -> None:
    assert training_split(msvr310(tmp_path / "msvr")) == "fit"
    assert training_split(listed(tmp_path / "listed")) == "train"
    assert training_split(dataset(tmp_path / "table")) == "train"
