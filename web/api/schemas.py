"""What vehicles, their stops and cameras look like in an answer."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.answers import Stop, Trajectory, VehicleSummary
    from storage.paths import PathPoints
    from web.services import Services

VEHICLE = "034a91fd-66c7-5d06-a49a-4d5efd9ca25f"
TRACKLET = "cam1_rgb/e046dd09da58/1"
PICTURE = "/media/pictures/cam1_rgb/1.jpg?expires=1767272400&signature=0a1b"

VehicleName = Annotated[str, Field(description="The vehicle's id.", examples=[VEHICLE])]
TrackletName = Annotated[str, Field(description="The tracklet's id.", examples=[TRACKLET])]
CameraName = Annotated[str, Field(description="The camera's id.", examples=["cam1_rgb"])]
ClassName = Annotated[str, Field(description="By vote of its frames.", examples=["car"])]
Crops = Annotated[
    dict[str, str],
    Field(
        description="Addresses of the best crop of each band; good for some minutes, for whoever has them.",
        examples=[{"visible": PICTURE}],
    ),
]
Probability = Annotated[
    float | None,
    Field(description="Of the link, 0-1; null where nothing was linked.", ge=0, le=1, examples=[0.93]),
]


def at(description: str, example: str = "2026-01-01T12:00:00Z") -> datetime:
    """A field with a moment, aware UTC, ISO 8601."""
    field: datetime = Field(description=f"{description} UTC.", examples=[example])
    return field


class Answer(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Vehicle(Answer):
    """A vehicle in a list."""

    vehicle_id: VehicleName
    vehicle_class: ClassName
    first_seen: datetime = at("First frame of its first tracklet.")
    last_seen: datetime = at("Last frame of its last tracklet.")
    cameras: list[str] = Field(description="Those it passed, in the order of the first visits.", examples=[["gate"]])
    tracklets: int = Field(description="How many it has.", ge=1, examples=[3])
    modalities: list[str] = Field(description="The bands it was seen in.", examples=[["thermal", "visible"]])
    crops: Crops


class PathOfBoxes(Answer):
    """Where a vehicle was, frame by frame; the lists are of one length."""

    frame: list[int] = Field(description="Index of the decoded source frame.", examples=[[10, 11]])
    seconds: list[float] = Field(description="Since the stop's arrival.", examples=[[0.0, 0.04]])
    box: list[tuple[float, float, float, float]] = Field(
        description="x1, y1, x2, y2 in source pixels; x2 and y2 are the first outside.",
        examples=[[(10.0, 20.0, 110.0, 90.0), (12.0, 20.0, 112.0, 90.0)]],
    )


class StopOfVehicle(Answer):
    """A vehicle's stay in one camera's view, and how sure it is that it was this vehicle."""

    tracklet_id: TrackletName
    camera: CameraName
    arrival: datetime = at("First frame.")
    departure: datetime = at("Last frame, so far.")
    end_reason: str | None = Field(description="Why it ended; null while it goes on.", examples=["lost"])
    modalities: list[str] = Field(description="The bands its crops were taken in.", examples=[["visible"]])
    reason: str = Field(description="Why it was linked, in a word.", examples=["linked"])
    is_provisional: bool = Field(description="Whether that may still change by itself.")
    score: float | None = Field(description="Log-odds of the link; null where nothing was linked.", examples=[2.6])
    probability: Probability
    margin: float | None = Field(
        description="By how much the score beat the next best candidate's; null without one.", examples=[1.4]
    )
    modality_pair: str | None = Field(
        description="The two bands compared; null where nothing was linked.", examples=["near_infrared~visible"]
    )
    transit_s: float | None = Field(
        description="Seconds from the camera before; below 0 while both saw it; null where nothing was linked.",
        examples=[5.8],
    )
    decided_by: str = Field(description="Whose word it is: `matcher`, or a person's name.", examples=["matcher"])
    camera_trouble: str | None = Field(
        description="What was wrong with the camera's picture meanwhile, or null.", examples=["covered"]
    )
    crops: Crops
    context: str | None = Field(description="Where the picture of its scene is found, or null.", examples=[PICTURE])
    clip: str | None = Field(
        description="Where its film is found, if the camera's source is a video file and pictures aren't blurred; "
        "cut when it is asked for.",
        examples=["/media/clips/cam1_rgb/e046dd09da58/1?expires=1767272400&signature=0a1b"],
    )
    path: PathOfBoxes | None = Field(default=None, description="Only where it was asked for.")


class TrajectoryOfVehicle(Answer):
    """Where a vehicle went."""

    vehicle_id: VehicleName
    vehicle_class: ClassName
    first_seen: datetime = at("First frame of its first stop.")
    last_seen: datetime = at("Last frame of its last stop.")
    stops: list[StopOfVehicle] = Field(description="By arrival.")


def crops(services: Services, images: Mapping[str, str]) -> dict[str, str]:
    """Addresses of crops, by band, of their paths below the crop store."""
    return {modality: services.links.picture(image) for modality, image in images.items()}


def vehicle(services: Services, summary: VehicleSummary) -> Vehicle:
    """A row of a list of vehicles."""
    return Vehicle(
        vehicle_id=summary.vehicle_id,
        vehicle_class=summary.vehicle_class,
        first_seen=summary.first_seen,
        last_seen=summary.last_seen,
        cameras=list(summary.cameras),
        tracklets=summary.tracklets,
        modalities=list(summary.modalities),
        crops=crops(services, summary.crop_images),
    )


def trajectory(services: Services, found: Trajectory, *, with_path: bool) -> TrajectoryOfVehicle:
    """Where a vehicle went, with every box where that is asked for."""
    return TrajectoryOfVehicle(
        vehicle_id=found.vehicle_id,
        vehicle_class=found.vehicle_class,
        first_seen=found.first_seen,
        last_seen=found.last_seen,
        stops=[_stop(services, stop, with_path=with_path) for stop in found.stops],
    )


def _stop(services: Services, stop: Stop, *, with_path: bool) -> StopOfVehicle:
    return StopOfVehicle(
        tracklet_id=stop.tracklet_id,
        camera=stop.camera,
        arrival=stop.arrival,
        departure=stop.departure,
        end_reason=stop.end_reason,
        modalities=list(stop.modalities),
        reason=stop.reason,
        is_provisional=stop.is_provisional,
        score=stop.score,
        probability=stop.probability,
        margin=stop.margin,
        modality_pair=stop.modality_pair,
        transit_s=stop.transit_s,
        decided_by=stop.decided_by,
        camera_trouble=stop.camera_trouble,
        crops=crops(services, stop.crop_images),
        context=None if stop.context_image is None else services.links.picture(stop.context_image),
        clip=services.links.clip(stop.tracklet_id) if services.clips.has(stop.tracklet_id, stop.camera) else None,
        path=_path(stop.path, stop.arrival) if with_path else None,
    )


def _path(points: PathPoints, arrival: datetime) -> PathOfBoxes:
    return PathOfBoxes(
        frame=points.frames.tolist(),
        seconds=[round(time - arrival.timestamp(), 6) for time in points.times.tolist()],
        box=points.boxes.tolist(),
    )
