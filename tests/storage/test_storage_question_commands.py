"""Questions about journeys on the terminal, and the way from there to the page."""

from __future__ import annotations

import json
import webbrowser
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from storage.__main__ import app
from storage.database import Database
from tests.storage.storage_builders import store, tracklet

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> str:
    """`v1` passed the gate and, 6 s later, the bridge; `v2`, a bus, came 2 s behind it."""
    url = f"sqlite:///{tmp_path / 'site.db'}"
    database = Database.open(url)
    with database.transaction() as session:
        store(session, tracklet("gate", 1, start=0, end=4), "v1")
        store(session, tracklet("bridge", 1, start=10, end=14), "v1")
        store(session, tracklet("gate", 2, start=2, end=7, vehicle_class="bus"), "v2")
        store(session, tracklet("bridge", 2, start=12, end=18, vehicle_class="bus"), "v2")
    database.close()
    return url


def _run(site: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--database", site], env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (["passed", "gate", "bridge", "--within", "5.5"], {"vehicle": "v2", "class": "bus", "travel_s": 5.0}),
        (["passed", "gate", "bridge", "--within", "60", "--to", "2026-01-01T12:00:05"], {"vehicle": "v1"}),
        (["companions", "v1", "--within", "2"], {"vehicle": "v2", "meetings": 2, "cameras": ["gate", "bridge"]}),
        (["dwell", "--camera", "gate"], {"camera": "gate", "visits": 2, "median_s": 4.5}),
        (["journeys", "--class", "car"], {"first": "gate", "then": "bridge", "median_s": 6.0}),
        (["counts", "--camera", "gate", "--class", "bus"], {"start": "2026-01-01T12:00:00.000000Z", "vehicles": 1}),
        (["similar", "gate/s1/1"], {"vehicle": "v2", "similarity": 1.0, "crop_image": "bridge/s1/2.jpg"}),
        (["vehicles", "--newest", "--limit", "1"], {"vehicle": "v2"}),
        (["vehicles", "--class", "car", "--modality", "visible"], {"vehicle": "v1"}),
    ],
)
def test_the_terminal_answers_what_python_does(site: str, question: list[str], answer: dict[str, object]) -> None:
    done = _run(site, *question, "--format", "json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert {name: row[name] for name in answer} == answer


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (["vehicles", "--camera", "gatte"], "camera gatte: not known\n"),
        (["passed", "gate", "gatte", "--within", "9"], "camera gatte: not known\n"),
        (["dwell", "--camera", "gatte"], "camera gatte: not known\n"),
        (["counts", "--camera", "gatte"], "camera gatte: not known\n"),
        (["similar", "gate/s1/1", "--camera", "gatte"], "camera gatte: not known\n"),
        (["companions", "v9"], "vehicle v9: not known\n"),
        (["vehicles", "--from", "0001-01-01"], "--from: 0001-01-01T00:00:00+00:00 is out of range\n"),
        (
            ["journeys", "--from", "2026-01-02", "--to", "2026-01-02"],
            "end: wanted a time after the start 2026-01-02T00:00:00+00:00, got 2026-01-02T00:00:00+00:00\n",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(site: str, question: list[str], message: str) -> None:
    done = _run(site, *question)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", message)


@pytest.mark.parametrize("question", [["counts", "--every", "inf"], ["vehicles", "--limit", "9" * 30]])
def test_a_number_beyond_all_bounds_is_refused(site: str, question: list[str]) -> None:
    assert _run(site, *question).exit_code == 2


@pytest.mark.parametrize("command", [["dwell"], ["journeys"], ["counts"], ["companions", "v1"]])
def test_an_answer_is_a_table_or_csv_as_well(site: str, command: list[str]) -> None:
    header = _run(site, *command, "--format", "csv").stdout.splitlines()[0].split(",")
    table = _run(site, *command).stdout
    assert all(name in table for name in header)


def test_the_page_is_opened_where_it_is(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", open_)
    assert _run(site, "trajectory", "v", "--open").exit_code == 2
    assert _run(site, "trajectory", "v1", "--open").exit_code == 0
    assert _run(site, "vehicles", "--open", "--page", "https://site.example/").exit_code == 0
    assert opened == ["http://127.0.0.1:8080/vehicles/v1", "https://site.example/vehicles"]


def test_what_can_not_be_opened_is_one_line(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    for arguments, message in (
        (["--open"], "--open: there is no browser here; the page is http://127.0.0.1:8080/vehicles/v1\n"),
        (["--open", "--page", "file:///"], "--page: wanted an address such as http://127.0.0.1:8080, got 'file:///'\n"),
    ):
        done = _run(site, "trajectory", "v1", *arguments)
        assert (done.exit_code, done.stderr) == (2, message)
