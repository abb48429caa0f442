"""Listeners and matchers of different age understand each other, or say why not."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pytest

from streamer import identity_events
from streamer.avro_schemas import parsed_schema
from streamer.identity_events import SCHEMA_VERSION, Identity, IdentityError, decode, encode
from tests.storage.storage_builders import START

OLDER, NEWER = SCHEMA_VERSION - 1, SCHEMA_VERSION + 1
EVENT = Identity(
    7,
    "crossing",
    "main",
    "a/s/1",
    "a",
    "v2",
    "v1",
    "linked",
    is_provisional=False,
    score=1.5,
    decided_at=START,
    decided_by="matcher",
    correction_id=3,
)


@pytest.fixture(autouse=True)
def forgotten_schemas() -> None:
    parsed_schema.cache_clear()


def said_by(
    version: int, change: Callable[[list[dict[str, Any]]], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> bytes:
    """The event as that version's writer sends it, whose schema file is here from now on."""
    document = json.loads(Path(identity_events.__file__).with_name("identity.avsc").read_text())
    change(document["fields"])
    file = folder / f"identity.{version}.avsc"
    file.write_text(json.dumps(document))
    monkeypatch.setitem(identity_events._SCHEMA_FILES, version, str(file))
    record = {name: getattr(EVENT, name) for name in Identity.__slots__} | {"schema_version": version, "place": "gate"}
    buffer = io.BytesIO()
    buffer.write(bytes((version,)))
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(document), record)
    return buffer.getvalue()


def test_an_older_matchers_event_is_read_with_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_corrections(fields: list[dict[str, Any]]) -> None:
        fields[:] = [field for field in fields if field["name"] not in ("correction_id", "previous_vehicle_id")]

    event = decode(said_by(OLDER, without_corrections, tmp_path, monkeypatch))
    assert (event.event_id, event.vehicle_id, event.decided_at) == (7, "v2", START)
    assert (event.correction_id, event.previous_vehicle_id) == (None, None)


def test_a_newer_matchers_event_is_read_once_its_schema_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_place(fields: list[dict[str, Any]]) -> None:
        fields.insert(4, {"name": "place", "type": ["null", "string"], "default": None})

    with monkeypatch.context() as taught:
        payload = said_by(NEWER, with_place, tmp_path, taught)
        assert decode(payload) == EVENT
    with pytest.raises(IdentityError, match=f"unknown version {NEWER}, this program reads {SCHEMA_VERSION}"):
        decode(payload)


def test_what_ours_cannot_do_without_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_vehicle(fields: list[dict[str, Any]]) -> None:
        fields[:] = [field for field in fields if field["name"] != "vehicle_id"]

    with pytest.raises(IdentityError, match=f"not a record of version {NEWER}"):
        decode(said_by(NEWER, without_vehicle, tmp_path, monkeypatch))
    assert decode(encode(EVENT)) == EVENT
