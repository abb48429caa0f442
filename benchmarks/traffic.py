"""The matcher at scale, without pixels: thousands of vehicles on a made-up road network, with the truth.

    python benchmarks/traffic.py identity --seeds 3
    python benchmarks/traffic.py speed --profile
    python benchmarks/traffic.py day

Streets, cameras and their faults are those of `road_traffic.py`, what vehicles look like to the embedder that of
`looks.py`. No links are given: how the cameras lie to each other is for the matcher to learn.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil  # type: ignore[import-untyped]
import typer
from looks import Looks, load_looks
from matcher_runs import BusRun, CoreRun, Run, calibrate, known_vehicles, run_bus, run_core, store
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rival_linkers import EndedTracklet, join_clustered, join_nearest, tune
from road_traffic import INFRARED, START_S, Traffic, TrafficConfig, TrueTracklet, made_up_site
from tracklet_scores import LinkCounts, Scores, score, total

from reid.modality import Modality
from streamer.config import MatcherConfig
from streamer.matcher.calibration import Calibration, load_calibration
from streamer.sightings import Message, Sighting, SightingKind

MEBIBYTE = 1 << 20
#: More vehicles than any stream gets to.
MANY = 10**9
#: A rival's threshold is tuned on traffic that no row of the table is measured on.
TUNING_SEED = 1_000
#: What each row of `identity` changes in the matcher's configuration.
WAYS: dict[str, dict[str, object]] = {
    "matcher": {},
    "without appearance": {"use_appearance": False},
    "without travel time, topology": {"use_transit": False},
    "without class": {"use_class": False},
    "without a second look": {"second_look_s": 0.0},
    "windows of 1 s": {"settle_s": 1.0},
    "windows of 20 s": {"settle_s": 20.0},
    "5 candidates": {"candidates": 5},
    "calibration of the rendered sites": {"calibration": MatcherConfig().calibration},
}

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)

Vehicles = Annotated[int, typer.Option(help="How many vehicles enter.")]
Cameras = Annotated[int, typer.Option(help="How many cameras the network has, one a junction.")]
Rate = Annotated[float, typer.Option(help="Vehicles that enter the network per hour.")]
Infrared = Annotated[list[Modality] | None, typer.Option(help="Bands of every second camera, in turn; both if none.")]


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """All that one traffic says, and what is true of it."""

    traffic: Traffic
    messages: list[Message]

    @property
    def truth(self) -> Mapping[str, TrueTracklet]:
        """By tracklet id."""
        return self.traffic.truth

    def scored(self, vehicles: Mapping[str, str]) -> Scores:
        """The worth of vehicles by tracklet id."""
        return score(self.truth, vehicles)

    def ended(self, calibration: Calibration) -> list[EndedTracklet]:
        """What the rivals are given."""
        ends = {m.tracklet_id: m for m in self.messages if isinstance(m, Sighting) and m.kind is SightingKind.END}
        return [EndedTracklet.of(end, calibration) for end in ends.values()]


def record(config: TrafficConfig, looks: Looks) -> Recorded:
    """Draws a whole traffic."""
    traffic = Traffic(config, looks)
    return Recorded(traffic, [arrival.message for arrival in traffic.arrivals()])


@app.command()
def identity(  # noqa: PLR0913 - one per option
    vehicles: Vehicles = 2000,
    cameras: Cameras = 20,
    vehicles_per_hour: Rate = 1800.0,
    infrared: Infrared = None,
    seeds: Annotated[int, typer.Option(help="How many traffics are averaged.")] = 1,
    missed: Annotated[float, typer.Option(help="Share of stays in view that give no tracklet.")] = 0.05,
    broken: Annotated[float, typer.Option(help="Share of stays in view that give two.")] = 0.05,
    returning: Annotated[float, typer.Option(help="Share of vehicles that come back after an hour.")] = 0.0,
    way: Annotated[list[str] | None, typer.Option(help="Rows of the matcher, by their beginnings; else all.")] = None,
    through_bus: Annotated[bool, typer.Option(help="Through outbox and database: slower, the same decisions.")] = False,
) -> None:
    """Who is who: the matcher, the matcher without each of its parts, and two plain rivals.

    IDF1 is over the tracklets' frames. A link is a vehicle and two cameras that both saw it. "at decision" is what was
    said first, the other rows what stands at the end. The nearest rival works on-line as the matcher does; the
    clustering rival sees all of the future. Both were tuned on another traffic.
    """
    config = TrafficConfig(
        vehicles, cameras, vehicles_per_hour, tuple(infrared or INFRARED), missed=missed, broken=broken,
        returning=returning,
    )  # fmt: skip
    ways = {name: changes for name, changes in WAYS.items() if not way or name.startswith(tuple(way))}
    ways = {name: changes for name, changes in ways.items() if changes.keys() <= MatcherConfig.model_fields.keys()}
    if not ways:
        raise typer.BadParameter(f"wanted the beginning of one of: {', '.join(WAYS)}", param_hint="--way")
    looks, results = load_looks(), defaultdict[str, list[Scores]](list)
    seconds: dict[str, float] = defaultdict(float)
    with _progress() as bar, tempfile.TemporaryDirectory() as folder:
        calibration = calibrate(looks, Path(folder) / "calibration.json")
        task = bar.add_task("drawing traffic", total=seeds * (len(ways) + 1))
        thresholds = _tune_rivals(record(replace(config, seed=TUNING_SEED), looks), load_calibration(calibration))
        for seed in range(seeds):
            recorded = record(replace(config, seed=seed), looks)
            results["truth"].append(recorded.scored({name: str(true.vehicle) for name, true in recorded.truth.items()}))
            for name, changes in ways.items():
                bar.update(task, description=name)
                matcher = MatcherConfig.model_validate({"calibration": str(calibration)} | changes)
                site = made_up_site(recorded.traffic, "sqlite:///unused.db", matcher)
                run = (run_bus if through_bus else run_core)(site, bar.track(recorded.messages, description="messages"))
                if name == "matcher":
                    results[f"{name}, at decision"].append(recorded.scored(run.decided))
                results[name].append(recorded.scored(run.final))
                seconds[name] += run.cpu_s
                bar.remove_task(bar.task_ids[-1])
                bar.advance(task)
            bar.update(task, description="rivals", advance=1)
            tracklets = recorded.ended(load_calibration(calibration))
            for name, threshold in thresholds.items():
                began_s = time.process_time()
                results[name].append(recorded.scored(RIVALS[name](tracklets)(threshold)))
                seconds[name] += time.process_time() - began_s
    title = f"{seeds} x {vehicles} vehicles, {cameras} cameras; links: precision / recall"
    _print_identity({name: total(found) for name, found in results.items()}, seconds, title)


#: By name: what takes tracklets, and answers with what takes a threshold.
RIVALS: dict[str, Callable[[Sequence[EndedTracklet]], Callable[[float], dict[str, str]]]] = {
    "rival: nearest, on-line": lambda tracklets: partial(join_nearest, tracklets),
    "rival: clustering, in hindsight": join_clustered,
}


def _tune_rivals(recorded: Recorded, calibration: Calibration) -> dict[str, float]:
    tracklets = recorded.ended(calibration)
    return {
        name: tune(join(tracklets), lambda vehicles: recorded.scored(vehicles).idf1) for name, join in RIVALS.items()
    }


def _print_identity(rows: Mapping[str, Scores], seconds: Mapping[str, float], title: str) -> None:
    pairs = sorted({pair for scores in rows.values() for pair in scores.by_modality})
    table = Table("", "IDF1", "identities", "CPU s", "links", *pairs, title=title)
    for name, scores in rows.items():
        links = [scores.links, *(scores.by_modality.get(pair, LinkCounts()) for pair in pairs)]
        spent = f"{seconds[name]:.1f}" if name in seconds else ""
        shown = [f"{counts.precision:.3f} / {counts.recall:.3f}" for counts in links]
        table.add_row(name, f"{scores.idf1:.3f}", str(scores.identities), spent, *shown)
    Console(width=180).print(table)


@app.command()
def speed(  # noqa: PLR0913 - one per option
    identities: Annotated[list[int] | None, typer.Option(help="Live vehicles to begin with; several times.")] = None,
    cameras: Cameras = 20,
    vehicles_per_hour: Rate = 1800.0,
    seconds: Annotated[float, typer.Option(help="Of the matcher's own time, per number of vehicles.")] = 20.0,
    bus_up_to: Annotated[int, typer.Option(help="Most live vehicles that the database is filled with.")] = 10_000,
    rate: Annotated[float, typer.Option(help="Messages a second that are published at most; 0: no limit.")] = 0.0,
    crop_bytes: Annotated[int, typer.Option(help="Size of the pictures that travel along.")] = 0,
    profile: Annotated[bool, typer.Option(help="Tell where the core's time goes.")] = False,
) -> None:
    """How fast: sightings a second and how long one message takes, with so many vehicles known.

    First the core alone, then with outbox, worker and SQLite, a batch of messages a transaction. Vehicles that are
    known have been seen once, within the hour. A settling is a heartbeat at which something was decided.
    """
    looks = load_looks()
    columns = ("live vehicles", "through", "sightings", "per s", "CPU ms each", "one message", "one settling or batch")
    table = Table(*columns, title=f"{cameras} cameras; times: p50 / p95 in ms")
    with _progress() as bar, tempfile.TemporaryDirectory() as folder:
        calibration = calibrate(looks, Path(folder) / "calibration.json")
        matcher = MatcherConfig(calibration=str(calibration))
        for count in identities or (100, 1_000, 10_000, 100_000):
            config = TrafficConfig(MANY, cameras, vehicles_per_hour, crop_bytes=crop_bytes)
            task = bar.add_task(f"{count} vehicles", total=None)
            known = list(known_vehicles(count, looks, config, before_s=START_S))
            site = made_up_site(Traffic(config, looks), "sqlite:///unused.db", matcher)
            core = CoreRun(site, keeps_decisions=False)
            core.region.restore(known, {}, [])
            with _profiled(profile, f"{count} live vehicles"):
                sightings = _stream(core, config, looks, seconds)
            table.add_row(str(count), "core", *_shown_speed(core.run, sightings))
            if count <= bus_up_to:
                with BusRun(site, rate=rate) as bus:
                    store(bus.database, known)
                    sightings = _stream(bus, config, looks, seconds)
                    table.add_row("", "bus, worker, SQLite", *_shown_speed(bus.run, sightings))
            bar.remove_task(task)
    Console(width=140).print(table)


def _stream(matcher: CoreRun | BusRun, config: TrafficConfig, looks: Looks, seconds: float) -> int:
    """Feeds a steady stream for so many seconds of the matcher's own time; says how many sightings there were."""
    sightings = 0
    for arrival in Traffic(config, looks).arrivals():
        matcher.feed(arrival.message)
        sightings += isinstance(arrival.message, Sighting)
        if matcher.run.wall_s >= seconds:
            break
    return sightings


