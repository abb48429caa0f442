"""A list of vehicles as the page asks for it: filters from an address, frozen when opened, read one part at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from reid.modality import Modality
from storage.errors import StorageError
from storage.trajectories import VehicleSummary, count_vehicles, latest_vehicles, vehicles
from web import addresses, wording

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from web.callers import Caller
    from web.services import Services

#: Rows that are read at a time.
PART = 50
#: More rows than this are taller than browsers draw; nobody scrolls to them: the filters are the way there.
MAX_ROWS = 150_000


class FilterError(StorageError):
    """An address names a filter that can't be read."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which vehicles are wanted.

    Attributes:
        start: In view at this moment or later, aware; None: ever.
        end: In view before this moment, aware; None: ever.
        camera: Seen by this camera; None: by any.
        vehicle_class: Of this class; None: of any.
        modality: Seen in this band; None: in any.
        min_cameras: Seen by so many cameras.
    """

    start: datetime | None = None
    end: datetime | None = None
    camera: str | None = None
    vehicle_class: str | None = None
    modality: str | None = None
    min_cameras: int = 1

    @property
    def as_arguments(self) -> dict[str, Any]:
        """As `storage.trajectories` takes them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def address(self) -> str:
        """Where the list is found that they make; times without a zone are the site's."""
        said = {name: value for name, value in self.as_arguments.items() if value is not None}
        for name in ("start", "end"):
            if name in said:
                said[name] = said[name].replace(tzinfo=None).isoformat()
        if self.min_cameras == 1:
            said.pop("min_cameras")
        return "/vehicles" + ("?" + urlencode(said) if said else "")


def filters_of(query: dict[str, str], zone: ZoneInfo) -> Filters:
    """The filters that an address or a form names; what is empty is none.

    Args:
        query: By the names of `Filters`.
        zone: Of times that name no zone.

    Raises:
        FilterError: One of them can't be read.
    """
    said = {name: value.strip() for name, value in query.items() if value and value.strip()}
    modality = said.get("modality")
    if modality is not None and modality not in set(Modality):
        raise FilterError(f"band: {modality!r} is none; wanted {', '.join(Modality)}")
    wanted = said.get("min_cameras", "1")
    if not (wanted.isascii() and wanted.isdigit() and 1 <= int(wanted[:9]) <= 1000):
        raise FilterError(f"cameras: {wanted!r} is no number from 1 to 1000")
    start, end = (_moment(said.get(name), name, zone) for name in ("start", "end"))
    if start and end and start >= end:
        raise FilterError("the time ends before it begins")
    return Filters(start, end, said.get("camera"), said.get("vehicle_class"), modality, int(wanted))


def _moment(text: str | None, name: str, zone: ZoneInfo) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=zone) if found.tzinfo is None else found.astimezone(zone)
    except (ValueError, OverflowError) as error:
        raise FilterError(f"{name}: {text!r} is no date and time") from error


@dataclass(frozen=True, slots=True)
class Listed:
    """Which vehicles there were when the list was opened: it stays so, however many come while somebody reads it.

    Attributes:
        filters: What it is of.
        ids: Latest first, `MAX_ROWS` at most.
        seen_at: When the first of them was last seen; None: there is none.
    """

    filters: Filters
    ids: list[str]
    seen_at: datetime | None


def opened(services: Services, caller: Caller, filters: Filters) -> Listed:
    """The list as it stands now."""
    with services.asking(caller, "vehicles", **_noted(filters)) as session:
        ids = latest_vehicles(session, **filters.as_arguments, limit=MAX_ROWS, visible=caller.cameras)
        first = vehicles(session, among=ids[:1], visible=caller.cameras)
    return Listed(filters, ids, first[0].last_seen if first else None)


def newer(services: Services, caller: Caller, listed: Listed) -> int:
    """How many of the filters' vehicles were seen since; not noted, since who has a list open follows it.

    Raises:
        EndedError: The caller's login has ended, or their rights have changed.
    """
    filters = listed.filters
    if listed.seen_at is not None:
        start = listed.seen_at + timedelta(microseconds=1)
        filters = replace(filters, start=start if filters.start is None else max(start, filters.start))
    with services.following(caller) as session:
        if filters.start is not None and filters.end is not None and filters.start >= filters.end:
            return 0
        return count_vehicles(session, **filters.as_arguments, visible=caller.cameras)


def part(services: Services, caller: Caller, listed: Listed, number: int) -> list[dict[str, Any]]:
    """The rows of one part of the list.

    Args:
        services: The database.
        caller: Who asks.
        listed: The list.
        number: From 0; a part has `PART` rows.

    Returns:
        Of each vehicle what its row shows, all of it plain text and addresses; of one that is gone, that it is.
    """
    ids = listed.ids[number * PART : (number + 1) * PART]
    with services.asking(caller, "vehicles", part=number, **_noted(listed.filters)) as session:
        found = {one.vehicle_id: one for one in vehicles(session, among=ids, visible=caller.cameras)}
    return [row(services, found[name]) if name in found else _gone(name) for name in ids]


def row(services: Services, one: VehicleSummary) -> dict[str, Any]:
    """What the list shows of a vehicle."""
    return {
        "id": one.vehicle_id,
        "href": addresses.vehicle(one.vehicle_id),
        "name": f"{one.vehicle_class} {one.vehicle_id[:8]}",
        "when": wording.span(one.first_seen, one.last_seen, services.zone),
        "cameras": " → ".join(one.cameras),
        "told": f"{wording.stops(one.tracklets)} · {', '.join(wording.band(band) for band in one.modalities)}",
        "pictures": [
            {"src": services.links.picture(image), "band": wording.band(band)}
            for band, image in sorted(one.crop_images.items())
        ],
    }


def _gone(vehicle_id: str) -> dict[str, Any]:
    told = "It has no stops any more: they were given to another vehicle, or removed."
    gone = {"id": vehicle_id, "href": addresses.vehicle(vehicle_id), "name": vehicle_id[:8], "when": told}
    return {**gone, "cameras": "", "told": "", "pictures": []}


def _noted(filters: Filters) -> dict[str, str]:
    return {name: str(value) for name, value in filters.as_arguments.items() if value is not None}
