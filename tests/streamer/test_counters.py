from __future__ import annotations

import multiprocessing
import os
import signal

from streamer.counters import Board, Field, Order, RowState


def count_and_hang(board: Board) -> None:
    row = board.camera("cam2")
    row.add(Field.DECODED, 41)
    row.add(Field.DECODED)
    row.state = RowState.RUNNING
    row.note = "grüße"
    os.kill(os.getpid(), signal.SIGKILL)


def test_rows_are_apart() -> None:
    board = Board(["cam1", "cam2"], ["embedder"])
    board.camera("cam1").add(Field.DECODED, 3)
    board.stage("embedder").note = "hello"

    assert board.camera("cam1").count(Field.DECODED) == 3
    assert board.camera("cam2").count(Field.DECODED) == 0
    assert board.camera("cam1").note == ""
    assert (board.cameras, board.stages) == (("cam1", "cam2"), ("embedder",))


def test_a_note_is_cut_to_its_place() -> None:
    row = Board(["cam1"], []).camera("cam1")
    row.note = "x" * 1000
    row.note = "short"

    assert row.note == "short"


def test_what_a_killed_process_had_counted_is_still_there() -> None:
    board = Board(["cam1", "cam2"], [])
    process = multiprocessing.get_context("spawn").Process(target=count_and_hang, args=(board,))
    process.start()
    process.join()

    assert process.exitcode == -signal.SIGKILL
    assert board.camera("cam2").count(Field.DECODED) == 42
    assert board.camera("cam2").state is RowState.RUNNING
    assert board.camera("cam2").note == "grüße"
    assert board.order is Order.RUN


def test_fields_have_places_of_their_own() -> None:
    assert sorted(Field) == list(range(len(Field)))
