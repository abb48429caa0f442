"""Laws of the outbox: order, durability, its bound, and how it fails."""

from __future__ import annotations

import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.bus import BusError
from streamer.bus.outbox import ROW_OVERHEAD_BYTES, DroppedCounts, Outbox, OutboxStatus
from streamer.bus.outbox_report import report_outbox
from streamer.counters import Board, Field

PLENTY = 1 << 30


def rows_of(outbox: Outbox) -> list[bytes]:
    return [row.payload for row in outbox.read(0, 10_000)]


def size_of(payload: bytes, key: str = "main") -> int:
    return len(payload) + len(key) + ROW_OVERHEAD_BYTES


def append_many(path: Path, name: str, count: int) -> None:
    outbox = Outbox(path, max_bytes=PLENTY)
    for number in range(count):
        outbox.append(name, f"{name} {number}".encode(), droppable=False)
    outbox.close()


def test_constructor_touches_nothing(tmp_path: Path) -> None:
    Outbox(tmp_path / "sub" / "box.db", max_bytes=PLENTY)
    assert list(tmp_path.iterdir()) == []


def test_what_was_appended_is_there_after_reopening_in_order_once(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "sub" / "box.db", max_bytes=PLENTY)
    ids = [outbox.append("main", bytes((n,)), droppable=n % 2 == 0) for n in range(20)]
    outbox.close()
    again = Outbox(tmp_path / "sub" / "box.db", max_bytes=PLENTY)
    assert [row.id for row in again.read(0, 100)] == ids == sorted(set(ids))
    assert rows_of(again) == [bytes((n,)) for n in range(20)]
    again.close()


def test_two_processes_write_at_once_and_each_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "box.db"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=append_many, args=(path, name, 60)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    outbox = Outbox(path, max_bytes=PLENTY)
    seen: list[bytes] = []
    last_id = 0
    while any(writer.is_alive() for writer in writers) or outbox.read(last_id, 1):
        for row in outbox.read(last_id, 7):
            assert row.id > last_id
            last_id = row.id
            seen.append(row.payload)
        outbox.wait(0.005)
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    # A reader that asks for what lies above the last id it saw misses nothing: ids rise in the order of commits.
    for name in ("a", "b"):
        mine = [payload for payload in seen if payload.startswith(name.encode())]
        assert mine == [f"{name} {number}".encode() for number in range(60)]
    assert len(seen) == outbox.depth() == 120
    outbox.close()


def test_ids_are_never_used_again_even_by_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "box.db"
    outbox = Outbox(path, max_bytes=PLENTY)
    first = outbox.append("main", b"1", droppable=False)
    outbox.delete_through(first)
    second = outbox.append("main", b"2", droppable=False)
    outbox.close()
    path.unlink()
    third = outbox.append("main", b"3", droppable=False)
    outbox.close()
    assert first < second < third


def test_droppable_ones_go_first_then_the_oldest_and_all_are_counted(tmp_path: Path) -> None:
    payload = bytes(1000)
    outbox = Outbox(tmp_path / "box.db", max_bytes=4 * size_of(payload))
    kept = [outbox.append("main", payload, droppable=droppable) for droppable in (False, True, False, True)]
    fifth = outbox.append("main", payload, droppable=False)
    assert [row.id for row in outbox.read(0, 10)] == [kept[0], kept[2], kept[3], fifth]
    sixth = outbox.append("main", payload, droppable=False)
    seventh = outbox.append("main", payload, droppable=False)
    assert [row.id for row in outbox.read(0, 10)] == [kept[2], fifth, sixth, seventh]
    # No droppable one is left: the newcomer is the only one, and goes.
    outbox.append("main", payload, droppable=True)
    assert [row.id for row in outbox.read(0, 10)] == [kept[2], fifth, sixth, seventh]
    assert outbox.dropped == DroppedCounts(droppable=3, others=1)
    outbox.close()


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900), st.booleans(), st.integers(0, 5)), max_size=12))
def test_accounts_balance_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool, int]]
) -> None:
    outbox = Outbox(tmp_path_factory.mktemp("law") / "box.db", max_bytes=2500)
    deleted = 0
    for length, droppable, delete in steps:
        outbox.append("main", bytes(length), droppable=droppable)
        if waiting := outbox.read(0, delete):
            deleted += outbox.delete_through(waiting[-1].id)
    waiting = outbox.read(0, 1000)
    dropped = outbox.dropped
    assert outbox.depth() == len(waiting) == len(steps) - deleted - dropped.droppable - dropped.others
    assert outbox.bytes() == sum(size_of(row.payload) for row in waiting) <= 2500
    outbox.close()


