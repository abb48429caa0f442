"""How the site's stages and this program are doing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field

from storage.status import load_stage_status
from storage.status_samples import load_samples
from web.api.paging import Page, cut, decode
from web.api.parameters import GivenServices, Moment, Operator, Paged
from web.api.problems import told
from web.api.schemas import Answer, at

if TYPE_CHECKING:
    from storage.status_samples import StatusSample
    from web.api.feed import Feed

router = APIRouter(tags=["site"])
#: How far samples go back where nobody says.
USUAL = timedelta(hours=1)


class Stage(Answer):
    """A stage that serves all cameras, such as the matcher."""

    stage: str = Field(description="Its name.", examples=["matcher"])
    updated_at: datetime = at("When it gave its counters.")
    counters: dict[str, float] = Field(
        description="By name; since the program started, where they count.", examples=[{"lag": 0}]
    )


class Streams(Answer):
    """Who listens to `/v1/events`."""

    listeners: int = Field(description="How many there are.", ge=0, examples=[2])
    let_go: int = Field(description="Ended since this program started because they read too slowly.", ge=0)


class LookOut(Answer):
    """How this program looks out for watched vehicles."""

    failures: int = Field(description="Rounds that failed since this program started.", ge=0, examples=[0])
    trouble: str = Field(description="Why the last one did; empty where it did not.", examples=[""])


class Health(Answer):
    """How all is doing; of the cameras see `/v1/cameras`."""

    stages: list[Stage] = Field(description="By name.")
    streams: Streams = Field(description="Live streams of this program.")
    watching: LookOut = Field(description="The look-out for watched vehicles of this program.")


class Samples(Paged):
    """From when on."""

    start: Moment | None = Field(
        None,
        description="Only samples of this moment or later; without, of the last hour. They are kept for two days.",
        examples=["2026-01-01T12:00:00Z"],
    )


class Sample(Answer):
    """One minute of a camera or a stage."""

    kind: str = Field(description="`camera` or `stage`.", examples=["camera"])
    source: str = Field(description="The camera's id, or the stage's name.", examples=["cam1_rgb"])
    moment: datetime = at("When, by the clock.")
    counters: dict[str, float] = Field(
        description="By name; counts are since the program that wrote them started.", examples=[{"fps": 25.0}]
    )


@router.get("/health", responses=told())
def health(request: Request, services: GivenServices, caller: Operator) -> Health:
    """Counters of the stages that serve all cameras, of live streams, and of the look-out for watched vehicles."""
    with services.asking(caller, "health") as session:
        stages = load_stage_status(session)
    feed: Feed = request.app.state.feed
    return Health(
        stages=[Stage.model_validate(stage) for stage in stages],
        streams=Streams(listeners=feed.listeners, let_go=feed.let_go),
        watching=LookOut.model_validate(services.watch),
    )


@router.get("/health/samples", responses=told())
def samples(services: GivenServices, caller: Operator, asked: Annotated[Samples, Query()]) -> Page[Sample]:
    """How cameras and stages were doing, minute by minute, by time."""

    def key(sample: StatusSample) -> tuple[datetime, str, str]:
        return sample.at, sample.kind, sample.source

    after = decode("samples", (datetime, str, str), asked.cursor)
    since = after[0] if after else asked.start or datetime.now(UTC) - USUAL
    with services.asking(caller, "health", "", **asked.told()) as session:
        found = load_samples(
            session,
            since,
            behind=None if after is None else (after[0], after[1], after[2]),
            limit=asked.limit + 1,
            visible=caller.cameras,
        )
    return cut(found, asked.limit, "samples", key, _sample)


def _sample(sample: StatusSample) -> Sample:
    return Sample(kind=sample.kind, source=sample.source, moment=sample.at, counters=sample.counters)
