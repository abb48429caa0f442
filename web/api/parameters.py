"""What a question may be asked with, bounded: who asks, cameras, times, ids, pages."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Path, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from reid.modality import Modality
from storage.accounts import Role
from web.callers import Caller
from web.guard import require
from web.services import Services

MAX_PAGE = 500
#: Row numbers of both databases.
MAX_NUMBER = 2**63 - 1
CAMERA_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
VEHICLE_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
TRACKLET_PATTERN = r"^[A-Za-z0-9_.:-]+(/[A-Za-z0-9_.:-]+)*$"
#: No control characters: PostgreSQL takes no NUL, and nobody reads the others.
TEXT_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})")
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _as_text(value: object) -> object:
    # What pydantic takes beside (seconds since 1970, a day alone) would be read as some time that nobody meant.
    if isinstance(value, str) and not _MOMENT.fullmatch(value):
        raise ValueError("wanted a time with its zone, such as 2026-01-01T12:00:00Z (a + is written %2B in an address)")
    return value


def _in_utc(value: datetime) -> datetime:
    """The moment in UTC; what lies outside of all that databases hold, at the border: it chooses the same."""
    try:
        return min(max(value.astimezone(UTC), _FIRST), _LAST)
    except OverflowError:
        return _FIRST if value.year < _LAST.year else _LAST


def given_services(request: Request) -> Services:
    """What the application was made with."""
    found: Services = request.app.state.services
    return found


GivenServices = Annotated[Services, Depends(given_services)]
Viewer = Annotated[Caller, Depends(require(Role.VIEWER))]
Operator = Annotated[Caller, Depends(require(Role.OPERATOR))]
Administrator = Annotated[Caller, Depends(require(Role.ADMIN))]

Moment = Annotated[
    datetime,
    BeforeValidator(_as_text),
    AfterValidator(_in_utc),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Camera = Annotated[str, Field(pattern=CAMERA_PATTERN)]
Note = Annotated[
    str, Field(default="", max_length=500, pattern=TEXT_PATTERN, description="Why, for whoever asks later.")
]
VehicleName = Annotated[str, Field(pattern=VEHICLE_PATTERN, max_length=64)]
TrackletName = Annotated[str, Field(pattern=TRACKLET_PATTERN, max_length=192)]
VehicleId = Annotated[
    str,
    Path(
        description="Its id, or the beginning of it where no other vehicle's id begins so.",
        pattern=VEHICLE_PATTERN,
        max_length=64,
        examples=["034a91fd-66c7-5d06-a49a-4d5efd9ca25f"],
    ),
]
TrackletId = Annotated[
    str,
    Path(
        description="Its id with its slashes as they are, or the beginning or the end of it where it is the only one.",
        pattern=TRACKLET_PATTERN,
        max_length=192,
        examples=["cam1_rgb/e046dd09da58/1"],
    ),
]
CorrectionNumber = Annotated[int, Field(ge=1, le=MAX_NUMBER)]


class Question(BaseModel):
    """What a question is asked with in its address. A misspelt filter would be one that isn't there: it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def told(self) -> dict[str, object]:
        """What was given, for the audit."""
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


class Paged(Question):
    """A question that is answered page by page."""

    cursor: str | None = Field(
        None, max_length=512, description="`next` of the page before; the other parameters stay as they were."
    )
    limit: int = Field(100, ge=1, le=MAX_PAGE, description="At most so many on a page.")


class Window(Question):
    """When."""

    start: Moment | None = Field(
        None, description="Only what was in view at this moment or later.", examples=["2026-01-01T12:00:00Z"]
    )
    end: Moment | None = Field(
        None, description="Only what was in view before this moment.", examples=["2026-01-01T13:00:00Z"]
    )


class Seen(Window):
    """When, where and what."""

    camera: Camera | None = Field(None, description="Only what this camera saw.", examples=["cam1_rgb"])
    vehicle_class: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_ .-]{0,63}$",
        description="Only vehicles of this class.",
        examples=["car"],
    )
    modality: Modality | None = Field(
        None, description="Only vehicles that were seen in this band.", examples=["thermal"]
    )
