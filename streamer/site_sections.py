"""The parts of a site file, each with its defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from reid.modality import Modality

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


class Section(BaseModel):
    """A part of the site file: unknown keys are refused, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Pixel = tuple[float, float]


class Position(Section):
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


class CameraConfig(Section):
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


class LinkConfig(Section):
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


class SourceConfig(Section):
    """How streams are opened, read and reopened."""

    open_timeout_s: PositiveFloat = 10.0
    read_timeout_s: PositiveFloat = 5.0
    reconnect_min_s: PositiveFloat = 0.5
    #: A camera that returns is seen again within 10 s: at the worst it comes back as this pause begins. A dead one
    #: costs a refused connection each time, which is nothing even for a hundred.
    reconnect_max_s: PositiveFloat = 5.0
    #: Decoded frames that wait for the detector, per camera. Live sources drop the oldest, files wait.
    queue_frames: PositiveInt = 4
    #: How far a camera's own clock may be from this machine's before it is believed no more.
    max_clock_skew_s: PositiveFloat = 10.0
    #: What is done with a camera whose clock is further off: `correct` dates its frames by their arrival, `refuse`
    #: takes none of them until its clock is right.
    clock_skew: Literal["correct", "refuse"] = "correct"


class DetectorConfig(Section):
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


class TrackerConfig(Section):
    """When a vehicle that is no longer detected has left."""

    max_seconds_lost: PositiveFloat = 2.0


class CropsConfig(Section):
    """Which pictures of a tracklet are embedded."""

    min_height_px: PositiveInt = 24
    min_interval_s: PositiveFloat = 1.0
    #: A later crop replaces the best one when its quality is this many times as high.
    better_by: Annotated[float, Field(gt=1)] = 1.15
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 85
    context_width_px: PositiveInt = 960


class EmbedderConfig(Section):
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


class KafkaConfig(Section):
    """A Kafka cluster between edge and matcher."""

    bootstrap_servers: tuple[str, ...]
    topic: str = "sightings"
    dead_topic: str = "sightings.dead"
    #: Every decision on whose a tracklet is, the corrections too.
    identities_topic: str = "identities"
    group: str = "matcher"
    partitions: PositiveInt = 8
    replication: PositiveInt = 1
    #: How long the broker keeps sightings and identities, and messages that could not be read; for topics that this
    #: program creates.
    retention_days: PositiveFloat = 7.0
    dead_retention_days: PositiveFloat = 30.0
    delivery_timeout_s: PositiveFloat = 30.0
    request_timeout_s: PositiveFloat = 10.0
    session_timeout_s: PositiveFloat = 10.0
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: Annotated[str | None, Field(repr=False)] = None
    ssl_cafile: str | None = None
    #: A client's own certificate and key, where the broker asks for one.
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len({self.topic, self.dead_topic, self.identities_topic}) < 3:
            raise ValueError(
                f"topic, dead_topic and identities_topic must differ, got {self.topic}, {self.dead_topic}, "
                f"{self.identities_topic}"
            )
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile belong together, got one of them")
        if self.security_protocol.startswith("SASL") and self.sasl_mechanism is None:
            raise ValueError(f"security_protocol {self.security_protocol} wants a sasl_mechanism")
        return self


class OutboxConfig(Section):
    """The on-disk queue between the edge and the bus. With `bus: memory` it is the bus."""

    #: Default: beside a SQLite database, else beside the site file, named after the site.
    path: Path | None = None
    max_bytes: PositiveInt = 1 << 30
    #: Messages that have waited longer are dropped and counted; None: they wait until there is no room.
    max_age_days: PositiveFloat | None = 7.0


class MatcherConfig(Section):
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


class SupervisorConfig(Section):
    """How processes are watched over."""

    #: From SIGTERM to the end: tracklets ended, published, matched and stored. What is left waits in the outbox.
    drain_timeout_s: PositiveFloat = 45.0
    #: A worker that dies so often in a row, without holding out a minute, is given up, and the program ends with an
    #: error; 0: it is started again for ever.
    max_deaths: Annotated[int, Field(ge=0)] = 20


