"""Holding, forgetting, retaining on the terminal; and nobody asks unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from storage.__main__ import app
from storage.audit import AuditEntry, Inquiry, entries, note
from storage.crop_store import CropStore
from storage.database import Database
from storage.disk_forecast import growth
from storage.errors import StorageError
from storage.records import MATCHER
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, embedding, path, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Sequence

pytest_plugins = ("tests.storage.storage_fixtures",)

#: Of each command how it is asked, and whom that concerns by the whole id.
ASKED: dict[str, tuple[list[str], str]] = {
    "vehicles": (["--camera", "gate"], ""),
    "trajectory": (["v1"], "v1"),
    "passed": (["gate", "gate", "--within", "60"], ""),
    "companions": (["v1"], "v1"),
    "dwell": ([], ""),
    "journeys": ([], ""),
    "counts": ([], ""),
    "similar": (["te/s1/1"], "gate/s1/1"),
    "export": (["--boxes", "boxes.csv"], ""),
    "dead-letters": ([], ""),
    "why": (["te/s1/1"], "gate/s1/1"),
    "merge": (["v1", "v2"], "v1"),
    "split": (["gate/s1/1"], "gate/s1/1"),
    "move": (["gate/s1/1", "--to", "v2"], "gate/s1/1"),
    "confirm": (["gate/s1/1"], "gate/s1/1"),
    "undo": (["1"], ""),
    "corrections": ([], ""),
    "review": ([], ""),
    "watch": (["v1", "--note", "case 1"], "v1"),
    "unwatch": (["1"], ""),
    "watches": ([], ""),
    "notices": ([], ""),
    "hold": (["v1", "--note", "case 1"], "v1"),
    "release": (["gate/s1/3"], "gate/s1/3"),
    "holds": ([], ""),
    "forget": (["v2", "--crops-dir", "crops", "--yes"], "v2"),
    "audit": (["--vehicle", "v1"], "v1"),
    "retain": (["--crops-dir", "crops", "--crops-days", "30"], ""),
    "disk": (["--crops-dir", "crops"], ""),
    "index-vectors": ([], ""),
}
#: What must be true first.
FIRST: dict[str, list[list[str]]] = {
    "undo": [["merge", "v1", "v2"]],
    "unwatch": [["watch", "v1"]],
    "release": [["hold", "gate/s1/3"]],
}


@pytest.fixture
def site(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`v1` was seen twice at the gate, `v2` once, `v3` is still in view; all have pictures."""
    monkeypatch.chdir(tmp_path)
    database = Database.open(url)
    with database.transaction() as session:
        for number, vehicle_id in ((1, "v1"), (2, "v1"), (3, "v2")):
            store(session, tracklet("gate", number, end_reason="left"), vehicle_id, frames=[number])
            CropStore(Path("crops")).save(f"gate/s1/{number}.jpg", b"picture")
        store(session, tracklet("gate", 4), "v3")
    database.close()
    return url


def _run(*arguments: str) -> Result:
    # A wide terminal, or messages of the command line's parser come in pieces.
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "LOGNAME": "anna"})


def _done(site: str, command: str, *arguments: str) -> str:
    result = _run(command, *arguments, "--database", site)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def _refused(site: str, command: str, *arguments: str) -> str:
    result = _run(command, *arguments, "--database", site)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


def _asked(site: str, command: str, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_done(site, command, *arguments, "--format", "json"))
    return found


def _noted(site: str) -> Sequence[AuditEntry]:
    database = Database.open(site)
    with database.snapshot() as session:
        found = entries(session)
    database.close()
    return found


# The audit.


def test_every_command_is_listed_here() -> None:
    names = {str(command.name or getattr(command.callback, "__name__", "")) for command in app.registered_commands}
    assert names == set(ASKED)


@pytest.mark.parametrize("command", ASKED)
def test_every_command_is_noted_once(site: str, command: str) -> None:
    for arguments in FIRST.get(command, []):
        _done(site, *arguments)
    before = len(_noted(site))
    arguments, subject = ASKED[command]
    _done(site, command, *arguments, "--as", "ben")
    latest, *rest = _noted(site)
    assert (latest.person, latest.action, latest.subject, len(rest)) == ("ben", command, subject, before)


@pytest.mark.parametrize("command", ASKED)
def test_a_question_that_can_not_be_noted_is_not_answered(site: str, command: str) -> None:
    for arguments in FIRST.get(command, []):
        _done(site, *arguments)
    database = Database.open(site)
    with database.transaction() as session:
        session.execute(text("DROP TABLE audit"))
    database.close()
    assert "audit" in _refused(site, command, *ASKED[command][0])
    assert not Path("boxes.csv").exists()
    assert len(list(Path("crops").rglob("*.jpg"))) == 3


