"""Vehicles that look like a tracklet's, or like a picture's."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, File, Form, HTTPException, Query, UploadFile
from pydantic import Field

from reid.modality import Modality
from storage.likeness import LikenessFilter
from storage.lookup import find_tracklet
from web.api.paging import Page
from web.api.parameters import MAX_PAGE, Camera, GivenServices, TrackletName, Viewer, Window
from web.api.problems import told
from web.api.schemas import PICTURE, Answer, CameraName, ClassName, VehicleName, at
from web.api.schemas import TrackletName as TrackletAnswered
from web.uploads import UploadError, read_picture

if TYPE_CHECKING:
    from storage.likeness import Likeness
    from web.callers import Caller
    from web.services import Services

router = APIRouter(tags=["similar"])


class Alike(Window):
    """Among which looks is searched."""

    camera: Camera | None = Field(None, description="Only looks at this camera.", examples=["cam1_rgb"])
    vehicle_class: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_ .-]{0,63}$",
        description="Only vehicles of this class.",
        examples=["car"],
    )
    modality: Modality | None = Field(None, description="Only looks in this band.", examples=["thermal"])
    limit: int = Field(50, ge=1, le=MAX_PAGE, description="At most so many vehicles.")


class AlikeTracklet(Alike):
    """Like which tracklet."""

    tracklet: TrackletName = Field(
        description="Its id, or the beginning or the end of it where it is the only one.",
        examples=["cam1_rgb/e046dd09da58/1"],
    )


class SimilarVehicle(Answer):
    """A vehicle that looks like what was asked for, by the best of its looks."""

    vehicle_id: VehicleName
    vehicle_class: ClassName
    tracklet_id: TrackletAnswered
    camera: CameraName
    modality: str = Field(description="The band of the look that was compared.", examples=["thermal"])
    captured_at: datetime = at("When that was taken.")
    crop: str | None = Field(description="Where that picture is found; null: not kept.", examples=[PICTURE])
    similarity: float = Field(
        description="Cosine of the two looks, without what their bands share; not comparable between pairs of bands.",
        ge=-1.001,
        le=1.001,
        examples=[0.73],
    )
    log_odds: float | None = Field(
        description="What that says, in nats: +1 is 2.7 times as likely one vehicle. Null: nobody has measured it.",
        examples=[3.4],
    )
    probability: float | None = Field(
        description="That it is the same vehicle, where beforehand each look that was searched was equally likely to "
        "be its; times and places don't count. Null as `log_odds`.",
        ge=0,
        le=1,
        examples=[0.41],
    )


@router.get("/similar", responses=told(404))
def similar_to_tracklet(
    services: GivenServices, caller: Viewer, asked: Annotated[AlikeTracklet, Query()]
) -> Page[SimilarVehicle]:
    """Vehicles that look like a tracklet's, most alike first; its own is left out."""
    details = {name: value for name, value in asked.told().items() if name != "tracklet"}
    with services.searching(), services.asking(caller, "similar", asked.tracklet, **details) as session:
        tracklet_id = find_tracklet(session, asked.tracklet, visible=caller.cameras).tracklet_id
        found = services.likeness.similar_to_tracklet(
            session, tracklet_id, chosen=_chosen(caller, asked), limit=asked.limit
        )
    return Page(items=[_similar(services, one) for one in found])


@router.post("/similar", responses=told())
def similar_to_picture(
    services: GivenServices,
    caller: Viewer,
    asked: Annotated[Alike, Query()],
    picture: Annotated[UploadFile, File(description="One vehicle, cut out: JPEG, PNG, WebP, TIFF or BMP.")],
    picture_modality: Annotated[Modality, Form(description="The band that the picture was taken in.")],
) -> Page[SimilarVehicle]:
    """Vehicles that look like a picture's, most alike first, in whatever bands they were seen. It is not kept."""
    web = services.site.web
    data = picture.file.read(web.max_upload_bytes + 1)
    # Not read before it may be searched by: decoded, it takes many times the memory.
    with services.searching():
        try:
            image = read_picture(data, max_bytes=web.max_upload_bytes, max_pixels=web.max_upload_pixels)
        except UploadError as error:
            raise HTTPException(422, f"picture: {error}") from error
        vector, model_id = services.pictures.describe(image, picture_modality)
        with services.asking(caller, "similar", "", picture=picture_modality.value, **asked.told()) as session:
            found = services.likeness.similar_to_vector(
                session, vector, picture_modality.value, model_id, chosen=_chosen(caller, asked), limit=asked.limit
            )
    return Page(items=[_similar(services, one) for one in found])


def _chosen(caller: Caller, asked: Alike) -> LikenessFilter:
    return LikenessFilter(
        start=asked.start,
        end=asked.end,
        camera=asked.camera,
        vehicle_class=asked.vehicle_class,
        modality=asked.modality,
        visible=caller.cameras,
    )


def _similar(services: Services, one: Likeness) -> SimilarVehicle:
    return SimilarVehicle(
        vehicle_id=one.vehicle_id,
        vehicle_class=one.vehicle_class,
        tracklet_id=one.tracklet_id,
        camera=one.camera,
        modality=one.modality,
        captured_at=one.captured_at,
        crop=None if one.crop_image is None else services.links.picture(one.crop_image),
        similarity=one.similarity,
        log_odds=one.log_odds,
        probability=one.probability,
    )
