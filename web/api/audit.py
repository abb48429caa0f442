"""Who asked what: for administrators."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from storage.audit import MAX_PERSON_LENGTH, entries
from web.api.paging import Page, cut, decode
from web.api.parameters import TEXT_PATTERN, Administrator, GivenServices, Moment, Paged, VehicleName
from web.api.problems import told
from web.api.schemas import Answer, at

if TYPE_CHECKING:
    from storage.audit import AuditEntry

router = APIRouter(tags=["audit"])


class Asked(Paged):
    """Which notes."""

    vehicle: VehicleName | None = Field(
        None, description="Only what named this vehicle, or a tracklet that is its own by now.", examples=["034a91fd"]
    )
    person: str | None = Field(
        None, max_length=MAX_PERSON_LENGTH, pattern=TEXT_PATTERN, description="Only what they asked.", examples=["anna"]
    )
    start: Moment | None = Field(
        None, description="Only what was asked at this moment or later.", examples=["2026-01-01T12:00:00Z"]
    )


class Noted(Answer):
    """One question, or one deed."""

    number: int = Field(description="Later ones are higher.", ge=1, examples=[17])
    moment: datetime = at("When, by the clock.")
    person: str = Field(description="Who.", examples=["anna"])
    action: str = Field(description="What was asked or done, in a word.", examples=["trajectory"])
    subject: str = Field(description="The vehicle or tracklet; empty: a question about many.", examples=[""])
    details: dict[str, Any] = Field(description="Filters and notes.", examples=[{"camera": "cam1_rgb"}])


@router.get("/audit", responses=told())
def audit(services: GivenServices, caller: Administrator, asked: Annotated[Asked, Query()]) -> Page[Noted]:
    """Who asked what, and who held, corrected or had forgotten which vehicle; latest first."""

    def key(entry: AuditEntry) -> tuple[datetime, int]:
        return entry.at, entry.number

    behind = decode("audit", (datetime, int), asked.cursor)
    details = {name: value for name, value in asked.told().items() if name != "vehicle"}
    # `person` is who asks; whom they ask for is told beside it.
    details = {"of_person" if name == "person" else name: value for name, value in details.items()}
    with services.asking(caller, "audit", asked.vehicle or "", **details) as session:
        found = entries(
            session,
            vehicle=asked.vehicle,
            person=asked.person,
            start=asked.start,
            behind=None if behind is None else (behind[0], behind[1]),
            limit=asked.limit + 1,
        )
    return cut(found, asked.limit, "audit", key, _noted)


def _noted(entry: AuditEntry) -> Noted:
    return Noted(
        number=entry.number,
        moment=entry.at,
        person=entry.person,
        action=entry.action,
        subject=entry.subject,
        details=entry.details,
    )
