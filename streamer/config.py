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
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from streamer.site_sections import (
    WEIGHTS,
    CameraConfig,
    CameraHealthConfig,
    CropsConfig,
    DetectorConfig,
    EmbedderConfig,
    Identifier,
    KafkaConfig,
    LinkConfig,
    MatcherConfig,
    MetricsConfig,
    MqttConfig,
    OutboxConfig,
    PlanConfig,
    Position,
    PrivacyConfig,
    RetentionConfig,
    Section,
    SourceConfig,
    SupervisorConfig,
    TrackerConfig,
    WatchConfig,
    WebConfig,
)

__all__ = [
    "MASK",
    "WEIGHTS",
    "CameraConfig",
    "CameraHealthConfig",
    "ConfigError",
    "CropsConfig",
    "DetectorConfig",
    "EmbedderConfig",
    "KafkaConfig",
    "LinkConfig",
    "MatcherConfig",
    "MetricsConfig",
    "MqttConfig",
    "OutboxConfig",
    "PlanConfig",
    "Position",
    "PrivacyConfig",
    "RetentionConfig",
    "SiteConfig",
    "SourceConfig",
    "SupervisorConfig",
    "TrackerConfig",
    "WatchConfig",
    "WebConfig",
    "load_site",
    "mask",
]

MASK = "***"


class ConfigError(Exception):
    """The site file can't be used. The message has one line per fault, each naming file, key, value and wish."""


class SiteConfig(Section):
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
    supervisor: SupervisorConfig = SupervisorConfig()
    metrics: MetricsConfig = MetricsConfig()
    retention: RetentionConfig = RetentionConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    camera_health: CameraHealthConfig = CameraHealthConfig()
    web: WebConfig = WebConfig()
    status_period_s: PositiveFloat = 2.0
    #: In which people read times, such as Europe/Berlin.
    time_zone: str = "UTC"

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("wanted a time zone such as Europe/Berlin") from error
        return name

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
    references = site.camera_health.references
    plan = site.web.plan
    drawn = {"image": plan.image, "geojson": plan.geojson}
    drawn = {name: path and (folder / path).resolve() for name, path in drawn.items()}
    return site.model_copy(
        update={
            "cameras": tuple(camera(entry) for entry in site.cameras),
            "database": database,
            "crops_dir": (folder / site.crops_dir).resolve(),
            "detector": detector,
            "embedder": site.embedder.model_copy(update={"weights": weights(site.embedder.weights)}),
            "matcher": site.matcher.model_copy(update={"calibration": weights(site.matcher.calibration)}),
            "outbox": site.outbox.model_copy(update={"path": outbox_path}),
            "camera_health": site.camera_health.model_copy(
                update={"references": references and (folder / references).resolve()}
            ),
            "web": site.web.model_copy(update={"plan": plan.model_copy(update=drawn)}),
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
    # A password that was written without quotes, and is a number to YAML, is no text to find one in.
    shown = MASK if re.search("passw|secret", where) else _shown(given)
    return f"{where}: {message}" if says_all else f"{where}: {message} (got {shown})"


def _shown(given: Any) -> str:  # noqa: ANN401 - whatever the file holds
    if isinstance(given, dict | Section):
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
