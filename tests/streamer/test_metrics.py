"""What Prometheus is told, and what the probes of a container are answered."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streamer.child_process import Child, ChildSpec
from streamer.children import StartError
from streamer.config import MetricsConfig, SiteConfig
from streamer.counters import LATENCY_BOUNDS_S, Board, Field, RowState
from streamer.health_server import HealthServer
from streamer.metrics import METRIC_NAMES, registry_of
from streamer.site_plan import EMBEDDER, MATCHER, SUPERVISOR
from streamer.vitals import STALE_S, Vitals
from tests.streamer.test_health import SITE, Clock

#: By name and label values, in whatever order they come.
Samples = dict[tuple[str, frozenset[str]], float]


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    return SITE.model_copy(update={"database": f"sqlite:///{tmp_path / 'x.db'}", "crops_dir": tmp_path})


@pytest.fixture
def board() -> Board:
    return Board(["cam1", "cam2"], [SUPERVISOR, EMBEDDER, "cameras-0", MATCHER])


def samples(text: bytes) -> Samples:
    families = text_string_to_metric_families(text.decode())
    return {(s.name, frozenset(s.labels.values())): s.value for family in families for s in family.samples}


def scraped(site: SiteConfig, board: Board) -> Samples:
    return samples(generate_latest(registry_of(lambda: site, board)))


def test_the_names_are_those_that_dashboards_hold_on_to(site: SiteConfig, board: Board) -> None:
    suffixes = ("_bucket", "_count", "_sum")
    # Nothing is told of how long a disk lasts before it is known by what it fills.
    board.stage(SUPERVISOR)[Field.PICTURE_BYTES_PER_DAY] = 1e9
    told = {name for name, _ in scraped(site, board)}
    for suffix in suffixes:
        told = {name.removesuffix(suffix) if "latency" in name else name for name in told}

    assert told == set(METRIC_NAMES)
    assert len(METRIC_NAMES) == len(set(METRIC_NAMES))


def test_a_camera_s_frames_are_told_by_what_became_of_them(site: SiteConfig, board: Board) -> None:
    row = board.camera("cam1")
    row[Field.DECODED], row[Field.DETECTED], row[Field.GATED], row[Field.DROPPED] = 10, 5, 3, 2
    row.state = RowState.RUNNING
    row[Field.HEALTH] = 3
    found = scraped(site, board)

    frames = {
        outcome: found[
            "tracker_camera_frames_total",
            frozenset(
                (
                    "cam1",
                    "main",
                    outcome,
                )
            ),
        ]
        for outcome in ("decoded", "detected", "gated", "dropped")
    }
    assert frames == {"decoded": 10, "detected": 5, "gated": 3, "dropped": 2}
    assert (
        found[
            "tracker_camera_up",
            frozenset(
                (
                    "cam1",
                    "main",
                )
            ),
        ]
        == 1
    )
    assert (
        found[
            "tracker_camera_up",
            frozenset(
                (
                    "cam2",
                    "main",
                )
            ),
        ]
        == 0
    )
    healthy = {
        kind: found[
            "tracker_camera_healthy",
            frozenset(
                (
                    "cam1",
                    "main",
                    kind,
                )
            ),
        ]
        for kind in ("frozen", "covered", "moved")
    }
    assert healthy == {"frozen": 1, "covered": 0, "moved": 1}


def test_latencies_make_a_histogram(site: SiteConfig, board: Board) -> None:
    for seconds in (0.001, 0.02, 0.02, 60.0):
        board.stage(EMBEDDER).observe(seconds)
    found = scraped(site, board)

    assert (
        found[
            "tracker_stage_latency_seconds_bucket",
            frozenset(
                (
                    EMBEDDER,
                    str(LATENCY_BOUNDS_S[0]),
                )
            ),
        ]
        == 1
    )
    assert (
        found[
            "tracker_stage_latency_seconds_bucket",
            frozenset(
                (
                    EMBEDDER,
                    "0.025",
                )
            ),
        ]
        == 3
    )
    assert (
        found[
            "tracker_stage_latency_seconds_bucket",
            frozenset(
                (
                    EMBEDDER,
                    "+Inf",
                )
            ),
        ]
        == 4
    )
    assert found["tracker_stage_latency_seconds_count", frozenset((EMBEDDER,))] == 4
    assert found["tracker_stage_latency_seconds_sum", frozenset((EMBEDDER,))] == pytest.approx(60.041)


def test_a_matcher_by_itself_says_nothing_of_cameras(site: SiteConfig) -> None:
    board = Board(["cam1", "cam2"], [SUPERVISOR, MATCHER])
    families = registry_of(lambda: site, board).collect()
    told = {sample.name for family in families for sample in family.samples}
    assert {name for name in told if name.startswith("tracker_camera")} == set()
    assert "tracker_matcher_lag_messages" in told


def test_a_camera_that_has_left_is_told_no_more(site: SiteConfig, board: Board) -> None:
    smaller = site.model_copy(update={"cameras": site.cameras[:1]})

    assert not any("cam2" in labels for _, labels in scraped(smaller, board))


class Pages:
    """A server whose verdicts a test sets."""

    def __init__(self, site: SiteConfig, board: Board) -> None:
        self.faults: dict[str, str] = {}
        registry = registry_of(lambda: site, board)
        config = MetricsConfig(port=0)
        self.server = HealthServer(config, lives=dict, ready=lambda: self.faults, registry=registry)

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}{path}", timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@pytest.fixture
def pages(site: SiteConfig, board: Board) -> Iterator[Pages]:
    pages = Pages(site, board)
    pages.server.start()
    yield pages
    pages.server.stop()


def test_the_pages_are_served(pages: Pages) -> None:
    assert pages.get("/healthz") == (200, b'{"alive": true, "faults": {}}\n')
    assert pages.get("/readyz")[0] == 200
    status, text = pages.get("/metrics")
    assert (status, ("tracker_matcher_lag_messages", frozenset()) in samples(text)) == (200, True)
    assert pages.get("/else")[0] == 404


def test_what_is_not_ready_is_named(pages: Pages) -> None:
    pages.faults = {"database": "connection refused"}
    status, body = pages.get("/readyz")

    assert status == 503
    assert json.loads(body) == {"ready": False, "faults": {"database": "connection refused"}}


def test_a_client_that_says_nothing_keeps_nobody_waiting_for_long(pages: Pages) -> None:
    with socket.create_connection(("127.0.0.1", pages.server.port or 0)):
        assert pages.get("/healthz")[0] == 200


def test_a_port_that_is_taken_stops_the_start_in_one_line(site: SiteConfig, board: Board, pages: Pages) -> None:
    second = HealthServer(
        MetricsConfig(port=pages.server.port), lives=dict, ready=dict, registry=registry_of(lambda: site, board)
    )
    with pytest.raises(StartError, match=rf"^metrics: 127\.0\.0\.1:{pages.server.port}: Address already in use$"):
        second.start()
    second.stop()


def test_a_site_without_a_port_serves_nothing(site: SiteConfig, board: Board) -> None:
    server = HealthServer(MetricsConfig(), lives=dict, ready=dict, registry=registry_of(lambda: site, board))
    server.start()
    assert server.port is None
    server.stop()


def test_readiness_names_what_is_not_at_work(site: SiteConfig, board: Board) -> None:
    clock = Clock()
    board.stage(EMBEDDER).note = "weights.xml: no such file"
    embedder = Child(ChildSpec(EMBEDDER, "module:function", lambda: None), board)
    board.camera("cam1").state = RowState.RECONNECTING
    vitals = Vitals(board, lambda: site, [embedder], None, clock)

    assert vitals.faults_of_life() == {}
    assert vitals.faults_of_readiness() == {
        EMBEDDER: "weights.xml: no such file",
        "camera cam2": "no picture yet",
    }
    clock.now_s += STALE_S + 1
    assert list(vitals.faults_of_life()) == [SUPERVISOR]