def test_who_asks_is_who_is_logged_in_unless_said(site: str) -> None:
    _done(site, "trajectory", "v1")
    assert _noted(site)[0].person == "anna"
    assert "who asks?" in _refused(site, "trajectory", "v1", "--as", "")
    assert "who asks?" in _refused(site, "vehicles", "--as", "x" * 65)


def test_what_was_asked_of_a_vehicle_is_found_even_when_it_is_forgotten(site: str) -> None:
    _done(site, "trajectory", "v1", "--as", "ben")
    _done(site, "why", "gate/s1/2")
    _done(site, "vehicles")
    found = _asked(site, "audit", "--vehicle", "v1")
    assert [(row["person"], row["action"]) for row in found] == [
        ("anna", "audit"),
        ("anna", "why"),
        ("ben", "trajectory"),
    ]
    _done(site, "forget", "v1", "--crops-dir", "crops", "--yes")
    found = _asked(site, "audit", "--vehicle", "v1")
    assert [row["action"] for row in found] == ["audit", "forget", "audit", "trajectory"]
    assert [row["action"] for row in _asked(site, "audit", "--person", "ben")] == ["trajectory"]
    assert _asked(site, "audit", "--from", "2100-01-01") == []


def test_filters_are_noted(site: str) -> None:
    _done(site, "vehicles", "--camera", "gate", "--from", "2026-01-01")
    assert _noted(site)[0].details == {"camera": "gate", "start": "2026-01-01", "min_cameras": 1}


def test_a_question_of_what_is_not_known_is_noted_as_it_was_put(site: str) -> None:
    _refused(site, "trajectory", "v7")
    assert _noted(site)[0].subject == "v7"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("forget", ["v3", "--crops-dir", "crops", "--yes"]),
        ("release", ["v3"]),
        ("merge", ["v3", "nobody"]),
        ("move", ["gate/s1/4", "--to", "nobody"]),
    ],
)
def test_what_is_refused_is_noted_as_a_question(site: str, command: str, arguments: list[str]) -> None:
    _refused(site, command, *arguments)
    noted = [
        (one["action"], one["person"]) for one in _asked(site, "audit", "--vehicle", "v3") if one["action"] != "audit"
    ]
    assert noted == [(f"{command}?", "anna")]


@pytest.mark.parametrize("command", ["hold", "release", "merge", "split", "move", "undo", "forget"])
def test_a_deed_is_told_once_it_is_stored(site: str, command: str) -> None:
    for first in FIRST.get(command, []):
        _done(site, *first)

    def lose(_session: Session) -> None:
        raise StorageError("lost while it was committed")

    event.listen(Session, "before_commit", lose)
    try:
        told = _refused(site, command, *ASKED[command][0])
    finally:
        event.remove(Session, "before_commit", lose)
    assert told == "lost while it was committed"


def test_a_program_notes_for_itself(database: Database) -> None:
    with database.transaction() as session:
        note(session, Inquiry("report", "web", "v1", {"page": 2}), START)
    with database.snapshot() as session:
        assert entries(session) == [AuditEntry(START, "web", "report", "v1", {"page": 2})]


# Holding.


def test_what_is_held_is_listed_and_can_not_be_forgotten(site: str) -> None:
    _done(site, "hold", "v1", "--note", "case 1")
    rows = _asked(site, "holds")
    assert [(row["tracklet"], row["vehicle"], row["by"], row["note"]) for row in rows] == [
        ("gate/s1/1", "v1", "anna", "case 1"),
        ("gate/s1/2", "v1", "anna", "case 1"),
    ]
    assert "release it first" in _refused(site, "forget", "v1", "--crops-dir", "crops", "--yes")
    _done(site, "release", "gate/s1/1")
    _done(site, "release", "v1")
    assert _asked(site, "holds") == []
    assert "nothing of v1 is held" in _refused(site, "release", "v1")
    _done(site, "forget", "v1", "--crops-dir", "crops", "--yes")


# Forgetting.


def test_forgetting_shows_first_what_would_go(site: str) -> None:
    told = _done(site, "forget", "v1")
    assert told.startswith("vehicle v1, at gate: 2 tracklets, 2 sightings, 2 vectors, 2 pictures\n")
    assert "--yes" in told
    assert len(_asked(site, "vehicles")) == 3


