"""Questions about vehicles: which passed, and where each one went."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from storage import trajectories
from storage.tables import geojson, places
from web.api import schemas
from web.api.paging import Page, cut, decode
from web.api.parameters import GivenServices, Paged, Question, Seen, VehicleId, Viewer
from web.api.problems import told

if TYPE_CHECKING:
    from storage.answers import VehicleSummary

router = APIRouter(tags=["vehicles"])


class GeoJson(JSONResponse):
    """What maps read."""

    media_type = "application/geo+json"


class VehicleFilter(Seen):
    """Which vehicles are meant."""

    min_cameras: int = Field(1, ge=1, le=1000, description="Only vehicles that this many cameras saw.")


class VehicleList(VehicleFilter, Paged):
    """Which vehicles, in which order."""

    newest_first: bool = Field(default=False, description="By the last sight, latest first; else by the first sight.")


class TrajectoryDetail(Question):
    """How much is told of a vehicle's way."""

    path: bool = Field(default=False, description="Whether to give the box of every frame, which may be many.")


class Counted(BaseModel):
    """How many there are."""

    count: int = Field(description="How many vehicles.", ge=0, examples=[24])


@router.get("/vehicles", responses=told())
def vehicles(services: GivenServices, caller: Viewer, asked: Annotated[VehicleList, Query()]) -> Page[schemas.Vehicle]:
    """Vehicles by their first sight, or the latest first; of each, everything it did, also outside the window."""
    question = "vehicles, newest first" if asked.newest_first else "vehicles"

    def key(summary: VehicleSummary) -> tuple[datetime, str]:
        return (summary.last_seen if asked.newest_first else summary.first_seen, summary.vehicle_id)

    after = decode(question, (datetime, str), asked.cursor)
    with services.asking(caller, "vehicles", "", **asked.told()) as session:
        found = trajectories.vehicles(
            session,
            start=asked.start,
            end=asked.end,
            camera=asked.camera,
            min_cameras=asked.min_cameras,
            vehicle_class=asked.vehicle_class,
            modality=asked.modality,
            newest_first=asked.newest_first,
            after=None if after is None else (after[0], after[1]),
            limit=asked.limit + 1,
            visible=caller.cameras,
        )
    return cut(found, asked.limit, question, key, lambda summary: schemas.vehicle(services, summary))


@router.get("/vehicles/count", responses=told())
def count_vehicles(services: GivenServices, caller: Viewer, asked: Annotated[VehicleFilter, Query()]) -> Counted:
    """How many vehicles `/v1/vehicles` would list in all."""
    with services.asking(caller, "count", "", **asked.told()) as session:
        count = trajectories.count_vehicles(
            session,
            start=asked.start,
            end=asked.end,
            camera=asked.camera,
            min_cameras=asked.min_cameras,
            vehicle_class=asked.vehicle_class,
            modality=asked.modality,
            visible=caller.cameras,
        )
    return Counted(count=count)


@router.get("/vehicles/{vehicle_id}/trajectory", responses=told(404))
def trajectory(
    services: GivenServices, caller: Viewer, vehicle_id: VehicleId, asked: Annotated[TrajectoryDetail, Query()]
) -> schemas.TrajectoryOfVehicle:
    """Where a vehicle went, camera by camera, and how sure each hop is."""
    with services.asking(caller, "trajectory", vehicle_id, **asked.told()) as session:
        found = trajectories.trajectory(session, vehicle_id, visible=caller.cameras)
    return schemas.trajectory(services, found, with_path=asked.path)


@router.get(
    "/vehicles/{vehicle_id}/trajectory.geojson",
    response_class=GeoJson,
    responses={
        **told(404, 409),
        200: {
            "description": "A FeatureCollection (RFC 7946) of one vehicle: a LineString through its cameras, a Point "
            "where it passed but one; `arrivals`, `departures` and `probabilities` are as long as its coordinates.",
            "content": {GeoJson.media_type: {"schema": {"type": "object"}}},
        },
    },
)
def trajectory_geojson(services: GivenServices, caller: Viewer, vehicle_id: VehicleId) -> Response:
    """Where a vehicle went, to be drawn on a map; of sites whose cameras are placed by latitude and longitude."""
    with services.asking(caller, "trajectory", vehicle_id, form="geojson") as session:
        found = trajectories.trajectory(session, vehicle_id, visible=caller.cameras)
        known = places(session)
    for stop in found.stops:
        if stop.camera not in known:
            raise HTTPException(409, f"camera {stop.camera} has no latitude and longitude in the site file")
    return GeoJson(geojson([found], known))
