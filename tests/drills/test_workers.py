"""A whole site whose workers are killed, starved of memory, given other cameras and told to end, while it runs."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from streamer.bus.factory import open_outbox
from streamer.config import load_site
from streamer.counters import Field, Order, RowState
from streamer.health import Accounts
from streamer.site_plan import EMBEDDER, MATCHER
from streamer.supervisor import Supervisor
from tests.drills.figures import IS_FULL, note, size
from tests.servers.clip_camera import ClipCamera
from tests.servers.need import absent
from tests.streamer.site_files import DEMO_CAMERAS, DEMO_CLIPS, demo_site, write_site

pytestmark = [pytest.mark.integration, pytest.mark.drill, pytest.mark.timeout(600)]

FPS = 4.0
WORKER = "cameras-0"
#: How long any step may take; a worker loads its networks in seconds, minutes on a machine that does much else.
PATIENCE_S = 180.0
DRAIN_TIMEOUT_S = 60.0
#: After so much event time the matcher closes what a killed worker has left open.
SILENCE_S = 5.0
MEMORY_CGROUPS = Path("/sys/fs/cgroup/memory")
#: Frames of a demo clip.
CLIP_FRAMES = 200

Step = Generator[None, None, float]
Script = Generator[None, None, None]


def until(holds: Callable[[], bool], what: str) -> Step:
    """Lets the site run until something holds; how many seconds that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < PATIENCE_S, f"waited {PATIENCE_S:g} s for {what}"
        yield
    return time.monotonic() - began


def total(supervisor: Supervisor, field: Field) -> int:
    return sum(supervisor.board.camera(name).count(field) for name in supervisor.board.cameras)


def rows(supervisor: Supervisor, query: str) -> list[Any]:
    path = supervisor.site.database.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def pid_of(supervisor: Supervisor, stage: str) -> int:
    (child,) = [child for child in supervisor.children if child.stage == stage]
    assert child.process is not None
    assert child.process.pid is not None
    return child.process.pid


def run(supervisor: Supervisor, script: Script) -> float:
    """Runs a site by a script and tells it to end after it; how many seconds the end took."""
    ended_s: list[float] = []

    def tick() -> None:
        if not ended_s:
            try:
                next(script)
            except StopIteration:
                supervisor.stop()
                ended_s.append(time.monotonic())

    supervisor.start()
    outcome = supervisor.run(tick)
    assert outcome.is_drained
    assert outcome.given_up == []
    return time.monotonic() - ended_s[0]


@contextmanager
def closed_in_the_end(supervisor: Supervisor) -> Iterator[Supervisor]:
    try:
        yield supervisor
    finally:
        supervisor.close()


def killed(supervisor: Supervisor, stage: str, kill: Callable[[int], object]) -> Step:
    """Has a worker die, and waits until the next one has done some work; how many seconds that took."""
    row = supervisor.board.stage(stage)
    restarts = row.count(Field.RESTARTS)
    kill(pid_of(supervisor, stage))
    died_s = yield from until(lambda: row.count(Field.RESTARTS) > restarts, f"the end of {stage}")
    handled = row.count(Field.HANDLED)
    return died_s + (yield from until(lambda: row.count(Field.HANDLED) > handled, f"work of {stage}"))


def sigkill(pid: int) -> None:
    os.kill(pid, 9)


# --- Files.


@pytest.mark.parametrize("stage", [EMBEDDER, WORKER][: size(1, 2)])
def test_files_lose_nothing_by_a_killed_worker(tmp_path: Path, stage: str) -> None:
    site = load_site(demo_site(tmp_path, ("cam1",), status_period_s=0.5))
    back: list[float] = []

    def script(supervisor: Supervisor) -> Script:
        yield from until(lambda: total(supervisor, Field.CROPS_EMBEDDED) > 2, "the first crops")
        back.append((yield from killed(supervisor, stage, sigkill)))
        yield from until(lambda: supervisor.board.camera("cam1").state is RowState.FINISHED, "the end of the file")

    with closed_in_the_end(Supervisor(site)) as supervisor:
        run(supervisor, script(supervisor))
        counts = Accounts.of(supervisor.board.camera("cam1"))
        reasons = [reason for (reason,) in rows(supervisor, "SELECT end_reason FROM tracklets")]

    again = counts.decoded - CLIP_FRAMES
    assert (counts.frames_in_flight, counts.crops_in_flight) == (0, 0)
    # A file whose worker died is read again from its beginning, under the same ids.
    assert counts.detected + counts.gated >= CLIP_FRAMES
    assert again == 0 or stage == WORKER
    assert counts.crops_dropped == 0 or stage == WORKER
    assert reasons
    assert None not in reasons
    note(
        "workers",
        f"{stage} killed, files",
        restarts=supervisor.board.stage(stage).count(Field.RESTARTS),
        lost=0,
        counted=counts.decoded,
        read_again=again,
        back_s=back[0],
    )


