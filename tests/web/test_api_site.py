"""The site over HTTP: cameras and stages, by role; and a description that leaves nothing out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from storage.accounts import Role
from storage.records import CameraStatus, StageStatus
from storage.status_samples import StatusSample, load_samples, store_samples
from storage.writer import Writer
from tests.storage.storage_builders import START, after
from tests.web.api_site import filled_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.web.asking import Asker


def _status(camera: str) -> CameraStatus:
    return CameraStatus(
        camera,
        START,
        state="running",
        modality="visible",
        fps=25.0,
        decoded=100,
        detected=50,
        gated=50,
        dropped=0,
        reconnects=0,
        decode_errors=0,
        detections=80,
        tracklets=9,
        message=f"rtsp://10.0.0.1/{camera}: late",
    )


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Asker]:
    """Nobody yet; of a site whose cameras and matcher have said how they are."""
    with filled_site(tmp_path) as found:
        with found.services.database.transaction() as session:
            writer = Writer(session)
            writer.store_camera_status([_status("gate"), _status("yard")])
            writer.store_stage_status([StageStatus("matcher", START, {"lag": 3.0})])
        yield found


def test_cameras_say_how_they_are(ask: Asker) -> None:
    gate, yard = ask.with_token("otto", Role.OPERATOR)("GET", "/v1/cameras").json()["items"]
    assert (gate["camera"], gate["region"], yard["camera"]) == ("gate", "main", "yard")
    assert (gate["state"]["state"], gate["state"]["fps"]) == ("running", 25.0)
    assert gate["state"]["updated_at"] == "2026-01-01T12:00:00Z"
    assert gate["state"]["message"] == "rtsp://10.0.0.1/gate: late"


def test_a_viewer_is_told_no_addresses_and_no_stages(ask: Asker) -> None:
    vera = ask.with_token("vera")
    answer = vera("GET", "/v1/cameras")
    assert [one["camera"] for one in answer.json()["items"]] == ["yard"]
    assert "rtsp" not in answer.text
    assert vera("GET", "/v1/health").status_code == 403


def test_stages_give_their_counters(ask: Asker) -> None:
    health = ask.with_token("otto", Role.OPERATOR)("GET", "/v1/health").json()
    assert health["stages"] == [{"stage": "matcher", "updated_at": "2026-01-01T12:00:00Z", "counters": {"lag": 3.0}}]
    assert health["streams"] == {"listeners": 0, "let_go": 0}
    assert health["watching"] == {"failures": 0, "trouble": ""}


def test_samples_are_told_by_time_page_by_page(ask: Asker) -> None:
    stages = [StageStatus(name, START, {"lag": 1.0}) for name in ("embedder", "matcher")]
    with ask.services.database.transaction() as session:
        for minute in range(3):
            store_samples(session, [_status("gate"), _status("yard")], stages, after(60.0 * minute))
    otto, found, cursor = ask.with_token("otto", Role.OPERATOR), [], ""
    while cursor is not None:
        asked = {"start": "2026-01-01T12:01:00Z", "limit": 3, **({"cursor": cursor} if cursor else {})}
        page = otto("GET", "/v1/health/samples", params=asked).json()
        found += page["items"]
        cursor = page["next"]
    told = [(one["moment"], one["source"]) for one in found]
    names = ["gate", "yard", "embedder", "matcher"]
    assert told == [(f"2026-01-01T12:0{minute}:00Z", name) for minute in (1, 2) for name in names]
    assert otto("GET", "/v1/health/samples").json() == {"items": [], "next": None}
    assert ask.with_token("vera")("GET", "/v1/health/samples").status_code == 403


def test_a_page_of_samples_is_all_that_is_read_for_it(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    with ask.services.database.transaction() as session:
        for minute in range(10):
            store_samples(session, [_status("gate"), _status("yard")], [], after(60.0 * minute))
    read: list[int] = []

    def counting(*arguments: Any, **chosen: Any) -> list[StatusSample]:  # noqa: ANN401 - as they are handed on
        found = load_samples(*arguments, **chosen)
        read.append(len(found))
        return found

    monkeypatch.setattr("web.api.health.load_samples", counting)
    otto, asked = ask.with_token("otto", Role.OPERATOR), {"start": "2026-01-01T12:00:00Z", "limit": "3"}
    cursor = otto("GET", "/v1/health/samples", params=asked).json()["next"]
    assert len(otto("GET", "/v1/health/samples", params={**asked, "cursor": cursor}).json()["items"]) == 3
    assert read == [4, 4]


def test_nobody_is_answered_without_proof(ask: Asker) -> None:
    answer = ask("GET", "/v1/site")
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.json()["title"] == "Unauthorized"


def test_a_body_that_is_no_json_is_named(ask: Asker) -> None:
    sent = {"content": b"{,", "headers": {"Content-Type": "application/json"}}
    answer = ask.with_token("otto", Role.OPERATOR)("POST", "/v1/corrections", **sent)
    assert (answer.status_code, answer.json()["detail"]) == (422, "body: not JSON, at character 1")


def test_the_description_explains_every_question_and_every_field(ask: Asker) -> None:
    described = ask.with_token("vera")("GET", "/openapi.json").json()
    silent = [name for name, schema in described["components"]["schemas"].items() for name in _silent(name, schema)]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            silent += [f"{method} {path}"] if not operation.get("description") else []
            told = [(one["name"], one.get("description", "")) for one in operation.get("parameters", ())]
            silent += [f"{method} {path} {name}" for name, description in told if not description]
            assert any(status.startswith("2") for status in operation["responses"])
            assert {"401", "403", "422", "503"} <= operation["responses"].keys()
    assert silent == []


def _silent(name: str, schema: dict[str, Any]) -> list[str]:
    """Fields without a word on them; what says `kind` of a correction says it by its constant."""
    fields = schema.get("properties", {}).items()
    return [f"{name}.{field}" for field, told in fields if not told.get("description") and "const" not in told]


def test_the_way_of_operation_ids_is_each_once(ask: Asker) -> None:
    described = ask.with_token("vera")("GET", "/openapi.json").json()
    ids = [one["operationId"] for operations in described["paths"].values() for one in operations.values()]
    assert len(ids) == len(set(ids))
