"""Folders of crops, cutting crops: what they promise and what they refuse."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from reid import datasets
from reid.datasets import Sample, load_pictures, read_samples, training_set
from reid.errors import DatasetError
from reid.modality import Modality
from reid.site_crops import Rules, cut, cut_site
from tests.reid.reid_builders import dataset, picture, write_table


def test_a_folder_is_read_with_what_it_says(tmp_path: Path) -> None:
    samples = read_samples(dataset(tmp_path), "val")
    assert len(samples) == 4 * 3 * 2
    assert samples[0].camera == "cam-visible"
    assert samples[0].scene == ""
    assert {sample.split for sample in samples} == {"val"}


def test_a_table_may_say_time_role_and_shot(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    row = {"path": "a.png", "vehicle": "1", "modality": "thermal", "time": "12.5", "role": "gallery", "shot": "s7"}
    write_table(tmp_path, [row])
    (sample,) = read_samples(tmp_path)
    assert (sample.time, sample.role, sample.shot, sample.part) == ("12.5", "gallery", "s7", (0, 1))


def test_a_shot_says_more_than_a_view_and_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture(1))
    known = [("1", ""), ("1", "1"), ("2", "1"), ("", "")]
    samples = [Sample(path, "1", Modality.VISIBLE, view=view, shot=shot) for view, shot in known]
    views = training_set([(samples, 1)], 64, 64).views
    assert views[1] == views[2]
    assert views[0] not in ("", views[1])
    assert views[3] == ""


def test_pictures_are_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "red.png"), np.full((4, 4, 3), (0, 0, 255), dtype=np.uint8))
    write_table(tmp_path, [{"path": "red.png", "vehicle": "1", "modality": "visible"}])
    pixels = load_pictures(read_samples(tmp_path), 8, 8)
    assert pixels[0, 0, 0].tolist() == [255, 0, 0]


def test_vehicles_of_two_folders_stay_apart(tmp_path: Path) -> None:
    first, second = (read_samples(dataset(tmp_path / name, vehicles=3)) for name in "ab")
    data = training_set([(first, 1), (second, 5)], 64, 64)
    assert set(data.identities.tolist()) == set(range(6))
    assert data.repeats == (1, 1, 1, 5, 5, 5)
    half = len(first)
    assert not set(data.identities[:half].tolist()) & set(data.identities[half:].tolist())
    assert not set(data.views[:half]) & set(data.views[half:])


def test_vehicles_of_two_sites_stay_apart_within_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture(1))
    samples = [Sample(path, "1", Modality.VISIBLE, site=site) for site in ("north", "south", "north", "")]
    data = training_set([(samples, 2)], 64, 64)
    assert len(set(data.identities.tolist())) == len(data.repeats) == 3
    assert data.identities[0] == data.identities[2]


def test_a_table_as_excel_saves_it_is_read(tmp_path: Path) -> None:
    expected = read_samples(dataset(tmp_path))
    table = tmp_path / "samples.csv"
    table.write_text(table.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert table.read_bytes().startswith(b"\xef\xbb\xbfpath")
    assert read_samples(tmp_path) == expected


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"path": "a.png", "vehicle": "1"}, "no column modality"),
        ({"path": "a.png", "vehicle": "1", "modality": "radar"}, r"samples\.csv:2: modality 'radar' is none of"),
        ({"path": "a.png", "vehicle": "", "modality": "visible"}, r"samples\.csv:2: no vehicle"),
        ({"path": "a.png", "vehicle": "1", "modality": "visible", "role": "both"}, r"samples\.csv:2: role 'both' is"),
        ({"path": "a.png", "vehicle": "1", "modality": "visible"}, r"a\.png: no such picture, but .*samples\.csv:2"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, row: dict[str, str], complaint: str) -> None:
    write_table(tmp_path, [row])
    with pytest.raises(DatasetError, match=complaint):
        read_samples(tmp_path)


def test_no_table_and_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere.samples\.csv"):
        read_samples(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no row with split 'test'"):
        read_samples(dataset(tmp_path), "test")
    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    write_table(tmp_path, [{"path": "a.png", "vehicle": "1", "modality": "visible"}])
    with pytest.raises(DatasetError, match="no column split"):
        read_samples(tmp_path, "val")


def test_a_part_outside_of_its_file_can_not_be_said() -> None:
    with pytest.raises(ValueError, match=r"part must be \(index, count\)"):
        Sample(Path("a.png"), "1", Modality.VISIBLE, part=(2, 2))


@pytest.mark.parametrize("contents", [None, b"", b"GIF?"])
def test_a_missing_or_broken_picture_is_named(tmp_path: Path, contents: bytes | None) -> None:
    write_table(tmp_path, [{"path": "a.png", "vehicle": "1", "modality": "visible"}])
    if contents is not None:
        (tmp_path / "a.png").write_bytes(contents)
    with pytest.raises(DatasetError, match=r"a\.png"):
        load_pictures(read_samples(tmp_path), 64, 64)


def test_a_cut_without_jitter_is_the_box() -> None:
    source = picture(5, 48, 64)
    corners = np.array([10, 5, 30, 25], dtype=np.float32)
    assert np.array_equal(cut(source, corners, 0.0, np.random.default_rng(0)), source[5:25, 10:30])


def test_a_cut_at_the_edge_stays_inside() -> None:
    corners = np.array([60, 40, 90, 60], dtype=np.float32)
    for seed in range(10):
        crop = cut(picture(5, 48, 64), corners, 0.3, np.random.default_rng(seed))
        assert crop.size > 0


def test_a_site_is_cut_and_read_back(tmp_path: Path) -> None:
    site = tmp_path / "crossing"
    site.mkdir()
    writer = cv2.VideoWriter(str(site / "cam1_rgb.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for frame in range(6):
        writer.write(picture(frame, 48, 64))
    writer.release()
    header = "camera,frame,t,vehicle,x1,y1,x2,y2,visible_fraction,truncated\n"
    rows = "".join(f"cam1_rgb,{f},{f / 10},7,5,5,45,40,{0.2 if f == 0 else 1.0},0\n" for f in range(6))
    (site / "truth.csv").write_text(header + rows)
    out = tmp_path / "crops"
    table = cut_site(site, out, Rules(every=2, until_s=0.5), np.random.default_rng(0))
    assert [row["time"] for row in table] == ["0.10", "0.30"]
    write_table(out, table)
    (sample, _) = read_samples(out)
    assert (sample.modality, sample.camera, sample.site) == (Modality.VISIBLE, "cam1_rgb", "crossing")


def test_a_site_without_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"truth\.csv"):
        cut_site(tmp_path, tmp_path, Rules(), np.random.default_rng(0))


def test_many_pictures_lie_in_a_file_and_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = read_samples(dataset(tmp_path / "data"))
    expected = load_pictures(samples, 16, 32)
    monkeypatch.setattr(datasets, "MAX_MEMORY_BYTES", 100)
    mapped = load_pictures(samples, 16, 32)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, expected)
