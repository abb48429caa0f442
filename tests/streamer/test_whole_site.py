"""The whole program over the demo's clips, undisturbed and with workers that are killed."""

from __future__ import annotations

import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from reid.tokens import unpack
from streamer.config import SiteConfig, load_site
from streamer.counters import Field, RowState
from streamer.health import Accounts
from streamer.site_plan import EMBEDDER, MATCHER, Role
from streamer.supervisor import Supervisor
from tests.servers.kafka import Broker
from tests.streamer.site_files import demo_site, streamer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: Notes every connection that leaves the host's own sockets, in every process of the run.
HOOK = """
import os, socket, sys

def note(event, arguments):
    if event == "socket.connect" and arguments[0].family != socket.AF_UNIX:
        with open(os.environ["CONNECTIONS"], "a") as file:
            print(arguments[1], file=file)

sys.addaudithook(note)
"""


def rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def tracklets(database: Path) -> list[Any]:
    return rows(database, "SELECT tracklet_id, started_at, ended_at, end_reason FROM tracklets ORDER BY tracklet_id")


def test_the_demo_runs_to_its_end_and_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    connections = tmp_path / "connections"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "CONNECTIONS": str(connections)}
    site = demo_site(tmp_path, detector={"motion_gate": False})

    first = streamer("--config", site, environment=environment, timeout_s=500)
    known = tracklets(tmp_path / "test.db")
    second = streamer("--config", site, timeout_s=120)

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "frames: 800 decoded = 800 detected + 0 gated + 0 dropped" in first.stdout
    assert re.search(r"(\d+) asked = \1 embedded \+ 0 dropped", first.stdout)
    assert "passed several cameras" in first.stdout
    assert not connections.exists(), connections.read_text()
    assert second.stdout.count("read to its end by an earlier run, nothing to do") == 4
    assert "frames: 0 decoded" in second.stdout
    assert tracklets(tmp_path / "test.db") == known
    assert len(known) > 10


def test_points_of_first_and_last_pictures_are_stored_where_the_site_wants_them(tmp_path: Path) -> None:
    done = streamer("--config", demo_site(tmp_path, ("cam1",), embedder={"tokens": True, "mirrored": True}))

    assert done.returncode == 0, done.stderr
    pictures = rows(tmp_path / "test.db", "SELECT tracklet_id, tokens FROM embeddings ORDER BY embedding_id")
    stored = [(tracklet, tokens) for tracklet, tokens in pictures if tokens is not None]
    assert {unpack(tokens).shape for _, tokens in stored} == {(3, 32, 24)}
    assert Counter(tracklet for tracklet, _ in stored) == {tracklet: 2 for tracklet, _ in pictures}
    assert len(stored) < len(pictures)
    assert f"points: {sum(len(tokens) for _, tokens in stored)} bytes" in done.stdout


class Killer:
    """Kills a worker once, when the run has come so far."""

    def __init__(self, supervisor: Supervisor, stage: str, is_time: Callable[[Supervisor], bool]) -> None:
        self._supervisor, self._stage, self._is_time = supervisor, stage, is_time
        self.has_struck = False

    def __call__(self) -> None:
        if self.has_struck or not self._is_time(self._supervisor):
            return
        for child in self._supervisor.children:
            if child.stage == self._stage and child.process is not None:
                child.process.kill()
                self.has_struck = True


def two_cameras(folder: Path, **changes: Any) -> SiteConfig:  # noqa: ANN401 - any key of the site file
    folder.mkdir()
    defaults: dict[str, Any] = {"detector": {"motion_gate": False}, "status_period_s": 0.5}
    return load_site(demo_site(folder, ("cam1", "cam3"), **(defaults | changes)))


def run_and_kill(folder: Path, stage: str | None, is_time: Callable[[Supervisor], bool]) -> Supervisor:
    supervisor = Supervisor(two_cameras(folder))
    killer = Killer(supervisor, stage or "", is_time if stage else lambda _: False)
    try:
        supervisor.start()
        outcome = supervisor.run(killer)
    finally:
        supervisor.close()
    assert outcome.is_drained
    assert killer.has_struck == (stage is not None)
    return supervisor


