"""Published data sets in the folders they come in, and which of their vehicles an early look may use."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reid.datasets import Sample, existing_picture, read_picture, read_samples
from reid.errors import DatasetError
from reid.modality import Modality

BANDS = {"vis": Modality.VISIBLE, "ni": Modality.NEAR_INFRARED, "th": Modality.THERMAL}
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
#: Names that a set's own folder has, in small letters.
PUBLISHED = frozenset({"msvr310", "wmveid863", "rgbn300", "rgbnt100"})
TRAIN = ("bounding_box_train", "train")
QUERY = ("query3", "query")
GALLERY = ("bounding_box_test", "test", "gallery")
PUBLISHED_SPLITS = ("train", "test", "fit", "val")
#: Splits that have a list.
LISTS = ("train", "val")
LISTED_SPLITS = (*LISTS, "fit", "tune")
#: Of the training vehicles, one in so many is in `val`.
HOLD_OUT = 10
#: Of a list's training vehicles, one in so many is in `tune`: such sets are small.
TUNE_HOLD_OUT = 5
#: Parts of what has no validation split of its own.
DIVISION = ("fit", "val")
DIVISION_SEED = 0

_JOINED_NAME = re.compile(r"(?P<vehicle>\d+)_c(?P<camera>\d+)(?:_.*)?")
_LISTED_NAME = re.compile(r"(?P<vehicle>(?P<kind>.+)_\d+)_(?P<camera>cam\w+)")


@dataclass(frozen=True, slots=True)
class _Published:
    """A set with training, query and gallery folders, and how the pictures in one of these are read."""

    root: Path
    pictures: Callable[[Path, str, str], list[Sample]]


def read_dataset(folder: Path, split: str | None = None) -> list[Sample]:
    """Read a data set, in the layout that lies in the folder.

    Known are `samples.csv`, MSVR310, WMVeID863, RGBN300, RGBNT100 and listed images (`images/`, `train.txt`,
    `val.txt`). Published sets have `train` and `test`, in which queries and gallery differ by `role`. They have
    no official validation: `fit` and `val` divide the vehicles of `train`, so that early looks never touch
    `test`; they divide all vehicles of a `samples.csv` without splits, such as a site's. Of listed images `val`
    is what is reported: there `fit` and `tune` divide the vehicles of `train`.

    Args:
        folder: of the set, or one above it.
        split: keep this one; the set's own splits together when None.

    Returns:
        The pictures, ordered; the bands of one file are neighbours.

    Raises:
        DatasetError: no known layout or several, no such split or nothing in it, a folder or picture is
            missing, or a name does not say what the layout promises.
    """
    if (folder / "samples.csv").is_file():
        return _read_table(folder, split)
    if (folder / "images").is_dir() and any(_list_of(folder, name).is_file() for name in LISTS):
        return _read_listed(folder, split)
    return _read_published(_published(folder), split)


def training_split(folder: Path) -> str:
    """What to train on where `val` is for early looks: `fit` if the set has no validation split of its own.

    Raises:
        DatasetError: as of `read_dataset`.
    """
    if (folder / "samples.csv").is_file():
        return "train" if any(sample.split for sample in read_samples(folder)) else "fit"
    return "train" if (folder / "images").is_dir() else "fit"


def division_name(site: str, vehicle: str) -> str:
    """What `validation_vehicles` knows a vehicle by: `SITE/VEHICLE`, or its name alone where no site is known."""
    return f"{site}/{vehicle}" if site else vehicle


def validation_vehicles(vehicles: Iterable[str], seed: int = DIVISION_SEED, one_in: int = HOLD_OUT) -> frozenset[str]:
    """Choose a tenth of the vehicles, at least one, by a hash of their names.

    The same names give the same choice in any order, on any machine and in any year.

    Args:
        vehicles: names, of `division_name` where there are sites; repeated ones count once.
        seed: another one gives another choice.
        one_in: choose one in so many.

    Returns:
        The chosen names; none when there are none.
    """
    ordered = sorted(set(vehicles), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    return frozenset(ordered[: max(1, round(len(ordered) / one_in))])


def _read_published(found: _Published, split: str | None) -> list[Sample]:
    """Read a set's training folder, its query and gallery folders, or all of them."""
    _refuse_unknown(found.root, split, PUBLISHED_SPLITS)
    samples = []
    if split != "test":
        samples += found.pictures(_subfolder(found.root, TRAIN), "train", "")
    if split in DIVISION:
        return _divided(found.root, samples, split)
    if split in ("test", None):
        samples += found.pictures(_subfolder(found.root, QUERY), "test", "query")
        samples += found.pictures(_subfolder(found.root, GALLERY), "test", "gallery")
    return samples


