"""Pictures and films, by signed addresses; and the site plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from fastapi import Depends, HTTPException, Request
from fastapi.responses import FileResponse, Response

from storage.accounts import Role
from storage.errors import StorageError, TrackletNotFoundError
from web.callers import Caller
from web.clips import ClipBusyError, ClipError
from web.guard import require
from web.signed_links import CLIPS, PICTURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from web.services import Services

#: What files begin with, by content type. Nothing else is sent: what lies in the crop store is no page.
_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"RIFF", "image/webp"),
    (b"GIF8", "image/gif"),
)
#: A plan may be drawn by anybody: as a picture it runs nothing, and opened by itself it does neither.
_PLAN_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
_PLAN_MAX_AGE_S = 300


def add_media(app: FastAPI) -> None:
    """Makes `/media/...` and the site plan known."""
    services: Services = app.state.services
    app.add_api_route(PICTURES + "{relative:path}", _pictures(services), methods=["GET"], include_in_schema=False)
    app.add_api_route(CLIPS + "{tracklet_id:path}", _clips(services), methods=["GET"], include_in_schema=False)
    app.add_api_route("/media/plan", _plan(services), methods=["GET"], include_in_schema=False)


def check_signature(services: Services, request: Request) -> None:
    """Lets a request pass whose address we gave, not long ago.

    Raises:
        HTTPException: 403: it is none, or too old.
    """
    query = request.query_params
    # As the address was signed: unquoted once by the server, and quoted as `SignedLinks` does.
    path = quote(request.scope["path"])
    if not services.links.is_good(path, query.get("expires", ""), query.get("signature", "")):
        raise HTTPException(403, "this address is good no longer: load the page again")


def _pictures(services: Services) -> Callable[..., Response]:
    def picture(relative: str, request: Request) -> Response:
        check_signature(services, request)
        try:
            data = services.crops.load(relative)
        except StorageError as error:
            raise HTTPException(404, "the picture is gone") from error
        kind = image_type(data)
        if kind is None:
            raise HTTPException(404, "this is no picture")
        age = int(services.site.web.link_minutes * 60)
        return Response(data, media_type=kind, headers={"Cache-Control": f"private, max-age={age}"})

    return picture


def _clips(services: Services) -> Callable[..., Response]:
    def clip(tracklet_id: str, request: Request) -> Response:
        check_signature(services, request)
        try:
            film = services.clips.film(tracklet_id)
        except ClipBusyError as error:
            raise HTTPException(503, str(error), headers={"Retry-After": "10"}) from error
        except (ClipError, TrackletNotFoundError) as error:
            raise HTTPException(404, str(error)) from error
        age = int(services.site.web.link_minutes * 60)
        return FileResponse(film, media_type="video/mp4", headers={"Cache-Control": f"private, max-age={age}"})

    return clip


def _plan(services: Services) -> Callable[..., Response]:
    def plan(_caller: Annotated[Caller, Depends(require(Role.VIEWER))]) -> Response:
        path = services.site.web.plan.image
        if path is None:
            raise HTTPException(404, "the site file names no plan")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise HTTPException(404, f"the site plan can't be read: {error.strerror}") from error
        kind = image_type(data) or ("image/svg+xml" if path.suffix.lower() == ".svg" else None)
        if kind is None:
            raise HTTPException(404, "the site plan is no picture")
        headers = {"Cache-Control": f"private, max-age={_PLAN_MAX_AGE_S}", "Content-Security-Policy": _PLAN_POLICY}
        return Response(data, media_type=kind, headers=headers)

    return plan


def image_type(data: bytes) -> str | None:
    """The content type of a picture, by how it begins; None: it is none that a browser shows."""
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