def decoded(supervisor: Supervisor) -> int:
    return sum(supervisor.board.camera(name).count(Field.DECODED) for name in supervisor.board.cameras)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run_and_kill(folder, None, lambda _: False)
    return tracklets(folder / "test.db")


@pytest.mark.parametrize("stage", [EMBEDDER, MATCHER, "cameras-0"])
def test_a_killed_worker_costs_no_tracklet(tmp_path: Path, undisturbed: list[Any], stage: str) -> None:
    supervisor = run_and_kill(tmp_path / "run", stage, lambda supervisor: decoded(supervisor) > 120)

    assert tracklets(tmp_path / "run" / "test.db") == undisturbed
    assert supervisor.board.stage(stage).count(Field.RESTARTS) == 1
    for name in supervisor.board.cameras:
        row = supervisor.board.camera(name)
        accounts = Accounts.of(row)
        assert row.state is RowState.FINISHED
        assert (accounts.frames_in_flight, accounts.crops_in_flight) == (0, 0)
        assert accounts.dropped == 0 or stage == "cameras-0"
        assert accounts.crops_dropped == 0 or stage == "cameras-0"


def run(site: SiteConfig, role: Role = Role.ALL) -> None:
    """Runs to the end; a matcher by itself until it has read all there is."""
    supervisor = Supervisor(site, role)
    is_service = role is Role.MATCHER
    try:
        supervisor.start()
        if is_service:
            supervisor.stop()
        assert supervisor.run().is_drained
    finally:
        supervisor.close()


def test_the_number_of_workers_changes_nothing_of_what_is_said(tmp_path: Path, undisturbed: list[Any]) -> None:
    run(two_cameras(tmp_path / "run", workers=2))

    assert tracklets(tmp_path / "run" / "test.db") == undisturbed


def test_edge_and_matcher_apart_say_the_same_as_together(tmp_path: Path, undisturbed: list[Any]) -> None:
    site = two_cameras(tmp_path / "run")
    run(site, Role.EDGE)
    assert tracklets(tmp_path / "run" / "test.db") == []
    run(site, Role.MATCHER)

    assert tracklets(tmp_path / "run" / "test.db") == undisturbed


@pytest.mark.integration
def test_kafka_between_them_changes_nothing(tmp_path: Path, undisturbed: list[Any]) -> None:
    broker = Broker()
    broker.start()
    try:
        bus = {"bootstrap_servers": [broker.address], "session_timeout_s": 6, "partitions": 2}
        run(two_cameras(tmp_path / "run", bus=bus))
    finally:
        broker.stop()

    assert tracklets(tmp_path / "run" / "test.db") == undisturbed


def stop_midway(site: SiteConfig) -> Supervisor:
    """Runs a site of files, and orders its end when some frames were decoded."""
    supervisor = Supervisor(site)

    def stop_once() -> None:
        # A second order would end everything at once.
        if decoded(supervisor) > 120 and not supervisor.board.order:
            supervisor.stop()

    try:
        supervisor.start()
        assert supervisor.run(stop_once).is_drained
    finally:
        supervisor.close()
    return supervisor


def test_a_run_after_one_that_was_stopped_says_the_same_as_one_undisturbed(
    tmp_path: Path, undisturbed: list[Any]
) -> None:
    site, database = two_cameras(tmp_path / "run"), tmp_path / "run" / "test.db"
    supervisor = stop_midway(site)

    said = tracklets(database)
    assert {name for name, *_ in said} <= {name for name, *_ in undisturbed}
    # What was in view has not ended: only a run that follows it to its end can say when it did.
    assert [end for *_, end in said if end is not None] == ["left"] * sum(end is not None for *_, end in said)
    assert all(supervisor.board.camera(name).state is RowState.STOPPED for name in ("cam1", "cam3"))
    assert dict(rows(database, "SELECT camera, state FROM camera_status")) == {"cam1": "stopped", "cam3": "stopped"}
    for name in supervisor.board.cameras:
        accounts = Accounts.of(supervisor.board.camera(name))
        assert (accounts.frames_in_flight, accounts.crops_in_flight) == (0, 0)

    run(site)
    assert tracklets(database) == undisturbed
    assert not rows(database, "SELECT tracklet_id FROM tracklets WHERE end_reason IS NULL")