def _read_table(folder: Path, split: str | None) -> list[Sample]:
    """Read `samples.csv`; one without splits is divided."""
    samples = read_samples(folder) if split in DIVISION else []
    if split is None or not samples or any(sample.split for sample in samples):
        return read_samples(folder, split)
    return _divided(folder, samples, split)


def _divided(folder: Path, samples: list[Sample], split: str, one_in: int = HOLD_OUT) -> list[Sample]:
    """The samples of `fit`, or else of what is held out of it: one in so many vehicles."""
    names = [division_name(*sample.identity) for sample in samples]
    held_out = validation_vehicles(names, one_in=one_in)
    chosen = [own for own, name in zip(samples, names, strict=True) if (name in held_out) == (split != "fit")]
    if not chosen:
        raise DatasetError(f"{folder}: split {split!r} is empty, it takes two vehicles to divide them")
    return chosen


def _refuse_unknown(folder: Path, split: str | None, known: Iterable[str]) -> None:
    if split is not None and split not in known:
        raise DatasetError(f"{folder}: no split {split!r} (wanted: {', '.join(known)})")


def _subfolder(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DatasetError(f"{root}: no folder {' or '.join(names)}")


# --- Which layout lies here.


def _published(folder: Path) -> _Published:
    """Find the one published set in a folder or just below it."""
    below = [child for child in _entries(folder) if child.name.lower() in PUBLISHED]
    for group in ([folder, folder / "rgbir"], [root for child in below for root in (child, child / "rgbir")]):
        found = [known for root in group if (known := _recognised(root))]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(str(known.root.relative_to(folder)) for known in found)
            raise DatasetError(f"{folder}: several data sets ({names}), name one of them")
    raise DatasetError(
        f"{folder}: no known data set (wanted: samples.csv, the folders of MSVR310, WMVeID863, RGBN300 or RGBNT100, "
        "or images with train.txt and val.txt)"
    )


def _recognised(root: Path) -> _Published | None:
    """The set whose folders start here; None when none does."""
    folders = [root / name for name in (*TRAIN, *QUERY, *GALLERY) if (root / name).is_dir()]
    if any(_is_picture(entry) for folder in folders for entry in _entries(folder)):
        return _Published(root, _joined_pictures)
    if any((entry / band).is_dir() for folder in folders for entry in _entries(folder) for band in BANDS):
        return _Published(root, _msvr310_pictures if (root / "query3").is_dir() else _wmveid863_pictures)
    return None


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, ordered, without hidden files such as archives from a Mac bring."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{folder}: can't be listed: {error.strerror}") from error


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


# --- MSVR310 and WMVeID863: a folder a vehicle, in it one a band; a shot has one name in all bands.


def _msvr310_pictures(folder: Path, split: str, role: str) -> list[Sample]:
    """Names such as `0001_s002_v3_004.jpg`: vehicle, scene, view."""
    samples = []
    for path, modality in _band_pictures(folder):
        shot, owner = path.stem, path.parent.parent.name
        vehicle, scene, view = shot[0:4], shot[6:9], shot[11:12]
        _refuse_other(path, (vehicle, scene, view), "MSVR310's 0001_s002_v3_004: vehicle 0-3, scene 6-8, view 11")
        if not owner.isdecimal() or int(owner) != int(vehicle):
            raise DatasetError(f"{path}: its name says vehicle {vehicle}, its folder {owner}")
        samples.append(Sample(path, vehicle, modality, scene=scene, view=view, split=split, role=role, shot=shot))
    return samples