class MetricsConfig(Section):
    """`/healthz`, `/readyz` and Prometheus' `/metrics` over HTTP."""

    host: str = "127.0.0.1"
    #: None: nothing listens.
    port: Annotated[int, Field(ge=0, le=65535)] | None = None


class RetentionConfig(Section):
    """How long things are kept, in days of event time; None: for ever. What a legal hold names is kept anyway.

    Removed by whoever runs the matcher, of sites with live cameras; docs/privacy.md says what goes when.
    """

    #: Pictures: crops and context pictures.
    crops_days: PositiveFloat | None = 30.0
    #: Vectors and points: later questions by likeness, and re-matching, need them.
    embeddings_days: PositiveFloat | None = 90.0
    #: Tracklets with their paths and decisions, and vehicles that have no tracklet left.
    tracklets_days: PositiveFloat | None = 365.0
    #: Who asked what.
    audit_days: PositiveFloat | None = 730.0
    #: Between two looks.
    period_s: PositiveFloat = 3600.0
    #: Tracklets per transaction.
    batch: PositiveInt = 500


class PrivacyConfig(Section):
    """What pictures show."""

    #: Blur, before a picture leaves the camera worker, where windows and plates are; docs/privacy.md says what that
    #: covers.
    blur: bool = False


class CameraHealthConfig(Section):
    """When a camera's picture can't be trusted. A trouble is told once it has lasted `persist_s`, and so is its end."""

    enabled: bool = True
    #: Between two looks at a camera's picture.
    period_s: PositiveFloat = 1.0
    persist_s: PositiveFloat = 10.0
    #: A folder with a reference frame per camera (`<camera id>.png`), to tell a camera that was moved; made by
    #: `python -m streamer reference`. None: the first good minute of a session is the reference.
    references: Path | None = None


class PlanConfig(Section):
    """What the page draws ways on."""

    #: A picture of the site from above (PNG, JPEG, SVG or WebP); `position: {x, y}` of cameras are pixels of it.
    image: Path | None = None
    #: Streets and buildings, longitude and latitude, for cameras with `position: {lat, lon}`.
    geojson: Path | None = None
    #: Map tiles from elsewhere, such as https://tile.example.org/{z}/{x}/{y}.png. None: no request leaves this host.
    tiles: str | None = None


class MqttConfig(Section):
    """A broker that is told when a watched vehicle returns."""

    host: Annotated[str, Field(pattern=r"^\S+$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    topic: Annotated[str, Field(pattern=r"^[^#+\x00]+$")] = "vehicles/returned"
    username: str | None = None
    password: Annotated[str | None, Field(repr=False)] = None
    tls: bool = False


class WatchConfig(Section):
    """Who is told when a watched vehicle returns; nobody beside the page by default."""

    #: An address that is sent each notice as JSON by POST.
    webhook: Annotated[str | None, Field(repr=False)] = None
    #: Where given, each notice carries `X-Signature`: HMAC-SHA256 of its body, hexadecimal.
    webhook_secret: Annotated[str | None, Field(repr=False)] = None
    mqtt: MqttConfig | None = None
    #: Between two looks at what the matcher has decided.
    period_s: PositiveFloat = 2.0

    @field_validator("webhook")
    @classmethod
    def _can_be_posted_to(cls, address: str | None) -> str | None:
        try:
            parts = urlsplit(address or "https://nobody")
            is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_whole = False
        if not is_whole or not re.fullmatch(r"[!-~]*", address or ""):
            raise ValueError("wanted https://HOST[:PORT]/PATH, other letters than ASCII's written %C3%BC")
        return address


class WebConfig(Section):
    """The page and the HTTP API, as `python -m web` serves them."""

    #: Names that the page is reached by, beside this machine's own; a request for any other is refused.
    hosts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    plan: PlanConfig = PlanConfig()
    watch: WatchConfig = WatchConfig()
    #: How long a login lasts.
    session_hours: PositiveFloat = 12.0
    #: How long the address of a picture or a clip is good for.
    link_minutes: PositiveFloat = 10.0
    max_upload_bytes: PositiveInt = 8 << 20
    max_upload_pixels: PositiveInt = 25_000_000
    #: Longest clip that is cut from a film.
    max_clip_s: PositiveFloat = 60.0