# --- Live cameras.


def entry(name: str, camera: ClipCamera, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any key of a camera
    return {"id": name, "url": camera.url, "modality": DEMO_CAMERAS[name][1]} | changes


def live_site(folder: Path, cameras: list[dict[str, Any]]) -> Path:
    return write_site(
        folder,
        {
            "cameras": cameras,
            "status_period_s": 0.5,
            "source": {"reconnect_max_s": 1.0},
            "matcher": {"camera_silence_s": SILENCE_S},
            "supervisor": {"drain_timeout_s": DRAIN_TIMEOUT_S},
        },
    )


@contextmanager
def memory_limit(limit_bytes: int) -> Iterator[Callable[[int], object]]:
    """A group in which a process gets that much more memory than it has, and is killed at the next byte."""
    group = MEMORY_CGROUPS / f"drill-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
    except OSError as error:
        absent(f"no memory limits for groups of processes: {error}")
    try:
        yield lambda pid: (group / "cgroup.procs").write_text(str(pid))
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


@pytest.fixture
def clips() -> Iterator[dict[str, ClipCamera]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(ClipCamera(DEMO_CLIPS / file, FPS)) for name, (file, _) in DEMO_CAMERAS.items()
        }


def at_work(supervisor: Supervisor) -> bool:
    cameras = [supervisor.board.camera(camera.id) for camera in supervisor.site.cameras]
    return all(row.state is RowState.RUNNING for row in cameras) and total(supervisor, Field.CROPS_EMBEDDED) > 0


def assert_accounted(supervisor: Supervisor) -> None:
    """Every frame and crop has become something, whatever happened to whoever had it."""
    for name in supervisor.board.cameras:
        counts = Accounts.of(supervisor.board.camera(name))
        assert (counts.frames_in_flight, counts.crops_in_flight) == (0, 0), name


def left_open(supervisor: Supervisor) -> list[Any]:
    """Tracklets without an end, of sessions that are over."""
    newest = "SELECT session FROM tracklets WHERE camera = mine.camera ORDER BY started_at DESC LIMIT 1"
    return rows(
        supervisor, f"SELECT tracklet_id FROM tracklets mine WHERE end_reason IS NULL AND session <> ({newest})"
    )


def assert_told_and_matched(supervisor: Supervisor) -> None:
    """Nothing waits in the outbox, and no tracklet is left open."""
    outbox = open_outbox(supervisor.site)
    try:
        assert outbox.depth() == 0
    finally:
        outbox.close()
    assert rows(supervisor, "SELECT count(*) FROM tracklets WHERE end_reason IS NULL") == [(0,)]


@pytest.mark.parametrize("stage", [WORKER, EMBEDDER, MATCHER][: size(1, 3)])
def test_a_live_site_goes_on_after_a_killed_worker_and_drains_in_time(
    tmp_path: Path, clips: dict[str, ClipCamera], stage: str
) -> None:
    outlive(tmp_path, clips, stage, sigkill, f"{stage} killed, live")


@pytest.mark.skipif(not IS_FULL, reason="in the long form only: it is one more way to die")
def test_a_worker_without_memory_is_started_again(tmp_path: Path, clips: dict[str, ClipCamera]) -> None:
    # The one that asks for memory at every frame: others go on for minutes with what they have.
    with memory_limit(1 << 20) as starve:
        outlive(tmp_path, clips, WORKER, starve, "camera worker out of memory")


def outlive(tmp_path: Path, clips: dict[str, ClipCamera], stage: str, kill: Callable[[int], object], case: str) -> None:
    """Has a worker of a live site die; the site goes on, ends in time, and can account for everything."""
    site = load_site(live_site(tmp_path, [entry(name, clips[name]) for name in ("cam1", "cam2")][: size(1, 2)]))
    back: list[float] = []

    def script(supervisor: Supervisor) -> Script:
        yield from until(lambda: at_work(supervisor), "all cameras at work")
        back.append((yield from killed(supervisor, stage, kill)))
        yield from until(lambda: at_work(supervisor), "all cameras at work again")
        yield from until(lambda: not left_open(supervisor), "the end of what the killed worker had in view")

    with closed_in_the_end(Supervisor(site)) as supervisor:
        drained_s = run(supervisor, script(supervisor))
        assert_accounted(supervisor)
        assert_told_and_matched(supervisor)
        reasons = {reason for (reason,) in rows(supervisor, "SELECT DISTINCT end_reason FROM tracklets")}
        lost = total(supervisor, Field.DROPPED)

    assert drained_s < DRAIN_TIMEOUT_S
    assert reasons <= {"left", "shutdown", "session_lost", "disconnected"}, reasons
    note(
        "workers",
        case,
        restarts=supervisor.board.stage(stage).count(Field.RESTARTS),
        lost=lost,
        counted=total(supervisor, Field.DECODED),
        back_s=back[0],
        drained_s=drained_s,
    )


def test_cameras_come_and_go_and_those_that_stay_notice_nothing(tmp_path: Path, clips: dict[str, ClipCamera]) -> None:
    before = [entry(name, clips[name]) for name in ("cam1", "cam2", "cam3")]
    after = [before[0], entry("cam2", clips["cam2"], min_box_height_px=20), entry("cam4", clips["cam4"])]
    path = live_site(tmp_path, before)
    found: dict[str, float] = {}
    with closed_in_the_end(Supervisor(load_site(path), reread=lambda: load_site(path))) as supervisor:
        board = supervisor.board

        def is_taken_up() -> bool:
            states = {name: board.camera(name).state for name in board.cameras}
            gone = states["cam3"] is RowState.STOPPED
            return gone and clips["cam2"].connections == 2 and states.get("cam4") is RowState.RUNNING

        def script() -> Script:
            yield from until(lambda: at_work(supervisor), "all cameras at work")
            dropped, pid = board.camera("cam1").count(Field.DROPPED), pid_of(supervisor, WORKER)
            path.write_text("cameras: nonsense")
            supervisor.reload()
            yield
            yield
            assert [camera.id for camera in supervisor.site.cameras] == ["cam1", "cam2", "cam3"]
            live_site(tmp_path, after)
            supervisor.reload()
            found["taken_up_s"] = yield from until(is_taken_up, "the change of the cameras")
            matched = board.stage(MATCHER).count(Field.HANDLED)
            yield from until(lambda: board.stage(MATCHER).count(Field.HANDLED) > matched, "the matcher")
            found["dropped"] = board.camera("cam1").count(Field.DROPPED) - dropped
            assert pid_of(supervisor, WORKER) == pid

        run(supervisor, script())
        assert_accounted(supervisor)
        assert_told_and_matched(supervisor)
        sessions = dict(rows(supervisor, "SELECT camera, count(DISTINCT session) FROM tracklets GROUP BY camera"))
        rejected = board.stage(MATCHER).count(Field.REJECTED)
        states = dict(rows(supervisor, "SELECT camera, state FROM camera_status"))

    assert {name: clip.connections for name, clip in clips.items()} == {"cam1": 1, "cam2": 2, "cam3": 1, "cam4": 1}
    assert sessions.get("cam1", 1) == 1
    assert rejected == 0
    assert set(states) == {"cam1", "cam2", "cam3", "cam4"}
    assert states["cam3"] == "stopped"
    assert board.order >= Order.DRAIN
    assert found["dropped"] == 0 or not IS_FULL
    restarts = sum(board.stage(name).count(Field.RESTARTS) for name in board.stages)
    note("workers", "cameras added, removed and edited", restarts=restarts, reconnects_of_others=0, **found)
