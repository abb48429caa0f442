from __future__ import annotations

import multiprocessing
import os
import signal

import pytest

from streamer.counters import (
    LATENCY_BOUNDS_S,
    LATENCY_BUCKETS,
    Board,
    BoardFullError,
    Field,
    Order,
    RowState,
)


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


def find_the_added_camera(board: Board) -> None:
    board.camera("cam9").add(Field.DECODED, 7)


def test_a_camera_added_while_workers_run_is_found_by_them() -> None:
    board = Board(["cam1"], ["embedder"])
    board.camera("cam1").add(Field.DECODED, 3)
    board.stage("embedder").add(Field.HANDLED, 5)
    board.add_camera("cam9")
    process = multiprocessing.get_context("spawn").Process(target=find_the_added_camera, args=(board,))
    process.start()
    process.join()

    counts = [board.camera(name).count(Field.DECODED) for name in board.cameras]
    assert (board.cameras, counts) == (("cam1", "cam9"), [3, 7])
    assert board.stage("embedder").count(Field.HANDLED) == 5


def test_a_camera_that_comes_back_goes_on_counting_in_its_row() -> None:
    board = Board(["cam1"], [], spare=1)
    board.add_camera("cam2")
    board.camera("cam2").add(Field.DECODED)
    board.add_camera("cam2")

    assert board.cameras == ("cam1", "cam2")
    assert board.camera("cam2").count(Field.DECODED) == 1
    with pytest.raises(BoardFullError, match="cam3"):
        board.add_camera("cam3")


def test_an_id_of_full_length_is_kept_whole() -> None:
    names = ["c" * 64, "d" * 64, "e"]

    assert Board(names, []).cameras == tuple(names)


def test_each_batch_is_counted_in_one_cell() -> None:
    row = Board([], ["embedder"]).stage("embedder")
    for seconds in (0.0, 0.005, 0.0051, 2.5, 100.0):
        row.observe(seconds)

    counts = [row.count(bucket) for bucket in LATENCY_BUCKETS]
    assert len(counts) == len(LATENCY_BOUNDS_S) + 1
    assert (counts[0], counts[1], counts[-2], counts[-1], sum(counts)) == (2, 1, 1, 1, 5)
    assert row[Field.LATENCY_S] == pytest.approx(102.5101)
