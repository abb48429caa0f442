"""Sightings of many vehicles on a made-up road network, with the truth: what cameras would say, without a pixel.

Vehicles enter as a Poisson process, drive the shortest way between two random cameras at speeds of their own, wait at
signals, and leave; some turn off on the way, some park in view, some come back. What a camera says of them obeys the
same contract as `streamer.tracklet_book`: `first`, `update`, `end`, and heartbeats that promise no more than is true.
Cameras err at given rates: they miss vehicles, break tracklets, mistake classes, and their clocks and uplinks are off.

All is drawn from one seed, vehicle by vehicle, and made while it is asked for: a day needs no more memory than an hour.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from looks import COCO_CLASS, Floats, Looks, mean_picture
from numpy.typing import NDArray
from scipy.sparse.csgraph import shortest_path

from detector.detections import VehicleClass
from reid.modality import Modality
from streamer.config import CameraConfig, MatcherConfig, SiteConfig
from streamer.sightings import (
    CameraState,
    CropEmbedding,
    EndReason,
    Heartbeat,
    Message,
    Sighting,
    SightingKind,
    TrackPath,
    tracklet_id,
)
from streamer.tracklets import FIRST_PERIOD_S, LONGEST_PERIOD_S, MIN_POINTS, THIN_AFTER_S, THIN_PERIOD_S

SITE, REGION, SESSION = "made-up", "main", "s0"
#: When traffic begins, seconds since the Unix epoch.
START_S = datetime(2026, 1, 1, 6, tzinfo=UTC).timestamp()
WIDTH, HEIGHT = 1280, 720
#: Where the roads of a view meet, in pixels.
MIDDLE = np.array([640.0, 420.0])
FRAME_S = 0.2
#: Metres between cameras, and of road in a view; metres a second.
SPACING_M, VIEW_M, SPEED_MS = 300.0, 60.0, 11.0
#: A signal stops this share of the vehicles, in view and between views, for up to so long.
STOPPED, LONGEST_STOP_S = 0.3, 25.0
#: Where on its way through a view a vehicle stops.
STOP_LINE = 0.45
#: From a vehicle's last frame to the end of its tracklet, as the tracker and the book have it; then the embedder.
LOST_S, EMBEDDED_S = 2.2, 0.15
PARKED_S, AWAY_S = (120.0, 1200.0), (3900.0, 7200.0)
INFRARED = (Modality.THERMAL, Modality.NEAR_INFRARED)
#: The gate by which vehicles come from outside of the network, and leave it.
OUTSIDE = -1
Action = Callable[[float, Any], None]


@dataclass(frozen=True, slots=True)
class TrafficConfig:
    """How many drive where, and how often cameras err. Shares are 0-1.

    Attributes:
        vehicles: That enter.
        cameras: At as many junctions.
        vehicles_per_hour: That enter, in the mean.
        infrared: Bands of every second camera, in turn; none: all see visible light.
        turning_off: Share of vehicles, per road between two cameras, that never arrive.
        parked: Share of stays in a view that last `PARKED_S`.
        returning: Share of vehicles that come back after `AWAY_S`.
        missed: Share of stays that give no tracklet.
        broken: Share of stays that give two.
        class_errors: Share of tracklets whose votes are for another class.
        clock_skew_s: Standard deviation of cameras' clocks.
        late: Share of messages at which an uplink stalls, and all of its camera's with it, for up to `max_late_s`.
        max_late_s: The longest stall.
        duplicated: Share of messages that arrive twice.
        heartbeat_s: Between two heartbeats of a camera.
        pictures: Crops that a tracklet's end averages.
        crop_bytes: Size of the pictures that embeddings carry; 0: none.
        seed: Of everything.
    """

    vehicles: int = 2000
    cameras: int = 20
    vehicles_per_hour: float = 1800.0
    infrared: tuple[Modality, ...] = INFRARED
    turning_off: float = 0.05
    parked: float = 0.002
    returning: float = 0.0
    missed: float = 0.05
    broken: float = 0.05
    class_errors: float = 0.05
    clock_skew_s: float = 0.2
    late: float = 0.005
    max_late_s: float = 5.0
    duplicated: float = 0.01
    heartbeat_s: float = 1.0
    pictures: int = 3
    crop_bytes: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A camera at a junction.

    Attributes:
        camera: Its id.
        modality: Its band.
        skew_s: What its clock is ahead.
        uplink_s: What a message takes.
        gates: By neighbour (or `OUTSIDE`) where in the picture that road begins, (2,) pixels, of the ground.
    """

    camera: str
    modality: Modality
    skew_s: float
    uplink_s: float
    gates: dict[int, NDArray[np.float64]]


