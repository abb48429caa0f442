"""All identities of a run anew, from its stored sightings: another model, other settings, the same matcher.

Cameras, tracklets, sightings and embeddings are copied into a new database; who is who is decided there from scratch,
by the region's own code, in event time. What was said while a tracklet went on is not said again: it changes nothing
that is decided later. Then the two opinions are compared.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from reid.calibration import Calibration, load_calibration
from storage.database import Database
from storage.labels import said_pairs
from storage.matcher_state import load_learned, load_regions
from storage.records import CameraWatermark
from storage.replay import (
    carry_over,
    carry_over_site,
    count_tracklets,
    load_model_ids,
    load_pins,
    memberships,
    recorded_tracklets,
)
from storage.status import load_cameras
from storage.writer import Writer
from streamer.config import ConfigError, MatcherConfig, SiteConfig
from streamer.kept_corrections import keep_corrections
from streamer.matcher.linker import Linker
from streamer.matcher.recording import record_outcome
from streamer.matcher.region import Region
from streamer.matcher.roads import roads_of
from streamer.matcher.watermarks import Watermarks
from streamer.partitions import Difference, compare
from streamer.sightings import EndReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from storage.database import Session
    from storage.replay import RecordedTracklet
    from streamer.new_looks import NewLooks

#: Tracklets per transaction: enough to make the commit cheap, and few enough to hold in memory with all their crops.
PAGE = 64
#: The keys that play a part once tracklets are stored.
_SETTABLE = re.compile(r"links|matcher\.\w+")

#: What a matcher keeps of its cameras' sessions beside their watermarks, by name.
_OF_SESSIONS = ("sessions",)


class RematchError(Exception):
    """Identities can't be rebuilt; the text is one line."""


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild came to.

    Attributes:
        model_id: The embedder whose vectors were compared.
        tracklets: Copied and decided.
        closed: Those that the run had left open: decided as if they had ended where they were last seen.
        corrected: Decisions that a second look took back.
        kept: Tracklets that a person's word holds again.
        uncompared: Vectors that the calibration is not for.
        missing_crops: Crops that could not be embedded anew.
    """

    model_id: str
    tracklets: int = 0
    closed: int = 0
    corrected: int = 0
    kept: int = 0
    uncompared: int = 0
    missing_crops: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A rebuild beside the run that it was made from.

    Attributes:
        rebuilt: What was done.
        difference: Who is with whom, before and after.
    """

    rebuilt: Rebuilt
    difference: Difference


