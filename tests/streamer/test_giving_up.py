"""When the supervisor stops to start a worker again, and that nobody overhears it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from streamer.config import CameraConfig, SiteConfig, SupervisorConfig
from streamer.counters import Field, Order, RowState
from streamer.site_plan import EMBEDDER, MATCHER
from streamer.supervisor import MAX_DEATHS, Supervisor

WORKER = "cameras-0"


@dataclass
class DyingChild:
    """A child that has died so often, and is between two lives."""

    stage: str
    deaths: int
    is_done: bool = False
    problem: str = ""
    process: None = None

    def watch(self, *, restart: bool) -> None:
        pass

    def revive(self) -> None:
        self.is_done = False

    def end(self) -> None:
        pass


def site_of(folder: Path, *urls: str, max_deaths: int = 20) -> SiteConfig:
    cameras = tuple(CameraConfig(id=f"cam{number}", url=url) for number, url in enumerate(urls, 1))
    return SiteConfig(
        site="site",
        database=f"sqlite:///{folder / 'x.db'}",
        cameras=cameras,
        supervisor=SupervisorConfig(max_deaths=max_deaths),
    )


def supervisor_with(site: SiteConfig, *children: DyingChild) -> Supervisor:
    supervisor = Supervisor(site)
    supervisor._children = list(children)  # type: ignore[arg-type]
    return supervisor


@pytest.mark.parametrize("stage", [WORKER, EMBEDDER, MATCHER])
def test_a_live_site_ends_in_order_and_says_why(tmp_path: Path, stage: str) -> None:
    supervisor = supervisor_with(site_of(tmp_path, "rtsp://host/1", max_deaths=3), DyingChild(stage, 3))
    supervisor.board.stage(stage).note = "the last words"
    with capture_logs() as logs:
        supervisor._step()

    assert supervisor.outcome.given_up == [stage]
    assert supervisor.board.order >= Order.STOP_CAMERAS
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["worker"], line["note"]) == (stage, "the last words")


@pytest.mark.parametrize(("max_deaths", "deaths"), [(3, 2), (0, 10_000)])
def test_a_live_worker_is_started_again_until_then(tmp_path: Path, max_deaths: int, deaths: int) -> None:
    site = site_of(tmp_path, "rtsp://host/1", max_deaths=max_deaths)
    supervisor = supervisor_with(site, DyingChild(WORKER, deaths))
    supervisor._step()

    assert supervisor.outcome.given_up == []
    assert supervisor.board.order is Order.RUN


def test_a_worker_of_files_alone_is_given_up_and_the_live_ones_go_on(tmp_path: Path) -> None:
    site = site_of(tmp_path, "a.mp4", "rtsp://host/2").model_copy(update={"workers": 2})
    supervisor = supervisor_with(site, DyingChild(WORKER, MAX_DEATHS), DyingChild("cameras-1", 0))
    supervisor._step()

    assert supervisor.outcome.given_up == [WORKER]
    assert supervisor.board.camera("cam1").state is RowState.FAILED
    assert supervisor.board.order is Order.RUN


def test_an_end_that_takes_too_long_says_what_is_left(tmp_path: Path) -> None:
    site = site_of(tmp_path, "rtsp://host/1").model_copy(update={"supervisor": SupervisorConfig(drain_timeout_s=0.001)})
    supervisor = supervisor_with(site, DyingChild(WORKER, 0), DyingChild(MATCHER, 0))
    supervisor.stop()
    with capture_logs() as logs:
        while not supervisor._step():
            pass

    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert line["left_in_outbox"] == 0
    assert not supervisor.outcome.is_drained
    assert supervisor.board.stage("supervisor")[Field.ALIVE_S] > 0
