from __future__ import annotations

import io

import pytest
from rich.console import Console

from storage.trajectories import VehicleSummary
from streamer.counters import Board, Field, RowState
from streamer.progress import LINE_PERIOD_S, LIVE_PERIOD_S, Progress, losses_line, totals_line, vehicles_table
from tests.streamer.book_builders import at
from tests.streamer.test_health import SITE, Clock


@pytest.fixture
def board() -> Board:
    board = Board(["cam1", "cam2"], ["matcher"])
    first, second = board.camera("cam1"), board.camera("cam2")
    first.state, second.state, second.note = RowState.RUNNING, RowState.FAILED, "x.mp4: no such file"
    first[Field.DECODED], first[Field.DETECTED], first[Field.GATED] = 1234, 1000, 200
    first[Field.DROPPED], first[Field.DETECTIONS], first[Field.SIGHTINGS] = 34, 77, 12
    board.stage("matcher")[Field.VEHICLES] = 9
    return board


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=140), out


def test_a_terminal_gets_a_table_that_moves(board: Board) -> None:
    clock = Clock()
    screen, out = console(terminal=True)
    with Progress(SITE, board, screen, clock).shown() as progress:
        clock.now_s += LIVE_PERIOD_S
        progress.tick()

    for text in ("cam1", "1,234", "77", "running", "no such file", "sightings 12", "vehicles 9"):
        assert text in out.getvalue()


def test_anything_else_gets_a_line_now_and_then(board: Board) -> None:
    clock = Clock()
    screen, out = console(terminal=False)
    with Progress(SITE, board, screen, clock).shown() as progress:
        for _ in range(10):
            clock.now_s += LINE_PERIOD_S / 2
            progress.tick()

    lines = out.getvalue().splitlines()
    assert len(lines) == 5
    assert "cam1" in lines[0]
    assert "1234 decoded 34 dropped 200 gated 77 detections running" in lines[0]
    assert lines[0].endswith("vehicles 9, lag 0")


def test_the_totals_account_for_every_frame(board: Board) -> None:
    assert totals_line(board).startswith("frames: 1234 decoded = 1000 detected + 200 gated + 34 dropped;")


def test_the_totals_tell_of_points_only_where_there_are_some(board: Board) -> None:
    assert "points" not in totals_line(board)

    board.camera("cam1").add(Field.TOKEN_BYTES, 2000)
    board.camera("cam2").add(Field.TOKEN_BYTES, 322)

    assert totals_line(board).endswith("; points: 2322 bytes")


def test_what_was_lost_is_told_and_nothing_is_told_of_what_was_not(board: Board) -> None:
    assert losses_line(board) == ""

    board.camera("cam1").add(Field.SIGHTINGS_LOST, 2)
    board.stage("matcher").add(Field.REJECTED, 3)

    assert losses_line(board) == "2 sightings lost, 3 messages put aside"


def test_the_last_table_shows_each_vehicle_s_way() -> None:
    vehicle = VehicleSummary("12345678-aaaa", "car", at(0), at(90), ("cam1", "cam2"), 2, ("visible", "thermal"))
    screen, out = console(terminal=False)
    screen.print(vehicles_table([vehicle], {vehicle.vehicle_id: [("cam1", at(0)), ("cam2", at(70))]}))

    for text in ("12345678 ", "car", "cam1 12:00:00 -> cam2 12:00:07", "visible, thermal"):
        assert text in out.getvalue()
