"""Identities rebuilt from a database are those that the bus gave, and other settings give others."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from reid.backend import EmbedderInfo
from reid.calibration import save_calibration
from reid.modality import Modality
from storage.corrections import merge
from storage.crop_store import CropStore
from storage.database import Database, Session
from storage.history import corrections, decisions
from storage.matcher_state import load_learned, load_operator_decisions, load_tracklets, load_watermarks
from storage.records import AssignmentRecord
from storage.trajectories import boxes, vehicles
from streamer import rematch as rematch_module
from streamer.__main__ import app
from streamer.config import ConfigError, SiteConfig
from streamer.new_looks import NewLooks
from streamer.partitions import Change
from streamer.rematch import RematchError, rematch, with_settings
from streamer.sighting_codec import encode
from streamer.sightings import Message, Sighting, SightingKind
from tests.streamer.matcher.matcher_builders import CALIBRATION, at, heartbeat, looks, sighting
from tests.streamer.matcher.test_replay import USUAL, Road
from tests.streamer.matcher.traffic_builders import CAMERAS, traffic


@dataclass(frozen=True)
class Run:
    """A finished run of a site, by its file, its database and its settings."""

    folder: Path
    url: str
    site: SiteConfig

    @property
    def config(self) -> Path:
        path = self.folder / "site.yaml"
        document = {
            "site": "crossing",
            "database": self.url,
            "cameras": [{"id": camera, "url": f"{camera}.mp4"} for camera in CAMERAS],
            "matcher": {**USUAL, "calibration": str(self.folder / "calibration.json")},
        }
        path.write_text(yaml.safe_dump(document))
        return path


def _run(folder: Path, messages: Sequence[Message]) -> Run:
    road = Road(folder, USUAL)
    road.play([encode(message) for message in messages])
    road.database.close()
    return Run(folder, road.config.database, road.config)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Traffic on three cameras, two of which overlap, with corrections, and much that waits."""
    return _run(tmp_path_factory.mktemp("day"), traffic(4, vehicles=14).messages)


