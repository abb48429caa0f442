"""Questions about traffic: who passed two cameras, who travelled together, how long it takes, how many there were."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from storage import trajectories
from web.api.paging import Page, behind, cut, decode
from web.api.parameters import Camera, GivenServices, Paged, Seen, VehicleId, Viewer, Window
from web.api.problems import told
from web.api.schemas import Answer, CameraName, ClassName, VehicleName, at

if TYPE_CHECKING:
    from storage.trajectories import Companion, Count, DwellTime, JourneyTime, Passage

router = APIRouter(tags=["journeys"])

#: Of windows of counting, and of what counts as together or as one journey.
MIN_WINDOW_S, MAX_WINDOW_S = 1.0, 366 * 86400.0
#: Vehicles that leave a view in the same moment: a page begins with what left when the page before ended.
MAX_AT_ONCE = 1000
CLASS = Field(
    None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_ .-]{0,63}$", description="Only vehicles of this class.", examples=["car"]
)


class Way(Window, Paged):
    """From where to where, and how fast."""

    first: Camera = Field(description="The camera that it left.", examples=["cam1_rgb"])
    then: Camera = Field(description="The camera where it came into view afterwards.", examples=["cam3_rgb"])
    within_s: float = Field(
        description="At most so many seconds between leaving one view and entering the other.",
        ge=0,
        le=MAX_WINDOW_S,
        allow_inf_nan=False,
        examples=[60],
    )
    vehicle_class: str | None = CLASS


class Together(Paged):
    """What counts as travelling together."""

    within_s: float = Field(
        10.0,
        description="So many seconds apart, at most, at each camera.",
        ge=0,
        le=3600,
        allow_inf_nan=False,
        examples=[10],
    )
    min_cameras: int = Field(2, description="At so many cameras at least.", ge=1, le=1000)


class Times(Window, Paged):
    """Whose journeys."""

    vehicle_class: str | None = CLASS


class Stays(Times):
    """Whose stays, and where."""

    camera: Camera | None = Field(None, description="Only at this camera.", examples=["cam1_rgb"])


class Counting(Seen, Paged):
    """What is counted, and in which steps."""

    every_s: float = Field(
        3600.0,
        description="Seconds of one count; they begin at whole multiples of it since 1970.",
        ge=MIN_WINDOW_S,
        le=MAX_WINDOW_S,
        allow_inf_nan=False,
        examples=[3600],
    )


class PassageOfVehicle(Answer):
    """A vehicle that passed one camera, then another."""

    vehicle_id: VehicleName
    vehicle_class: ClassName
    first: CameraName
    then: CameraName
    departed_at: datetime = at("When it left the first one's view.")
    arrived_at: datetime = at("When it came into the other one's view.", "2026-01-01T12:00:09Z")
    travel_s: float = Field(description="Seconds between these.", examples=[9.0])
    probability: float | None = Field(
        description="That it was the same vehicle, as the link says, 0-1; null where nothing was linked.",
        ge=0,
        le=1,
        examples=[0.93],
    )


class CompanionOfVehicle(Answer):
    """A vehicle that was seen at the same cameras at about the same times."""

    vehicle_id: VehicleName
    vehicle_class: ClassName
    cameras: list[str] = Field(description="Where they were seen together.", examples=[["cam1_rgb", "cam3_rgb"]])
    meetings: int = Field(description="How often they were.", ge=1, examples=[2])
    largest_gap_s: float = Field(description="Seconds between them, at the most.", ge=0, examples=[4.2])
    first_at: datetime = at("When they were first seen together.")
    last_at: datetime = at("When they last were.", "2026-01-01T12:00:12Z")


class Dwell(Answer):
    """How long vehicles stay in a camera's view, in seconds."""

    camera: CameraName
    visits: int = Field(description="How many stays.", ge=1, examples=[12])
    median_s: float = Field(description="Half of them were no longer.", examples=[6.1])
    mean_s: float = Field(description="Their mean.", examples=[6.4])
    p85_s: float = Field(description="85 of 100 were no longer.", examples=[8.0])
    p95_s: float = Field(description="95 of 100 were no longer.", examples=[9.5])
    longest_s: float = Field(description="The longest.", examples=[11.0])


class Journey(Answer):
    """How long vehicles take from one camera to the next that sees them, in seconds."""

    first: CameraName
    then: CameraName
    journeys: int = Field(description="How many.", ge=1, examples=[8])
    fastest_s: float = Field(
        description="The fastest; below 0 where a vehicle came into view before it had left the other.", examples=[4.4]
    )
    median_s: float = Field(description="Half of them took no longer.", examples=[5.0])
    mean_s: float = Field(description="Their mean.", examples=[5.2])
    p85_s: float = Field(description="85 of 100 took no longer.", examples=[6.0])
    p95_s: float = Field(description="95 of 100 took no longer.", examples=[6.8])


