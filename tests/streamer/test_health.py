from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from reid.modality import Modality
from storage.database import Database
from storage.models import CameraStatusRow, StageStatusRow
from storage.status_samples import load_samples
from streamer.config import CameraConfig, SiteConfig
from streamer.counters import Board, Field, RowState
from streamer.health import Accounts, Rates, StatusWriter, camera_records, camera_statuses

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SITE = SiteConfig(
    site="site",
    database="sqlite:///x.db",
    cameras=(CameraConfig(id="cam1", url="a.mp4", modality=Modality.THERMAL), CameraConfig(id="cam2", url="rtsp://h/")),
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def board() -> Board:
    return Board(["cam1", "cam2"], ["supervisor"])


def test_rates_are_means_over_a_window(board: Board) -> None:
    clock = Clock()
    rates = Rates(board, clock)
    assert rates.update() == {"cam1": 0.0, "cam2": 0.0}
    for _ in range(20):
        clock.now_s += 0.5
        board.camera("cam1").add(Field.DECODED, 5)
        found = rates.update()
    assert found == {"cam1": pytest.approx(10), "cam2": 0.0}

    for _ in range(10):
        clock.now_s += 0.5
        found = rates.update()
    assert found["cam1"] == 0


def test_accounts_say_what_is_in_flight(board: Board) -> None:
    row = board.camera("cam1")
    row[Field.DECODED], row[Field.DETECTED], row[Field.GATED], row[Field.DROPPED] = 10, 4, 3, 2
    row[Field.CROPS_ASKED], row[Field.CROPS_EMBEDDED] = 5, 5

    assert Accounts.of(row).frames_in_flight == 1
    assert Accounts.of(row).crops_in_flight == 0


def test_a_status_says_what_the_row_holds(board: Board) -> None:
    row = board.camera("cam2")
    row.state, row.note = RowState.RECONNECTING, "rtsp://h/: connection refused"
    row[Field.RECONNECTS], row[Field.MODALITY] = 3, 2
    row[Field.LAST_CAPTURED_AT] = NOW.timestamp()

    first, second = camera_statuses(SITE.cameras, board, {"cam1": 5.0, "cam2": 5.0}, NOW)
    assert (first.state, first.modality, first.last_frame_at, first.fps) == ("starting", "thermal", None, 0.0)
    assert (second.state, second.modality, second.reconnects) == ("reconnecting", "near_infrared", 3)
    assert (second.message, second.last_frame_at) == (row.note, NOW)


def test_a_camera_starts_with_its_first_frame(board: Board) -> None:
    board.camera("cam1")[Field.FIRST_CAPTURED_AT] = NOW.timestamp()

    assert [record.started_at for record in camera_records(SITE, board)] == [NOW, None]


def test_status_rows_are_written_and_failures_counted(tmp_path: Path, board: Board) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'x.db'}")
    row = board.stage("supervisor")
    writer = StatusWriter(SITE, database, board, row)
    writer.write()
    with database.transaction() as session:
        assert session.query(CameraStatusRow).count() == 2
        assert session.query(StageStatusRow).count() == 1
    database.close()

    (tmp_path / "folder").mkdir()
    broken = StatusWriter(SITE, Database(f"sqlite:///{tmp_path / 'folder'}"), board, row)
    broken.write()
    assert row.count(Field.FAILURES) == 1
    assert row.note


def test_a_camera_that_was_added_has_a_rate_from_its_second_sample(board: Board) -> None:
    clock = Clock()
    rates = Rates(board, clock)
    rates.update()
    board.add_camera("cam9")
    board.camera("cam9").add(Field.DECODED, 500)
    clock.now_s += 1
    assert rates.update()["cam9"] == 0

    clock.now_s += 10
    rates.update()
    board.camera("cam9").add(Field.DECODED, 20)
    clock.now_s += 2
    assert rates.update()["cam9"] > 0


def test_a_camera_that_has_left_keeps_a_row_that_says_so(tmp_path: Path, board: Board) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'x.db'}")
    writer = StatusWriter(SITE, database, board, board.stage("supervisor"))
    writer.write()
    writer.adopt(SITE.model_copy(update={"cameras": SITE.cameras[:1]}))
    board.camera("cam2").state = RowState.STOPPED
    writer.write()
    with database.transaction() as session:
        states = {row.camera: row.state for row in session.query(CameraStatusRow)}
    database.close()

    assert states == {"cam1": "starting", "cam2": "stopped"}


def test_a_sample_is_kept_at_first_each_minute_and_at_the_end(tmp_path: Path, board: Board) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'x.db'}")
    writer = StatusWriter(SITE, database, board, board.stage("supervisor"))

    def samples() -> int:
        with database.snapshot() as session:
            return len({sample.at for sample in load_samples(session, datetime.min.replace(tzinfo=UTC))})

    writer.write()
    writer.write()
    assert samples() == 1
    writer.write(is_last=True)
    assert samples() == 2
    database.close()