def _shown_speed(run: Run, sightings: int) -> tuple[str, ...]:
    figures = (f"{sightings / run.wall_s:.0f}", f"{1000 * run.cpu_s / max(sightings, 1):.2f}")
    return str(sightings), *figures, _percentiles(run.message_s), _percentiles(run.settle_s)


def _percentiles(seconds: Sequence[float]) -> str:
    if not seconds:
        return ""
    middle, high = 1000 * np.percentile(seconds, [50, 95])
    return f"{middle:.2f} / {high:.2f}"


@contextmanager
def _profiled(wanted: bool, title: str) -> Iterator[None]:
    if not wanted:
        yield
        return
    with cProfile.Profile() as profile:
        yield
    print(f"\n--- {title}")
    pstats.Stats(profile).sort_stats("tottime").print_stats("streamer|storage|faiss|numpy", 15)


@app.command()
def day(
    hours: Annotated[int, typer.Option(help="Simulated hours.")] = 24,
    cameras: Cameras = 20,
    vehicles_per_hour: Rate = 300.0,
    heartbeat_s: Annotated[float, typer.Option(help="Between two heartbeats of a camera; 1 as cameras do.")] = 5.0,
    returning: Annotated[float, typer.Option(help="Share of vehicles that come back after an hour.")] = 0.1,
    through_bus: Annotated[bool, typer.Option(help="Through outbox and database.")] = False,
) -> None:
    """Whether memory stays bounded: a day of traffic, and the process's memory each simulated hour.

    Traffic is made while it is asked for and its truth thrown away, so that what grows is the matcher's.
    """
    looks, process = load_looks(), psutil.Process()
    config = TrafficConfig(
        int(hours * vehicles_per_hour), cameras, vehicles_per_hour, returning=returning, heartbeat_s=heartbeat_s
    )
    with tempfile.TemporaryDirectory() as folder:
        matcher = MatcherConfig(calibration=str(calibrate(looks, Path(folder) / "calibration.json")))
        site = made_up_site(Traffic(config, looks), "sqlite:///unused.db", matcher)
        with ExitStack() as stack:
            run = stack.enter_context(BusRun(site)) if through_bus else CoreRun(site, keeps_decisions=False)
            traffic, hour = Traffic(config, looks), 0
            print("hour  RSS MiB  messages  matcher's CPU s")
            for arrival in traffic.arrivals():
                run.feed(arrival.message)
                if arrival.time_s >= START_S + 3600 * (hour + 1):
                    hour += 1
                    traffic.truth.clear()
                    rss = process.memory_info().rss / MEBIBYTE
                    print(f"{hour:4d}  {rss:7.1f}  {run.run.messages:8d}  {run.run.cpu_s:8.1f}", flush=True)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


if __name__ == "__main__":
    app()