class CountOfVehicles(Answer):
    """How many vehicles of a class a camera saw in a while."""

    start: datetime = at("When that while begins.")
    camera: CameraName
    vehicle_class: ClassName
    vehicles: int = Field(description="How many different ones.", ge=1, examples=[17])


@router.get("/passages", responses=told())
def passages(services: GivenServices, caller: Viewer, asked: Annotated[Way, Query()]) -> Page[PassageOfVehicle]:
    """Vehicles that left one camera's view and came into another's within a time, by their departure."""

    def key(passage: Passage) -> tuple[datetime, datetime, str]:
        return passage.departed_at, passage.arrived_at, passage.vehicle_id

    after = decode("passages", (datetime, datetime, str), asked.cursor)
    with services.asking(caller, "passed", "", **asked.told()) as session:
        found = trajectories.passages(
            session,
            asked.first,
            asked.then,
            within_s=asked.within_s,
            start=_later(asked.start, after),
            end=asked.end,
            vehicle_class=asked.vehicle_class,
            limit=asked.limit + 1 + MAX_AT_ONCE,
            visible=caller.cameras,
        )
    return cut(behind(found, asked.limit, after, key), asked.limit, "passages", key, PassageOfVehicle.model_validate)


@router.get("/vehicles/{vehicle_id}/companions", responses=told(404))
def companions(
    services: GivenServices, caller: Viewer, vehicle_id: VehicleId, asked: Annotated[Together, Query()]
) -> Page[CompanionOfVehicle]:
    """Vehicles that were seen with this one at several cameras; those seen at most cameras first."""

    def key(companion: Companion) -> tuple[int, int, float, str]:
        return -len(companion.cameras), -companion.meetings, companion.largest_gap_s, companion.vehicle_id

    after = decode("companions", (int, int, float, str), asked.cursor)
    with services.asking(caller, "companions", vehicle_id, **asked.told()) as session:
        found = trajectories.companions(
            session,
            vehicle_id,
            within_s=asked.within_s,
            min_cameras=asked.min_cameras,
            visible=caller.cameras,
        )
    return cut(
        behind(found, asked.limit, after, key), asked.limit, "companions", key, CompanionOfVehicle.model_validate
    )


@router.get("/dwell-times", responses=told())
def dwell_times(services: GivenServices, caller: Viewer, asked: Annotated[Stays, Query()]) -> Page[Dwell]:
    """How long vehicles stay in each camera's view, by camera."""

    def key(dwell: DwellTime) -> tuple[str]:
        return (dwell.camera,)

    after = decode("dwell-times", (str,), asked.cursor)
    with services.asking(caller, "dwell", "", **asked.told()) as session:
        found = trajectories.dwell_times(
            session,
            camera=asked.camera,
            vehicle_class=asked.vehicle_class,
            start=asked.start,
            end=asked.end,
            visible=caller.cameras,
        )
    return cut(behind(found, asked.limit, after, key), asked.limit, "dwell-times", key, Dwell.model_validate)


@router.get("/journey-times", responses=told())
def journey_times(services: GivenServices, caller: Viewer, asked: Annotated[Times, Query()]) -> Page[Journey]:
    """How long vehicles take from each camera to the next one that sees them, by the cameras."""

    def key(journey: JourneyTime) -> tuple[str, str]:
        return journey.first, journey.then

    after = decode("journey-times", (str, str), asked.cursor)
    with services.asking(caller, "journeys", "", **asked.told()) as session:
        found = trajectories.journey_times(
            session,
            start=asked.start,
            end=asked.end,
            vehicle_class=asked.vehicle_class,
            visible=caller.cameras,
        )
    return cut(behind(found, asked.limit, after, key), asked.limit, "journey-times", key, Journey.model_validate)


@router.get("/counts", responses=told())
def counts(services: GivenServices, caller: Viewer, asked: Annotated[Counting, Query()]) -> Page[CountOfVehicles]:
    """How many vehicles each camera saw, by time, camera and class."""

    def key(count: Count) -> tuple[datetime, str, str]:
        return count.start, count.camera, count.vehicle_class

    after = decode("counts", (datetime, str, str), asked.cursor)
    with services.asking(caller, "counts", "", **asked.told()) as session:
        found = trajectories.counts(
            session,
            every_s=asked.every_s,
            camera=asked.camera,
            vehicle_class=asked.vehicle_class,
            modality=asked.modality,
            start=_later(asked.start, after),
            end=asked.end,
            visible=caller.cameras,
        )
    return cut(behind(found, asked.limit, after, key), asked.limit, "counts", key, CountOfVehicles.model_validate)


def _later(start: datetime | None, after: tuple[Any, ...] | None) -> datetime | None:
    """From when on to look: what the pages before had is not read again."""
    if after is None:
        return start
    seen: datetime = after[0]
    return seen if start is None else max(start, seen)
