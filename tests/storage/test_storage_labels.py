"""What people have said of vehicles teaches the next network: exactly that, and nothing that was taken back."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from reid.layouts import read_dataset
from storage.__main__ import app
from storage.corrections import confirm, merge, move, split, undo
from storage.crop_store import CropStore
from storage.errors import StorageError
from storage.labels import LabelExport, said_pairs, write_labels
from storage.records import MATCHER
from storage.removal import remove_tracklets
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, counted, embedding, path, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.orm import Session

    from storage.database import Database

pytest_plugins = ("tests.storage.storage_fixtures",)

ANNA: dict[str, Any] = {"by": "anna", "at": after(3600)}
BEN: dict[str, Any] = {"by": "ben", "at": after(7200)}
G1, G2, B1, B2, B3 = "gate/s1/1", "gate/s1/2", "bridge/s1/1", "bridge/s1/2", "bridge/s1/3"


@pytest.fixture
def crops(tmp_path: Path) -> CropStore:
    """A picture of each tracklet, the first in two bands."""
    folder, picture = CropStore(tmp_path / "crops"), io.BytesIO()
    Image.new("RGB", (8, 8), (90, 90, 90)).save(picture, "JPEG")
    for name in (G1, G2, B1, B2, B3, "thermal"):
        folder.save(f"{name}.jpg", picture.getvalue())
    return folder


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """`v1` at the gate and the bridge, `v2` at both, `v3` at the bridge."""
    with database.transaction() as opened:
        store(opened, tracklet("gate", 1, start=0), "v1")
        store(opened, tracklet("bridge", 1, start=10), "v1")
        store(opened, tracklet("gate", 2, start=20), "v2")
        store(opened, tracklet("bridge", 2, start=30), "v2")
        store(opened, tracklet("bridge", 3, start=40), "v3")
        first = tracklet("gate", 1)
        thermal = embedding(first, 1, modality="thermal", crop_image="thermal.jpg", quality=0.9)
        Writer(opened).store_sighting(first, path(first, 1), [thermal])
        yield opened


def _told(session: Session) -> set[tuple[str, str, bool]]:
    return {(pair.first, pair.second, pair.is_same) for pair in said_pairs(session)}


def test_a_merge_says_that_the_ones_are_the_others(session: Session) -> None:
    made = merge(session, "v1", "v2", **ANNA)
    assert _told(session) == {(B1, G2, True), (B1, B2, True), (G1, G2, True), (B2, G1, True)}
    pair = said_pairs(session)[0]
    assert (pair.said_by, pair.said_at, pair.correction_id, pair.kind) == (
        "anna",
        after(3600),
        made.correction_id,
        "merge",
    )


def test_a_split_says_that_they_are_two(session: Session) -> None:
    split(session, [B1], **ANNA)
    assert _told(session) == {(B1, G1, False)}


def test_a_move_says_both(session: Session) -> None:
    move(session, [B1], "v3", **ANNA)
    assert _told(session) == {(B1, G1, False), (B1, B3, True)}


def test_a_confirmation_says_what_it_names(session: Session) -> None:
    confirm(session, [G1, B1, B3], **ANNA)
    assert _told(session) == {(B1, G1, True), (B3, G1, False), (B1, B3, False)}
    confirm(session, [G2], **ANNA)
    assert len(_told(session)) == 3


def test_what_is_undone_leaves_nothing_and_what_is_brought_back_stands(session: Session) -> None:
    made = merge(session, "v1", "v2", **ANNA)
    told = _told(session)
    undone = undo(session, made.correction_id, **BEN)
    assert _told(session) == set()
    again = undo(session, undone.correction_id, **BEN)
    assert _told(session) == told
    undo(session, again.correction_id, **BEN)
    assert _told(session) == set()


def test_to_undo_what_the_matcher_did_is_to_say_the_contrary(session: Session) -> None:
    given = [assignment(B3, "v1", reason="merge")]
    made = Writer(session).correct("merge", given, made_by=MATCHER, made_at=START)
    assert _told(session) == set()
    undo(session, made or 0, **ANNA)
    assert _told(session) == {(B1, B3, False), (B3, G1, False)}


def test_a_later_word_counts(session: Session) -> None:
    merge(session, "v1", "v2", **ANNA)
    split(session, [B2], **BEN)
    told = {(pair.first, pair.second): (pair.is_same, pair.said_by) for pair in said_pairs(session)}
    assert told == {
        (B1, G2): (True, "anna"),
        (G1, G2): (True, "anna"),
        (B1, B2): (False, "ben"),
        (B2, G1): (False, "ben"),
        (B2, G2): (False, "ben"),
    }


def test_the_number_of_statements_does_not_grow(session: Session) -> None:
    counts = []
    for number in range(10, 14):
        store(session, tracklet("gate", number), f"v{number}")
        merge(session, "v1", f"v{number}", **ANNA)
        with counted(session) as statements:
            assert said_pairs(session)
        counts.append(statements.count)
    assert set(counts) == {3}


# The folder.


def _pairs(folder: Path) -> list[dict[str, str]]:
    with (folder / "pairs.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_training_reads_the_folder(session: Session, crops: CropStore, tmp_path: Path) -> None:
    merge(session, "v1", "v2", **ANNA)
    done = write_labels(session, crops, tmp_path / "labels")
    assert done == LabelExport(crops=5, missing=0, pairs=6)
    samples = read_dataset(tmp_path / "labels")
    assert {sample.vehicle for sample in samples} == {"v1"}
    assert sorted(str(sample.modality) for sample in samples) == ["thermal", *["visible"] * 4]
    known = {sample.path.relative_to(tmp_path / "labels").as_posix() for sample in samples}
    rows = _pairs(tmp_path / "labels")
    assert {row[name] for row in rows for name in ("crop_a", "crop_b")} <= known
    assert {(row["same"], row["said_by"], row["said_at"], row["correction"], row["kind"]) for row in rows} == {
        ("1", "anna", "2026-01-01T13:00:00.000000Z", "1", "merge")
    }


def test_the_best_crop_of_each_band_stands_for_its_tracklet(session: Session, crops: CropStore, tmp_path: Path) -> None:
    first = tracklet("bridge", 1, start=10)
    crops.save("best.jpg", crops.load(f"{B1}.jpg"))
    best = embedding(first, 1, crop_image="best.jpg", quality=0.8, at=11)
    Writer(session).store_sighting(first, path(first, 1), [best])
    vehicle = split(session, [B1], **ANNA).moved[0].after
    write_labels(session, crops, tmp_path / "labels")
    assert [(row["crop_a"], row["crop_b"], row["same"]) for row in _pairs(tmp_path / "labels")] == [
        (f"images/{vehicle}/visible/0001.jpg", "images/v1/thermal/0000.jpg", "0"),
        (f"images/{vehicle}/visible/0001.jpg", "images/v1/visible/0000.jpg", "0"),
    ]


def test_what_has_no_picture_has_no_pair(session: Session, crops: CropStore, tmp_path: Path) -> None:
    confirm(session, [G1, B1], **ANNA)
    crops.remove(f"{B1}.jpg")
    assert write_labels(session, crops, tmp_path / "labels") == LabelExport(crops=2, missing=1, pairs=0)
    assert (tmp_path / "labels" / "pairs.csv").read_text() == "crop_a,crop_b,same,said_by,said_at,correction,kind\n"


def test_what_was_removed_is_in_no_pair(session: Session) -> None:
    confirm(session, [G1, B1], **ANNA)
    remove_tracklets(session, [B1])
    assert said_pairs(session) == []


def test_the_same_database_makes_the_same_files(session: Session, crops: CropStore, tmp_path: Path) -> None:
    merge(session, "v1", "v2", **ANNA)
    split(session, [B2], **BEN)
    texts = []
    for name in ("one", "other"):
        write_labels(session, crops, tmp_path / name)
        texts.append([(tmp_path / name / table).read_bytes() for table in ("samples.csv", "pairs.csv")])
    assert texts[0] == texts[1]


def test_a_folder_that_holds_something_is_refused(session: Session, crops: CropStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="wanted a new or an empty folder"):
        write_labels(session, crops, tmp_path)


def test_the_command_writes_it(database: Database, url: str, crops: CropStore, tmp_path: Path) -> None:
    with database.transaction() as opened:
        store(opened, tracklet("gate", 1), "v1")
        store(opened, tracklet("bridge", 1), "v1")
        confirm(opened, [G1, B1], **ANNA)
    words = ["export", "--labels", str(tmp_path / "labels"), "--crops-dir", str(crops.root), "--database", url]
    result = CliRunner().invoke(app, [*words, "--format", "json"], env={"LOGNAME": "anna"})
    assert result.exit_code == 0
    told = [(row["what"], row["rows"], row["missing"]) for row in json.loads(result.stdout)]
    assert told == [("labels", 2, 0), ("pairs", 1, 0)]