def test_nothing_is_left_of_whom_is_forgotten(site: str) -> None:
    _done(site, "merge", "v1", "v2")
    _done(site, "undo", "1")
    _done(site, "forget", "v1", "--crops-dir", "crops", "--yes")
    database = Database.open(site)
    with database.snapshot() as session:
        for table in ("tracklets", "sightings", "embeddings", "assignments"):
            rows = session.execute(text(f"SELECT tracklet_id FROM {table}")).scalars()
            assert set(rows) == {"gate/s1/3", "gate/s1/4"}
    database.close()
    assert [found.as_posix() for found in Path("crops").rglob("*.jpg")] == ["crops/gate/s1/3.jpg"]
    assert [row["vehicle"] for row in _asked(site, "vehicles")] == ["v2", "v3"]
    assert "not known" in _refused(site, "why", "gate/s1/1")


def test_who_may_still_be_in_view_is_forgotten_only_where_that_is_said(site: str) -> None:
    assert "may still be in view" in _refused(site, "forget", "v3", "--crops-dir", "crops", "--yes")
    assert "1 tracklets" in _done(site, "forget", "v3", "--crops-dir", "crops", "--yes", "--in-view")


def test_a_picture_that_can_not_be_removed_keeps_its_vehicle(site: str) -> None:
    blocked = Path("crops/gate/s1/1.jpg")
    blocked.unlink()
    blocked.mkdir()
    assert "not removed: crop crops/gate/s1/1.jpg" in _refused(site, "forget", "v1", "--crops-dir", "crops", "--yes")
    assert _asked(site, "trajectory", "v1")[0]["tracklet"] == "gate/s1/1"


def test_a_matcher_that_has_not_heard_of_it_does_no_harm(site: str) -> None:
    _done(site, "forget", "v1", "--crops-dir", "crops", "--yes")
    database = Database.open(site)
    with database.transaction() as session:
        writer = Writer(session)
        assert writer.assign(assignment("gate/s1/1", "v1")) is None
        merged = [assignment("gate/s1/1", "v2"), assignment("gate/s1/2", "v2")]
        assert writer.correct("merge", merged, made_by=MATCHER, made_at=after(60)) is None
        split = [assignment("gate/s1/1", "v9"), assignment("gate/s1/3", "v9")]
        assert writer.correct("split", split, made_by=MATCHER, made_at=after(60)) is not None
        assert writer.unknown == 4
    database.close()
    assert {row["vehicle"]: row["tracklets"] for row in _asked(site, "vehicles")} == {"v3": 1, "v9": 1}


# Retaining, and the disk.


def test_retaining_says_first_what_is_too_old(site: str) -> None:
    told = _done(site, "retain", "--crops-dir", "crops", "--tracklets-days", "30", "--dry-run")
    assert told == "too old, held ones among them: 4 tracklets\n"
    told = _done(site, "retain", "--crops-dir", "crops", "--tracklets-days", "30")
    assert told.startswith("removed: 4 tracklets, 4 sightings, 4 embeddings, 4 assignments, 3 vehicles, 3 pictures, ")
    assert _asked(site, "vehicles") == []
    assert "say what goes" in _refused(site, "retain", "--crops-dir", "crops")


def test_the_disk_is_told_by_what_was_added(site: str) -> None:
    pictures, database = _asked(site, "disk", "--crops-dir", "crops")
    assert (pictures["what"], pictures["bytes_per_tracklet"]) == ("pictures", round(3 * len(b"picture") / 4))
    assert database["bytes_per_day"] > 0
    assert pictures["days_left"] > 0
    assert (database["days_left"] is None) == site.startswith("postgresql")


def test_a_tracklet_of_many_crops_hides_no_context_from_the_disk(database: Database, tmp_path: Path) -> None:
    crops, of = CropStore(tmp_path), tracklet(context_image="context.jpg")
    crops.save("context.jpg", b"large picture")
    seen = [embedding(of, modality=f"band{number}", crop_image=f"{number}.jpg") for number in range(1001)]
    with database.transaction() as session:
        Writer(session).store_sighting(of, path(of, frames=[1]), seen)
        assert growth(session, crops, after(60)).picture_bytes_per_tracklet == len(b"large picture")


@pytest.mark.parametrize("command", ["hold", "release", "holds", "forget", "audit", "retain", "disk"])
def test_help_teaches(command: str) -> None:
    assert f"Example: {command} " in _run(command, "--help").stdout


def test_a_person_without_a_name_asks_nothing() -> None:
    with pytest.raises(StorageError, match="who asks"):
        Inquiry("trajectory", "")