@pytest.fixture
def new(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/new.db"


@contextmanager
def _reading(url: str) -> Iterator[Session]:
    database = Database.open(url, must_exist=True)
    try:
        with database.snapshot() as session:
            yield session
    finally:
        database.close()


def _final(url: str) -> list[tuple[AssignmentRecord, int | None]]:
    """The decisions for good, word by word, each with the number of its correction."""
    with _reading(url) as session:
        return [(one.said, one.correction_id) for one in decisions(session) if not one.said.is_provisional]


def _command(*arguments: str | Path, status: int = 0) -> tuple[str, list[str]]:
    """What the command said on stdout, and its lines on stderr."""
    done = CliRunner().invoke(app, ["rematch", *map(str, arguments)])
    assert done.exit_code == status, done.output
    return done.stdout, done.stderr.splitlines()


def _refused(*arguments: str | Path) -> str:
    _, (line,) = _command(*arguments, status=2)
    return line


# --- What is decided.


def test_the_same_settings_say_the_same_words_and_learn_the_same(
    day: Run, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rematch_module, "PAGE", 5)

    found = rematch(day.url, new, day.site)

    assert _final(new) == _final(day.url)
    assert (found.difference.changed, found.difference.regroupings, found.difference.links.f1) == (0, (), 1.0)
    assert found.rebuilt.corrected == sum(correction is not None for _, correction in _final(day.url)) > 0
    with _reading(day.url) as old, _reading(new) as rebuilt:
        assert load_learned(rebuilt, "main") == load_learned(old, "main")
        assert load_watermarks(rebuilt) == load_watermarks(old)


def test_the_run_stays_as_it_was(day: Run, new: str) -> None:
    before = _final(day.url)

    rematch(day.url, new, with_settings(day.site, ["matcher.use_transit=false"]))

    assert _final(day.url) == before


def test_without_looks_others_are_together(day: Run, new: str) -> None:
    progress: list[tuple[int, int]] = []

    found = rematch(
        day.url,
        new,
        with_settings(day.site, ["matcher.use_appearance=false"]),
        on_progress=lambda done, total: progress.append((done, total)),
    )

    assert found.difference.changed > 0
    assert found.difference.links.f1 is not None
    assert found.difference.links.f1 < 1
    assert progress[-1] == (42, 42)
    assert found.rebuilt.tracklets == found.difference.tracklets == 42


def test_stricter_links_split(day: Run, new: str) -> None:
    found = rematch(day.url, new, with_settings(day.site, ["matcher.prior_log_odds=-50"]))

    # The halves of broken tracklets are not asked for the prior.
    assert found.difference.links.kept == 0
    assert found.difference.vehicles_after > 2 * found.difference.vehicles_before
    assert Change.SPLIT in {one.change for one in found.difference.regroupings}


def test_what_had_not_ended_is_taken_as_ended(tmp_path: Path, new: str) -> None:
    told: list[Message] = [
        heartbeat("a", 0),
        sighting("a", 1, 0, SightingKind.FIRST, (1, 2), vehicle=1),
        sighting("a", 1, 1, SightingKind.END, (1, 5), vehicle=1),
        sighting("a", 2, 0, SightingKind.FIRST, (7, 9), vehicle=2),
        heartbeat("a", 10),
    ]
    run = _run(tmp_path, told)

    found = rematch(run.url, new, run.site)

    assert found.rebuilt.closed == 1
    with _reading(new) as session:
        ends = {one.tracklet.tracklet_id: one.tracklet.end_reason for one in load_tracklets(session, "main")}
    assert ends == {"a/s/1": "left", "a/s/2": "session_lost"}
    assert {said.tracklet_id for said, _ in _final(new)} == {"a/s/1", "a/s/2"}


def test_corrections_are_left_out_unless_asked_for(day: Run, new: str, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    shutil.copy(day.url.removeprefix("sqlite:///"), old)
    database = Database.open(f"sqlite:///{old}")
    with database.transaction() as session:
        first, second, *_ = (vehicle.vehicle_id for vehicle in vehicles(session))
        merge(session, first, second, by="anna", at=at(900))
    database.close()

    plain = rematch(f"sqlite:///{old}", new, day.site)
    kept = rematch(f"sqlite:///{old}", f"{new}2", day.site, keeps_corrections=True)

    assert [one.change for one in plain.difference.regroupings] == [Change.SPLIT]
    assert (kept.difference.changed, plain.rebuilt.kept) == (0, 0)
    with _reading(f"{new}2") as session:
        pinned = {one.tracklet_id for one in load_operator_decisions(session, "main", after=0)}
        (said,) = {one.made_by for one in corrections(session) if one.note}
    assert (kept.rebuilt.kept, said) == (len(pinned), "anna")


# --- Another network.

#: Its crops are of one colour each, which is what it sees.
INFO = EmbedderInfo("colours-1", 16, 8, 8)


class Colours:
    """An embedder of crops of one colour."""

    info = INFO

    def embed(self, crops: Sequence[NDArray[np.uint8]], modalities: Sequence[Modality]) -> NDArray[np.float32]:
        assert len(crops) == len(modalities)
        found = [looks(round(float(crop[:, :, 0].mean()) / 16)) for crop in crops]
        return np.stack(found) if found else np.zeros((0, INFO.dimension), np.float32)


def _crop(red: int) -> bytes:
    """A JPEG of that much red and no blue: it tells the two orders of colours apart."""
    _, data = cv2.imencode(".jpg", np.full((8, 8, 3), (0, 0, red), np.uint8))
    return data.tobytes()


def _seen(message: Message, *, red: int | None) -> Message:
    """The sighting, its crop that colour; or none was kept."""
    if not isinstance(message, Sighting):
        return message
    crop = None if red is None else _crop(red)
    return replace(message, embeddings=tuple(replace(one, crop_jpeg=crop) for one in message.embeddings))


@pytest.fixture
def coloured(tmp_path: Path) -> Run:
    """Two vehicles, one after the other, past a and then b: by the first network two, by their colours one each."""
    first, end = SightingKind.FIRST, SightingKind.END
    told: list[Message] = [heartbeat("a", 0), heartbeat("b", 0)]
    for number, red in ((1, 48), (2, 160)):
        start = 40.0 * number
        for camera, enters, look in (("a", start, 1), ("b", start + 9, 2)):
            told.append(_seen(sighting(camera, number, 0, first, (enters, enters + 2), look), red=red))
            told.append(_seen(sighting(camera, number, 1, end, (enters, enters + 4), look), red=red))
    told += [heartbeat("a", 120, finished=True), heartbeat("b", 120, finished=True)]
    run = _run(tmp_path, told)
    fits = replace(CALIBRATION, model_id=INFO.model_id)
    save_calibration(tmp_path / "colours.json", fits)
    return replace(run, site=with_settings(run.site, [f"matcher.calibration={tmp_path}/colours.json"]))


def test_crops_are_embedded_anew(coloured: Run, new: str) -> None:
    found = rematch(coloured.url, new, coloured.site, looks=NewLooks(Colours(), CropStore(coloured.folder / "crops")))

    assert (found.difference.vehicles_before, found.difference.vehicles_after) == (4, 2)
    assert (found.rebuilt.model_id, found.rebuilt.missing_crops) == ("colours-1", 0)
    with _reading(new) as session:
        stored = {one.tracklet.tracklet_id: one.embeddings for one in load_tracklets(session, "main")}
    assert {name: int(own[0].vector.argmax()) for name, own in stored.items()} == {
        "a/s/1": 3, "b/s/1": 3, "a/s/2": 10, "b/s/2": 10
    }  # fmt: skip
    assert {own[0].model_id for own in stored.values()} == {"colours-1"}


def test_crops_that_are_lost_are_counted_and_all_of_them_refused(coloured: Run, new: str) -> None:
    crops = coloured.folder / "crops"
    lost = sorted(crops.rglob("a-s-1*.jpg")) or sorted(crops.rglob("*.jpg"))[:2]
    for picture in lost:
        picture.unlink()

    found = rematch(coloured.url, new, coloured.site, looks=NewLooks(Colours(), CropStore(crops)))

    assert found.rebuilt.missing_crops == len(lost) > 0
    with pytest.raises(RematchError, match="none of the first 8 crops"):
        rematch(
            coloured.url, f"{new}2", coloured.site, looks=NewLooks(Colours(), CropStore(coloured.folder / "nowhere"))
        )


def test_a_network_without_a_calibration_is_refused(day: Run, new: str) -> None:
    with pytest.raises(RematchError, match=r"calibration\.json is for stub-1, wanted one for colours-1"):
        rematch(day.url, new, day.site, looks=NewLooks(Colours(), CropStore(day.folder)))
    assert not Path(new.removeprefix("sqlite:///")).exists()


# --- The command.


def test_the_command_compares_and_scores(day: Run, new: str, tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    with _reading(day.url) as session:
        rows = list(boxes(session))
    seen = [row for row in rows if row.frame < 350]
    lines = [f"{r.camera},{r.frame},{r.frame / 10},{r.vehicle},{r.x1},{r.y1},{r.x2},{r.y2},1,0" for r in seen]
    truth.write_text("\n".join(["camera,frame,t,vehicle,x1,y1,x2,y2,visible_fraction,truncated", *lines]))

    shown, _ = _command(
        "--config", day.config, "--from", day.url, "--into", new, "--set", "matcher.use_appearance=false",
        "--truth", truth, "--show", "1"
    )  # fmt: skip

    assert "42 tracklets by stub-1" in shown
    assert re.search(r"and \d+ more: --show", shown)
    before, now = (line for line in shown.splitlines() if re.match(r"│ (before|now) ", line))
    assert " 1.000 " in before
    assert float(now.split("│")[2]) < 1


def test_the_help_teaches() -> None:
    shown, _ = _command("--help")

    assert "matcher.min_margin=3" in shown


@pytest.mark.parametrize(
    ("setting", "wish"),
    [
        ("matcher.settle_s=-1", "--set matcher.settle_s=-1: wanted greater than 0"),
        ("matcher.setle_s=1", "--set matcher.setle_s=1: unknown key"),
        ("matcher.settle_s", "wanted matcher.KEY=VALUE"),
        ("detector.confidence=0.2", "wanted matcher.KEY=VALUE or links=VALUE"),
        ("matcher.settle_s=[", "not YAML"),
        ("links=[{between: [a, z], max_s: 3}]", "'z' is not a camera of this site"),
    ],
)
def test_a_setting_that_is_none_is_refused(day: Run, setting: str, wish: str) -> None:
    with pytest.raises(ConfigError) as refused:
        with_settings(day.site, [setting])
    (line,) = str(refused.value).splitlines()
    assert wish in line


def test_several_settings_hold_together(day: Run) -> None:
    changed = with_settings(day.site, ["matcher.settle_s=10", "matcher.use_class=false", "links=null"])

    assert (changed.matcher.settle_s, changed.matcher.use_class, changed.links) == (10, False, None)
    assert changed.matcher.hold_s == day.site.matcher.hold_s


def test_bad_input_is_one_line_and_exit_2(day: Run, new: str, tmp_path: Path) -> None:
    empty = f"sqlite:///{tmp_path}/empty.db"
    Database.open(empty).close()
    known = ("--config", day.config)

    assert "no such file" in _refused(*known, "--from", f"sqlite:///{tmp_path}/none.db", "--into", new)
    assert "no tracklets to match" in _refused(*known, "--from", empty, "--into", new)
    assert "holds something already" in _refused(*known, "--from", day.url, "--into", day.url)
    assert "none.yaml" in _refused("--config", tmp_path / "none.yaml", "--from", day.url, "--into", new)
    assert "unknown key" in _refused(*known, "--from", day.url, "--into", new, "--set", "matcher.x=1")
    assert "--crops" in _refused(*known, "--from", day.url, "--into", new, "--crops", tmp_path)
    assert "none.pt" in _refused(*known, "--from", day.url, "--into", new, "--weights", tmp_path / "none.pt")
    assert "truth.csv" in _refused(*known, "--from", day.url, "--into", new, "--truth", tmp_path / "truth.csv")
    assert not Path(new.removeprefix("sqlite:///")).exists()


def test_a_second_rebuild_into_one_database_is_refused(day: Run, new: str) -> None:
    rematch(day.url, new, day.site)

    with pytest.raises(RematchError, match="wanted a new database"):
        rematch(day.url, new, day.site)
