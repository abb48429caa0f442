"""Explaining, correcting and undoing on the terminal."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner, Result

from storage.__main__ import app
from storage.database import Database
from storage.records import MATCHER
from storage.writer import Writer
from streamer.matcher.decision import Candidate, Decision, Reason, Rule
from streamer.matcher.evidence import Evidence
from streamer.matcher.recording import record_decisions
from tests.storage.storage_builders import START, after, assignment, store, tracklet

pytest_plugins = ("tests.storage.storage_fixtures",)


def _candidate(vehicle_id: str, of: str, sum_: float, evidence: Evidence, *, tracklets: int = 1) -> Candidate:
    return Candidate(vehicle_id, of, of.split("/")[0], sum_, evidence, tracklets)


#: The matcher's own words.
LINKED = Decision(
    "bridge/s1/1",
    "v1",
    is_provisional=False,
    reason=Reason.LINKED,
    rule=Rule.BEST,
    score=4.0,
    margin=2.5,
    considered=7,
    candidates=(
        _candidate("v1", "gate/s1/1", 4.0, Evidence(1.75, 0.5, 2.25, 6.5, None, 0.8125, "visible~thermal", -0.5)),
        _candidate(
            "5f0c5f0e-6d0a-5f0b-9a35-2b8f4c1f7a10",
            "tower/s1/1",
            1.5,
            Evidence(0.5, 0.5, 1.3, -7.6, 2.8, 0.5, "visible~visible"),
            tracklets=3,
        ),
        _candidate("v3", "bridge/s1/2", -5.0, Evidence(0.25, 0.5, -3.0, 90.0, None, 0.5, "visible~visible")),
    ),
    decided_at=START.timestamp(),
)


@pytest.fixture
def site(url: str) -> str:
    """`v1` passed the gate and, as the matcher decided after a first guess, the bridge; `v2` the gate."""
    database = Database.open(url)
    with database.transaction() as session:
        store(session, tracklet("gate", 1, start=0, end=4), "v1")
        store(session, tracklet("bridge", 1, start=10, end=14))
        Writer(session).assign(assignment("bridge/s1/1", "v9", is_provisional=True, reason="new"))
        record_decisions([LINKED], Writer(session), model_id="test")
        store(session, tracklet("gate", 2, start=20, end=24), "v2")
    database.close()
    return url


def _run(*arguments: str) -> Result:
    # A wide terminal, or messages of the command line's parser come in pieces.
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "LOGNAME": "anna"})


def _done(*arguments: str) -> str:
    result = _run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def _fails_in_one_line(*arguments: str) -> str:
    result = _run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


def _vehicles(site: str) -> dict[str, int]:
    listed = json.loads(_done("vehicles", "--database", site, "--format", "json"))
    return {row["vehicle"]: row["tracklets"] for row in listed}


# Why.


def test_why_tells_the_decision_and_what_was_weighed(site: str) -> None:
    told = _done("why", "bridge/s1/1", "--database", site)
    assert told.splitlines() == [
        "bridge/s1/1: car at bridge, 2026-01-01T12:00:10.000Z to 2026-01-01T12:00:14.000Z, it goes on",
        "crops: bridge/s1/1.jpg",
        "",
        "now: vehicle v1",
        "  by the matcher at 2026-01-01T12:00:00.000Z: linked to a vehicle that is known",
        "  rule: the best fit, taken together with everything decided at that time",
        "  score +2.00 log-odds (88.1%), ahead of the next by 1.25, 7 vehicles weighed",
        "  bands visible~thermal, 6.5 s from the tracklet nearest in time, embedder test",
        "  1. vehicle v1 (chosen): 88.1%, +2.00 log-odds",
        "     sum of what follows +4.00, halved because its parts are not independent",
        "     nearest in time: gate/s1/1 at gate: looks +1.75 (similarity 0.812, visible~thermal), class +0.50, "
        "time and place +2.25 (6.5 s between), any pair -0.50",
        "     crops: gate/s1/1.jpg",
        "  2. vehicle 5f0c5f0e: 67.9%, +0.75 log-odds",
        "     sum over the nearest of its 3 tracklets +1.50, halved because they are not independent",
        "     nearest in time: tower/s1/1 at tower: looks +0.50 (similarity 0.500, visible~visible), class +0.50, "
        "time and place +1.30 (in both views for 7.6 s, of which +2.80 from standing on the same spot), any pair +0.00",
        "  3. vehicle v3: 7.6%, -2.50 log-odds",
        "     sum -5.00, halved; looks or the time between settle it, not all of what follows counts",
        "     nearest in time: bridge/s1/2 at bridge: looks +0.25 (similarity 0.500, visible~visible), class +0.50, "
        "the same view again -3.00 (90.0 s between), any pair +0.00",
        "",
        "before that: vehicle v9",
        "  by the matcher at 2026-01-01T12:00:00.000Z: a vehicle not seen before, "
        "provisional: the tracklet's end may change it",
        "  3 vehicles weighed",
        "  embedder test",
    ]


def test_why_reads_decisions_as_they_were_written_earlier(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    earlier = {"candidates": 4, "appearance": 1.5, "vehicle_class": 0.25, "transit": -0.5, "similarity": None}
    with database.transaction() as session:
        store(session, tracklet())
        Writer(session).assign(replace(assignment("gate/s1/1", "v1"), evidence=earlier))
    database.close()
    told = _done("why", "gate", "--database", sqlite_url)
    assert "  4 vehicles weighed\n  embedder test\n  looks +1.50, class +0.25, time and place -0.50\n" in told


def test_why_tells_who_corrected_what(site: str) -> None:
    _done("move", "gate/s1/2", "--to", "v1", "--note", "same dent", "--database", site)
    _done("undo", "1", "--by", "ben", "--database", site)
    told = _done("why", "te/s1/2", "--database", site).splitlines()
    assert [line for line in told if line.startswith(("now", "before"))] == [
        "now: vehicle v2",
        "before that: vehicle v1",
        "before that: vehicle v2",
    ]
    assert "  correction 2 (undo by ben), with 2 more tracklets, takes back correction 1" in told
    assert "  correction 1 (move by anna), with 2 more tracklets, taken back by correction 2" in told
    assert "  note: same dent" in told
    assert "  rule: given to this vehicle by anna, from vehicle v2" in told
    assert any(
        line.startswith("  undo by ben at 2") and line.endswith("; the matcher's decision holds again") for line in told
    )


def test_why_of_what_has_no_vehicle(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    with database.transaction() as session:
        store(session, tracklet(end_reason="left"))
    database.close()
    assert _done("why", "gate", "--database", sqlite_url).endswith(
        "ended: left\ncrops: gate/s1/1.jpg\nIt has no vehicle yet.\n"
    )


def test_why_tells_what_was_only_confirmed_and_what_the_matcher_says_to_it(site: str) -> None:
    database = Database.open(site)
    with database.transaction() as session:
        store(session, tracklet("gate", 3))
        Writer(session).assign(assignment("gate/s1/3", "v3", is_provisional=True))
    database.close()
    _done("move", "gate/s1/3", "--to", "v1", "--database", site)
    with (database := Database.open(site)).transaction() as session:
        Writer(session).assign(assignment("gate/s1/3", "v1", reason="linked", score=2.0))
    database.close()
    told = _done("why", "bridge/s1/1", "--database", site)
    assert ": confirmed where it was\n" in told
    assert "  what had been weighed:\n  rule: the best fit" in told
    told = _done("why", "gate/s1/3", "--database", site)
    assert "  by anna at" in told
    assert "the tracklet has ended, and the matcher agrees:\n  score +2.00 log-odds as summed (73.1%)" in told


# Correcting.


def test_vehicles_are_merged_and_split_again(site: str) -> None:
    said = _done("merge", "v1", "v2", "--database", site)
    assert said == "correction 1, merge by anna: 1 tracklet moved to v1, 2 confirmed; undo 1 takes it back\n"
    assert _vehicles(site) == {"v1": 3}
    _done("split", "gate/s1/1", "gate/s1/2", "--by", "ben", "--database", site)
    assert sorted(_vehicles(site).values()) == [1, 2]
    assert "correction 2 (split by ben)" in _fails_in_one_line("undo", "1", "--database", site)
    for number in ("2", "1"):
        _done("undo", number, "--database", site)
    assert _vehicles(site) == {"v1": 2, "v2": 1}


def test_corrections_are_listed(site: str) -> None:
    _done("merge", "v1", "v2", "--note", "[same] dent", "--database", site)
    database = Database.open(site)
    with database.transaction() as session:
        store(session, tracklet("gate", 3), "v3")
        second_look = [assignment("gate/s1/3", "v1", reason="merge")]
        Writer(session).correct("merge", second_look, made_by=MATCHER, made_at=after(60))
    database.close()
    of_matcher, of_anna = json.loads(_done("corrections", "--database", site, "--format", "json"))
    assert of_matcher == {
        "correction": 2,
        "made_at": "2026-01-01T12:01:00.000000Z",
        "by": "matcher",
        "kind": "merge",
        "moved": 1,
        "from": ["v3"],
        "to": ["v1"],
        "confirmed": 0,
        "undoes": None,
        "undone_by": None,
        "note": "",
    }
    assert (of_anna["by"], of_anna["confirmed"]) == ("anna", 2)
    shown = _done("corrections", "--people-only", "--database", site)
    assert "[same] dent" in shown
    assert "1 correction" in shown
    assert "matcher" not in shown


def test_a_trajectory_says_whose_word_it_is_where_it_is_a_persons(site: str) -> None:
    assert "decided_by" not in _done("trajectory", "v1", "--database", site)
    _done("merge", "v1", "v2", "--database", site)
    assert "decided_by" in _done("trajectory", "v1", "--database", site)
    stops = json.loads(_done("trajectory", "v1", "--database", site, "--format", "json"))
    assert [stop["decided_by"] for stop in stops] == ["anna"] * 3
    assert [stop["probability"] for stop in stops] == [None, pytest.approx(0.8808), None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["why", "s1"], "tracklet s1: not known"),
        (["why", "gate"], "more than one begins or ends so: gate/s1/1, gate/s1/2"),
        (["merge", "v1", "v8"], "vehicle v8: not known"),
        (["merge", "v1", "v2", "--by", "matcher"], "other than 'matcher'"),
        (["split", "gate/s1/2"], "these are all tracklets of vehicle v2"),
        (["move", "gate/s1/2", "--to", "v2"], "vehicle v2 has these tracklets already"),
        (["undo", "5"], "correction 5: not known"),
    ],
)
def test_what_can_not_be_corrected_is_said_in_one_line(site: str, arguments: list[str], message: str) -> None:
    assert message in _fails_in_one_line(*arguments, "--database", site)
    assert json.loads(_done("corrections", "--database", site, "--format", "json")) == []


def test_nobody_is_not_a_name(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert _fails_in_one_line("merge", "v1", "v2", "--database", site).startswith("--by NAME is wanted")


@pytest.mark.parametrize("command", ["why", "merge", "split", "move", "undo", "corrections"])
def test_help_teaches(command: str) -> None:
    assert f"Example: {command} " in _run(command, "--help").stdout


def test_what_is_doubtful_is_listed_until_it_is_confirmed(site: str) -> None:
    (doubt,) = json.loads(_done("review", "--database", site, "--format", "json"))
    told = [doubt[name] for name in ("kind", "tracklet", "vehicle", "other_tracklet", "other_vehicle", "reason")]
    assert told == ["link", "bridge/s1/1", "v1", "gate/s1/1", "v1", "linked"]
    assert 0.5 < doubt["probability"] < 1
    said = _done("confirm", "bridge/s1/1", "gate/s1/1", "--note", "same roof", "--database", site)
    assert said == "correction 1, confirm by anna: none moved, 2 confirmed; undo 1 takes it back\n"
    assert json.loads(_done("review", "--database", site, "--format", "json")) == []
    why = _done("why", "bridge/s1/1", "--database", site)
    assert "by anna" in why
    assert "confirmed where it was" in why
    assert "correction 1 (confirm by anna), with 1 more tracklet" in why
    _done("undo", "1", "--database", site)
    assert len(json.loads(_done("review", "--database", site, "--format", "json"))) == 1
