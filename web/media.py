"""Pictures and films, by signed addresses; and the site plan."""

from __future__ import annotations

import math
import re
import time
from threading import Semaphore
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Depends, HTTPException, Request
from fastapi.responses import Response

from storage.accounts import Role
from storage.errors import StorageError, TrackletNotFoundError
from web.callers import Caller
from web.clips import ClipBusyError
from web.cutting import ClipError
from web.guard import require
from web.signed_links import CLIPS, PICTURES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import FastAPI

    from web.services import Services

#: What files begin with, by content type. Nothing else is sent: what lies in the crop store is no page.
_MAGIC = (
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"GIF8"), "image/gif"),
)
#: A plan may be drawn by anybody: as a picture it runs nothing, and opened by itself it does neither.
_PLAN_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
_PLAN_MAX_AGE_S = 300
#: So many may wait for films at once, in threads of their own: those of the server have everything else to answer.
WAITING = 16
_RETRY_AFTER_S = 10
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def add_media(app: FastAPI) -> None:
    """Makes `/media/...` and the site plan known."""
    services: Services = app.state.services
    for path, answer in (
        (PICTURES + "{relative:path}", _pictures(services)),
        (CLIPS + "{tracklet_id:path}", _clips(services)),
        ("/media/plan", _plan(services)),
    ):
        app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)


def check_signature(services: Services, request: Request) -> dict[str, str]:
    """Lets a request pass whose address we gave, not long ago.

    Returns:
        Headers of the answer: a browser keeps it for as long as the address is good.

    Raises:
        HTTPException: 403: it is none, or too old.
    """
    query = request.query_params
    # As the address was signed: unquoted once by the server, and quoted as `SignedLinks` does.
    path, expires = quote(request.scope["path"]), query.get("expires", "")
    if not services.links.is_good(path, expires, query.get("signature", "")):
        raise HTTPException(403, "this address is good no longer: load the page again")
    return {"Cache-Control": f"private, max-age={max(int(expires) - math.ceil(time.time()), 0)}"}


def _pictures(services: Services) -> Callable[..., Response]:
    def picture(relative: str, request: Request) -> Response:
        headers = check_signature(services, request)
        try:
            data = services.crops.load(relative)
        except StorageError as error:
            raise HTTPException(404, "the picture is gone") from error
        kind = image_type(data)
        if kind is None:
            raise HTTPException(404, "this is no picture")
        return Response(data, media_type=kind, headers=headers)

    return picture


def _clips(services: Services) -> Callable[..., Awaitable[Response]]:
    seats = Semaphore(WAITING)

    async def clip(tracklet_id: str, request: Request) -> Response:
        headers = check_signature(services, request)
        try:
            if not seats.acquire(blocking=False):
                raise ClipBusyError("too many films are asked for: ask again in a moment")
            try:
                film = await run_sync(services.clips.film, tracklet_id, limiter=CapacityLimiter(1))
            finally:
                seats.release()
        except ClipBusyError as error:
            raise HTTPException(503, str(error), headers={"Retry-After": str(_RETRY_AFTER_S)}) from error
        except (ClipError, TrackletNotFoundError) as error:
            raise HTTPException(404, str(error)) from error
        return answer_in_parts(film, request.headers.get("range", ""), "video/mp4", headers)

    return clip


def answer_in_parts(data: bytes, wanted: str, kind: str, headers: dict[str, str]) -> Response:
    """All of a file, or the part that a player wants (RFC 9110, section 14): some play nothing that has no parts.

    Args:
        data: The file.
        wanted: The request's `Range`; what is not understood, and several parts at once, means all.
        kind: Content type.
        headers: Of the answer.
    """
    headers = {**headers, "Accept-Ranges": "bytes"}
    found = _RANGE.fullmatch(wanted)
    first, last = found.groups() if found else ("", "")
    if first:
        begin, end = int(first), min(int(last) + 1 if last else len(data), len(data))
    elif last:
        begin, end = max(len(data) - int(last), 0), len(data)
    else:
        return Response(data, media_type=kind, headers=headers)
    if begin >= end:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
    return Response(data[begin:end], 206, headers, kind)


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
    return next((kind for magic, kind in _MAGIC if magic.match(data)), None)