def rematch(
    source: str,
    target: str,
    site: SiteConfig,
    *,
    looks: NewLooks | None = None,
    keeps_corrections: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Rebuilds all identities of a finished run in a new database, and compares.

    The same sightings, model and settings give the same vehicles, names included, where nothing had come late. Crops
    stay where they are, and both databases name them. The new database's transactions hold `PAGE` tracklets each, so
    that a rebuild that breaks off leaves a part of it behind.

    Args:
        source: URL of the run's database; it is only read, but migrated if it is of an earlier version.
        target: URL of a database that holds nothing yet, or isn't there.
        site: Settings, of which `matcher`, `links` and the cameras' regions matter.
        looks: Describes tracklets anew; None takes the stored vectors.
        keeps_corrections: Whether what people had said holds again in the end; the matcher does not know of it before.
        on_progress: Told how many tracklets are done, of how many.

    Raises:
        RematchError: The source has no tracklets, the target has something, or no calibration is for the vectors.
        StorageError: A database can't be read or written.
        CalibrationError: The calibration can't be read.
    """
    with _opened(source, must_exist=True) as old, old.snapshot() as reading:
        total = count_tracklets(reading)
        if not total:
            raise RematchError(f"{old.name}: no tracklets to match")
        calibration = _calibration(site, [looks.model_id] if looks else load_model_ids(reading))
        with _opened(target) as new:
            rebuilder = _Rebuilder(site, calibration, reading, new, looks)
            rebuilder.begin()
            for name in load_regions(reading):
                for done in rebuilder.rebuild(name):
                    if on_progress is not None:
                        on_progress(done, total)
            if keeps_corrections:
                rebuilder.keep_corrections()
            with new.snapshot() as written:
                return Comparison(rebuilder.rebuilt, compare(memberships(reading), memberships(written)))


@contextmanager
def _opened(url: str, *, must_exist: bool = False) -> Iterator[Database]:
    database = Database.open(url, must_exist=must_exist)
    try:
        yield database
    finally:
        database.close()


def _calibration(site: SiteConfig, model_ids: Sequence[str]) -> Calibration:
    """The site's if it is for one of the vectors' networks, else the shipped one if that is."""
    shipped = MatcherConfig().calibration
    for path in dict.fromkeys((site.matcher.calibration, shipped)):
        calibration = load_calibration(Path(path))
        if calibration.model_id in model_ids or not model_ids:
            return calibration
    configured = load_calibration(Path(site.matcher.calibration))
    raise RematchError(
        f"matcher.calibration: {site.matcher.calibration} is for {configured.model_id}, "
        f"wanted one for {' or '.join(model_ids)}; python -m streamer.calibrate makes one"
    )


class _Rebuilder:
    """Copies and decides, a page at a time."""

    def __init__(
        self, site: SiteConfig, calibration: Calibration, source: Session, target: Database, looks: NewLooks | None
    ) -> None:
        self.rebuilt = Rebuilt(calibration.model_id)
        self._site, self._calibration, self._source, self._target = site, calibration, source, target
        self._looks = looks
        self._roads = roads_of(site)

    def begin(self) -> None:
        """Copies what is the site's.

        Raises:
            RematchError: The target has something.
        """
        with self._target.transaction() as session:
            if count_tracklets(session) or load_cameras(session):
                raise RematchError(f"{self._target.name}: holds something already; wanted a new database")
            carry_over_site(self._source, session)

    def rebuild(self, name: str) -> Iterator[int]:
        """Does one region; gives the number of tracklets done so far, of all regions, after each page."""
        config = self._site.matcher
        linker = Linker(config, roads=self._roads, calibration=self._calibration)
        region = Region(linker, Watermarks((), silence_s=config.camera_silence_s), self._calibration, config=config)
        last: datetime | None = None
        for page in recorded_tracklets(self._source, name, page=PAGE):
            with self._target.transaction() as session:
                described = self._described(page)
                carry_over(self._source, session, described)
                for tracklet in described:
                    last = tracklet.stored.tracklet.ended_at
                    self._end(tracklet, name, region, Writer(session))
            self.rebuilt.tracklets += len(page)
            yield self.rebuilt.tracklets
        if last is not None:
            region.restore((), {}, [_clock(last, is_finished=True)])
            with self._target.transaction() as session:
                self._settle(name, region, Writer(session))
                # Not of the vehicles, but of the cameras: what a matcher needs that goes on from here.
                heard = {key: value for key, value in load_learned(self._source, name).items() if key in _OF_SESSIONS}
                Writer(session).store_learned(name, heard, last)

    def keep_corrections(self) -> None:
        """Says again what people had said."""
        pins, said = load_pins(self._source), said_pairs(self._source)
        with self._target.transaction() as session:
            now = {one.tracklet_id: one.vehicle_id for one in memberships(session)}
            self.rebuilt.kept = keep_corrections(pins, said, now, Writer(session))

    def _described(self, page: list[RecordedTracklet]) -> list[RecordedTracklet]:
        if self._looks is None:
            return page
        described = self._looks.describe(page)
        self.rebuilt.missing_crops = self._looks.missing
        if self._looks.missing and not self._looks.described:
            raise RematchError(f"--crops: none of the first {self._looks.missing} crops is there, or is a picture")
        return described

    def _end(self, tracklet: RecordedTracklet, name: str, region: Region, writer: Writer) -> None:
        """Lets a tracklet end. All before it have ended already: its last moment is everybody's promise."""
        record = tracklet.stored.tracklet
        if record.end_reason is None:
            record = replace(record, end_reason=EndReason.SESSION_LOST.value)
            writer.store_sighting(record, None, ())
            self.rebuilt.closed += 1
        self.rebuilt.uncompared += sum(
            not self._calibration.knows(one.model_id, one.vector) for one in tracklet.embeddings
        )
        paths = {} if tracklet.path is None else {record.tracklet_id: tracklet.path}
        region.restore([replace(tracklet.stored, tracklet=record)], paths, [_clock(record.ended_at)])
        self._settle(name, region, writer)

    def _settle(self, name: str, region: Region, writer: Writer) -> None:
        if region.is_due():
            outcome = region.settle()
            record_outcome(outcome, name, region, writer, model_id=self._calibration.model_id)
            self.rebuilt.corrected += sum(len(correction.decisions) for correction in outcome.corrections)


def _clock(moment: datetime, *, is_finished: bool = False) -> CameraWatermark:
    """The promise of all cameras together: stored tracklets come in order, so that none need be waited for."""
    return CameraWatermark("", "", moment, is_finished)


def with_settings(site: SiteConfig, settings: Sequence[str]) -> SiteConfig:
    """The site with some keys changed.

    Args:
        site: As its file has it.
        settings: `matcher.settle_s=10`, `links=null`; the value is YAML. A path is relative to the working directory.

    Raises:
        ConfigError: No such key, one that plays no part here, or a value that isn't allowed.
    """
    document = site.model_dump()
    for setting in settings:
        key, is_given, text = setting.partition("=")
        if not is_given or not _SETTABLE.fullmatch(key):
            raise ConfigError(f"--set {setting}: wanted matcher.KEY=VALUE or links=VALUE")
        section, _, name = key.rpartition(".")
        keys: dict[str, Any] = document[section] if section else document
        try:
            keys[name] = yaml.safe_load(text)
            site = SiteConfig.model_validate(document)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting}: not YAML: {' '.join(str(error).split())}") from error
        except ValidationError as error:
            raise ConfigError(f"--set {setting}: {_wish(error)}") from error
    return site


def _wish(error: ValidationError) -> str:
    fault = error.errors()[0]
    if fault["type"] == "extra_forbidden":
        return "unknown key"
    return fault["msg"].removeprefix("Value error, ").replace("Input should be ", "wanted ", 1)