class Roads:
    """Cameras on a jittered grid, joined to those that nobody stands between (Gabriel and Sokal, 1969).

    Attributes:
        views: One per camera.
        metres: (C, C) length of the road between neighbours; infinite elsewhere.
    """

    def __init__(self, config: TrafficConfig) -> None:
        rng = np.random.default_rng([config.seed, 0])
        count = config.cameras
        side = int(np.ceil(np.sqrt(count)))
        places = SPACING_M * (np.stack(np.divmod(np.arange(count), side), axis=1) + rng.uniform(-0.3, 0.3, (count, 2)))
        apart = np.linalg.norm(places[:, np.newaxis] - places, axis=2)
        square = apart**2 + np.diag(np.full(count, np.inf))
        joined = square <= (square[:, np.newaxis] + square[np.newaxis]).min(axis=2) if count > 2 else square < np.inf
        self.metres = np.where(joined, apart * rng.uniform(1.0, 1.3), np.inf)
        _, self._before = shortest_path(np.where(joined, self.metres, 0), return_predecessors=True)
        self.views = [self._view(config, index, places, rng) for index in range(count)]

    def _view(self, config: TrafficConfig, index: int, places: NDArray[np.float64], rng: np.random.Generator) -> View:
        is_infrared = index % 2 and config.infrared
        modality = config.infrared[index // 2 % len(config.infrared)] if is_infrared else Modality.VISIBLE
        heading, gates = rng.uniform(0, 2 * np.pi), {}
        for neighbour in [*np.flatnonzero(np.isfinite(self.metres[index])).tolist(), OUTSIDE]:
            east, north = places[neighbour] - places[index] if neighbour != OUTSIDE else rng.normal(size=2)
            angle = np.arctan2(north, east) - heading
            gates[neighbour] = MIDDLE + np.array([560 * np.sin(angle), -230 * np.cos(angle)])
        skew_s, uplink_s = float(rng.normal(0, config.clock_skew_s)), float(rng.uniform(0, 0.5))
        return View(f"c{index:03d}", modality, skew_s, uplink_s, gates)

    def route(self, origin: int, destination: int) -> list[int]:
        """The cameras on the shortest way, both ends included."""
        way = [destination]
        while way[-1] != origin:
            way.append(int(self._before[origin, way[-1]]))
        return way[::-1]


class Stay(NamedTuple):
    """One vehicle in one view, in true time; on its way, at `STOP_LINE`, it stands still for `stopped_s`."""

    vehicle: Vehicle
    view: int
    came_from: int
    goes_to: int
    began_s: float
    length_s: float
    stopped_s: float


@dataclass(slots=True, eq=False)
class Vehicle:
    """What stays with a vehicle all the way: its number, its class, its looks, its haste, its share of chance."""

    number: int
    vehicle_class: VehicleClass
    looks: Floats
    speed_ms: float
    rng: np.random.Generator


@dataclass(frozen=True, slots=True)
class TrueTracklet:
    """What is true of a tracklet.

    Attributes:
        vehicle: The vehicle's number.
        vehicle_class: Its class.
        camera: The camera's id.
        modality: Its band.
        frames: Points of its path: what it weighs.
    """

    vehicle: int
    vehicle_class: VehicleClass
    camera: str
    modality: Modality
    frames: int


class Arrival(NamedTuple):
    """A message and when it reaches the bus, seconds since the Unix epoch."""

    time_s: float
    message: Message


class Traffic:
    """A run of the traffic; `arrivals` may be drawn once.

    Attributes:
        roads: The network.
        truth: By tracklet id, of all whose first sighting was made; the caller may clear it.
        stays: How many stays there were in view of a camera, seen or not.
    """

    def __init__(self, config: TrafficConfig, looks: Looks) -> None:
        self.config, self._looks = config, looks
        self.roads = Roads(config)
        self.truth: dict[str, TrueTracklet] = {}
        self.stays = 0
        self._events: list[tuple[float, int, Action, Any]] = []
        self._count = self._unfinished = self._entered = 0
        self._arrived: list[Arrival] = []
        views = self.roads.views
        self._numbers = [0] * len(views)
        self._busy: list[list[tuple[float, float]]] = [[] for _ in views]
        self._promised = [-np.inf] * len(views)
        self._uplinks = [np.random.default_rng([config.seed, 1, index]) for index in range(len(views))]
        self._last_arrival_s = [START_S] * len(views)

    def arrivals(self) -> Iterator[Arrival]:
        """All messages in the order in which they reach the bus."""
        for view in range(len(self.roads.views)):
            self._plan(START_S + view * self.config.heartbeat_s / len(self.roads.views), self._beat, view)
        self._plan_work(START_S + 10.0, self._enter, None)
        while self._events:
            time_s, _, act, what = heapq.heappop(self._events)
            act(time_s, what)
            yield from self._arrived
            self._arrived.clear()

    def _plan(self, time_s: float, act: Action, what: object) -> None:
        self._count += 1
        heapq.heappush(self._events, (time_s, self._count, act, what))

    def _plan_work(self, time_s: float, act: Action, what: object) -> None:
        """Plans what must be done before the cameras may finish."""

        def work(time_s: float, what: object) -> None:
            act(time_s, what)
            self._unfinished -= 1

        self._unfinished += 1
        self._plan(time_s, work, what)

    # --- Driving.

    def _enter(self, time_s: float, _: None) -> None:
        if self._entered == self.config.vehicles:
            return
        rng = np.random.default_rng([self.config.seed, 2, self._entered])
        kind, looks = self._looks.vehicle(rng)
        vehicle = Vehicle(self._entered, COCO_CLASS[kind], looks, SPEED_MS * float(rng.lognormal(0, 0.15)), rng)
        self._entered += 1
        self._drive(time_s, vehicle)
        if rng.random() < self.config.returning:
            self._plan_work(time_s + rng.uniform(*AWAY_S), self._drive, vehicle)
        self._plan_work(time_s + rng.exponential(3600 / self.config.vehicles_per_hour), self._enter, None)

    def _drive(self, time_s: float, vehicle: Vehicle) -> None:
        rng = vehicle.rng
        origin, destination = (int(end) for end in rng.choice(len(self.roads.views), 2))
        way = self.roads.route(origin, destination)
        for step, view in enumerate(way):
            before, after = way[step - 1] if step else OUTSIDE, way[step + 1] if step + 1 < len(way) else OUTSIDE
            is_parked = rng.random() < self.config.parked
            stopped_s = rng.uniform(*PARKED_S) if is_parked else _stop_s(rng)
            length_s = VIEW_M / (vehicle.speed_ms * rng.lognormal(0, 0.1)) + stopped_s
            stay = Stay(vehicle, view, before, after, time_s, length_s, stopped_s)
            self._plan_work(time_s, self._see, stay)
            if after == OUTSIDE or rng.random() < self.config.turning_off:
                return
            metres = self.roads.metres[view, after] - VIEW_M
            time_s += length_s + metres / (vehicle.speed_ms * rng.lognormal(0, 0.1)) + _stop_s(rng)

    # --- Seeing.

    def _see(self, _: float, stay: Stay) -> None:
        self.stays += 1
        rng = stay.vehicle.rng
        if rng.random() < self.config.missed:
            return
        view = self.roads.views[stay.view]
        began_s, ended_s = stay.began_s + view.skew_s, stay.began_s + stay.length_s + view.skew_s
        frames = np.arange(np.ceil(began_s / FRAME_S), np.floor(ended_s / FRAME_S) + 1)
        parts = [frames]
        if rng.random() < self.config.broken:
            cut, gap = int(len(frames) * rng.uniform(0.3, 0.7)), int(rng.uniform(1, 2 / FRAME_S))
            parts = [frames[:cut], frames[cut + gap :]]
        for part in parts:
            if len(part) >= MIN_POINTS:
                self._tell(stay, part)

    def _tell(self, stay: Stay, frames: NDArray[np.float64]) -> None:
        """Plans all sightings of one tracklet."""
        view, rng = self.roads.views[stay.view], stay.vehicle.rng
        path = self._path(stay, frames * FRAME_S)
        self._numbers[stay.view] += 1
        number = self._numbers[stay.view]
        name = tracklet_id(view.camera, SESSION, number)
        vehicle = stay.vehicle
        self.truth[name] = TrueTracklet(vehicle.number, vehicle.vehicle_class, view.camera, view.modality, len(path))
        self._busy[stay.view].append((path.times[-1], path.times[-1] + LOST_S + EMBEDDED_S))
        pictures = self._looks.pictures(stay.vehicle.looks, view.modality, self.config.pictures, rng)
        votes = self._votes(stay.vehicle.vehicle_class, rng)
        sayings, told = _sayings(stay, path, pictures, rng), 0
        for sequence, (time_s, vector) in enumerate(sayings):
            is_end = sequence == len(sayings) - 1
            upto = int(np.searchsorted(path.times, time_s, side="right"))
            occurred_s = float(path.times[upto - 1])
            sighting = Sighting(
                SightingKind.END if is_end else SightingKind.UPDATE if sequence else SightingKind.FIRST,
                SITE,
                REGION,
                view.camera,
                SESSION,
                number,
                sequence,
                _moment(path.times[0]),
                _moment(occurred_s),
                max(votes, key=lambda name: votes[name]),
                votes,
                TrackPath(path.frames[told:upto], path.times[told:upto], path.boxes[told:upto]),
                () if vector is None else (self._embedding(view, vector, path, upto),),
                "" if vector is None else self._looks.model_id,
                end_reason=EndReason.LEFT if is_end else None,
            )
            told = upto
            published_s = occurred_s - view.skew_s + EMBEDDED_S + (LOST_S if is_end else 0)
            self._plan_work(published_s, self._send, (stay.view, sighting))

    def _path(self, stay: Stay, times: NDArray[np.float64]) -> TrackPath:
        """A curve from gate to gate, thinned out while the vehicle is parked, with a detector's jitter."""
        view = self.roads.views[stay.view]
        since = times - (stay.began_s + view.skew_s)
        driven_s = stay.length_s - stay.stopped_s
        stopped_at = STOP_LINE * driven_s
        stood = np.clip(since - stopped_at, 0, stay.stopped_s)
        slots = np.floor(times / THIN_PERIOD_S)
        is_thin = (stood > THIN_AFTER_S) & (stood < stay.stopped_s) & (np.diff(slots, prepend=-1) == 0)
        is_thin[-1] = False
        way = np.clip((since - stood) / driven_s, 0, 1)[~is_thin, np.newaxis]
        entry, leave = _lane(view.gates[stay.came_from], 1), _lane(view.gates[stay.goes_to], -1)
        ground = (1 - way) ** 2 * entry + 2 * way * (1 - way) * MIDDLE + way**2 * leave
        heights = 30 + 120 * np.clip((ground[:, 1:] - 150) / 570, 0, 1)
        widths = heights * (2.2 if stay.vehicle.vehicle_class is VehicleClass.BUS else 1.5)
        corners = [ground[:, :1] - widths / 2, ground[:, 1:] - heights, ground[:, :1] + widths / 2, ground[:, 1:]]
        boxes = np.concatenate(corners, axis=1) + 0.02 * heights * stay.vehicle.rng.standard_normal((len(ground), 4))
        boxes = np.clip(boxes, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32)
        kept = times[~is_thin]
        return TrackPath(np.round((kept - START_S) / FRAME_S).astype(np.int64), kept, boxes)

    def _votes(self, vehicle_class: VehicleClass, rng: np.random.Generator) -> dict[str, float]:
        others = [name for name in VehicleClass if name is not vehicle_class]
        other = others[int(rng.integers(len(others)))]
        share = float(rng.uniform(0.7, 1.0))
        if rng.random() < self.config.class_errors:
            vehicle_class, other = other, vehicle_class
        return {vehicle_class.value: share, other.value: 1 - share}

    def _embedding(self, view: View, vector: Floats, path: TrackPath, upto: int) -> CropEmbedding:
        x1, y1, x2, y2 = (float(value) for value in path.boxes[upto - 1])
        crop = bytes(self.config.crop_bytes) or None
        return CropEmbedding(view.modality, vector, 0.8, _moment(path.times[upto - 1]), (x1, y1, x2, y2), crop)

    # --- Sending.

    def _beat(self, time_s: float, view: int) -> None:
        """A heartbeat, which promises nothing past the last frame of what is not yet told of; or the camera's last."""
        is_over = not self._unfinished
        now_s = time_s + self.roads.views[view].skew_s
        self._busy[view] = [stay for stay in self._busy[view] if stay[1] >= now_s - FRAME_S]
        watermark_s = min([now_s, *(min(now_s - 2 * FRAME_S, ended_s) - 1e-6 for ended_s, _ in self._busy[view])])
        if is_over or watermark_s - self._promised[view] >= 0.99 * self.config.heartbeat_s:
            self._promised[view] = watermark_s
            state, camera = CameraState.FINISHED if is_over else CameraState.ALIVE, self.roads.views[view].camera
            self._send(time_s, (view, Heartbeat(SITE, REGION, camera, SESSION, _moment(watermark_s), state)))
        if not is_over:
            self._plan(time_s + self.config.heartbeat_s, self._beat, view)

    def _send(self, time_s: float, what: tuple[int, Message]) -> None:
        """Hands a message to its camera's uplink, which keeps the order, and may stall or say things twice."""
        view, message = what
        rng, config = self._uplinks[view], self.config
        stalled_s = rng.uniform(0, config.max_late_s) if rng.random() < config.late else 0.0
        arrival_s = max(time_s + self.roads.views[view].uplink_s + stalled_s, self._last_arrival_s[view])
        self._last_arrival_s[view] = arrival_s
        self._plan(arrival_s, self._arrive, message)
        if rng.random() < config.duplicated:
            self._plan(arrival_s + rng.uniform(0, 2 * config.max_late_s), self._arrive, message)

    def _arrive(self, time_s: float, message: Message) -> None:
        self._arrived.append(Arrival(time_s, message))


def _stop_s(rng: np.random.Generator) -> float:
    return float(rng.uniform(1, LONGEST_STOP_S)) if rng.random() < STOPPED else 0.0


def _lane(gate: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Who comes and who goes keep apart: the gate moved sideways, less so far up in the picture."""
    along = gate - MIDDLE
    across = np.array([-along[1], along[0]]) / float(np.linalg.norm(along))
    moved: NDArray[np.float64] = gate + side * across * 45 * (gate[1] / HEIGHT)
    return moved


def _sayings(
    stay: Stay, path: TrackPath, pictures: Floats, rng: np.random.Generator
) -> list[tuple[float, Floats | None]]:
    """When something is said, and the vector it brings: `first`, perhaps one of a better crop, updates, `end`."""
    began_s, ended_s = float(path.times[0]), float(path.times[-1])
    sayings: list[tuple[float, Floats | None]] = [(min(began_s + 0.6, ended_s), pictures[0])]
    better_s = began_s + rng.uniform(1.6, 3.0)
    if len(pictures) > 1 and rng.random() < 0.5 and better_s < ended_s:
        sayings.append((better_s, pictures[1]))
    period_s, told_s, stood_s = FIRST_PERIOD_S, sayings[-1][0], 0.0
    while (told_s := told_s + period_s) < ended_s:
        sayings.append((told_s, None))
        stood_s += period_s
        period_s = min(2 * period_s, LONGEST_PERIOD_S) if stood_s < stay.stopped_s else FIRST_PERIOD_S
    return [*sayings, (ended_s, mean_picture(pictures))]


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)


def made_up_site(traffic: Traffic, database: str, matcher: MatcherConfig) -> SiteConfig:
    """The site file that such a network would have; links are left for the matcher to learn."""
    cameras = tuple(
        CameraConfig(id=view.camera, url=f"{view.camera}.mp4", modality=view.modality) for view in traffic.roads.views
    )
    return SiteConfig(site=SITE, regions=(REGION,), cameras=cameras, database=database, matcher=matcher)