def test_a_message_bigger_than_the_outbox_is_refused_and_costs_no_other(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "box.db", max_bytes=2000)
    outbox.append("main", bytes(500), droppable=True)
    with pytest.raises(BusError, match="exceeds max_bytes"):
        outbox.append("main", bytes(3000), droppable=False)
    assert outbox.depth() == 1
    outbox.close()


def test_the_file_does_not_grow_while_messages_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "box.db"
    outbox = Outbox(path, max_bytes=PLENTY)
    one_round = range(10)
    for _ in range(15):
        for _ in one_round:
            last = outbox.append("main", bytes(3000), droppable=False)
        outbox.delete_through(last)
    outbox.close()
    # Closing folds the write-ahead log into the file: 150 messages of 3 KB went through, two rounds' worth is left.
    assert path.stat().st_size < 2 * len(one_round) * 4096


def limit_pages(outbox: Outbox) -> None:
    """A full disk, as SQLite sees it."""
    outbox.depth()
    with outbox._use() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 4}").fetchone()


def test_a_full_disk_is_one_line_and_what_was_kept_stays(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "box.db", max_bytes=PLENTY)
    kept = outbox.append("main", b"kept", droppable=False)
    limit_pages(outbox)
    with pytest.raises(BusError, match=r"box\.db: database or disk is full") as caught:
        outbox.append("main", bytes(100_000), droppable=False)
    assert "\n" not in str(caught.value)
    assert rows_of(outbox) == [b"kept"]
    assert outbox.depth() == 1
    assert outbox.append("main", b"small", droppable=False) > kept
    outbox.close()


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "box.db").write_bytes(b"garbage, " * 1000)
    with pytest.raises(BusError, match=r"box\.db: file is not a database"):
        Outbox(tmp_path / "box.db", max_bytes=PLENTY).append("main", b"1", droppable=False)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BusError, match=r"box\.db"):
        Outbox(tmp_path / "file" / "box.db", max_bytes=PLENTY).depth()


def test_a_file_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "box.db")) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(BusError, match="version 7, this program reads 2"):
        Outbox(tmp_path / "box.db", max_bytes=PLENTY).depth()


def test_ids_are_moved_above_an_offset_that_lies_ahead_of_a_young_file(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "box.db", max_bytes=PLENTY, clock=lambda: 0.0)
    for number in range(5):
        outbox.append("main", bytes((number,)), droppable=False)
    assert outbox.raise_ids(1000)
    assert [(row.id, row.payload) for row in outbox.read(0, 9)] == [(1000 + n, bytes((n,))) for n in range(5)]
    assert outbox.append("main", b"next", droppable=False) == 1005
    assert not outbox.raise_ids(1006)
    assert not outbox.raise_ids(500)
    outbox.delete_through(1005)
    assert outbox.raise_ids(2000)
    assert outbox.append("main", b"next", droppable=False) == 2000
    outbox.close()


class Clock:
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1.7e9

    def __call__(self) -> float:
        return self.now


def test_what_waited_too_long_is_dropped_and_counted_apart_whoever_looks_first(tmp_path: Path) -> None:
    clock = Clock()
    outbox = Outbox(tmp_path / "box.db", max_bytes=PLENTY, max_age_s=100.0, clock=clock)
    for number in range(700):
        outbox.append("main", bytes((number % 256,)), droppable=number % 2 == 0)
    clock.now += 60
    young = outbox.append("main", b"young", droppable=True)
    assert outbox.dropped.old == 0
    assert outbox.status().oldest_s == 60

    clock.now += 60
    assert [row.id for row in outbox.read(0, 1000)] == [young]
    assert outbox.status() == OutboxStatus(1, size_of(b"young"), 60.0, DroppedCounts(old=700))

    clock.now += 60
    youngest = outbox.append("main", b"youngest", droppable=True)
    assert outbox.status() == OutboxStatus(1, size_of(b"youngest"), 0.0, DroppedCounts(old=701))
    assert [row.id for row in outbox.read(0, 1000)] == [youngest]
    outbox.close()


