"""A list of vehicles as the page asks for it: filters from an address, one part at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from reid.modality import Modality
from storage.errors import StorageError
from storage.trajectories import VehicleSummary, count_vehicles, vehicles
from web import wording

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from web.callers import Caller
    from web.services import Services

#: Rows that are read at a time.
PART = 50


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


def how_many(services: Services, caller: Caller, filters: Filters) -> int:
    """How many vehicles the list has."""
    with services.asking(caller, "vehicles", **_noted(filters)) as session:
        return count_vehicles(session, **filters.as_arguments, visible=caller.cameras)


def part(services: Services, caller: Caller, filters: Filters, number: int) -> list[dict[str, Any]]:
    """The rows of one part of the list, latest first.

    Args:
        services: The database.
        caller: Who asks.
        filters: What the list is of.
        number: From 0; a part has `PART` rows.

    Returns:
        Of each vehicle what its row shows, all of it plain text and addresses.
    """
    with services.asking(caller, "vehicles", part=number, **_noted(filters)) as session:
        found = vehicles(
            session,
            **filters.as_arguments,
            newest_first=True,
            offset=number * PART,
            limit=PART,
            visible=caller.cameras,
        )
    return [row(services, one) for one in found]


def row(services: Services, one: VehicleSummary) -> dict[str, Any]:
    """What the list shows of a vehicle."""
    first, last = (moment.astimezone(services.zone) for moment in (one.first_seen, one.last_seen))
    until = "%H:%M:%S" if first.date() == last.date() else "%Y-%m-%d %H:%M:%S"
    return {
        "id": one.vehicle_id,
        "href": f"/vehicles/{quote(one.vehicle_id, safe='')}",
        "name": f"{one.vehicle_class} {one.vehicle_id[:8]}",
        "when": f"{first:%Y-%m-%d %H:%M:%S} to {last.strftime(until)}",
        "cameras": " → ".join(one.cameras),
        "stops": f"{one.tracklets} stop{'s' if one.tracklets != 1 else ''}",
        "pictures": [
            {"src": services.links.picture(image), "band": wording.band(band)}
            for band, image in sorted(one.crop_images.items())
        ],
        "bands": ", ".join(wording.band(band) for band in one.modalities),
    }


def _noted(filters: Filters) -> dict[str, str]:
    return {name: str(value) for name, value in filters.as_arguments.items() if value is not None}
