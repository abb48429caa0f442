"""One vehicle's way as the page tells it: each stop beside the one that it was compared with, and where it stood."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image

from storage.errors import StorageError, VehicleNotFoundError
from storage.looks import Look, looks_of_vehicle
from storage.records import MATCHER
from storage.trajectories import Stop, Trajectory, trajectory
from storage.watch_heirs import inheritances
from web import wording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from web.callers import Caller
    from web.services import Services

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Hop:
    """A stop, and what made it this vehicle's.

    Attributes:
        stop: The stop.
        other: The stop of the same vehicle that it was compared with; None: it is the first, or the other is not shown.
        similarity: Cosine of the two looks; None where it isn't told.
        box: Where the vehicle stands in the context picture, xyxy as shares of its width and height; None: not known.
    """

    stop: Stop
    other: Stop | None
    similarity: float | None
    box: Box | None

    @property
    def reason(self) -> str:
        """Why it is this vehicle's, in a sentence."""
        said = wording.reason(self.stop.reason)
        if self.stop.decided_by != MATCHER:
            return f"{said} It is {self.stop.decided_by}'s word."
        return f"{said} It may still change by itself." if self.stop.is_provisional else said


@dataclass(frozen=True, slots=True)
class Way:
    """All of it.

    Attributes:
        trajectory: The stops by arrival.
        hops: Of the latest stops, one each.
    """

    trajectory: Trajectory
    hops: tuple[Hop, ...]


def way_of(services: Services, caller: Caller, vehicle_id: str, *, at: str = "", latest: int | None = None) -> Way:
    """The way of that vehicle, or of the only one whose id begins so; noted.

    Args:
        services: The site's.
        caller: Who asks.
        vehicle_id: The vehicle.
        at: A tracklet whose stop is to be among the hops.
        latest: Hops of so many stops, or from that tracklet on; None: of all.

    Raises:
        VehicleNotFoundError: None, or several.
    """
    with services.asking(caller, "trajectory", vehicle_id) as session:
        found = trajectory(session, vehicle_id, visible=caller.cameras)
        looks = looks_of_vehicle(session, found.vehicle_id)
    by_id = {stop.tracklet_id: stop for stop in found.stops}
    begin = 0 if latest is None else max(len(found.stops) - latest, 0)
    begin = min([begin, *(number for number, stop in enumerate(found.stops) if stop.tracklet_id == at)])
    hops = []
    for stop in found.stops[begin:]:
        candidate = _chosen(stop, found.vehicle_id)
        other = by_id.get(str(candidate.get("tracklet_id")))
        similarity = candidate.get("similarity")
        hops.append(
            Hop(
                stop,
                None if other is stop else other,
                float(similarity) if isinstance(similarity, int | float) else None,
                _box(services, stop, looks.get(stop.tracklet_id, ())),
            )
        )
    return Way(found, tuple(hops))


def way_of_heir(services: Services, caller: Caller, vehicle_id: str, *, at: str = "", latest: int | None = None) -> Way:
    """As `way_of`; of a vehicle whose stops have been given to others, the way of the one that has them now."""
    try:
        return way_of(services, caller, vehicle_id, at=at, latest=latest)
    except VehicleNotFoundError:
        with services.database.snapshot() as session:
            heir = inheritances(session, [vehicle_id], visible=caller.cameras).get(vehicle_id)
        if heir is None:
            raise
        return way_of(services, caller, heir, at=at, latest=latest)


def _chosen(stop: Stop, vehicle_id: str) -> dict[str, Any]:
    """What the decision says of the vehicle that was taken; where a correction has renamed it, of the best."""
    told = stop.evidence.get("candidates")
    weighed = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    own = [one for one in weighed if one.get("vehicle_id") == vehicle_id]
    return own[0] if own else weighed[0] if weighed and stop.score is not None else {}


def _box(services: Services, stop: Stop, looks: Sequence[Look]) -> Box | None:
    """Where it stands in its context picture, if that can be known.

    The picture is the frame of the last crop that was so much better than the best before it. It is as large as the
    source's frame unless it has just the width that larger ones are shrunk to: then nothing here tells the scale.
    """
    if stop.context_image is None or not looks:
        return None
    shown = looks[0]
    for look in looks[1:]:
        if look.quality >= shown.quality * services.site.crops.better_by:
            shown = look
    try:
        with Image.open(BytesIO(services.crops.load(stop.context_image))) as picture:
            width, height = picture.size
    except (StorageError, OSError):
        return None
    if width >= services.site.crops.context_width_px:
        return None
    x1, y1, x2, y2 = shown.box
    return x1 / width, y1 / height, x2 / width, y2 / height
