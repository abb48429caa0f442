"""How the site's stages and this program are doing."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from pydantic import Field

from storage.status import load_stage_status
from web.api.parameters import GivenServices, Operator
from web.api.problems import told
from web.api.schemas import Answer, at

if TYPE_CHECKING:
    from web.api.feed import Feed

router = APIRouter(tags=["site"])


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


class Health(Answer):
    """How all is doing; of the cameras see `/v1/cameras`."""

    stages: list[Stage] = Field(description="By name.")
    streams: Streams = Field(description="Live streams of this program.")


@router.get("/health", responses=told(403))
def health(request: Request, services: GivenServices, caller: Operator) -> Health:
    """Counters of the stages that serve all cameras, and of live streams."""
    with services.asking(caller, "health") as session:
        stages = load_stage_status(session)
    feed: Feed = request.app.state.feed
    return Health(
        stages=[Stage.model_validate(stage) for stage in stages],
        streams=Streams(listeners=feed.listeners, let_go=feed.let_go),
    )
