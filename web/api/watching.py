"""Vehicles that somebody waits for, and their returns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from storage import watches as book
from web import watch_desk
from web.api.bounded import BoundedRoute
from web.api.paging import Page, behind, cut, decode
from web.api.parameters import MAX_NUMBER, GivenServices, Note, Operator, Paged, VehicleName, Viewer
from web.api.problems import told
from web.api.schemas import Answer, CameraName, Crops, TrackletName, at, crops
from web.api.schemas import VehicleName as VehicleAnswered

if TYPE_CHECKING:
    from storage.watches import Notice, Watch
    from web.services import Services

router = APIRouter(tags=["watching"], route_class=BoundedRoute)

WatchNumber = Annotated[int, Path(description="The watch's number.", ge=1, le=MAX_NUMBER, examples=[3])]


class WatchList(Paged):
    """Which watches."""

    ended: bool = Field(default=False, description="Also what is watched no longer.")


class NoticeList(Paged):
    """Which returns."""

    watch_id: int | None = Field(None, ge=1, le=MAX_NUMBER, description="Only of this watch.", examples=[3])


class Wanted(BaseModel):
    """Whom to wait for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vehicle_id: VehicleName = Field(description="Its id, or the beginning of it.")
    note: Note


class WatchKept(Answer):
    """A vehicle that is waited for."""

    watch_id: int = Field(description="Its number.", ge=1, examples=[3])
    vehicle_id: VehicleAnswered
    made_by: str = Field(description="Who waits.", examples=["anna"])
    made_at: datetime = at("Since when, by the clock.")
    note: str = Field(description="Why, in that person's words.", examples=["left without paying"])
    ended_at: datetime | None = Field(description="When it ended, UTC; null while it goes on.")
    last_seen: datetime | None = Field(description="The last frame of the vehicle's newest tracklet, UTC, or null.")
    last_camera: str | None = Field(description="Where that was, or null.", examples=["cam1_rgb"])
    notices: int = Field(description="How often it returned; a correction counts once.", ge=0, examples=[1])
    crops: Crops


class NoticeGiven(Answer):
    """A watched vehicle's return."""

    notice_id: int = Field(description="Its number; later ones are higher.", ge=1, examples=[5])
    watch_id: int = Field(description="The watch.", ge=1, examples=[3])
    vehicle_id: VehicleAnswered
    tracklet_id: TrackletName
    camera: CameraName
    seen_at: datetime = at("Its first frame there.")
    made_at: datetime = at("When it was found, by the clock.")
    attempts: int = Field(description="How often telling it has failed.", ge=0, examples=[0])
    delivered_at: datetime | None = Field(description="When everybody had been told, UTC; null: not yet.")
    tracklets: int = Field(
        description="How many became the vehicle's own together, of which this was seen last: more than one where a "
        "correction gave them.",
        ge=1,
        examples=[1],
    )
    error: str = Field(description="Of the last attempt that failed; empty without one.", examples=[""])


@router.get("/watches", responses=told())
def watches(services: GivenServices, caller: Viewer, asked: Annotated[WatchList, Query()]) -> Page[WatchKept]:
    """What is watched, the newest first; returns and sights at the cameras that the caller may see."""

    def key(watch: Watch) -> tuple[int]:
        return (-watch.watch_id,)

    after = decode("watches", (int,), asked.cursor)
    with services.asking(caller, "watches", "", **asked.told()) as session:
        found = book.watches(session, ended=asked.ended, visible=caller.cameras)
    return cut(
        behind(found, asked.limit, after, key), asked.limit, "watches", key, lambda watch: _watch(services, watch)
    )


@router.post("/watches", status_code=201, responses=told(404, 409, 411))
def watch(services: GivenServices, caller: Operator, wanted: Wanted) -> WatchKept:
    """Waits for a vehicle from now on."""
    return _watch(services, watch_desk.start(services, caller, wanted.vehicle_id, datetime.now(UTC), note=wanted.note))


@router.delete("/watches/{watch_id}", status_code=204, responses=told(404, 409))
def unwatch(services: GivenServices, caller: Operator, watch_id: WatchNumber) -> None:
    """Waits no longer. What was found until now stays to be read."""
    watch_desk.end(services, caller, watch_id, datetime.now(UTC))


@router.get("/notices", responses=told())
def notices(services: GivenServices, caller: Viewer, asked: Annotated[NoticeList, Query()]) -> Page[NoticeGiven]:
    """Returns of watched vehicles, the latest first."""

    def key(notice: Notice) -> tuple[int]:
        return (notice.notice_id,)

    before = decode("notices", (int,), asked.cursor)
    with services.asking(caller, "notices", "", **asked.told()) as session:
        found = book.notices(
            session,
            watch_id=asked.watch_id,
            before=None if before is None else before[0],
            limit=asked.limit + 1,
            visible=caller.cameras,
        )
    return cut(found, asked.limit, "notices", key, NoticeGiven.model_validate)


def _watch(services: Services, watch: Watch) -> WatchKept:
    return WatchKept(
        watch_id=watch.watch_id,
        vehicle_id=watch.vehicle_id,
        made_by=watch.made_by,
        made_at=watch.made_at,
        note=watch.note,
        ended_at=watch.ended_at,
        last_seen=watch.last_seen,
        last_camera=watch.last_camera,
        notices=watch.notices,
        crops=crops(services, watch.crop_images),
    )
