"""What Prometheus is told: the board's counters under names that dashboards and alerts hold on to."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from streamer.counters import LATENCY_BOUNDS_S, LATENCY_BUCKETS, Field, RowState
from streamer.disk_outlook import disk_outlooks
from streamer.health import PICTURE_HEALTH, Rates, picture_health
from streamer.site_plan import EMBEDDER, FORWARDER, MATCHER, SUPERVISOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from streamer.config import SiteConfig
    from streamer.counters import Board, Row

#: By metric: what it tells, and the cells it is made of; with several, each is a value of the label that is named.
_Cells = dict[str, Field]
_CAMERA_COUNTERS: dict[str, tuple[str, str, _Cells]] = {
    "tracker_camera_frames": (
        "Frames, by what became of them; decoded is the sum of the others and of those in flight.",
        "outcome",
        {"decoded": Field.DECODED, "detected": Field.DETECTED, "gated": Field.GATED, "dropped": Field.DROPPED},
    ),
    "tracker_camera_reconnects": ("Times the source was opened again.", "", {"": Field.RECONNECTS}),
    "tracker_camera_stalled_seconds": ("Without pictures between two connections.", "", {"": Field.STALLED_S}),
    "tracker_camera_decode_errors": ("Pictures that could not be decoded.", "", {"": Field.DECODE_ERRORS}),
    "tracker_camera_packets_lost": ("Packets that the network lost.", "", {"": Field.PACKETS_LOST}),
    "tracker_camera_crops": (
        "Crops, by what became of them; asked is the sum of the others and of those in flight.",
        "outcome",
        {"asked": Field.CROPS_ASKED, "embedded": Field.CROPS_EMBEDDED, "dropped": Field.CROPS_DROPPED},
    ),
    "tracker_camera_tracklets": ("Tracklets begun.", "", {"": Field.TRACKLETS}),
    "tracker_camera_sightings": ("Sightings kept in the outbox.", "", {"": Field.SIGHTINGS}),
    "tracker_camera_sightings_lost": ("Sightings that could not be kept.", "", {"": Field.SIGHTINGS_LOST}),
    "tracker_camera_pictures_lost": ("Context pictures that could not be kept.", "", {"": Field.PICTURES_LOST}),
}
_CAMERA_GAUGES = {
    "tracker_camera_clock_skew_seconds": ("From capture to decoding, of the last frame.", Field.SKEW_S),
    "tracker_camera_last_frame_timestamp_seconds": ("Capture time of the last frame; 0: none.", Field.LAST_CAPTURED_AT),
}
_STAGE_COUNTERS = {
    "tracker_stage_restarts": ("Times it died and was started again.", Field.RESTARTS),
    "tracker_stage_failures": ("Troubles that it went on after.", Field.FAILURES),
    "tracker_stage_items": ("Crops, frames or messages handled.", Field.HANDLED),
    "tracker_stage_batches": ("Batches handled.", Field.BATCHES),
}
_MATCHER_COUNTERS = {
    "tracker_matcher_decisions": ("Tracklets decided for good.", Field.DECIDED),
    "tracker_matcher_links": ("Decisions that joined a tracklet to a known vehicle.", Field.LINKED),
    "tracker_matcher_corrections": ("Decisions that changed an earlier one.", Field.CORRECTED),
    "tracker_matcher_vehicles": ("New vehicles.", Field.VEHICLES),
    "tracker_matcher_rejected": ("Messages put aside because they can't be read.", Field.REJECTED),
    "tracker_matcher_tracklets_lost": ("Tracklets whose end never came.", Field.TRACKLETS_LOST),
    "tracker_matcher_decisions_unknown": ("Decisions on tracklets removed meanwhile.", Field.DECISIONS_UNKNOWN),
    "tracker_matcher_begun_anew": ("Times that it read its state anew from the database.", Field.BEGUN_ANEW),
    "tracker_matcher_duplicates": ("Messages that were known already.", Field.DUPLICATES),
}
_OUTBOX_GAUGES = {
    "tracker_outbox_messages": ("Messages that wait.", Field.OUTBOX_MESSAGES),
    "tracker_outbox_bytes": ("Bytes that wait.", Field.OUTBOX_BYTES),
    "tracker_outbox_oldest_seconds": ("For how long the oldest message has waited.", Field.OUTBOX_OLDEST_S),
}
_OUTBOX_DROPPED = {
    "droppable": Field.OUTBOX_DROPPED_DROPPABLE,
    "others": Field.OUTBOX_DROPPED_OTHERS,
    "old": Field.OUTBOX_DROPPED_OLD,
}
#: Kinds of trouble with a picture, as `tracker_camera_healthy` tells them apart: those after unknown and ok.
_TROUBLES = PICTURE_HEALTH[2:]
_UP = (RowState.RUNNING, RowState.FINISHED)
#: How the camera workers' stages begin.
_CAMERA_STAGES = "cameras-"

#: Every metric, as dashboards and alerts name it. A histogram also has `_bucket`, `_count` and `_sum`.
METRIC_NAMES = (
    "tracker_camera_up",
    "tracker_camera_fps",
    "tracker_camera_healthy",
    *(f"{name}_total" for name in _CAMERA_COUNTERS),
    *_CAMERA_GAUGES,
    "tracker_stage_up",
    "tracker_stage_queue_depth",
    "tracker_stage_latency_seconds",
    *(f"{name}_total" for name in _STAGE_COUNTERS),
    "tracker_matcher_lag_messages",
    *(f"{name}_total" for name in _MATCHER_COUNTERS),
    *_OUTBOX_GAUGES,
    "tracker_outbox_dropped_total",
    "tracker_disk_free_bytes",
    "tracker_disk_days_left",
)


class BoardCollector(Collector):
    """Reads the board at each scrape; nothing is counted twice. For one thread.

    Args:
        site_of: The site as it is now.
        board: Read.
    """

    def __init__(self, site_of: Callable[[], SiteConfig], board: Board) -> None:
        self._site_of, self._board = site_of, board
        self._rates = Rates(board)

    def collect(self) -> Iterator[Metric]:
        """All metrics of the moment."""
        site = self._site_of()
        # A matcher by itself has no cameras: its silence on them must not be taken for theirs.
        if any(name.startswith(_CAMERA_STAGES) for name in self._board.stages):
            yield from self._cameras(site)
        yield from self._stages()
        if MATCHER in self._board.stages:
            yield from self._matcher(self._board.stage(MATCHER))
        if emptier := next((name for name in (FORWARDER, MATCHER) if name in self._board.stages), None):
            yield from self._outbox(self._board.stage(emptier))
        yield from disks(site, self._board.stage(SUPERVISOR))

    def _cameras(self, site: SiteConfig) -> Iterator[Metric]:
        rates = self._rates.update()
        rows = [((camera.id, site.region_of(camera)), self._board.camera(camera.id)) for camera in site.cameras]
        up = _gauge("tracker_camera_up", "1 while pictures come; a file that was read to its end stays 1.", _CAMERA)
        fps = _gauge("tracker_camera_fps", "Frames decoded a second, since the last scrape.", _CAMERA)
        healthy = _gauge("tracker_camera_healthy", "0 while its picture has that trouble.", (*_CAMERA, "kind"))
        for labels, row in rows:
            up.add_metric(labels, row.state in _UP)
            fps.add_metric(labels, rates.get(labels[0], 0.0) if row.state is RowState.RUNNING else 0.0)
            for kind in _TROUBLES:
                healthy.add_metric((*labels, kind), picture_health(row) != kind)
        yield from (up, fps, healthy)
        for name, (text, label, cells) in _CAMERA_COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=(*_CAMERA, label) if label else _CAMERA)
            for labels, row in rows:
                for value, field in cells.items():
                    counter.add_metric((*labels, value) if label else labels, row[field])
            yield counter
        for name, (text, field) in _CAMERA_GAUGES.items():
            gauge = _gauge(name, text, _CAMERA)
            for labels, row in rows:
                gauge.add_metric(labels, row[field])
            yield gauge

    def _stages(self) -> Iterator[Metric]:
        rows = [((name,), self._board.stage(name)) for name in self._board.stages]
        up = _gauge("tracker_stage_up", "1 while it is at work.", _STAGE)
        depth = _gauge("tracker_stage_queue_depth", "What waits in front of it.", _STAGE)
        text = "How long batches took; of the matcher, its CPU."
        latency = HistogramMetricFamily("tracker_stage_latency_seconds", text, labels=_STAGE)
        for labels, row in rows:
            up.add_metric(labels, row.state in _UP)
            depth.add_metric(labels, row[Field.QUEUE_DEPTH])
            if _is_timed(labels[0]):
                latency.add_metric(labels, _buckets(row), row[Field.LATENCY_S])
        yield from (up, depth, latency)
        for name, (text, field) in _STAGE_COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=_STAGE)
            for labels, row in rows:
                counter.add_metric(labels, row[field])
            yield counter

    def _matcher(self, row: Row) -> Iterator[Metric]:
        yield GaugeMetricFamily("tracker_matcher_lag_messages", "Messages that wait to be matched.", row[Field.LAG])
        for name, (text, field) in _MATCHER_COUNTERS.items():
            yield CounterMetricFamily(name, text, row[field])

    def _outbox(self, row: Row) -> Iterator[Metric]:
        for name, (text, field) in _OUTBOX_GAUGES.items():
            yield GaugeMetricFamily(name, text, row[field])
        dropped = CounterMetricFamily(
            "tracker_outbox_dropped", "Messages given up, since its file was made.", None, ["kind"]
        )
        for kind, field in _OUTBOX_DROPPED.items():
            dropped.add_metric((kind,), row[field])
        yield dropped


_CAMERA, _STAGE, _FOLDER = ("camera", "region"), ("stage",), ("folder",)


def disks(site: SiteConfig, row: Row) -> Iterator[Metric]:
    """Room on the disks that fill up, and for how long."""
    free = _gauge("tracker_disk_free_bytes", "Room on the disk of that folder.", _FOLDER)
    days = _gauge("tracker_disk_days_left", "How long it lasts by the last days' growth; absent: not known.", _FOLDER)
    growing = {"crops": row[Field.PICTURE_BYTES_PER_DAY], "database": row[Field.DATABASE_BYTES_PER_DAY]}
    for outlook in disk_outlooks(site, growing):
        free.add_metric((outlook.name,), outlook.bytes_free)
        if outlook.days_left is not None:
            days.add_metric((outlook.name,), outlook.days_left)
    yield from (free, days)


def registry_of(site_of: Callable[[], SiteConfig], board: Board) -> CollectorRegistry:
    """A registry of its own with all metrics of a site, and nothing of this process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BoardCollector(site_of, board))
    return registry


def _gauge(name: str, text: str, labels: Sequence[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _is_timed(stage: str) -> bool:
    return stage in (EMBEDDER, MATCHER) or stage.startswith(_CAMERA_STAGES)


def _buckets(row: Row) -> list[tuple[str, float]]:
    bounds = [*(f"{bound:g}" for bound in LATENCY_BOUNDS_S), "+Inf"]
    return list(zip(bounds, accumulate(row[bucket] for bucket in LATENCY_BUCKETS), strict=True))
