"""Questions about the site itself: its cameras, and how they are doing."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from fastapi import APIRouter
from pydantic import Field

from storage.accounts import Role
from storage.status import load_camera_status, load_cameras
from web.api.paging import Page
from web.api.parameters import GivenServices, Viewer
from web.api.problems import told
from web.api.schemas import Answer, CameraName, at

if TYPE_CHECKING:
    from storage.records import CameraRecord, CameraStatus
    from web.callers import Caller

router = APIRouter(tags=["site"])


class Site(Answer):
    """What is watched."""

    site: str = Field(description="Its name.", examples=["demo"])
    time_zone: str = Field(description="In which people there read times.", examples=["Europe/Berlin"])
    cameras: int = Field(description="How many of its cameras the caller may see.", ge=0, examples=[4])


class State(Answer):
    """How a camera was doing when it last said so. Counts are since the program started."""

    updated_at: datetime = at("When it said so.")
    state: str = Field(description="What it is doing, in a word.", examples=["running"])
    modality: str = Field(description="The band it sees now.", examples=["visible"])
    fps: float = Field(description="Frames decoded a second, of late.", examples=[25.0])
    decoded: int = Field(description="Frames decoded.", ge=0)
    dropped: int = Field(description="Frames lost because nobody took them in time.", ge=0)
    reconnects: int = Field(description="Times the source was opened again.", ge=0)
    tracklets: int = Field(description="Tracklets begun.", ge=0)
    last_frame_at: datetime | None = Field(
        description="Capture time of the last frame, UTC; null before the first.", examples=["2026-01-01T12:00:00Z"]
    )
    health: str = Field(description="`ok`, or what is wrong with the picture; empty: not looked at.", examples=["ok"])
    message: str | None = Field(
        description="The last thing that went wrong, or nothing; null to viewers: it may name addresses.",
        examples=[""],
    )


class CameraOfSite(Answer):
    """A camera."""

    camera: CameraName
    region: str = Field(description="The region it stands in.", examples=["main"])
    modality: str = Field(description="The band it sees; `auto`: it changes between day and night.", examples=["auto"])
    x: float | None = Field(description="On the site plan, in its pixels, or null.", examples=[70.0])
    y: float | None = Field(description="As `x`.", examples=[182.5])
    lat: float | None = Field(description="Latitude in degrees, or null.", examples=[48.1])
    lon: float | None = Field(description="Longitude in degrees, or null.", examples=[11.5])
    state: State | None = Field(description="Null where it has not said anything yet.")


@router.get("/site", responses=told())
def site(services: GivenServices, caller: Viewer) -> Site:
    """What this program answers for."""
    with services.asking(caller, "site") as session:
        known = [record for record in load_cameras(session) if caller.sees(record.camera)]
    return Site(site=services.site.site, time_zone=services.site.time_zone, cameras=len(known))


@router.get("/cameras", responses=told())
def cameras(services: GivenServices, caller: Viewer) -> Page[CameraOfSite]:
    """All cameras that were ever registered, by id, and how each one is doing."""
    with services.asking(caller, "cameras") as session:
        known = [record for record in load_cameras(session) if caller.sees(record.camera)]
        states = {status.camera: status for status in load_camera_status(session)}
    return Page(items=[_camera(caller, record, states.get(record.camera)) for record in known])


def _camera(caller: Caller, record: CameraRecord, status: CameraStatus | None) -> CameraOfSite:
    state = None if status is None else State.model_validate(status)
    if state is not None and not caller.may(Role.OPERATOR):
        state = state.model_copy(update={"message": None})
    return CameraOfSite(
        camera=record.camera,
        region=record.region,
        modality=record.modality,
        x=record.x,
        y=record.y,
        lat=record.lat,
        lon=record.lon,
        state=state,
    )