def _wmveid863_pictures(folder: Path, split: str, role: str) -> list[Sample]:
    """Names such as `v1_n0_s002_003.jpg`: camera, scene; the vehicle is the folder's name."""
    samples = []
    for path, modality in _band_pictures(folder):
        shot, vehicle = path.stem, path.parent.parent.name
        camera, scene = shot[1:2], shot[7:10]
        _refuse_other(path, (camera, scene), "WMVeID863's v1_n0_s002_003: camera 1, scene 7-9")
        samples.append(Sample(path, vehicle, modality, camera, scene, split=split, role=role, shot=shot))
    return samples


def _band_pictures(folder: Path) -> Iterator[tuple[Path, Modality]]:
    """Every vehicle's pictures, band by band; a band may be missing, as a picture in one may."""
    is_empty = True
    for vehicle in _entries(folder):
        for band, modality in BANDS.items():
            if (vehicle / band).is_dir():
                for path in filter(_is_picture, _entries(vehicle / band)):
                    is_empty = False
                    yield path, modality
    if is_empty:
        raise DatasetError(f"{folder}: no picture in VEHICLE/{{{','.join(BANDS)}}}")


def _refuse_other(path: Path, numbers: Iterable[str], wanted: str) -> None:
    # A slice of a name that is too short is empty, and that is no number either.
    if not all(number.isdecimal() for number in numbers):
        raise DatasetError(f"{path}: not a name like {wanted}")


# --- RGBN300 and RGBNT100: the bands of a shot side by side in one file.


def _joined_pictures(folder: Path, split: str, role: str) -> list[Sample]:
    """Names such as `0001_c2_003.jpg`: vehicle, camera."""
    paths = [path for path in _entries(folder) if _is_picture(path)]
    if not paths:
        raise DatasetError(f"{folder}: no picture")
    bands = _bands_beside(paths[0])
    samples = []
    for path in paths:
        said = _JOINED_NAME.fullmatch(path.stem)
        if said is None:
            raise DatasetError(f"{path}: not a name like RGBN300's 0001_c2_003: vehicle, camera")
        owner, camera = said["vehicle"], said["camera"]
        for index, modality in enumerate(bands):
            part = (index, len(bands))
            samples.append(Sample(path, owner, modality, camera, split=split, role=role, part=part, shot=path.stem))
    return samples


def _bands_beside(path: Path) -> tuple[Modality, ...]:
    """Which bands a joined file has, by its shape: each band is twice as wide as high."""
    height, width = read_picture(path).shape[:2]
    known = {4: (Modality.VISIBLE, Modality.NEAR_INFRARED), 6: tuple(BANDS.values())}
    if width % height or width // height not in known:
        raise DatasetError(f"{path}: {width}x{height} (wanted: 4:1 as in RGBN300, or 6:1 as in RGBNT100)")
    return known[width // height]


# --- Listed images.


def _list_of(folder: Path, split: str) -> Path:
    return folder / f"{split}.txt"


def _read_listed(folder: Path, split: str | None) -> list[Sample]:
    """Read `images/CLASS_NUMBER_camN.jpg` as the lists name them; class and number together name a vehicle."""
    _refuse_unknown(folder, split, LISTED_SPLITS)
    if split in ("fit", "tune"):
        return _divided(folder, _listed(folder, "train"), split, TUNE_HOLD_OUT)
    names = [split] if split else [name for name in LISTS if _list_of(folder, name).is_file()]
    return [sample for name in names for sample in _listed(folder, name)]


def _listed(folder: Path, split: str) -> list[Sample]:
    table = _list_of(folder, split)
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{table}: can't be read: {error}") from error
    samples = [
        _listed_sample(folder / "images" / line.strip(), f"{table}:{number}", split)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not samples:
        raise DatasetError(f"{table}: names no picture")
    return samples


def _listed_sample(path: Path, place: str, split: str) -> Sample:
    said = _LISTED_NAME.fullmatch(path.stem)
    if said is None:
        raise DatasetError(f"{place}: {path.name!r} is not a name like car_0001_cam2.jpg: class, number, camera")
    path = existing_picture(path, place)
    return Sample(path, said["vehicle"], Modality.VISIBLE, said["camera"], vehicle_class=said["kind"], split=split)
