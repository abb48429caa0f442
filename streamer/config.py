"""The site file: what a site is, checked once, at start.

Unknown keys are refused; every error names the key, the value and what is wanted. `${NAME}` in any value is replaced
from the environment. Paths are relative to the file.
"""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from reid.modality import Modality

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
MASK = "***"


class ConfigError(Exception):
    """The site file can't be used. The message has one line per fault, each naming file, key, value and wish."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Pixel = tuple[float, float]


class Position(_Section):
    """Where a camera stands: on the site plan (`x`, `y`, in the plan's pixels) or on the earth (`lat`, `lon`)."""

    x: float | None = None
    y: float | None = None
    lat: Annotated[float, Field(ge=-90, le=90)] | None = None
    lon: Annotated[float, Field(ge=-180, le=180)] | None = None

    @model_validator(mode="after")
    def _one_frame(self) -> Self:
        plan, earth = (self.x, self.y), (self.lat, self.lon)
        if (None in plan) == (None in earth):
            raise ValueError("give x and y, or lat and lon")
        return self


class CameraConfig(_Section):
    """One camera.

    `url` is an rtsp://, http(s):// or tcp:// address, a video file, or an image sequence (`thermal/%06d.tiff`).
    `start_time` dates the first frame of a file; without it the file's own creation time is taken, else its mtime.
    """

    id: Identifier
    url: Annotated[str, Field(min_length=1)]
    modality: Modality | Literal["auto"] = "auto"
    region: Identifier | None = None
    position: Position | None = None
    start_time: AwareDatetime | None = None
    #: Polygons in source pixels; a vehicle whose box's bottom centre lies inside one is not followed.
    ignore: tuple[Annotated[tuple[Pixel, ...], Field(min_length=3)], ...] = ()
    #: Boxes lower than this, in source pixels, are not followed.
    min_box_height_px: Annotated[int, Field(ge=1)] = 16
    #: Weights for this camera alone; otherwise `detector.weights_by_modality`, otherwise `detector.weights`.
    detector: str | None = None
    #: Frame rate of an image sequence, which carries none of its own.
    fps: PositiveFloat | None = None
    hwaccel: str | None = None
    transport: Literal["tcp", "udp"] = "tcp"

    @property
    def is_live(self) -> bool:
        """Whether frames that nobody takes in time are lost: everything with a scheme but file://."""
        return "://" in self.url and not self.url.startswith("file://")


class LinkConfig(_Section):
    """Travel between two cameras, either way: seconds from leaving one view to entering the other.

    `min_s: 0` says that the views may overlap.
    """

    between: tuple[Identifier, Identifier]
    min_s: Annotated[float, Field(ge=0)] = 0.0
    max_s: PositiveFloat

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_s <= self.min_s:
            raise ValueError(f"max_s must exceed min_s, got {self.max_s:g} and {self.min_s:g}")
        if self.between[0] == self.between[1]:
            raise ValueError(f"a link needs two cameras, got {self.between[0]} twice")
        return self


class SourceConfig(_Section):
    """How streams are opened, read and reopened."""

    open_timeout_s: PositiveFloat = 10.0
    read_timeout_s: PositiveFloat = 5.0
    reconnect_min_s: PositiveFloat = 0.5
    reconnect_max_s: PositiveFloat = 30.0
    #: Decoded frames that wait for the detector, per camera. Live sources drop the oldest, files wait.
    queue_frames: PositiveInt = 4


class DetectorConfig(_Section):
    """Which network finds vehicles, and when it runs."""

    #: A file or folder that Ultralytics can load; `yolo11n.pt` and other hub names need `allow_download`.
    weights: str = str(WEIGHTS / "yolo11n-vehicles_int8_openvino_model")
    weights_by_modality: dict[Modality, str] = {}
    #: Height and width in pixels of the network's input, multiples of 32; None: 384 x 640, which fits 16:9, or what an
    #: exported network was made for.
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    confidence: Fraction = 0.1
    iou: Fraction = 0.6
    device: str | None = None
    batch_size: PositiveInt = 4
    motion_gate: bool = True
    allow_download: bool = False


class TrackerConfig(_Section):
    """When a vehicle that is no longer detected has left."""

    max_seconds_lost: PositiveFloat = 2.0


class CropsConfig(_Section):
    """Which pictures of a tracklet are embedded."""

    min_height_px: PositiveInt = 24
    min_interval_s: PositiveFloat = 1.0
    #: A later crop replaces the best one when its quality is this many times as high.
    better_by: Annotated[float, Field(gt=1)] = 1.15
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 85
    context_width_px: PositiveInt = 960


class EmbedderConfig(_Section):
    """The network that describes vehicles, and how its batches form."""

    weights: str = str(WEIGHTS / "porsche-small_openvino_model")
    device: str | None = None
    #: Average each vector with that of the mirrored picture, at twice the time.
    mirrored: bool = False
    #: Store the points that a point matcher compares beside a tracklet's vectors, where the network has one.
    tokens: bool = False
    batch_size: PositiveInt = 16
    max_wait_s: PositiveFloat = 0.05
    #: Crops that wait in a camera worker; beyond it the oldest of a live camera is dropped and counted.
    queue_crops: PositiveInt = 256
    #: How long a camera worker waits for one answer before it reconnects and asks again.
    reply_timeout_s: PositiveFloat = 10.0
    #: How often a crop is asked for before it is dropped and counted.
    attempts: PositiveInt = 3


class KafkaConfig(_Section):
    """A Kafka cluster between edge and matcher."""

    bootstrap_servers: tuple[str, ...]
    topic: str = "sightings"
    dead_topic: str = "sightings.dead"
    #: Every decision on whose a tracklet is, the corrections too.
    identities_topic: str = "identities"
    group: str = "matcher"
    partitions: PositiveInt = 8
    replication: PositiveInt = 1
    delivery_timeout_s: PositiveFloat = 30.0
    request_timeout_s: PositiveFloat = 10.0
    session_timeout_s: PositiveFloat = 10.0
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: Annotated[str | None, Field(repr=False)] = None
    ssl_cafile: str | None = None


class OutboxConfig(_Section):
    """The on-disk queue between the edge and the bus. With `bus: memory` it is the bus."""

    #: Default: beside a SQLite database, else beside the site file, named after the site.
    path: Path | None = None
    max_bytes: PositiveInt = 1 << 30


class MatcherConfig(_Section):
    """How tracklets become vehicles. Every time is event time."""

    #: Tracklets that end within such a window are decided together: longer is better, and later.
    settle_s: PositiveFloat = 3.0
    #: A camera that says nothing for this long no longer holds the others back.
    camera_silence_s: PositiveFloat = 30.0
    #: Longest stay in a view on the way between two cameras that no link joins directly.
    dwell_s: PositiveFloat = 30.0
    #: A vehicle not seen for this long is no longer a candidate.
    time_to_live_s: PositiveFloat = 3600.0
    #: At most so many vehicles are held; those longest unseen are forgotten first.
    max_identities: PositiveInt = 200_000
    #: Nobody is faster: keeps cameras of which `position` gives lat and lon apart, where no links are given.
    max_speed_kmh: PositiveFloat = 200.0
    #: How long after it was last seen a vehicle is expected anywhere by its way; later, its looks alone must do.
    reach_s: PositiveFloat = 600.0
    #: Share of the tracklets that are vehicles come back from beyond reach; shared by all that might.
    return_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    #: Vehicles beyond reach that are weighed for each tracklet.
    returning: PositiveInt = 3
    #: Vehicles weighed for each tracklet, per pair of bands: those that look most like it.
    candidates: PositiveInt = 10
    #: Where two vehicles fit, one must beat the other by so much, in nats, or the tracklet is kept apart.
    min_margin: Annotated[float, Field(ge=0)] = 1.0
    #: What is less clear than this, in nats, waits longer than its window, by so many seconds at most.
    hold_margin: Annotated[float, Field(ge=0)] = 4.0
    hold_s: Annotated[float, Field(ge=0)] = 12.0
    #: Every so many seconds of event time, what was decided in the last `look_back_s` is looked at again; 0: never.
    second_look_s: Annotated[float, Field(ge=0)] = 60.0
    look_back_s: PositiveFloat = 600.0
    #: What similarity says, per pair of modalities; belongs to the embedder's weights.
    calibration: str = str(WEIGHTS / "porsche-small.calibration.json")
    #: Whether what a similarity says is fitted to the site as it runs, from pairs that are sure without a look. Such
    #: pairs of one vehicle need views that overlap; without, it stays as shipped.
    self_calibration: bool = True
    #: Added to the log-odds of every pair of different cameras: above 0 links more, below 0 splits more.
    prior_log_odds: float = 0.5
    #: Log-odds of two tracklets of different cameras, where times and places are not used.
    unknown_log_odds: float = -2.0
    #: Switches for measuring what each kind of evidence gives.
    use_appearance: bool = True
    use_class: bool = True
    use_transit: bool = True


class SiteConfig(_Section):
    """A whole site. Defaults make a file of ten lines run."""

    site: Identifier
    cameras: Annotated[tuple[CameraConfig, ...], Field(min_length=1)]
    database: str
    crops_dir: Path = Path("crops")
    regions: Annotated[tuple[Identifier, ...], Field(min_length=1)] = ("main",)
    links: tuple[LinkConfig, ...] | None = None
    #: Camera worker processes; cameras are dealt to them in turn.
    workers: PositiveInt = 1
    source: SourceConfig = SourceConfig()
    detector: DetectorConfig = DetectorConfig()
    tracker: TrackerConfig = TrackerConfig()
    crops: CropsConfig = CropsConfig()
    embedder: EmbedderConfig = EmbedderConfig()
    bus: Literal["memory"] | KafkaConfig = "memory"
    outbox: OutboxConfig = OutboxConfig()
    matcher: MatcherConfig = MatcherConfig()
    status_period_s: PositiveFloat = 2.0

    @field_validator("database")
    @classmethod
    def _is_shared(cls, url: str) -> str:
        if url.startswith("sqlite:") and url.removeprefix("sqlite:").strip("/") in ("", ":memory:"):
            raise ValueError("a site runs in several processes, which share no database in memory; wanted a file")
        return url

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        regions = {camera.id: self.region_of(camera) for camera in self.cameras}
        if len(regions) != len(self.cameras):
            ids = [camera.id for camera in self.cameras]
            twice = sorted({name for name in ids if ids.count(name) > 1})
            raise ValueError(f"cameras: each id must be unique, got twice: {', '.join(twice)}")
        for name, region in regions.items():
            if region not in self.regions:
                raise ValueError(f"cameras: {name}: region {region!r} is not among regions {list(self.regions)}")
        for link in self.links or ():
            _check_link(link, regions)
        return self

    def region_of(self, camera: CameraConfig) -> str:
        """A camera's region: its own, else the site's first."""
        return camera.region or self.regions[0]

    def camera(self, camera_id: str) -> CameraConfig:
        """The camera of that id; KeyError where there is none."""
        for camera in self.cameras:
            if camera.id == camera_id:
                return camera
        raise KeyError(camera_id)

    @property
    def outbox_path(self) -> Path:
        """The outbox file: as configured, else beside a SQLite database, else named after the site."""
        if self.outbox.path is not None:
            return self.outbox.path
        if self.database.startswith("sqlite:///"):
            return Path(self.database.removeprefix("sqlite:///")).with_suffix(".outbox.db")
        return Path(f"{self.site}.outbox.db")


def _check_link(link: LinkConfig, regions: dict[str, str]) -> None:
    for end in link.between:
        if end not in regions:
            raise ValueError(f"links: {end!r} is not a camera of this site ({', '.join(regions)})")
    first, second = link.between
    if regions[first] != regions[second]:
        raise ValueError(
            f"links: {first} and {second} lie in different regions ({regions[first]}, {regions[second]}); "
            "vehicles are linked within a region only"
        )


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _substitute(value: Any, environment: dict[str, str], where: str) -> Any:  # noqa: ANN401 - YAML is untyped
    if isinstance(value, dict):
        return {
            key: _substitute(item, environment, f"{where}.{key}" if where else str(key)) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_substitute(item, environment, f"{where}.{index}") for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environment:
            raise ConfigError(f"{where}: ${{{name}}} is not set in the environment")
        return environment[name]

    return _VARIABLE.sub(replace, value)


def _absolute(path: str, folder: Path) -> str:
    return str((folder / path).resolve())


def _resolve_paths(site: SiteConfig, folder: Path) -> SiteConfig:
    """Makes every path that the file gives relative absolute, against the file's folder."""

    def weights(name: str) -> str:
        # A bare hub name such as yolo11n.pt stays as it is unless such a file lies beside the site file.
        local = (folder / name).resolve()
        return str(local) if local.exists() or "/" in name else name

    def camera(entry: CameraConfig) -> CameraConfig:
        path = entry.url.removeprefix("file://")
        changed = {} if entry.is_live else {"url": _absolute(path, folder)}
        if entry.detector is not None:
            changed["detector"] = weights(entry.detector)
        return entry.model_copy(update=changed)

    database = site.database
    if database.startswith("sqlite:///"):
        database = f"sqlite:///{_absolute(database.removeprefix('sqlite:///'), folder)}"
    detector = site.detector.model_copy(
        update={
            "weights": weights(site.detector.weights),
            "weights_by_modality": {key: weights(value) for key, value in site.detector.weights_by_modality.items()},
        }
    )
    outbox_path = site.outbox.path or (None if database.startswith("sqlite:///") else Path(f"{site.site}.outbox.db"))
    if outbox_path is not None:
        outbox_path = (folder / outbox_path).resolve()
    return site.model_copy(
        update={
            "cameras": tuple(camera(entry) for entry in site.cameras),
            "database": database,
            "crops_dir": (folder / site.crops_dir).resolve(),
            "detector": detector,
            "embedder": site.embedder.model_copy(update={"weights": weights(site.embedder.weights)}),
            "matcher": site.matcher.model_copy(update={"calibration": weights(site.matcher.calibration)}),
            "outbox": site.outbox.model_copy(update={"path": outbox_path}),
        }
    )


def _faults(error: ValidationError, document: dict[str, Any]) -> list[str]:
    """One line per key at fault: the key, what is wanted, what was given."""
    faults = [(_key_path(fault, document), fault) for fault in error.errors()]
    paths = {path for path, _ in faults}
    by_path: dict[tuple[str, ...], list[Any]] = {}
    for path, fault in faults:
        # `bus: {typo: 1}` also fails to be the word "memory"; what matters is the key inside.
        if not any(other != path and other[: len(path)] == path for other in paths if path):
            by_path.setdefault(path, []).append(fault)
    return [_fault(".".join(path), group) for path, group in by_path.items()]


def _key_path(fault: Any, document: Any) -> tuple[str, ...]:  # noqa: ANN401 - pydantic's ErrorDetails, YAML
    """The key at fault as the file has it: pydantic adds the names of a union's alternatives, which are no keys."""
    path: list[str] = []
    for part in fault["loc"]:
        is_key = part in document if isinstance(document, dict) else isinstance(document, list)
        if is_key:
            document = document[part]
        if is_key or (fault["type"] == "missing" and isinstance(document, dict) and part == fault["loc"][-1]):
            path.append(str(part))
    return tuple(path)


def _fault(where: str, group: list[Any]) -> str:
    wishes = [_wish(fault) for fault in group]
    message = " or ".join([wishes[0], *(wish.removeprefix("wanted ") for wish in wishes[1:])])
    if not where:
        return message
    given = group[0]["input"]
    # A check over several keys names them and their values itself.
    says_all = group[0]["type"] == "missing" or (group[0]["type"] == "value_error" and isinstance(given, dict))
    return f"{where}: {message}" if says_all else f"{where}: {message} (got {_shown(given)})"


def _shown(given: Any) -> str:  # noqa: ANN401 - whatever the file holds
    if isinstance(given, dict | _Section):
        return "a mapping"
    if isinstance(given, list | tuple):
        return f"a list of {len(given)}"
    return str(given) if isinstance(given, date) else mask(repr(given))


#: Where pydantic speaks of Python's types rather than of what to write.
_WISHES = {
    "extra_forbidden": "unknown key",
    "missing": "missing, and has no default",
    "string_type": "wanted text",
    "tuple_type": "wanted a list",
    "dict_type": "wanted a mapping",
    "model_type": "wanted a mapping",
    "model_attributes_type": "wanted a mapping",
    "timezone_aware": "wanted a time zone, as in 2026-01-01T12:00:00Z",
}


def _wish(fault: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    if fault["type"] in _WISHES:
        return _WISHES[fault["type"]]
    if fault["type"] == "string_pattern_mismatch":
        return f"wanted text that matches {fault['ctx']['pattern']}"
    if fault["type"] == "too_short":
        return f"wanted at least {fault['ctx']['min_length']}"
    message: str = fault["msg"].removeprefix("Value error, ")
    return message.replace("Input should be ", "wanted ", 1)


def load_site(path: Path | str, environment: dict[str, str] | None = None) -> SiteConfig:
    """Reads and checks a site file.

    Args:
        path: The YAML file.
        environment: Where `${NAME}` comes from; the process's own by default.

    Raises:
        ConfigError: The file is missing, is no YAML mapping, or has a fault; one line per fault.
    """
    path = Path(path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: wanted a mapping with site, database and cameras, got {type(document).__name__}")
    try:
        values = _substitute(document, dict(os.environ) if environment is None else environment, "")
        site = SiteConfig.model_validate(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in _faults(error, values))) from error
    return _resolve_paths(site, path.resolve().parent)


# A password may hold @, : or / unescaped, since the video library takes such an address: all up to the last @ goes.
_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^:/@\s]*):[^\s]*@", re.IGNORECASE)
_QUERY_SECRET = re.compile(r"(?P<key>[?&](?:password|passwd|pass|pwd|token)=)[^&\s]*", re.IGNORECASE)


def mask(text: str) -> str:
    """The text with every password in an address replaced by `***`: `scheme://user:password@host`, `?pwd=`."""
    return _QUERY_SECRET.sub(rf"\g<key>{MASK}", _USERINFO.sub(rf"\g<scheme>\g<user>:{MASK}@", text))
