"""Questions about decisions, and people's own: why a tracklet is whose it is, what is doubtful, what was corrected."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ConfigDict, Field

from storage import corrections as desk
from storage import review as doubts
from storage.explanation import explain, in_words
from storage.history import corrections as book
from web.api import explained
from web.api.bounded import BoundedRoute
from web.api.paging import Page, cut, decode
from web.api.parameters import (
    MAX_PAGE,
    CorrectionNumber,
    GivenServices,
    Note,
    Operator,
    Paged,
    Question,
    TrackletId,
    TrackletName,
    VehicleName,
    Viewer,
)
from web.api.problems import told
from web.api.schemas import Answer, CameraName, Crops, at, crops

if TYPE_CHECKING:
    from storage.database import Session
    from storage.review import DoubtfulLink
    from web.services import Services

router = APIRouter(tags=["decisions"], route_class=BoundedRoute)
#: Tracklets that one correction may name.
MAX_TRACKLETS = 500
Tracklets = Annotated[list[TrackletName], Field(min_length=1, max_length=MAX_TRACKLETS)]


class Doubts(Question):
    """How many."""

    limit: int = Field(50, ge=1, le=MAX_PAGE, description="At most so many.")


class Doubt(Answer):
    """A link that may be wrong, or one that was not made and may be missing."""

    kind: str = Field(description="`link`, or `near miss`: it was kept apart.", examples=["link"])
    tracklet_id: str = Field(description="The tracklet in doubt.", examples=["cam1_rgb/e046dd09da58/1"])
    vehicle_id: str = Field(description="Whose it is now.")
    camera: CameraName
    started_at: datetime = at("First frame.")
    ended_at: datetime = at("Last frame.")
    probability: float | None = Field(description="That the two are one, 0-1.", ge=0, le=1, examples=[0.52])
    margin: float | None = Field(description="Log-odds ahead of the next candidate; null without one.", examples=[0.4])
    modality_pair: str | None = Field(description="The bands compared.", examples=["thermal~visible"])
    reason: str = Field(description="In a word.", examples=["linked"])
    crops: Crops
    other_tracklet_id: str | None = Field(description="What it was compared with.")
    other_vehicle_id: str | None = Field(description="Whose that is.")
    other_camera: str | None = Field(description="Where that was seen.")
    other_started_at: datetime | None = Field(description="When, UTC.")
    other_crops: Crops


class Corrections(Paged):
    """Which corrections."""

    people_only: bool = Field(default=False, description="Leave out what the matcher's second look did.")


class _Deed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    note: Note


class Merge(_Deed):
    """Two vehicles are one."""

    kind: Literal["merge"]
    keep: VehicleName = Field(description="The vehicle that remains.")
    other: VehicleName = Field(description="The one whose tracklets it is given.")


class Split(_Deed):
    """Some tracklets of a vehicle are another one."""

    kind: Literal["split"]
    tracklets: Tracklets = Field(description="They leave their vehicle together.")


class Move(_Deed):
    """Some tracklets belong to another vehicle that is known."""

    kind: Literal["move"]
    tracklets: Tracklets = Field(description="Of whatever vehicles.")
    to: VehicleName = Field(description="Whose they are.")


class Confirm(_Deed):
    """Some tracklets are where they belong."""

    kind: Literal["confirm"]
    tracklets: Tracklets = Field(description="The matcher leaves them there from now on.")


class Undo(_Deed):
    """A correction is taken back."""

    kind: Literal["undo"]
    correction: CorrectionNumber = Field(description="Its number.")


Deed = Annotated[Merge | Split | Move | Confirm | Undo, Field(discriminator="kind")]


@router.get("/tracklets/{tracklet_id:path}/why", responses=told(404))
def why(services: GivenServices, caller: Viewer, tracklet_id: TrackletId) -> explained.Why:
    """Why a tracklet belongs to its vehicle: who decided, what was weighed, what had been said before."""
    with services.asking(caller, "why", tracklet_id) as session:
        found = explain(session, tracklet_id, visible=caller.cameras)
    # The words without crops: they would name files.
    return explained.why(services, found, list(in_words(replace(found, crops={}))))


@router.get("/review", responses=told())
def review(services: GivenServices, caller: Viewer, asked: Annotated[Doubts, Query()]) -> Page[Doubt]:
    """What nobody has decided yet and is closest to even odds, most doubtful first."""
    with services.asking(caller, "review", "", **asked.told()) as session:
        found = doubts.doubtful(session, limit=asked.limit, visible=caller.cameras)
    return Page(items=[_doubt(services, link) for link in found])


@router.get("/corrections", responses=told())
def list_corrections(
    services: GivenServices, caller: Viewer, asked: Annotated[Corrections, Query()]
) -> Page[explained.CorrectionMade]:
    """What was corrected, latest first; of each, what it did at the cameras that the caller may see."""
    before = decode("corrections", (int,), asked.cursor)
    with services.asking(caller, "corrections", "", **asked.told()) as session:
        found = book(
            session,
            limit=asked.limit + 1,
            people_only=asked.people_only,
            before=None if before is None else before[0],
            visible=caller.cameras,
        )
    return cut(
        found, asked.limit, "corrections", lambda one: (one.correction_id,), explained.CorrectionMade.model_validate
    )


@router.post("/corrections", status_code=201, responses=told(404, 409, 411))
def correct(services: GivenServices, caller: Operator, deed: Annotated[Deed, Body()]) -> explained.CorrectionMade:
    """Merges, splits, moves, confirms or takes back. Nothing is overwritten: a correction is a decision more."""
    details = deed.model_dump(mode="json", exclude={"kind"}, exclude_defaults=True)
    with services.deciding(caller, deed.kind, _subject(deed), **details) as session:
        made = _done(session, deed, caller.person)
    return explained.CorrectionMade.model_validate(made)


def _subject(deed: Deed) -> str:
    if isinstance(deed, Merge):
        return deed.keep
    return "" if isinstance(deed, Undo) else deed.tracklets[0]


def _done(session: Session, deed: Deed, person: str) -> desk.Correction:
    now, note = datetime.now(UTC), deed.note
    if isinstance(deed, Merge):
        return desk.merge(session, deed.keep, deed.other, by=person, at=now, note=note)
    if isinstance(deed, Split):
        return desk.split(session, deed.tracklets, by=person, at=now, note=note)
    if isinstance(deed, Move):
        return desk.move(session, deed.tracklets, deed.to, by=person, at=now, note=note)
    if isinstance(deed, Confirm):
        return desk.confirm(session, deed.tracklets, by=person, at=now, note=note)
    return desk.undo(session, deed.correction, by=person, at=now, note=note)


def _doubt(services: Services, link: DoubtfulLink) -> Doubt:
    return Doubt(
        kind=link.kind,
        tracklet_id=link.tracklet_id,
        vehicle_id=link.vehicle_id,
        camera=link.camera,
        started_at=link.started_at,
        ended_at=link.ended_at,
        probability=link.probability,
        margin=link.margin,
        modality_pair=link.modality_pair,
        reason=link.reason,
        crops=crops(services, link.crop_images),
        other_tracklet_id=link.other_tracklet_id,
        other_vehicle_id=link.other_vehicle_id,
        other_camera=link.other_camera,
        other_started_at=link.other_started_at,
        other_crops=crops(services, link.other_crop_images),
    )
