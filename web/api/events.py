"""Live events: every decision on whose a tracklet is, as server-sent events."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, HTTPException, Request
from pydantic import Field
from starlette.responses import Response

from storage.answers import link_probability
from storage.errors import StorageError
from web.api.feed import CrowdedError, GreedyError
from web.api.parameters import MAX_NUMBER, GivenServices, Viewer
from web.api.problems import told
from web.api.schemas import Answer, CameraName, Probability, TrackletName, VehicleName, at
from web.logins import still

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from starlette.types import Receive, Scope, Send

    from storage.matcher_state import DecisionEvent
    from web.api.feed import Feed, Listener
    from web.callers import Caller
    from web.services import Services

router = APIRouter(tags=["events"])

#: Between two signs of life while nothing happens; proxies close what is silent for a minute.
HEARTBEAT_S = 15.0
#: How long a listener may take to read what is sent.
SEND_TIMEOUT_S = 30.0
# With a number: who hears nothing before the stream breaks off comes back with it, and misses nothing.
_WELCOME = ": decisions as they are made\nid: {}\nretry: 2000\n\n"
_HEARTBEAT = ": nothing new\n\n"


class DecisionTold(Answer):
    """A decision, as `data` of an event whose `id` is its number."""

    number: int = Field(description="Of the decision; later ones are higher.", ge=1, examples=[64])
    tracklet_id: TrackletName
    camera: CameraName
    vehicle_id: VehicleName
    previous_vehicle_id: str | None = Field(description="Whose it was until then; null at its first decision.")
    reason: str = Field(description="In a word.", examples=["linked"])
    is_provisional: bool = Field(description="Whether the tracklet's end may change it.")
    probability: Probability
    decided_at: datetime = at("Event time for the matcher, the clock for a person.")
    decided_by: str = Field(description="`matcher`, or the person whose word it is.", examples=["matcher"])
    correction_id: int | None = Field(description="The correction that it is a part of, or null.")


class EventStream(Response):
    """Sends events until they end, whoever listens goes, or takes too long to read."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str] | None = None, ended: Callable[[], None] | None = None) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        del scope
        tasks = [asyncio.create_task(self._send(send)), asyncio.create_task(_gone(receive))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._ended is not None:
                self._ended()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if self._events is not None:
            async for event in self._events:
                # Blocks while the listener's buffers are full.
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@router.get(
    "/events",
    response_class=Response,
    responses={
        **told(429),
        200: {
            "description": "An endless stream: `event: decision` with a decision as JSON, `id` its number; comments as "
            "signs of life; `event: closed` with the reason before the server ends it.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
    },
)
async def events(
    request: Request,
    services: GivenServices,
    caller: Viewer,
    last_event_id: Annotated[
        int | None,
        Header(description="The last number that was read: what came after it is told first.", ge=0, le=MAX_NUMBER),
    ] = None,
) -> Response:
    """Decisions as they are made: of the matcher, and of people."""
    await run_sync(_noted, services, caller, last_event_id)
    feed: Feed = request.app.state.feed
    try:
        listener = await feed.join(caller)
    except CrowdedError as error:
        status = 429 if isinstance(error, GreedyError) else 503
        raise HTTPException(status, str(error), {"Retry-After": "60"}) from error
    return EventStream(_told(services, feed, listener, last_event_id), lambda: feed.leave(listener))


def _noted(services: Services, caller: Caller, after: int | None) -> None:
    with services.asking(caller, "events", "", after=after):
        pass


async def _told(services: Services, feed: Feed, listener: Listener, after: int | None) -> AsyncIterator[str]:
    caller = listener.caller
    try:
        yield _WELCOME.format(listener.position if after is None else min(after, listener.position))
        if after is not None:
            async with aclosing(feed.since(caller, after, listener.position)) as earlier:
                async for found in earlier:
                    await run_sync(still, services.database, caller)
                    yield _written(found, caller.cameras)
        while not listener.is_over:
            found = await listener.next(HEARTBEAT_S)
            await run_sync(still, services.database, caller)
            yield _written(found, caller.cameras) or _HEARTBEAT
            if listener.is_behind:
                yield _closed("you read more slowly than decisions are made; come back with Last-Event-ID")
                return
        yield _closed("the server ends; come back in a moment with Last-Event-ID")
    except StorageError:
        yield _closed("you may no longer listen, or the database is away; come back with Last-Event-ID")


def _written(found: Sequence[DecisionEvent], visible: Collection[str] | None) -> str:
    return "".join(f"id: {one.assignment_id}\nevent: decision\ndata: {_decision(one, visible)}\n\n" for one in found)


def _decision(event: DecisionEvent, visible: Collection[str] | None) -> str:
    said = event.said
    return DecisionTold(
        number=event.assignment_id,
        tracklet_id=said.tracklet_id,
        camera=event.camera,
        vehicle_id=said.vehicle_id,
        previous_vehicle_id=event.previous_vehicle_id,
        reason=said.reason,
        is_provisional=said.is_provisional,
        probability=link_probability(said.score, said.evidence, said.vehicle_id, visible),
        decided_at=said.decided_at,
        decided_by=said.decided_by,
        correction_id=event.correction_id,
    ).model_dump_json()


def _closed(reason: str) -> str:
    return f"event: closed\ndata: {reason}\n\n"
