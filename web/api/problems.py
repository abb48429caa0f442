"""What can't be answered, said as RFC 9457 has it: `application/problem+json`, one clear line each."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from storage.errors import (
    CorrectionError,
    CorrectionNotFoundError,
    QuestionError,
    StorageError,
    TrackletNotFoundError,
    TransientStorageError,
    VehicleNotFoundError,
)
from storage.watches import WatchError, WatchNotFoundError
from web.callers import EndedError
from web.picture_search import PictureSearchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI

MEDIA_TYPE = "application/problem+json"
#: What somebody is asked to wait, in seconds, where a database is busy.
RETRY_AFTER_S = 2
_MAX_FAULTS = 10
_WORDS = {
    400: "The request makes no sense.",
    401: "Nobody is logged in, or the token has expired.",
    403: "This is not for the caller's role, or another site's page asks it.",
    404: "Not known, or at no camera that the caller may see.",
    409: "It can't be done as things stand.",
    411: "The length of the body is not told.",
    413: "The body is larger than what is taken.",
    415: "The body is of a kind that is not taken.",
    422: "A parameter or the body is not as described.",
    429: "The caller does this as often as one may; `Retry-After` says when to ask again.",
    503: "It can't be answered now; `Retry-After` says when to ask again, where that may help.",
}
_EVERYWHERE = (400, 401, 403, 413, 422, 503)
_log = logging.getLogger(__name__)


class Problem(BaseModel):
    """Why something could not be answered (RFC 9457)."""

    type: str = Field(default="about:blank", description="Always `about:blank`: the status says what kind it is.")
    title: str = Field(description="The status in words.", examples=["Not Found"])
    status: int = Field(description="The HTTP status.", ge=400, le=599, examples=[404])
    detail: str = Field(description="What is wrong, in one line.", examples=["vehicle 3f2a: not known"])


def told(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How a route's description tells of the problems that it may answer with, beside those of all routes."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _WORDS[status], "content": content} for status in sorted({*_EVERYWHERE, *statuses})}


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer itself."""
    said = Problem(title=HTTPStatus(status).phrase, status=status, detail=" ".join(detail.split()))
    return JSONResponse(said.model_dump(), status, headers, MEDIA_TYPE)


def add_problems(app: FastAPI) -> None:
    """Has whatever goes wrong in a route told as a problem."""
    app.add_exception_handler(HTTPException, _http)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _unclear)  # type: ignore[arg-type]
    app.add_exception_handler(StorageError, _storage)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _unexpected)


async def _http(_request: Request, error: HTTPException) -> JSONResponse:
    return problem(error.status_code, str(error.detail), error.headers)


async def _unclear(_request: Request, error: RequestValidationError) -> JSONResponse:
    # Without what was given: a password in the wrong place is to be read in no log of a client's.
    faults = [_told(fault) for fault in error.errors()]
    more = len(faults) - _MAX_FAULTS
    return problem(422, "; ".join(faults[:_MAX_FAULTS]) + (f"; and {more} more" if more > 0 else ""))


def _told(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "json_invalid":
        return f"body: not JSON, at character {fault['loc'][-1]}"
    return f"{_place(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}"


def _place(location: tuple[str | int, ...]) -> str:
    """Where a fault lies: without `query` or `body` before it, and without keys of the caller's own making."""
    return ".".join(str(part)[:64] for part in location[1:]) or str(location[0])


async def _storage(_request: Request, error: StorageError) -> JSONResponse:
    if isinstance(error, VehicleNotFoundError | TrackletNotFoundError | CorrectionNotFoundError | WatchNotFoundError):
        return problem(404, str(error))
    if isinstance(error, QuestionError):
        return problem(422, str(error))
    if isinstance(error, EndedError):
        return problem(401, str(error), {"WWW-Authenticate": "Bearer"})
    if isinstance(error, CorrectionError | WatchError):
        return problem(409, str(error))
    # Which database, and what it said, is for whoever runs this program.
    _log.error("%s", error)
    if isinstance(error, PictureSearchError):
        return problem(503, "looks can't be compared here: the site's weights or calibration can't be used")
    if isinstance(error, TransientStorageError):
        return problem(503, "the database is busy; ask again in a moment", {"Retry-After": str(RETRY_AFTER_S)})
    return problem(503, "the database can't be used at the moment")


async def _unexpected(_request: Request, error: Exception) -> JSONResponse:
    _log.error("not expected", exc_info=error)
    return problem(500, "something went wrong here; it has been written down")