def test_without_a_limit_of_age_everything_waits(tmp_path: Path) -> None:
    clock = Clock()
    outbox = Outbox(tmp_path / "box.db", max_bytes=PLENTY, clock=clock)
    outbox.append("main", b"1", droppable=True)
    clock.now += 1e9
    outbox.append("main", b"2", droppable=True)
    assert rows_of(outbox) == [b"1", b"2"]
    outbox.close()


def test_a_clock_that_was_set_back_makes_nothing_old(tmp_path: Path) -> None:
    clock = Clock()
    outbox = Outbox(tmp_path / "box.db", max_bytes=PLENTY, max_age_s=100.0, clock=clock)
    outbox.append("main", b"1", droppable=True)
    clock.now -= 1000
    outbox.append("main", b"2", droppable=True)
    assert rows_of(outbox) == [b"1", b"2"]
    assert outbox.status().oldest_s == 0
    outbox.close()


#: As the program before this one made the file.
VERSION_1 = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, droppable INTEGER NOT NULL, size INTEGER NOT NULL, key TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX messages_droppable ON messages (id) WHERE droppable = 1;
CREATE TABLE totals (waiting INTEGER NOT NULL, bytes INTEGER NOT NULL, dropped_droppable INTEGER NOT NULL,
    dropped_others INTEGER NOT NULL);
INSERT INTO totals VALUES (2, 200, 5, 6);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, payload BLOB NOT NULL, reason TEXT NOT NULL, rejected_at REAL NOT NULL
);
INSERT INTO messages VALUES (7, 0, 100, 'main', 'a'), (9, 1, 100, 'main', 'b');
PRAGMA user_version = 1;
"""


def test_a_file_of_the_program_before_is_read_on_and_its_messages_age_from_now(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "box.db")) as connection:
        connection.executescript(VERSION_1)
    clock = Clock()
    outbox = Outbox(tmp_path / "box.db", max_bytes=PLENTY, max_age_s=100.0, clock=clock)
    assert outbox.status() == OutboxStatus(2, 200, 0.0, DroppedCounts(droppable=5, others=6))
    clock.now += 50
    assert outbox.append("main", b"c", droppable=False) == 10
    assert [(row.id, row.key) for row in outbox.read(0, 9)] == [(7, "main"), (9, "main"), (10, "main")]
    outbox.close()
    again = Outbox(tmp_path / "box.db", max_bytes=PLENTY, max_age_s=100.0, clock=clock)
    clock.now += 60
    assert rows_of(again) == [b"c"]
    assert again.dropped == DroppedCounts(droppable=5, others=6, old=2)
    again.close()


def test_the_board_shows_how_the_outbox_stands(tmp_path: Path) -> None:
    clock = Clock()
    outbox = Outbox(tmp_path / "box.db", max_bytes=2 * size_of(b"1"), max_age_s=100.0, clock=clock)
    row = Board([], ["forwarder"]).stage("forwarder")
    for payload, droppable in ((b"1", False), (b"2", True), (b"3", False), (b"4", False)):
        outbox.append("main", payload, droppable=droppable)
    clock.now += 40
    report_outbox(outbox, row)
    assert (row.count(Field.OUTBOX_MESSAGES), row.count(Field.OUTBOX_BYTES)) == (2, 2 * size_of(b"1"))
    assert row[Field.OUTBOX_OLDEST_S] == 40
    assert (row[Field.OUTBOX_DROPPED_DROPPABLE], row[Field.OUTBOX_DROPPED_OTHERS]) == (1, 1)
    clock.now += 70
    assert rows_of(outbox) == []
    report_outbox(outbox, row)
    assert (row.count(Field.OUTBOX_MESSAGES), row.count(Field.OUTBOX_DROPPED_OLD)) == (0, 2)
    outbox.close()
