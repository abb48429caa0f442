"""The matcher at scale, without pixels: thousands of vehicles on a made-up road network, with the truth.

    python benchmarks/traffic.py identity --seeds 3
    python benchmarks/traffic.py speed --profile
    python benchmarks/traffic.py day

Streets, cameras and their faults are those of `road_traffic.py`, what vehicles look like to the embedder that of
`looks.py`. Looks that are drawn are easier to tell apart than real ones: compare rows with each other, not with sites.
No links are given: how the cameras lie to each other is for the matcher to learn.
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
from itertools import product
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
from rival_linkers import (
    COSINES,
    NATS,
    EndedTracklet,
    Join,
    Setting,
    join_clustered,
    join_clustered_calibrated,
    join_nearest,
    join_nearest_calibrated,
    tune,
)
from road_traffic import INFRARED, START_S, Traffic, TrafficConfig, TrueTracklet, made_up_site
from tracklet_scores import LinkCounts, Scores, score, total

from reid.calibration import Calibration, load_calibration
from reid.modality import Modality
from streamer.config import MatcherConfig
from streamer.sightings import Message, Sighting, SightingKind

MEBIBYTE = 1 << 20
#: More vehicles than any stream gets to.
MANY = 10**9
#: Longer than anybody known has been away: all of them are within reach.
EVERYBODY_S = 3600.0
#: Rivals are tuned on traffic that no row of the table is measured on.
TUNING_SEED = 1_000
#: What each row of `identity` changes in the matcher's configuration.
WAYS: dict[str, dict[str, object]] = {
    "matcher": {},
    "looks only choose candidates": {"use_appearance": False},
    "without times and places": {"use_transit": False},
    "without class": {"use_class": False},
    "without a second look": {"second_look_s": 0.0},
    "nothing waits": {"hold_s": 0.0},
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
    rivals_only: Annotated[bool, typer.Option(help="No row of the matcher.")] = False,
    through_bus: Annotated[bool, typer.Option(help="Through outbox and database: slower, the same decisions.")] = False,
) -> None:
    """Who is who: the matcher, the matcher without each of its parts, and four rivals.

    IDF1 is over the tracklets' frames. A link is a vehicle and two cameras that both saw it. "at decision" is what was
    said first, the other rows what stands at the end. Nearest rivals work on-line as the matcher does; clustering ones
    see all of the future. Calibrated ones are given the matcher's calibration, and a longest gap. All of them were
    tuned on another traffic. Looks are drawn, and easier than real ones.
    """
    config = TrafficConfig(
        vehicles, cameras, vehicles_per_hour, tuple(infrared or INFRARED), missed=missed, broken=broken,
        returning=returning,
    )  # fmt: skip
    ways = {} if rivals_only else _ways(way)
    looks, results = load_looks(), defaultdict[str, list[Scores]](list)
    seconds: dict[str, float] = defaultdict(float)
    with _progress() as bar, tempfile.TemporaryDirectory() as folder:
        calibration = calibrate(looks, Path(folder) / "calibration.json")
        task = bar.add_task("tuning rivals", total=seeds * (len(ways) + 1))
        settings = _tune_rivals(record(replace(config, seed=TUNING_SEED), looks), load_calibration(calibration))
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
            known = load_calibration(calibration)
            tracklets = recorded.ended(known)
            for name, setting in settings.items():
                began_s = time.process_time()
                results[name].append(recorded.scored(RIVALS[name].join(tracklets, known)(setting)))
                seconds[name] += time.process_time() - began_s
    title = (
        f"{seeds} x {vehicles} vehicles, {cameras} cameras, looks drawn, easier than real ones; "
        "links: precision / recall"
    )
    _print_identity({name: total(found) for name, found in results.items()}, seconds, title)
    for name, setting in settings.items():
        print(f"{name}: threshold {setting.threshold:.2f}, longest gap {setting.max_gap_s:.0f} s")


def _ways(wanted: Sequence[str] | None) -> dict[str, dict[str, object]]:
    """The rows whose names begin so, as far as this matcher has what they change."""
    ways = {name: changes for name, changes in WAYS.items() if not wanted or name.startswith(tuple(wanted))}
    ways = {name: changes for name, changes in ways.items() if changes.keys() <= MatcherConfig.model_fields.keys()}
    if not ways:
        raise typer.BadParameter(f"wanted the beginning of one of: {', '.join(WAYS)}", param_hint="--way")
    return ways


@dataclass(frozen=True, slots=True)
class Rival:
    """A way to join tracklets, and the settings that are tried of it."""

    join: Callable[[Sequence[EndedTracklet], Calibration], Join]
    settings: Sequence[Setting]


RIVALS = {
    "rival: nearest, on-line": Rival(lambda tracklets, _: partial(join_nearest, tracklets), COSINES),
    "rival: clustering, in hindsight": Rival(lambda tracklets, _: join_clustered(tracklets), COSINES),
    "rival: nearest, calibrated, in a time window": Rival(join_nearest_calibrated, NATS),
    "rival: clustering, calibrated, in hindsight": Rival(join_clustered_calibrated, NATS),
}


def _tune_rivals(recorded: Recorded, calibration: Calibration) -> dict[str, Setting]:
    tracklets = recorded.ended(calibration)
    return {
        name: tune(rival.join(tracklets, calibration), lambda vehicles: recorded.scored(vehicles).idf1, rival.settings)
        for name, rival in RIVALS.items()
    }


def _print_identity(rows: Mapping[str, Scores], seconds: Mapping[str, float], title: str) -> None:
    pairs = sorted({pair for scores in rows.values() for pair in scores.by_modality})
    table = Table("", "IDF1", "identities", "CPU s", "links", *pairs, title=title)
    for name, scores in rows.items():
        links = [scores.links, *(scores.by_modality.get(pair, LinkCounts()) for pair in pairs)]
        spent = f"{seconds[name]:.1f}" if name in seconds else ""
        shown = [f"{counts.precision:.3f} / {counts.recall:.3f}" for counts in links]
        table.add_row(name, f"{scores.idf1:.3f}", str(scores.identities), spent, *shown)
    Console(width=200).print(table)


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

    First the core alone, then the worker with SQLite, a batch of messages a transaction; publishing is not counted.
    Vehicles that are known have been seen once, within 50 minutes, so that most are beyond `reach_s`, where only those
    that come back are looked for: each figure is told as configured, and with everybody within reach (until the matcher
    has learned how long a way takes). A settling is a heartbeat at which something was decided.
    """
    looks = load_looks()
    columns = (
        "live vehicles",
        "in reach",
        "through",
        "sightings",
        "per s",
        "CPU ms each",
        "message",
        "settling, batch",
    )
    table = Table(*columns, title=f"{cameras} cameras, looks drawn, easier than real ones; times: p50 / p95 in ms")
    with _progress() as bar, tempfile.TemporaryDirectory() as folder:
        calibration = calibrate(looks, Path(folder) / "calibration.json")
        for count, reach_s in product(identities or (100, 1_000, 10_000, 100_000), (None, EVERYBODY_S)):
            matcher = MatcherConfig(calibration=str(calibration))
            if reach_s is not None:
                matcher = matcher.model_copy(update={"reach_s": reach_s})
            config = TrafficConfig(MANY, cameras, vehicles_per_hour, crop_bytes=crop_bytes)
            task = bar.add_task(f"{count} vehicles", total=None)
            known = list(known_vehicles(count, looks, config, before_s=START_S))
            in_reach = sum(one.tracklet.ended_at.timestamp() >= START_S - matcher.reach_s for one in known)
            site = made_up_site(Traffic(config, looks), "sqlite:///unused.db", matcher)
            core = CoreRun(site, keeps_decisions=False)
            core.region.restore(known, {}, [])
            with _profiled(profile, f"{count} live vehicles, {in_reach} in reach"):
                sightings = _stream(core, config, looks, seconds)
            table.add_row(str(count), str(in_reach), "core", *_shown_speed(core.run, sightings))
            if count <= bus_up_to:
                with BusRun(site, rate=rate) as bus:
                    store(bus.database, known)
                    sightings = _stream(bus, config, looks, seconds)
                    table.add_row("", "", "worker and SQLite", *_shown_speed(bus.run, sightings))
            bar.remove_task(task)
    Console(width=140).print(table)


def _stream(matcher: CoreRun | BusRun, config: TrafficConfig, looks: Looks, seconds: float) -> int:
    """Feeds a steady stream for so many seconds of the matcher's own time; says how many sightings it handled."""
    sightings = 0
    for arrival in Traffic(config, looks).arrivals():
        matcher.feed(arrival.message)
        sightings += isinstance(arrival.message, Sighting)
        if matcher.run.wall_s >= seconds:
            break
    if isinstance(matcher, BusRun):
        matcher.drain()
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
                    if isinstance(run, BusRun):
                        run.drain()
                    rss = process.memory_info().rss / MEBIBYTE
                    print(f"{hour:4d}  {rss:7.1f}  {run.run.messages:8d}  {run.run.cpu_s:8.1f}", flush=True)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


if __name__ == "__main__":
    app()
