"""A site file that changes while the site runs: what is taken up, what is refused, how a run is found."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from streamer.children import StartError
from streamer.config import CameraConfig, ConfigError, SiteConfig
from streamer.counters import Board, RowState
from streamer.lanes import Lane
from streamer.pid_file import PidFile, ask_to_reload, running
from streamer.reloading import Reloader, compare
from streamer.setups import read_news
from streamer.site_plan import Role, SitePlan
from streamer.site_watch import SiteWatch
from tests.streamer.site_files import streamer, write_site


def site_of(*names: str, workers: int = 1, **changes: object) -> SiteConfig:
    cameras = tuple(CameraConfig(id=name, url=f"rtsp://host/{name}") for name in names)
    return SiteConfig(site="site", database="sqlite:///x.db", cameras=cameras, workers=workers).model_copy(
        update=changes
    )


class Running:
    """A site of which only the reloading runs."""

    def __init__(self, folder: Path, site: SiteConfig) -> None:
        self.plan = SitePlan(site, Role.ALL)
        self.board = Board([camera.id for camera in site.cameras], self.plan.stages)
        self.reloader = Reloader(self.plan, self.board, folder, None, None)
        self.folder = folder

    def news(self, stage: str) -> tuple[int, tuple[str, ...]]:
        setup = read_news(self.folder / f"{stage}.news")
        return setup.edition, setup.cameras


def edited(site: SiteConfig, name: str) -> SiteConfig:
    cameras = (c.model_copy(update={"min_box_height_px": 99}) if c.id == name else c for c in site.cameras)
    return site.model_copy(update={"cameras": tuple(cameras)})


def test_any_changed_key_makes_a_camera_an_edited_one() -> None:
    old = site_of("a", "b", "c")
    change = compare(old, edited(site_of("b", "c", "d"), "c"))

    assert (change.added, change.removed, change.edited) == (("d",), ("a",), ("c",))
    assert compare(old, old).is_empty


def test_a_camera_whose_region_is_another_one_now_is_edited() -> None:
    change = compare(site_of("a", regions=("north", "south")), site_of("a", regions=("south", "north")))

    assert change.edited == ("a",)


def test_cameras_stay_with_their_workers_and_new_ones_go_where_there_are_fewest() -> None:
    plan = SitePlan(site_of("a", "b", "c", "d", workers=2), Role.ALL)
    plan.adopt(site_of("b", "d", "a", "e", "f", "g", workers=2))

    assert [plan.cameras_of(stage) for stage in plan.workers] == [("a", "e", "f"), ("b", "d", "g")]


def test_workers_are_told_once_the_news_lie_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.preflight._missing_weights", lambda _: ())
    run = Running(tmp_path, site_of("a", "b", workers=2))
    change = run.reloader.take_up(lambda: site_of("a", "c", workers=2))

    assert change is not None
    assert (run.news("cameras-0"), run.news("cameras-1")) == ((1, ("a",)), (1, ("c",)))
    assert run.board.edition == 1
    assert run.board.camera("c").state is RowState.STARTING
    assert [camera.id for camera in run.plan.site.cameras] == ["a", "c"]


def test_a_camera_that_lacks_something_keeps_no_other_from_being_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.preflight._missing_weights", lambda _: ())
    running = Running(tmp_path, site_of("cam1"))
    setup = running.plan.camera_setup("cameras-0", running.board, tmp_path, None)
    worker, lane = Mock(), Mock(spec=Lane)
    taken_up = threading.Event()
    worker.change.side_effect = lambda _: taken_up.set()

    def make_lane(camera: CameraConfig, _: SiteConfig) -> Lane:
        if camera.id == "cam2":
            raise StartError("references/cam2.png: no picture")
        return lane

    watch = SiteWatch(setup, running.board, Mock(), make_lane, worker)
    watch.start()
    running.reloader.take_up(lambda: site_of("cam1", "cam2", "cam3"))
    assert taken_up.wait(10)
    watch.stop()

    assert worker.change.call_args.args[0].joining == (lane,)
    row = running.board.camera("cam2")
    assert (row.state, row.note) == (RowState.FAILED, "references/cam2.png: no picture")


@pytest.mark.parametrize("fault", ["unreadable", "missing file", "too many"])
def test_a_fault_is_told_in_one_line_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("streamer.preflight._missing_weights", lambda _: ())
    run = Running(tmp_path, site_of("a"))

    def reread() -> SiteConfig:
        if fault == "unreadable":
            raise ConfigError("site.yaml: cameras: missing\nsite.yaml: databse: unknown key")
        if fault == "too many":
            return site_of("a", *(f"x{number}" for number in range(100)))
        missing = CameraConfig(id="b", url=str(tmp_path / "none.mp4"))
        return site_of("a").model_copy(update={"cameras": (*site_of("a").cameras, missing)})

    with capture_logs() as logs:
        assert run.reloader.take_up(reread) is None

    (line,) = logs
    assert "stays in force" in line["event"]
    assert "\n" not in line["reason"]
    assert run.board.edition == 0
    assert [camera.id for camera in run.plan.site.cameras] == ["a"]


def test_keys_that_want_a_restart_are_named_and_left(tmp_path: Path) -> None:
    run = Running(tmp_path, site_of("a"))
    with capture_logs() as logs:
        run.reloader.take_up(lambda: site_of("a", status_period_s=9.0, workers=3))

    assert logs[0]["keys"] == "workers, status_period_s"
    assert run.plan.site.status_period_s == site_of("a").status_period_s


def test_a_run_is_found_by_its_outbox_until_it_has_ended(tmp_path: Path) -> None:
    outbox = tmp_path / "folder" / "site.outbox.db"
    assert running(outbox) == []
    file = PidFile(outbox)
    file.open()
    assert running(outbox) == [os.getpid()]
    assert running(outbox.with_name("other.db")) == []
    file.close()
    file.close()

    assert running(outbox) == []


def test_a_file_that_a_dead_run_has_left_is_no_run(tmp_path: Path) -> None:
    outbox = tmp_path / "site.outbox.db"
    left = tmp_path / "site.outbox.db.1.pid"
    left.write_text(f"1 {socket.gethostname()}\n")

    assert running(outbox) == []
    assert not left.exists()


#: A process of its own: this one may have native threads of many libraries, on which a signal must not land.
LISTENER = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
print("listening", flush=True)
found = signal.sigtimedwait([signal.SIGHUP], 30)
print("heard" if found else "nothing", flush=True)
"""


def test_a_run_hears_that_it_is_to_reload() -> None:
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "listening\n"
        assert ask_to_reload(run.pid) == ""
        assert run.stdout.readline() == "heard\n"


def test_a_process_that_is_gone_can_not_be_told() -> None:
    assert "No such process" in ask_to_reload(2**22 - 1)


def test_reload_says_that_nothing_runs(tmp_path: Path) -> None:
    done = streamer("reload", "--config", write_site(tmp_path, {"cameras": [{"id": "a", "url": "rtsp://host/a"}]}))

    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"{tmp_path / 'site.yaml'}: no such site runs on this host"]
