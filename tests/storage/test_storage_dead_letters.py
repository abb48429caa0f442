"""What could not be used is kept once, in bounds, and listed."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from storage import writer
from storage.__main__ import app
from storage.database import Database
from storage.dead_letters import load_dead_letters
from storage.writer import MAX_DEAD_LETTER_BYTES, Writer
from tests.storage.storage_builders import START

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

pytest_plugins = ("tests.storage.storage_fixtures",)


def _put(session: Session, offset: int, *, partition: int = 0, payload: bytes = b"\x01\xff") -> None:
    at = START + timedelta(seconds=offset)
    Writer(session).store_dead_letter("sightings", partition, offset, payload, f"no {offset}", at)


def test_a_flood_keeps_the_newest_of_each_partition(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_DEAD_LETTERS", 5)
    with database.transaction() as session:
        _put(session, 3, partition=1)
        for offset in range(0, 40, 2):
            _put(session, offset)
    with database.snapshot() as session:
        kept = [(letter.partition, letter.offset) for letter in load_dead_letters(session)]
        newest = [letter.offset for letter in load_dead_letters(session, limit=2)]
    assert kept == [(0, 38), (0, 36), (0, 34), (0, 32), (0, 30), (1, 3)]
    assert newest == [38, 36]


def test_a_long_message_keeps_its_beginning_and_says_so(database: Database) -> None:
    payload = bytes(range(256)) * 8000
    with database.transaction() as session:
        _put(session, 1, payload=payload)
    with database.snapshot() as session:
        (letter,) = load_dead_letters(session)
    assert letter.payload == payload[:MAX_DEAD_LETTER_BYTES]
    assert letter.reason == "no 1 (65536 of 2048000 bytes kept)"


def test_the_command_lists_them(sqlite_url: str) -> None:
    opened = Database.open(sqlite_url)
    with opened.transaction() as session:
        _put(session, 7)
        _put(session, 8)
    opened.close()
    result = CliRunner().invoke(app, ["dead-letters", "--database", sqlite_url, "--format", "json", "--limit", "1"])
    assert json.loads(result.stdout) == [
        {
            "at": "2026-01-01T12:00:08.000000Z",
            "topic": "sightings",
            "partition": 0,
            "offset": 8,
            "reason": "no 8",
            "bytes": 2,
        }
    ]
